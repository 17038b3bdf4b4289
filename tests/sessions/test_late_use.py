"""request.sqa_session outside its transaction: it reads, it refuses to write, and it ends."""

import gc
import threading
from contextlib import contextmanager

import pytest
import transaction
from pyramid.config import Configurator
from pyramid.events import BeforeRender, NewRequest, NewResponse
from pyramid.httpexceptions import HTTPNotFound
from pyramid.request import Request
from pyramid.response import Response
from pyramid.scripting import prepare
from pyramid_retry import RetryableException
from sqlalchemy import create_engine, event, insert, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool
from webtest import TestApp

from pyramid_aalam_sqa import (
    BrokenTransactionError,
    CommitNotAllowedError,
    OutsideTransactionError,
    TransactionError,
    get_sqa,
)

BODIES = "SELECT body FROM note ORDER BY body"
INSERT = text("INSERT INTO note (body) VALUES (:body)")


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]

    __table_args__ = ({"mysql_engine": "InnoDB"},)


Note.__table__.c.body.type.length = 50


def make_tables(database):
    engine = create_engine(database.url, poolclass=NullPool)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(INSERT, {"body": "seed"})


def shared_manager(request):
    """The thread's own manager, as an application of old has it."""
    return transaction.manager


# Reading, and the ways of writing. ------------------------------------------------------------


def read(session):
    assert session.scalars(select(Note.body)).all() == ["seed"]
    assert session.execute(text("SELECT count(*) FROM note")).scalar() == 1
    assert session.get(Note, 1).body == "seed"


def add(session):
    session.add(Note(body="late"))


def add_and_flush(session):
    session.add(Note(body="late"))
    session.flush()


def change(session):
    session.get(Note, 1).body = "late"


def change_and_flush(session):
    change(session)
    session.flush()


def delete(session):
    session.delete(session.get(Note, 1))


def core_insert(session):
    session.execute(insert(Note).values(body="late"))


def text_insert(session):
    session.execute(INSERT, {"body": "late"})


def driver_sql(session):
    session.connection().exec_driver_sql("INSERT INTO note (body) VALUES ('late')")


def on_the_connection(session):
    session.connection().execute(INSERT, {"body": "late"})


def bulk(session):
    session.bulk_insert_mappings(Note, [{"body": "late"}])


def ddl(session):
    session.execute(text("CREATE TABLE late (id INTEGER)"))


def after_a_refused_one(session):
    """Whoever goes on after the refusal is refused again."""
    with pytest.raises(OutsideTransactionError):
        ddl(session)
    session.rollback()
    text_insert(session)


WRITES = [add, add_and_flush, change, change_and_flush, delete, core_insert, text_insert]
WRITES += [driver_sql, on_the_connection, bulk, ddl, after_a_refused_one]


# The places outside the transaction. ----------------------------------------------------------


def act(request):
    """Do in this place what the test asks for."""
    if "sqa.act" in request.environ:
        request.environ["sqa.act"](request.sqa_session)


def touch(request):
    request.sqa_session.execute(text("SELECT 1"))
    return Response("touched")


def before_the_handler(handler, registry):
    def tween(request):
        act(request)
        return handler(request)

    return tween


def after_the_handler(handler, registry):
    def tween(request):
        response = handler(request)
        act(request)
        return response

    return tween


def tween_above_before_the_view(config):
    config.add_tween("test_late_use.before_the_handler", over="pyramid_tm.tm_tween_factory")
    config.add_view(touch)


def tween_above_after_the_view(config):
    config.add_tween("test_late_use.after_the_handler", over="pyramid_tm.tm_tween_factory")
    config.add_view(touch)


def response_callback(config):
    def view(request):
        request.add_response_callback(lambda request, response: act(request))
        return touch(request)

    config.add_view(view)


def response_callback_at_first_touch(config):
    def view(request):
        request.add_response_callback(lambda request, response: act(request))
        return Response()

    config.add_view(view)


def finished_callback_registered_before_the_first_touch(config):
    def view(request):
        request.add_finished_callback(act)
        return touch(request)

    config.add_view(view)


def finished_callback_registered_after_the_first_touch(config):
    def view(request):
        response = touch(request)
        request.add_finished_callback(act)
        return response

    config.add_view(view)


def finished_callback_at_first_touch(config):
    def view(request):
        request.add_finished_callback(act)
        return Response()

    config.add_view(view)


def new_response_subscriber(config):
    config.add_subscriber(lambda event: act(event.request), NewResponse)
    config.add_view(touch)


