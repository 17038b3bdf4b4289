"""Read-only requests: what they read, where, and what the next request gets."""

import gc

import pytest
from pyramid.config import not_
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.response import Response
from pyramid.view import render_view_to_response
from sqlalchemy import create_engine, func, inspect, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.pool import NullPool
from webtest import TestApp

from pyramid_aalam_sqa import (
    CommitNotAllowedError,
    ReadOnlyRequestError,
    Session,
    get_sqa,
    session_scope,
)
from pyramid_aalam_sqa.debugging import recorded
from pyramid_aalam_sqa.engines import may_write
from pyramid_aalam_sqa.testing import isolated
from support.apps import application, with_view
from support.models import BODIES, INSERT, Note
from support.ways import prepare

ONE = {"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0"}
COUNT = select(func.count(Note.id))


@pytest.fixture
def noted(any_database):
    """A database with a table of one note, of each product."""
    return prepare(any_database)


@pytest.fixture
def file(sqlite):
    """The same on SQLite alone, for what does not depend on the product."""
    return prepare(sqlite)


def route(*views, mode=True, name="it", factory=None):
    """Return a setup with a read-only route for each of *views*: /it, /it1, ..."""

    def setup(config):
        for number, view in enumerate(views):
            own = f"{name}{number or ''}"
            config.add_route(own, f"/{own}", sqa_read_only=mode, factory=factory)
            config.add_view(view, route_name=own)

    return setup


def count(request):
    return Response(str(request.sqa_session.scalar(COUNT)))


def write(request):
    request.sqa_session.execute(text("INSERT INTO note (id, body) VALUES (2, 'secret')"))
    return Response()


def reader(app, key="default.reader"):
    return get_sqa(app).reading.by_name()[key]


def refused(client, path="/write"):
    with pytest.raises(ReadOnlyRequestError, match=r"\(route write\) is read-only.*: INSERT INTO"):
        client.get(path)
    return True


LIFTS = {
    "mysql": [
        "SET SESSION TRANSACTION READ WRITE",
        "SET TRANSACTION READ WRITE",
        "START TRANSACTION READ WRITE",
        "BEGIN",
        "SET autocommit = 0",
        "SET @@tx_read_only = 0",
    ],
    "postgresql": [
        "SET default_transaction_read_only = off",
        "BEGIN READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "START TRANSACTION",
    ],
    "sqlite": ["PRAGMA query_only = OFF", "BEGIN", "SAVEPOINT mine"],
}


def test_a_lifted_guard_does_not_reach_the_next_request(serve, noted):
    """Whatever a request says to its connection, the next one is refused its write."""

    def lift(request):
        request.sqa_session.execute(text(request.params["sql"]))
        return Response()

    app = serve(noted.url, route(lift), route(write, name="write"), **ONE)
    client = TestApp(app)
    for statement in LIFTS[noted.kind]:
        client.get("/it", {"sql": statement})

        assert refused(client), statement
        assert noted.rows("SELECT id FROM note") == [(1,)], statement
        assert reader(app).pool.checkedin() <= 1


ALSO_WRITES = {
    "mysql": ["CREATE TEMPORARY TABLE t (id INT)", "SELECT id FROM note FOR UPDATE"],
    "postgresql": ["CREATE TEMPORARY TABLE t (id INT)", "SELECT id FROM note FOR UPDATE"],
    "sqlite": ["CREATE TEMPORARY TABLE t (id INT)"],
}


@pytest.mark.sweep(1)
def test_a_temporary_table_and_a_lock_count_as_writes(serve, noted):
    """The documentation says so."""

    def send(request):
        request.sqa_session.execute(text(request.params["sql"]))

    client = TestApp(serve(noted.url, route(send)))
    for statement in ALSO_WRITES[noted.kind]:
        with pytest.raises(ReadOnlyRequestError):
            client.get("/it", {"sql": statement})