class Refusing:
    """A data manager that refuses to commit."""

    def sortKey(self):  # noqa: N802 - transaction's interface
        return "refusing"

    def tpc_begin(self, transaction):
        raise ZeroDivisionError

    def abort(self, transaction):
        """It has nothing to undo."""

    tpc_abort = abort


def page_of_an_error_at_commit(config):
    def view(request):
        request.tm.get().join(Refusing())
        return touch(request)

    def page(error, request):
        act(request)
        return Response("Sorry")

    config.add_view(view)
    config.add_exception_view(page, context=ZeroDivisionError)


def generator_body(config):
    def body(request):
        yield b"first "
        act(request)
        yield b"last"

    def view(request):
        touch(request)
        return Response(app_iter=body(request))

    config.add_view(view)


def generator_body_at_first_touch(config):
    def body(request):
        act(request)
        yield b"all"

    config.add_view(lambda request: Response(app_iter=body(request)))


class Body:
    """An iterator that knows nothing of close()."""

    def __init__(self, request):
        self.request = request
        self.parts = iter([b"all"])

    def __iter__(self):
        return self

    def __next__(self):
        act(self.request)
        return next(self.parts)


def iterator_body(config):
    config.add_view(lambda request: Response(app_iter=Body(request)))


def view_that_pyramid_tm_leaves_alone(config):
    config.add_settings({"tm.activate_hook": lambda request: request.path_info == "/next"})

    def view(request):
        act(request)
        return touch(request)

    config.add_view(view)


def view_between_two_transactions(config):
    def view(request):
        touch(request)
        request.tm.commit()
        act(request)
        request.tm.begin()
        return touch(request)

    config.add_view(view)


OUTSIDE = [
    tween_above_before_the_view,
    tween_above_after_the_view,
    response_callback,
    response_callback_at_first_touch,
    finished_callback_registered_before_the_first_touch,
    finished_callback_registered_after_the_first_touch,
    finished_callback_at_first_touch,
    new_response_subscriber,
    page_of_an_error_at_commit,
    generator_body,
    generator_body_at_first_touch,
    iterator_body,
    view_that_pyramid_tm_leaves_alone,
    view_between_two_transactions,
]


def write_next(request):
    request.sqa_session.execute(INSERT, {"body": "next"})
    return Response()


def serve_on(database, *setups, **settings):
    """Make an application with one connection, so that each request gets that of the last."""
    given = {"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0"}
    given |= {"sqlalchemy.pool_timeout": "1", "sqlalchemy.url": database.url, **settings}
    with Configurator(settings=given) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(write_next, name="next")
        for setup in setups:
            setup(config)
    return TestApp(config.make_wsgi_app())


@pytest.fixture
def serve(database):
    make_tables(database)
    return lambda *setups, **settings: serve_on(database, *setups, **settings)


@pytest.fixture
def bodies(database):
    return lambda: [row[0] for row in database.rows(BODIES)]


def with_view(view, **options):
    return lambda config: config.add_view(view, **options)


def checked_out(client):
    return get_sqa(client.app).engine.pool.checkedout()