@pytest.mark.sweep(1)
def test_a_transaction_of_the_driver_does_not_reach_the_next_request(serve, noted):
    """The application may use the driver's own connection, which no statement shows."""
    begin = {"postgresql": "BEGIN READ WRITE", "sqlite": "BEGIN", "mysql": "START TRANSACTION"}

    def own(request):
        connection = request.sqa_session.connection().connection.driver_connection
        cursor = connection.cursor()
        cursor.execute(begin[noted.kind])
        cursor.close()
        return Response()

    app = serve(noted.url, route(own), route(write, name="write"), **ONE)
    client = TestApp(app)
    client.get("/it")

    assert refused(client)


@pytest.mark.sweep(1)
def test_an_isolation_level_of_one_request_ends_with_it(serve, noted):
    """The level that a request asks for its connection is the usual one for the next."""

    def serializable(request):
        options = {"isolation_level": "SERIALIZABLE"}
        request.sqa_session.connection(execution_options=options)
        return count(request)

    app = serve(noted.url, route(serializable, count), route(write, name="write"), **ONE)
    client = TestApp(app)

    assert client.get("/it").text == client.get("/it1").text == "1"
    assert refused(client)


@pytest.mark.parametrize(("mode", "seen"), [(True, "1 2"), ("snapshot", "1 1")])
@pytest.mark.sweep(3)
def test_a_request_sees_what_is_committed_or_one_snapshot(serve, noted, mode, seen):
    """Each statement sees what is committed; with a snapshot all see the same."""

    def twice(request):
        first = request.sqa_session.scalar(COUNT)
        noted.run("INSERT INTO note (id, body) VALUES (2, 'meanwhile')")
        return Response(f"{first} {request.sqa_session.scalar(COUNT)}")

    app = serve(noted.url, route(twice, mode=mode), route(count, name="count"), **ONE)
    client = TestApp(app)

    assert client.get("/it").text == seen
    # The snapshot has ended with its request.
    assert client.get("/count").text == "2"


@pytest.mark.parametrize("mode", [True, "snapshot"])
@pytest.mark.sweep(2)
def test_savepoints_can_be_used_and_undo_a_failure(serve, noted, mode):
    """Code that is shared with writing requests runs as it does there."""

    def nested(request):
        session = request.sqa_session
        with session.begin_nested():
            first = session.scalar(COUNT)
        with pytest.raises(DBAPIError), session.begin_nested():
            session.execute(text("SELECT * FROM nowhere"))
        return Response(f"{first} {session.scalar(COUNT)}")

    app = serve(noted.url, route(nested, mode=mode))

    assert TestApp(app).get("/it").text == "1 1"


@pytest.mark.sweep(2)
def test_rows_are_streamed_and_a_stream_may_be_abandoned(serve, noted):
    """In the session and in the body; the next request gets a clean connection."""
    noted.run(*(f"INSERT INTO note (id, body) VALUES ({n}, 'x')" for n in range(2, 40)))
    statement = select(Note.id).order_by(Note.id)
    kept = []

    def part(request):
        rows = request.sqa_session.execute(statement, execution_options={"yield_per": 3})
        kept.append(rows)
        return Response(f"{next(rows)[0]} {next(rows)[0]}")

    def body(request):
        return Response(app_iter=(str(row[0]).encode() for row in request.sqa_stream(statement)))

    app = serve(noted.url, route(part, body, count), route(write, name="write"), **ONE)
    client = TestApp(app)

    assert client.get("/it").text == "1 2"
    assert client.get("/it1").text == "".join(map(str, range(1, 40)))
    assert client.get("/it2").text == "39"
    assert refused(client)
    assert get_sqa(app).engine.pool.checkedin() == 0


def test_the_option_of_the_route_counts_before_the_view(serve, file):
    """A root factory that asks for the session gets the read-only one."""
    seen = []

    def root(request):
        seen.append(request.sqa_session)
        with pytest.raises(ReadOnlyRequestError):
            write(request)
        return {}

    def view(request):
        seen.append(request.sqa_session)
        return count(request)

    app = serve(file.url, route(view, factory=root))

    assert TestApp(app).get("/it").text == "1"
    assert seen[0] is seen[1]
    assert get_sqa(app).engine.pool.checkedin() == 0