@contextmanager
def eyes_of(database):
    """One independent connection, that sees each time what is committed by then."""
    engine = create_engine(database.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection


def outcome_of(client, eyes, write):
    """What comes of a request that writes late, and of the next one on its connection."""
    try:
        client.get("/", extra_environ={"sqa.act": write})
        told = "a response"
    except OutsideTransactionError as error:
        told = "advice" if "with request.tm:" in str(error) else str(error)
    left = checked_out(client)
    stored = eyes.scalars(text(BODIES)).all()
    client.get("/next")
    both = eyes.scalars(text(BODIES)).all()
    eyes.execute(text("DELETE FROM note WHERE body = 'next'"))
    return told, left, stored, both


REFUSED = ("advice", 0, ["seed"], ["next", "seed"])


def look_at(place, database, **settings):
    """Read in *place*, then write there in each way; return what came of it."""
    client = serve_on(database, place, **settings)
    client.get("/", extra_environ={"sqa.act": read})
    assert checked_out(client) == 0
    with eyes_of(database) as eyes:
        outcomes = {write.__name__: outcome_of(client, eyes, write) for write in WRITES}
    get_sqa(client.app).dispose()
    return outcomes


ALL_REFUSED = {write.__name__: REFUSED for write in WRITES}


@pytest.mark.parametrize("place", OUTSIDE, ids=lambda place: place.__name__)
def test_outside_the_transaction_reading_works_and_no_way_of_writing_is_lost(place, database):
    """The error says where to write; the connection goes back, and the next request writes."""
    make_tables(database)

    assert look_at(place, database) == ALL_REFUSED


def test_outside_the_transaction_postgresql_loses_nothing_either(postgresql):
    """In all those places."""
    make_tables(postgresql)
    outcomes = {place.__name__: look_at(place, postgresql) for place in OUTSIDE}

    assert outcomes == {place.__name__: ALL_REFUSED for place in OUTSIDE}


@pytest.mark.parametrize(
    "place",
    # The thread's manager begins a transaction by itself, which pyramid_tm then commits.
    [place for place in OUTSIDE if place is not view_between_two_transactions],
    ids=lambda place: place.__name__,
)
def test_outside_the_transaction_the_threads_own_manager_loses_nothing_either(place, sqlite):
    """It begins a transaction whenever it is asked for one; nobody would end that."""
    make_tables(sqlite)
    # Left there by somebody else, in an earlier request of this thread.
    transaction.get()

    assert look_at(place, sqlite, **{"tm.manager_hook": shared_manager}) == ALL_REFUSED


def test_a_view_between_two_transactions_of_the_threads_own_manager_writes(serve, bodies):
    """There is always one, and pyramid_tm commits what is there at the end."""

    def view(request):
        request.tm.commit()
        return write_next(request)

    serve(with_view(view), **{"tm.manager_hook": shared_manager}).get("/")

    assert bodies() == ["next", "seed"]


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("subscribed", [NewRequest, BeforeRender])
def test_the_subscribers_around_the_view_are_in_the_transaction(serve, bodies, subscribed, status):
    """What they write is stored when the response says so."""

    def subscriber(event):
        request = event["request"] if subscribed is BeforeRender else event.request
        write_next(request)

    def view(request):
        request.response.status = status
        return {}

    def setup(config):
        config.add_subscriber(subscriber, subscribed)
        config.add_view(view, renderer="json")

    serve(setup).get("/", status=status)

    assert bodies() == (["next", "seed"] if status == 200 else ["seed"])


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
def test_a_function_after_the_commit_reads_and_its_write_is_logged(serve, bodies, caplog, write):
    """The response is true, the transaction being stored, and so it stays."""

    def view(request):
        write_next(request)
        request.sqa_after_commit(late, request)
        return Response("stored")

    def late(request):
        assert request.sqa_session.scalar(text("SELECT count(*) FROM note")) == 2
        write(request.sqa_session)

    client = serve(with_view(view))
    response = client.get("/")

    assert response.text == "stored"
    assert "with request.tm:" in caplog.text
    assert bodies() == ["next", "seed"]
    assert checked_out(client) == 0


@pytest.mark.parametrize("manager_hook", [None, shared_manager])
def test_after_commit_outside_the_transaction_says_that_there_is_none(serve, manager_hook):
    """A function that nothing would ever call is refused."""
    refused = []

    def tween_factory(handler, registry):
        def tween(request):
            with pytest.raises(OutsideTransactionError, match="needs the transaction") as caught:
                request.sqa_after_commit(print)
            refused.append(caught.value)
            return handler(request)

        return tween

    def with_tween(config):
        config.registry.tween = tween_factory
        config.add_tween("test_late_use.tween_of_the_registry", over="pyramid_tm.tm_tween_factory")
        config.add_view(touch)

    settings = {"tm.manager_hook": manager_hook} if manager_hook else {}
    serve(with_tween, **settings).get("/")

    assert len(refused) == 1


def tween_of_the_registry(handler, registry):
    """A tween is named by a string; this one is what the test wants it to be."""
    return registry.tween(handler, registry)


# Above and then inside. -----------------------------------------------------------------------


@pytest.fixture(params=[None, shared_manager], ids=["explicit", "the thread's"])
def manager(request):
    """The setting for either kind of transaction manager."""
    return {"tm.manager_hook": request.param} if request.param else {}


@pytest.mark.parametrize("status", [200, 404])
def test_a_session_read_above_is_joined_in_the_view(serve, bodies, manager, status):
    """It is one session; what was loaded above can be changed below, as the response says."""
    seen = []

    def above(session):
        seen.append((session, session.get(Note, 1)))

    def view(request):
        session, note = seen[-1]
        assert request.sqa_session is session
        assert note.body == "seed"
        note.body = "changed"
        write_next(request)
        return Response(status=status)

    def setup(config):
        config.add_tween("test_late_use.before_the_handler", over="pyramid_tm.tm_tween_factory")
        config.add_view(view)

    client = serve(setup, **manager)
    client.get("/", extra_environ={"sqa.act": above}, status=status)

    assert bodies() == (["changed", "next"] if status == 200 else ["seed"])
    assert checked_out(client) == 0


def test_what_was_changed_above_is_not_forgotten_by_the_view(serve, bodies, manager):
    """The view does not even touch the session, and answers 200."""

    def setup(config):
        config.add_tween("test_late_use.before_the_handler", over="pyramid_tm.tm_tween_factory")
        config.add_view(lambda request: Response())

    client = serve(setup, **manager)
    with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
        client.get("/", extra_environ={"sqa.act": change})

    assert bodies() == ["seed"]
    assert checked_out(client) == 0
    client.get("/")


def test_closing_the_session_above_does_not_forget_what_was_changed(serve, bodies):
    """The habit of a close() in a tween must not hide that a change is lost."""

    def change_and_close(session):
        change(session)
        session.close()

    def setup(config):
        config.add_tween("test_late_use.after_the_handler", over="pyramid_tm.tm_tween_factory")
        config.add_view(touch)

    with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
        serve(setup).get("/", extra_environ={"sqa.act": change_and_close})

    assert bodies() == ["seed"]


def test_a_late_change_that_is_taken_back_is_no_lost_write(serve):
    """session.rollback() is on purpose."""

    def change_and_roll_back(session):
        change(session)
        session.rollback()

    def setup(config):
        config.add_tween("test_late_use.after_the_handler", over="pyramid_tm.tm_tween_factory")
        config.add_view(touch)

    serve(setup).get("/", extra_environ={"sqa.act": change_and_roll_back})


def test_a_late_read_of_a_failed_attempt_does_not_keep_the_connection_from_the_next(serve):
    """On a pool of one, the second attempt would wait for the first."""
    attempts = []

    def view(request):
        attempts.append(touch(request))
        request.add_finished_callback(act)
        if len(attempts) == 1:
            raise RetryableException
        return Response()

    serve(with_view(view)).get("/", extra_environ={"sqa.act": read})

    assert len(attempts) == 2


@pytest.mark.parametrize("kind", ["core", "raw"])
def test_after_a_late_read_the_engine_of_the_application_writes(serve, database, bodies, kind):
    """The connection was made read-only for the session, not for whoever comes next."""
    client = serve(response_callback)
    client.get("/", extra_environ={"sqa.act": read})
    engine = get_sqa(client.app).engine
    statement = "INSERT INTO note (body) VALUES ('core')"
    if kind == "core":
        with engine.begin() as connection:
            connection.execute(text(statement))
    else:
        connection = engine.raw_connection()
        connection.cursor().execute(statement)
        connection.commit()
        connection.close()

    assert bodies() == ["core", "seed"]


def test_an_engine_that_was_handed_in_writes_after_a_late_read(database, bodies):
    """A ready Engine has none of our settings, and is made writable all the same."""
    make_tables(database)
    engine = create_engine(database.url, pool_size=1, max_overflow=0)
    client = serve_on(database, response_callback, **{"sqlalchemy.engine": engine})

    client.get("/", extra_environ={"sqa.act": read})
    client.get("/next")

    assert bodies() == ["next", "seed"]
    engine.dispose()


# After the end. -------------------------------------------------------------------------------


def unflushed(session):
    session.add(Note(body="late"))


USES = {
    "execute": lambda session: session.execute(text("SELECT 1")),
    "get": lambda session: session.get(Note, 1),
    "scalars": lambda session: session.scalars(select(Note)).all(),
    "connection": lambda session: session.connection(),
    "begin": lambda session: session.begin(),
    "begin_nested": lambda session: session.begin_nested(),
    "add": unflushed,
    "add and flush": add_and_flush,
    "merge": lambda session: session.merge(Note(id=1, body="late")),
    "stream": lambda session: next(iter(session.execute(select(Note)))),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_session_kept_after_its_request_is_dead_and_says_so(serve, bodies, use):
    """It neither reconnects quietly nor takes a write that nobody commits."""
    kept = []

    def view(request):
        kept.append(request.sqa_session)
        return touch(request)

    client = serve(with_view(view))
    client.get("/")
    with pytest.raises(OutsideTransactionError, match="ended with its request"):
        use(kept[0])

    assert checked_out(client) == 0
    assert bodies() == ["seed"]


def test_an_answer_that_was_not_read_to_its_end_is_not_in_the_way_of_the_next_request(
    serve, database, bodies
):
    """The traceback of a 404 holds it, and the database's state, until the collector runs."""

    def missing(request):
        result = request.sqa_session.execute(text(BODIES))
        assert result.fetchone().body == "one"
        raise HTTPNotFound

    def count(request):
        return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM note"))))

    client = serve(with_view(missing), with_view(count, name="count"))
    database.run("INSERT INTO note (body) VALUES ('one'), ('two')")
    gc.collect()
    gc.disable()
    try:
        client.get("/", status=404)
        database.run("DELETE FROM note WHERE body <> 'seed'")
        seen = client.get("/count").text
        client.get("/next")
    finally:
        gc.enable()

    assert seen == "1"
    assert bodies() == ["next", "seed"]


def test_a_request_kept_after_its_end_has_no_session_any_more(serve):
    """A thread that was given the request and is first to ask for its session."""
    kept, told = [], []

    def view(request):
        kept.append(request)
        return Response()

    def work():
        with pytest.raises(OutsideTransactionError, match="ended with its request") as caught:
            kept[0].sqa_session.execute(text("SELECT 1"))
        told.append(caught.value)
        with pytest.raises(OutsideTransactionError, match="ended with its request") as caught:
            kept[0].sqa_stream(select(Note))
        told.append(caught.value)

    client = serve(with_view(view))
    client.get("/")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)

    assert len(told) == 2
    assert checked_out(client) == 0


def test_the_session_of_a_script_reads_before_its_transaction_and_dies_with_the_closer(
    serve, bodies
):
    """pyramid.scripting.prepare: `with request.tm:` is where it writes."""
    client = serve()
    with prepare(registry=client.app.registry) as env:
        session = env["request"].sqa_session
        read(session)
        for write in (text_insert, ddl, add):
            with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
                write(session)
            session.rollback()
        with env["request"].tm:
            session.get(Note, 1).body = "changed"
        assert session.get(Note, 1).body == "changed"
    with pytest.raises(OutsideTransactionError, match="ended with its request"):
        session.get(Note, 1)
    with pytest.raises(OutsideTransactionError, match="ended with its request"):
        env["request"].sqa_stream(select(Note))

    assert bodies() == ["changed"]
    assert checked_out(client) == 0


def test_a_script_that_changes_an_object_where_nobody_commits_is_told_by_the_closer(serve, bodies):
    """The last place where it can be told."""
    client = serve()
    with (
        pytest.raises(OutsideTransactionError, match=r"with request\.tm"),
        prepare(registry=client.app.registry) as env,
    ):
        change(env["request"].sqa_session)

    assert bodies() == ["seed"]
    assert checked_out(client) == 0


def test_a_script_with_the_threads_own_manager_commits_as_ever(serve, bodies):
    """transaction.commit() without a begin() is how such scripts are written."""
    client = serve(**{"tm.manager_hook": shared_manager})
    transaction.abort()
    with prepare(registry=client.app.registry) as env:
        write_next(env["request"])
        transaction.commit()

    assert bodies() == ["next", "seed"]
    assert checked_out(client) == 0


# Callbacks that raise. ------------------------------------------------------------------------


def fail(*_):
    raise ZeroDivisionError


@pytest.mark.parametrize("first", ["the failing callback", "the session"])
@pytest.mark.parametrize("kind", ["response", "finished"])
def test_the_connection_comes_back_when_a_callback_raises(serve, kind, first):
    """Whether it was registered before the session was touched or after."""

    def view(request):
        add_callback = getattr(request, f"add_{kind}_callback")
        if first == "the session":
            touch(request)
        # Opens a connection after the transaction, and then fails.
        add_callback(lambda request, *_: act(request))
        add_callback(fail)
        return touch(request)

    client = serve(with_view(view))
    with pytest.raises(ZeroDivisionError):
        client.get("/", extra_environ={"sqa.act": read})

    assert checked_out(client) == 0
    client.get("/next")


@pytest.mark.parametrize("first", ["the failing callback", "the session"])
def test_the_closer_of_a_script_gives_the_connection_back_when_a_callback_raises(serve, first):
    """Pyramid calls no callback after one that raised."""
    client = serve()

    def script():
        with prepare(registry=client.app.registry) as env:
            request = env["request"]
            if first == "the session":
                read(request.sqa_session)
            request.add_finished_callback(fail)
            read(request.sqa_session)

    with pytest.raises(ZeroDivisionError):
        script()

    assert checked_out(client) == 0


@pytest.mark.parametrize("hook", ["a failing hook", "no commit"])
@pytest.mark.parametrize("status", [200, 500])
def test_a_transaction_that_nobody_ends_is_no_200(serve, bodies, hook, status):
    """A hook that fails before the commit leaves one behind, and so does a forgotten commit."""

    def view(request):
        if hook == "no commit":
            request.tm.begin()
            return page(None, request)
        request.tm.get().addBeforeCommitHook(fail)
        return touch(request)

    def page(error, request):
        text_insert(request.sqa_session)
        return Response(status=status)

    def setup(config):
        if hook == "no commit":
            config.add_settings({"tm.activate_hook": lambda request: request.path_info == "/next"})
        config.add_view(view)
        config.add_exception_view(page, context=ZeroDivisionError)

    client = serve(setup)
    if status == 200:
        with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
            client.get("/")
    else:
        client.get("/", status=500)
    client.get("/next")

    assert bodies() == ["next", "seed"]
    assert checked_out(client) == 0


# The transaction ended by hand. ---------------------------------------------------------------


def commit_the_session(session):
    session.commit()


def commit_the_connection(session):
    session.connection().commit()


def commit_the_transaction_of_the_session(session):
    session.get_transaction().commit()


def commit_the_transaction_of_the_connection(session):
    session.connection().get_transaction().commit()


COMMITS = [
    commit_the_session,
    commit_the_connection,
    commit_the_transaction_of_the_session,
    commit_the_transaction_of_the_connection,
]


@pytest.mark.parametrize("commit", COMMITS, ids=lambda commit: commit.__name__)
def test_a_commit_by_hand_is_one_error_and_leaves_a_clean_connection(serve, bodies, commit):
    """Nothing of it is stored, neither now nor by the next request on that connection."""

    def view(request):
        text_insert(request.sqa_session)
        commit(request.sqa_session)

    client = serve(with_view(view))
    with pytest.raises(CommitNotAllowedError, match=r"session\.flush\(\).*request\.tm\.commit\(\)"):
        client.get("/")
    stored = bodies()
    client.get("/next")

    assert stored == ["seed"]
    assert bodies() == ["next", "seed"]
    assert checked_out(client) == 0


@pytest.mark.parametrize("commit", COMMITS, ids=lambda commit: commit.__name__)
def test_a_commit_by_hand_that_is_swallowed_is_never_a_half(serve, bodies, commit):
    """Either everything is stored by the end of the request, or it is no 200."""

    def view(request):
        text_insert(request.sqa_session)
        with pytest.raises(CommitNotAllowedError):
            commit(request.sqa_session)
        write_next(request)
        return Response()

    client = serve(with_view(view))
    try:
        client.get("/")
        told = 200
    except (TransactionError, InvalidRequestError):
        told = 500
    stored = bodies()
    client.get("/next")

    assert stored == (["late", "next", "seed"] if told == 200 else ["seed"])
    assert bodies() == sorted([*stored, "next"])


@pytest.mark.parametrize("commit", COMMITS, ids=lambda commit: commit.__name__)
def test_a_late_commit_by_hand_is_refused_too(serve, bodies, commit):
    """There is nothing that it could commit."""

    def read_and_commit(session):
        read(session)
        commit(session)

    client = serve(response_callback)
    with pytest.raises(TransactionError, match=r"with request\.tm"):
        client.get("/", extra_environ={"sqa.act": read_and_commit})
    client.get("/next")

    assert bodies() == ["next", "seed"]


def test_a_begin_block_in_a_view_stores_nothing(serve, bodies):
    """`with session.begin():` commits at its end, and so is refused, at its end or its begin."""

    def fresh(request):
        with request.sqa_session.begin():
            text_insert(request.sqa_session)

    def used(request):
        text_insert(request.sqa_session)
        with request.sqa_session.begin():
            text_insert(request.sqa_session)

    client = serve(with_view(fresh, name="fresh"), with_view(used, name="used"))
    with pytest.raises(CommitNotAllowedError, match=r"session\.flush\(\)"):
        client.get("/fresh")
    with pytest.raises(InvalidRequestError, match="already begun"):
        client.get("/used")
    client.get("/next")

    assert bodies() == ["next", "seed"]


@pytest.mark.parametrize("end", ["close", "invalidate", "reset"])
def test_a_session_that_is_thrown_away_after_a_write_is_no_200(serve, bodies, end):
    """What it had written is lost, and the client is not told that all went well."""

    def view(request):
        text_insert(request.sqa_session)
        getattr(request.sqa_session, end)()
        return Response()

    def goes_on(request):
        view(request)
        return write_next(request)

    client = serve(with_view(view), with_view(goes_on, name="on"))
    for path in ("/", "/on"):
        with pytest.raises(OutsideTransactionError, match=r"remove the close\(\)"):
            client.get(path)

    assert bodies() == ["seed"]
    assert checked_out(client) == 0


def test_a_rollback_of_the_session_is_on_purpose(serve, bodies):
    """What came before is undone, what comes after is stored."""

    def view(request):
        text_insert(request.sqa_session)
        request.sqa_session.rollback()
        return write_next(request)

    serve(with_view(view)).get("/")

    assert bodies() == ["next", "seed"]


@pytest.mark.parametrize("commit", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_after_a_rollback_of_the_connection_nothing_goes_on_unnoticed(serve, bodies, late, commit):
    """The session does not know of it, and nobody would commit, or only somebody by hand."""

    def roll_back(session):
        connection = session.connection()
        connection.execute(text("SELECT 1"))
        connection.rollback()
        connection.execute(INSERT, {"body": "late"})
        if commit:
            connection.commit()

    def view(request):
        roll_back(request.sqa_session)
        return Response()

    client = serve(response_callback if late else with_view(view))
    with pytest.raises(BrokenTransactionError, match=r"session\.rollback\(\)"):
        client.get("/", extra_environ={"sqa.act": roll_back})
    client.get("/next")

    assert bodies() == ["next", "seed"]


# Subrequests. ---------------------------------------------------------------------------------


def share(subrequest, request):
    """Let *subrequest* be a part of the transaction of *request*."""
    subrequest.environ["tm.manager"] = request.tm
    subrequest.environ["tm.active"] = True


def part(request):
    """The view of a subrequest."""
    request.sqa_session.execute(INSERT, {"body": "part"})
    return Response("part")


def failing_part(request):
    part(request)
    raise ZeroDivisionError


def reading_part(request):
    return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM note"))))


def parts(config):
    for view in (part, failing_part, reading_part):
        config.add_view(view, name=view.__name__)


@pytest.mark.parametrize("first", ["the request", "the subrequest"])
def test_a_subrequest_without_tweens_is_in_the_transaction_of_the_threads_own_manager(
    serve, bodies, first
):
    """It has the same manager without anybody's help, and so the same session."""

    def view(request):
        if first == "the request":
            write_next(request)
        request.invoke_subrequest(Request.blank("/part"))
        if first == "the subrequest":
            write_next(request)
        return Response()

    client = serve(with_view(view), parts, **{"tm.manager_hook": shared_manager})
    client.get("/")

    assert bodies() == ["next", "part", "seed"]
    assert checked_out(client) == 0


@pytest.mark.parametrize(
    ("first", "status"),
    [("the request", 200), ("the request", 500), ("the subrequest", 200), ("the subrequest", 500)],
)
@pytest.mark.parametrize("use_tweens", [False, True])
def test_a_subrequest_in_the_same_transaction_has_the_same_session(
    serve, bodies, use_tweens, first, status
):
    """One session, one COMMIT, all or nothing, whoever touched the session first."""
    sessions = []

    def view(request):
        if first == "the request":
            write_next(request)
        subrequest = Request.blank("/part")
        share(subrequest, request)
        request.invoke_subrequest(subrequest, use_tweens=use_tweens)
        if first == "the subrequest":
            write_next(request)
        sessions[:] = [request.sqa_session, subrequest.sqa_session]
        return Response(status=status)

    client = serve(with_view(view), parts)
    seen = []
    event.listen(get_sqa(client.app).engine, "commit", seen.append)
    client.get("/", status=status)

    assert sessions[0] is sessions[1]
    assert len(seen) == (1 if status == 200 else 0)
    assert bodies() == (["next", "part", "seed"] if status == 200 else ["seed"])
    assert checked_out(client) == 0
    for session in sessions:
        with pytest.raises(OutsideTransactionError, match="ended"):
            session.execute(text("SELECT 1"))


@pytest.mark.parametrize("use_tweens", [False, True])
def test_what_a_view_wrote_is_not_lost_by_a_subrequest_that_fails(serve, bodies, use_tweens):
    """The view that catches the error answers for all of the transaction."""

    def view(request):
        write_next(request)
        subrequest = Request.blank("/failing_part")
        share(subrequest, request)
        with pytest.raises(ZeroDivisionError):
            request.invoke_subrequest(subrequest, use_tweens=use_tweens)
        return Response()

    client = serve(with_view(view), parts)
    client.get("/")

    assert bodies() == ["next", "part", "seed"]
    assert checked_out(client) == 0


@pytest.mark.parametrize("use_tweens", [False, True])
def test_a_savepoint_undoes_a_subrequest_that_fails(serve, bodies, use_tweens):
    """The rest is stored."""

    def view(request):
        write_next(request)
        subrequest = Request.blank("/failing_part")
        share(subrequest, request)
        with pytest.raises(ZeroDivisionError), request.sqa_session.begin_nested():
            request.invoke_subrequest(subrequest, use_tweens=use_tweens)
        return Response()

    serve(with_view(view), parts).get("/")

    assert bodies() == ["next", "seed"]


@pytest.mark.parametrize("status", [200, 500])
def test_a_subrequest_with_tweens_has_a_transaction_of_its_own(mariadb, status):
    """It is stored by its own response, whatever the request around it answers."""
    make_tables(mariadb)

    def view(request):
        write_next(request)
        subrequest = Request.blank("/part")
        request.invoke_subrequest(subrequest, use_tweens=True)
        assert subrequest.sqa_session is not request.sqa_session
        with pytest.raises(ZeroDivisionError):
            request.invoke_subrequest(Request.blank("/failing_part"), use_tweens=True)
        return Response(status=status)

    client = serve_on(mariadb, with_view(view), parts, **{"sqlalchemy.pool_size": "2"})
    client.get("/", status=status)

    stored = ["next", "part", "seed"] if status == 200 else ["part", "seed"]
    assert [row[0] for row in mariadb.rows(BODIES)] == stored
    assert checked_out(client) == 0


def test_a_subrequest_without_tweens_and_transaction_reads_and_does_not_write(serve, bodies):
    """Nobody would commit it; each gives its connection back, so that a pool of one is enough."""

    def view(request):
        texts = [request.invoke_subrequest(Request.blank("/reading_part")).text for _ in range(5)]
        with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
            request.invoke_subrequest(Request.blank("/part"))
        return Response(" ".join(texts))

    client = serve(with_view(view), parts)

    assert client.get("/").text == "1 1 1 1 1"
    assert bodies() == ["seed"]
    assert checked_out(client) == 0


@pytest.mark.parametrize("use_tweens", [False, True])
def test_the_callbacks_of_a_subrequest_read_and_may_raise(serve, use_tweens):
    """The connection goes back to the pool of one before the next subrequest asks for it."""

    def reading(request):
        request.add_response_callback(lambda request, response: read(request.sqa_session))
        request.add_finished_callback(lambda request: read(request.sqa_session))
        return touch(request)

    def failing(request):
        request.add_finished_callback(fail)
        request.add_response_callback(lambda request, response: read(request.sqa_session))
        return touch(request)

    def view(request):
        for _ in range(2):
            request.invoke_subrequest(Request.blank("/reading"), use_tweens=use_tweens)
            with pytest.raises(ZeroDivisionError):
                request.invoke_subrequest(Request.blank("/failing"), use_tweens=use_tweens)
        return touch(request)

    client = serve(
        with_view(view), with_view(reading, name="reading"), with_view(failing, name="failing")
    )
    client.get("/")

    assert checked_out(client) == 0


def test_the_streamed_response_of_a_subrequest_is_sent_by_the_request(serve):
    """Its body may be the first to touch its session."""

    def body(request):
        yield reading_part(request).body

    def streamed(request):
        return Response(app_iter=body(request))

    def view(request):
        return request.invoke_subrequest(Request.blank("/streamed"))

    client = serve(with_view(view), with_view(streamed, name="streamed"))
    gc.collect()
    gc.disable()
    try:
        text = Request.blank("/").get_response(client.app).text
        left = checked_out(client)
    finally:
        gc.enable()

    assert text == "1"
    assert left == 0


# One application in another. ------------------------------------------------------------------


@pytest.fixture
def other(mariadb):
    """Another application, with a database of its own."""
    make_tables(mariadb)

    def view(request):
        seen.append(request.sqa_session)
        part(request)
        return Response(app_iter=(part for part in [b"pa", b"rt"]))

    seen = []
    client = serve_on(mariadb, with_view(view))
    client.seen = seen
    client.bodies = lambda: [row[0] for row in mariadb.rows(BODIES)]
    yield client
    get_sqa(client.app).dispose()


@pytest.mark.parametrize("touched", ["before", "after"])
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("environ", ["shared", "new"])
def test_two_applications_in_one_request_have_a_session_each(
    sqlite, other, environ, status, touched
):
    """With the same environ they share the transaction, and the outer response decides on both."""
    make_tables(sqlite)
    seen = []

    def view(request):
        seen.append(request.sqa_session)
        if touched == "before":
            write_next(request)
        inner = request if environ == "shared" else Request.blank("/")
        assert inner.get_response(other.app).text == "part"
        if touched == "after":
            write_next(request)
        return Response(status=status)

    client = serve_on(sqlite, with_view(view))
    client.get("/", status=status)

    mine = [row[0] for row in sqlite.rows(BODIES)]
    assert mine == (["next", "seed"] if status == 200 else ["seed"])
    shared_and_failed = environ == "shared" and status == 500
    assert other.bodies() == (["seed"] if shared_and_failed else ["part", "seed"])
    assert checked_out(client) == checked_out(other) == 0
    assert seen[0] is not other.seen[0]
    for session in (seen[0], other.seen[0]):
        with pytest.raises(OutsideTransactionError, match="ended with its request"):
            session.execute(text("SELECT 1"))