@pytest.mark.sweep(2)
def test_a_view_continues_with_the_session_that_was_used_before_it(serve, noted):
    """What came before is stored; the view reads it and writes nothing; afterwards it can."""
    user = []

    def then_write(view):
        def decorated(context, request):
            response = view(context, request)
            request.sqa_session.execute(text("INSERT INTO note (id, body) VALUES (3, 'after')"))
            return response

        return decorated

    def root(request):
        request.sqa_session.add(Note(id=2, body="before the view"))
        user.append(request.sqa_session)
        return {}

    def view(request):
        assert request.sqa_session is user[-1]
        request.sqa_session.execute(text("WITH n AS (SELECT 'update') SELECT * FROM n"))
        with pytest.raises(ReadOnlyRequestError):
            request.sqa_session.execute(text("WITH n AS (SELECT 1) UPDATE note SET body = ''"))
        with pytest.raises(ReadOnlyRequestError, match="a Note that was added"):
            request.sqa_session.add(Note(id=4, body="refused"))
        with request.sqa_session.begin_nested():
            return count(request)

    def setup(config):
        config.add_route("it", "/it", factory=root)
        config.add_view(view, route_name="it", sqa_read_only=True, decorator=then_write)

    assert TestApp(serve(noted.url, setup)).get("/it").text == "2"
    assert noted.rows("SELECT id FROM note ORDER BY id") == [(1,), (2,), (3,)]


def test_a_snapshot_of_a_view_that_comes_too_late_is_an_error(serve, file):
    """The transaction before the view has seen the database at other moments."""

    def root(request):
        count(request)
        return {}

    def setup(config):
        config.add_route("it", "/it", factory=root)
        config.add_view(count, route_name="it", sqa_read_only="snapshot")

    with pytest.raises(ReadOnlyRequestError, match="to the route instead"):
        TestApp(serve(file.url, setup)).get("/it")


def test_a_view_may_ask_for_a_snapshot_on_a_read_only_route(serve, file):
    """The view has its snapshot. Before and after it, the request is as read-only as its route."""
    seen = []

    def view(request):
        seen.append(request.sqa_session.scalar(COUNT))
        file.run("INSERT INTO note (id, body) VALUES (2, 'meanwhile')")
        return count(request)

    def then_write(view):
        def decorated(context, request):
            response = view(context, request)
            seen.append(request.sqa_session.scalar(COUNT))
            with pytest.raises(ReadOnlyRequestError, match=r"\(route it\) is read-only"):
                write(request)
            return response

        return decorated

    def setup(config):
        config.add_route("it", "/it", sqa_read_only=True)
        config.add_view(view, route_name="it", sqa_read_only="snapshot", decorator=then_write)
        config.add_route(
            "used", "/used", sqa_read_only=True, factory=lambda request: [count(request)]
        )
        config.add_view(count, route_name="used", sqa_read_only="snapshot")

    client = TestApp(serve(file.url, setup))

    assert client.get("/it").text == "1"
    assert seen == [1, 2]
    with pytest.raises(ReadOnlyRequestError, match="to the route instead"):
        client.get("/used")


def test_a_view_inside_a_read_only_view_leaves_the_outer_one_read_only(serve, file):
    """The inner view has its snapshot, and the outer one is refused its write as before."""

    def outer(context, request):
        inner = render_view_to_response(context, request, "inner")
        with pytest.raises(ReadOnlyRequestError, match=r"the view .*outer is read-only"):
            write(request)
        return inner

    def setup(config):
        config.add_view(outer, sqa_read_only=True)
        config.add_view(count, name="inner", sqa_read_only="snapshot")

    assert TestApp(serve(file.url, setup)).get("/").text == "1"


STATEMENTS = {
    "SET STATEMENT max_statement_time = 1 FOR DELETE FROM note": True,
    "SET STATEMENT max_statement_time = 1 FOR SELECT 1": False,
    "EXPLAIN (ANALYZE, COSTS OFF) UPDATE note SET body = ''": True,
    "EXPLAIN ANALYZE SELECT 'update'": False,
    "EXPLAIN UPDATE note SET body = ''": False,
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_inside_another_is_found_where_words_decide(statement):
    """MariaDB and PostgreSQL run what stands behind these words."""
    assert may_write(statement) == STATEMENTS[statement]


@pytest.mark.parametrize("end", ["WHERE id > 4111", "WHERE id<4111", "WHERE body LIKE 4111"])
def test_no_value_of_a_refused_statement_is_shown(serve, file, end):
    """A number that is not in quotes may be a secret too."""

    def view(request):
        request.sqa_session.execute(text(f"DELETE FROM note {end}"))

    with pytest.raises(ReadOnlyRequestError, match="DELETE FROM note") as caught:
        TestApp(serve(file.url, route(view))).get("/it")
    assert "4111" not in str(caught.value)


def test_the_option_of_a_view_ends_with_the_view(serve, file):
    """An exception view, and what comes after the view, can write."""

    def view(request):
        if "fail" in request.params:
            write(request)
        return count(request)

    def then_write(view):
        def decorated(context, request):
            response = view(context, request)
            request.sqa_session.add(Note(body="later"))
            return response

        return decorated

    def page(error, request):
        request.sqa_session.add(Note(body=type(error).__name__))
        return Response("sorry")

    def setup(config):
        config.add_view(view, sqa_read_only=True, decorator=then_write)
        config.add_exception_view(page, context=ReadOnlyRequestError)

    client = TestApp(serve(file.url, setup))

    assert client.get("/").text == "1"
    assert client.get("/?fail=1").text == "sorry"
    assert [row[0] for row in file.rows(BODIES)] == [
        "ReadOnlyRequestError",
        "before",
        "later",
    ]


def test_a_route_is_read_only_in_its_exception_view_too(serve, file):
    """The error of the exception view names the route as well."""

    def page(error, request):
        assert isinstance(error, ReadOnlyRequestError)
        return write(request)

    def setup(config):
        route(write)(config)
        config.add_exception_view(page, context=ReadOnlyRequestError)

    with pytest.raises(ReadOnlyRequestError, match=r"GET /it \(route it\)"):
        TestApp(serve(file.url, setup)).get("/it")


def test_a_changed_object_fails_the_request_although_nothing_was_sent(serve, file):
    """The change would be lost. The error has a page, and is raised once."""
    shown = []

    def change(request):
        request.sqa_session.get(Note, 1).body = "changed"
        if "fail" in request.params:
            raise LookupError
        return Response()

    def page(error, request):
        shown.append(str(error))
        assert request.sqa_session.get(Note, 1).body == "before"
        return Response("page", status=500)

    def setup(config):
        route(change)(config)
        config.add_exception_view(page, context=Exception)

    client = TestApp(serve(file.url, setup))

    assert client.get("/it", status=500).text == "page"
    assert client.get("/it?fail=1", status=500).text == "page"
    assert "a Note that was changed" in shown[0]
    assert shown[1:] == [""]


@pytest.mark.parametrize("path", ["/route", "/view"])
def test_an_attribute_that_is_set_to_its_own_value_is_not_a_write(serve, file, path):
    """SQLAlchemy would send nothing either."""

    def root(request):
        count(request)
        return {}

    def view(request):
        note = request.sqa_session.get(Note, 1)
        note.body = str(note.body)
        return count(request)

    def setup(config):
        config.add_route("route", "/route", sqa_read_only=True)
        config.add_view(view, route_name="route")
        config.add_route("view", "/view", factory=root)
        config.add_view(view, route_name="view", sqa_read_only=True)

    assert TestApp(serve(file.url, setup)).get(path).text == "1"


def test_an_object_from_a_cache_can_be_attached(serve, file):
    """It is stored already; its attributes are loaded when they are used."""

    def cached(request):
        note = Note(id=1)
        make_transient_to_detached(note)
        request.sqa_session.add(note)
        return Response(note.body)

    assert TestApp(serve(file.url, route(cached))).get("/it").text == "before"


@pytest.mark.sweep(1)
def test_a_commit_by_hand_is_refused_as_ever(serve, noted):
    """On the session and on its connection."""

    def commit(request):
        count(request)
        with pytest.raises(CommitNotAllowedError):
            request.sqa_session.commit()
        with pytest.raises(CommitNotAllowedError):
            request.sqa_session.connection().commit()
        request.sqa_session.rollback()
        return count(request)

    assert TestApp(serve(noted.url, route(commit))).get("/it").text == "1"


def test_a_read_only_request_is_made_again_when_its_connection_is_lost(serve, mariadb):
    """As every other request is."""
    prepare(mariadb)
    attempts = []

    def view(request):
        attempts.append(request.sqa_session.scalar(text("SELECT CONNECTION_ID()")))
        if len(attempts) == 1:
            mariadb.run(f"KILL {attempts[0]}")
        return count(request)

    app = serve(mariadb.url, route(view), **{"sqa.retry_pause": "0"})

    assert TestApp(app).get("/it").text == "1"
    assert len(attempts) == 2


def test_the_body_of_a_slow_client_holds_no_connection(serve, file):
    """As it holds none of a request that writes; what it reads, it reads on a new one."""
    pools = []

    def view(request):
        session = request.sqa_session
        first = session.scalar(COUNT)

        def body():
            pools.append(reader(app).pool.checkedout())
            yield str(first + session.scalar(COUNT)).encode()

        return Response(app_iter=body())

    app = serve(file.url, route(view))

    assert TestApp(app).get("/it").text == "2"
    assert pools == [0]
    assert reader(app).pool.checkedout() == 0


def test_a_stream_whose_connection_is_lost_leaves_nothing_in_the_pool(serve, mariadb):
    """Its cursor cannot be closed any more; the next request gets another connection."""
    prepare(mariadb)
    mariadb.run(*(f"INSERT INTO note (id, body) VALUES ({n}, 'x')" for n in range(2, 20)))
    kept = []

    def part(request):
        number = request.sqa_session.scalar(text("SELECT CONNECTION_ID()"))
        # As much as the server cannot send at once.
        rows = request.sqa_session.execute(
            text("SELECT REPEAT('x', 1000000) FROM note a, note b"),
            execution_options={"yield_per": 1},
        )
        kept.append(rows)
        next(rows)
        mariadb.run(f"KILL {number}")
        return Response()

    app = serve(mariadb.url, route(part, count), **ONE)
    client = TestApp(app)
    client.get("/it")

    assert reader(app).pool.checkedout() == 0
    assert client.get("/it1").text == "19"
    # PyMySQL would still read from the closed socket, and pytest fails a test for what that raises.
    kept.clear()
    gc.collect()


def test_a_write_on_the_reading_engine_itself_is_the_error_of_the_database(serve, file):
    """No request is there that could be named."""
    app = serve(file.url, route(count))
    TestApp(app).get("/it")
    with reader(app).connect() as connection, pytest.raises(DBAPIError):
        connection.exec_driver_sql("INSERT INTO note VALUES (2, 'x')")


@pytest.fixture
def shared(request, file):
    """Return settings with which no second pool can be made, and what makes a table there."""
    engine = create_engine(file.url)
    ready = {"sqlalchemy.engine": engine}
    pool = {"sqlalchemy.pool": create_engine(file.url).pool}
    memory = {"sqlalchemy.url": "sqlite://"}
    yield {"ready": ready, "pool": pool, "memory": memory}[request.param]
    engine.dispose()


@pytest.mark.parametrize("shared", ["ready", "pool", "memory"], indirect=True)
def test_without_a_pool_of_its_own_a_request_reads_in_a_read_only_transaction(shared, serve, file):
    """A ready engine or pool, a database in memory: what is refused is the same."""
    made = []

    def view(request):
        made.append(request.sqa_session.get_bind())
        return count(request)

    def free(request):
        write(request)
        return Response()

    def setup(config):
        route(view)(config)
        route(write, name="write")(config)
        route(free, name="free", mode=False)(config)

    app = serve(file.url, setup, **shared)
    with get_sqa(app).engine.begin() as connection:
        Note.metadata.create_all(connection)
    client = TestApp(app)
    before = int(client.get("/it").text)

    assert refused(client)
    client.get("/free")
    assert int(client.get("/it").text) == before + 1
    assert set(made) == {get_sqa(app).engine}
    assert get_sqa(app).stats().readers == {}


def test_an_application_without_read_only_requests_makes_no_engine(serve, file):
    """The predicate may be false, or for others."""

    def setup(config):
        route(count, mode=False)(config)
        route(count, mode=not_(True), name="not")(config)
        with_view(count, sqa_read_only=False, name="view")(config)

    app = serve(file.url, setup)
    for path in ("/it", "/view"):
        assert TestApp(app).get(path).text == "1"

    assert get_sqa(app).reading.by_name() == {}


@pytest.mark.parametrize("value", ["yes", 2, ["snapshot"]])
@pytest.mark.parametrize(
    "setup",
    [lambda value: route(count, mode=value), lambda value: with_view(count, sqa_read_only=value)],
    ids=["route", "view"],
)
@pytest.mark.sweep(2)
def test_another_value_is_refused_at_start(file, setup, value):
    """The message says what to write."""
    message = "write True, False or 'snapshot'"
    with pytest.raises(ConfigurationError, match=message), application(file.url, setup(value)):
        pass


def test_the_new_pool_is_counted_disposed_and_recorded(serve, file):
    """In the statistics, in the recorder and in the budget of the process."""
    settings = {"sqa.stats": "true", "sqa.record": "true", "sqa.max_connections": "2"}

    def view(request):
        count(request)
        statements = request.sqa_statements
        return Response(f"{statements[0].database} {[step.kind for step in statements.steps]}")

    app = serve(file.url, route(view, count), with_view(count, name="other"), **settings)
    client = TestApp(app)
    text_of_first = client.get("/it").text
    client.get("/other")

    assert text_of_first == "default.reader ['CONNECT']"
    found = get_sqa(app).stats().readers["default.reader"]
    assert (found.size, found.in_use, found.idle, found.commits) == (5, 0, 1, 0)
    assert "1 idle; 2 of 2 in the process" in reader(app).pool.status()
    get_sqa(app).dispose()
    assert get_sqa(app).stats().readers["default.reader"].idle == 0


def test_an_engine_that_is_made_in_a_recorded_block_is_recorded(serve, file):
    """The block is told of it when it is made."""
    app = serve(file.url, route(count))
    with recorded(app) as statements:
        TestApp(app).get("/it")

    assert [each.database for each in statements] == ["default.reader"]
    assert [step.kind for step in statements.steps] == ["CONNECT"]


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.sweep(2)
def test_a_sandbox_shows_its_rows_to_a_read_only_request(serve, noted, commits):
    """Its writes are refused there too, and nothing is left."""
    app = serve(noted.url, route(count), route(write, name="write"))
    TestApp(app).get("/it")
    with isolated(app, commits=commits) as sandbox:
        sandbox.session.add(Note(id=7, body="of the test"))
        sandbox.session.commit()
        assert TestApp(app).get("/it").text == "2"
        assert refused(TestApp(app))
        assert TestApp(app).get("/it").text == "2"

    assert TestApp(app).get("/it").text == "1"


def test_a_job_inside_a_read_only_request_has_a_transaction_of_its_own(serve, file):
    """session_scope() and Session() commit by themselves, so they write where they are told to."""

    def view(request):
        with session_scope(request) as session:
            session.execute(INSERT, {"body": "scope"})
        with Session(request) as session:
            session.execute(INSERT, {"body": "thread"})
            session.commit()
        return count(request)

    assert TestApp(serve(file.url, route(view))).get("/it").text == "3"


def test_a_subrequest_follows_its_own_route(serve, file):
    """Inside a read-only request another route may write, in the same transaction manager."""

    def outer(request):
        request.invoke_subrequest(Request.blank("/inner"), use_tweens=True)
        return count(request)

    app = serve(file.url, route(outer), route(write, name="inner", mode=False))

    assert TestApp(app).get("/it").text == "2"


@pytest.mark.sweep(1)
def test_a_pool_without_idle_connections_works(serve, noted):
    """Each request connects anew."""
    app = serve(
        noted.url, route(count), route(write, name="write"), **{"sqlalchemy.poolclass": "NullPool"}
    )

    assert TestApp(app).get("/it").text == "1"
    assert refused(TestApp(app))
    assert isinstance(reader(app).pool, NullPool)


@pytest.mark.sweep(1)
def test_the_inspector_of_a_read_only_session_works(serve, noted):
    """What asks the catalogue is not a write."""

    def tables(request):
        return Response(",".join(inspect(request.sqa_session.connection()).get_table_names()))

    assert TestApp(serve(noted.url, route(tables))).get("/it").text == "note"
