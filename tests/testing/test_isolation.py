"""What a sandbox undoes, what it imitates, and what it refuses."""

import threading
from contextlib import ExitStack

import pytest
from pyramid.response import Response
from sqlalchemy import create_engine, text

from pyramid_aalam_sqa import (
    BrokenTransactionError,
    OutsideTransactionError,
    Session,
    get_sqa,
    session_scope,
)
from pyramid_aalam_sqa.testing import SandboxError, client_of, dummy_request, isolated
from pyramid_aalam_sqa.testing.outcomes import router_of
from support.apps import application
from support.sandboxed import NOTE, Site, read, views, write_note


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.sweep(2)
def test_nothing_is_left_and_the_rows_from_before_stay(site, commits):
    """An independent connection sees afterwards what it saw before."""
    site.database.run("INSERT INTO note VALUES ('old')")
    with site.isolated(commits=commits) as sandbox:
        write_note(sandbox.session, "own")
        sandbox.session.commit()
        sandbox.client.get("/write?body=new")
        sandbox.client.get("/write?body=refused&status=400", status=400)
        seen = read(sandbox.session)

    assert seen == ["new", "old", "own"]
    assert site.stored == ["old"]


def test_others_see_nothing_during_the_test(site):
    """A COMMIT in the sandbox stores nothing."""
    with site.isolated() as sandbox:
        sandbox.client.get("/write?body=new")

        assert site.stored == []
        assert sandbox.outcomes == ["commit"]


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
def test_one_failing_statement_does_not_poison_the_test(kind, request, make_site):
    """The request that fails is rolled back; the next statement of the test works."""
    table = "CREATE TABLE note (body VARCHAR(50) PRIMARY KEY)"
    site = make_site(request.getfixturevalue(kind), table=table)
    with site.isolated() as sandbox:
        sandbox.client.get("/write?body=one")
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
            sandbox.client.get("/write?body=one")
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
            write_note(sandbox.session, "one")
        sandbox.session.rollback()

        assert read(sandbox.session) == ["one"]


def test_a_job_that_commits_is_kept_when_its_request_only_read(site):
    """The view answers 403 after the job has written down why."""
    with site.isolated() as sandbox:
        sandbox.client.get("/outer?status=403", status=403)

        assert read(sandbox.session) == ["inner"]


def test_a_job_that_commits_in_the_middle_of_a_lost_transaction_fails_the_test(site):
    """One connection cannot keep the one and undo the other; the test is told."""
    with site.isolated(fails="GET /outer was rolled back after GET /outer") as sandbox:
        sandbox.client.get("/outer?first=1&status=400", status=400)
    with site.isolated() as sandbox:
        assert read(sandbox.session) == []


def test_the_same_goes_well_where_commits_are_real(mariadb, make_site):
    """The error names the way out."""
    site = make_site(mariadb)
    with site.isolated(commits=True) as sandbox:
        sandbox.client.get("/outer?first=1&status=400", status=400)
        assert read(sandbox.session) == ["inner"]

    assert site.stored == []


@pytest.mark.parametrize("sql", ["COMMIT", "/* a */ commit", "ROLLBACK"])
def test_the_end_of_the_transaction_as_text_is_refused(site, sql):
    """It is not sent, the test fails by its name, and the next one starts clean."""
    with site.isolated(fails="could not be undone") as sandbox:
        write_note(sandbox.session, "own")
        sandbox.session.commit()
        with pytest.raises(SandboxError, match="was not sent"):
            sandbox.client.get("/raw", {"body": "new", "sql": sql})
        assert read(sandbox.session) == ["own"]

    assert site.stored == []


def test_ddl_is_refused_where_it_commits(mariadb, make_site):
    """MariaDB would store the rows of the test."""
    site = make_site(mariadb)
    with site.isolated(fails="'CREATE TABLE other' ends") as sandbox, pytest.raises(SandboxError):
        write_note(sandbox.session, "own")
        sandbox.session.execute(text("CREATE TABLE other (id INTEGER)"))

    assert site.stored == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_ddl_is_undone_where_it_does_not_commit(kind, request, make_site):
    """A table of the test is gone after it."""
    site = make_site(request.getfixturevalue(kind))
    with site.isolated() as sandbox:
        sandbox.client.get("/raw", {"sql": "CREATE TABLE other (id INTEGER)"})
        sandbox.client.get("/raw", {"sql": "INSERT INTO other VALUES (1)"})
    with pytest.raises(Exception, match="other"):
        site.database.rows("SELECT * FROM other")


def test_a_procedure_that_commits_fails_the_test_and_is_undone(mariadb, make_site):
    """What was there before is put back."""
    site = make_site(mariadb)
    mariadb.run("INSERT INTO note VALUES ('old')", "CREATE PROCEDURE end_it() BEGIN COMMIT; END")
    with (
        site.isolated(fails="'CALL end_it' has ended") as sandbox,
        pytest.raises(BrokenTransactionError),
    ):
        sandbox.client.get("/write?body=new")
        sandbox.client.get("/raw", {"sql": "CALL end_it()"})
    with site.isolated() as sandbox:
        assert read(sandbox.session) == ["old"]

    assert site.stored == ["old"]


def test_a_conflict_clause_that_rolls_back_fails_the_test(sqlite, make_site):
    """SQLite's OR ROLLBACK takes the rows of the test with it."""
    site = make_site(sqlite, table="CREATE TABLE note (body VARCHAR(50) PRIMARY KEY)")
    sql = "INSERT OR ROLLBACK INTO note VALUES ('one')"
    with site.isolated(fails="INSERT OR ROLLBACK INTO note VALUES' has ended") as sandbox:
        sandbox.client.get("/raw", {"sql": sql})
        with pytest.raises(Exception, match="UNIQUE"):
            sandbox.client.get("/raw", {"sql": sql})

    assert site.stored == []


def test_a_script_is_refused(sqlite, make_site):
    """sqlite3 would commit before it."""
    site = make_site(sqlite)
    with pytest.raises(SandboxError), site.isolated() as sandbox:
        pooled = get_sqa(site.app).engine.raw_connection()
        with pooled.cursor() as cursor, pytest.raises(SandboxError):
            cursor.executescript("DELETE FROM note")
        pooled.close()
        assert sandbox.problems


PARENTS = {
    "sqlite": ("CREATE TABLE parent (id INTEGER PRIMARY KEY)",),
    "postgresql": ("CREATE TABLE parent (id INTEGER PRIMARY KEY)",),
}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("commits", [False, True])
def test_deferred_constraints_are_checked_at_commit(kind, commits, request, make_site):
    """The statement passes, and the COMMIT is refused, as in production."""
    database = request.getfixturevalue(kind)
    site = make_site(database)
    database.run(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child "
        "(id INTEGER PRIMARY KEY REFERENCES parent DEFERRABLE INITIALLY DEFERRED, "
        "other INTEGER REFERENCES parent DEFERRABLE INITIALLY IMMEDIATE)",
    )
    with site.isolated(commits=commits) as sandbox:
        with pytest.raises(Exception, match=r"(?i)foreign key constraint") as caught:
            sandbox.client.get("/raw", {"sql": "INSERT INTO child VALUES (7, NULL)"})
        assert type(caught.value).__name__ == "IntegrityError"
        session = sandbox.session
        for sql in ("child VALUES (8, NULL)", "parent VALUES (8)"):
            session.execute(text(f"INSERT INTO {sql}"))
        session.commit()
        assert session.scalars(text("SELECT id FROM child")).all() == [8]
        if kind == "postgresql":
            with pytest.raises(Exception, match="foreign key"):
                session.execute(text("INSERT INTO child VALUES (9, 9)"))
            session.rollback()


def test_a_session_outside_its_transaction_can_only_read(site):
    """A write there is refused as in production."""
    tm_session = get_sqa(site.app).session(_manager())
    with site.isolated() as sandbox:
        assert read(tm_session) == []
        with pytest.raises(OutsideTransactionError):
            write_note(tm_session, "lost")
        tm_session.end()
        sandbox.client.get("/write?body=new")
        assert read(sandbox.session) == ["new"]


def _manager():
    import transaction

    return transaction.TransactionManager(explicit=True)


def test_savepoints_of_two_users_do_not_meet(site):
    """SQLAlchemy gives both the same name; on MySQL the second one would delete the first."""
    with site.isolated() as sandbox, session_scope(site.app) as outer:
        write_note(outer, "outer")
        with pytest.raises(ZeroDivisionError), outer.begin_nested():
            write_note(outer, "undone")
            with session_scope(site.app) as inner, inner.begin_nested():
                write_note(inner, "inner")
            raise ZeroDivisionError
        sandbox.problems.clear()
        assert read(outer) == ["outer"]


def test_autocommit_is_imitated(site):
    """A connection with this isolation level stores each statement at once."""
    with site.isolated() as sandbox:
        own = get_sqa(site.app).engine.execution_options(isolation_level="AUTOCOMMIT")
        with own.connect() as connection:
            connection.execute(text("INSERT INTO note VALUES ('at once')"))
            connection.rollback()
        with get_sqa(site.app).engine.connect() as connection:
            connection.execution_options(isolation_level="SERIALIZABLE")
            connection.execute(text("INSERT INTO note VALUES ('rolled back')"))
        assert read(sandbox.session) == ["at once"]


def test_a_test_without_requests_needs_no_client(site):
    """Jobs alone, from unittest or a script."""
    with isolated(site.app) as sandbox:
        with session_scope(site.app) as session:
            write_note(session, "job")
        assert read(sandbox.session) == ["job"]


def test_a_stream_is_read_while_its_request_writes(site):
    """Both use one connection, and all rows are read at once."""
    with site.isolated(), session_scope(site.app) as session:
        for number in range(4):
            write_note(session, f"row {number}")
        rows = session.execute(
            text("SELECT body FROM note ORDER BY body"), execution_options={"yield_per": 2}
        )
        first = next(rows)
        write_note(session, "between")
        rows.close()
        assert first == ("row 0",)
        assert len(read(session)) == 5
    assert site.stored == []


def test_a_database_in_memory_is_isolated(serve, tmp_path):
    """Its one connection is shared, and keeps the tables."""
    app = serve("sqlite://", views)
    with get_sqa(app).engine.begin() as connection:
        connection.execute(text(NOTE))
    for commits in (False, True, False):
        with Site(None, app).isolated(commits=commits) as sandbox:
            assert read(sandbox.session) == []
            sandbox.client.get("/write?body=new")
            assert read(sandbox.session) == ["new"]


def test_an_engine_that_was_handed_in_is_isolated(sqlite, make_site):
    """`sqlalchemy.engine` keeps its pool."""
    engine = create_engine(sqlite.url)
    site = make_site(sqlite)
    from support.sandboxed import Site, views

    with application(sqlite.url, views, **{"sqlalchemy.engine": engine}) as app:
        pool = engine.pool
        with Site(sqlite, app).isolated() as sandbox:
            sandbox.client.get("/write?body=new")
            assert read(sandbox.session) == ["new"]
        assert engine.pool is pool
    engine.dispose()
    assert site.stored == []


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
def test_the_schema_of_a_portal_is_isolated(kind, request, serve, make_site):
    """Models with `schema=` find their tables."""
    database = request.getfixturevalue(kind)
    from sqlalchemy import Column, Integer, MetaData, Table
    from sqlalchemy.engine import make_url

    from pyramid_aalam_sqa import init_engine

    url = make_url(database.url)
    own = url.set(database="aalam_shop") if kind == "mariadb" else url
    if kind == "mariadb":
        database.run("CREATE DATABASE aalam_shop")
    settings = {"sqa.provider": "aalam", "sqa.app": "shop"}
    metadata = MetaData()
    table = Table("item", metadata, Column("id", Integer), schema="aalam_shop")

    def add(request):
        request.sqa_session.execute(table.insert().values(id=1))
        return Response("ok")

    def setup(config):
        config.add_view(add, name="add")
        config.commit()
        with_registry = config.registry
        assert with_registry

    app = serve(own.render_as_string(hide_password=False), setup, **settings)
    init_engine(
        "aalam_shop",
        metadata,
        create_tables=True,
        settings={**settings, "sqlalchemy.url": own.render_as_string(hide_password=False)},
    )
    try:
        for commits in (False, True):
            with Site(None, app).isolated(commits=commits) as sandbox:
                sandbox.client.get("/add")
                assert sandbox.session.execute(table.select()).all() == [(1,)]
            with get_sqa(app).engine.connect() as connection:
                assert connection.execute(table.select()).all() == []
    finally:
        if kind == "mariadb":
            database.run("DROP DATABASE aalam_shop")


def test_a_session_without_remove_is_reported_by_name(site):
    """The next test is not harmed."""
    with site.isolated(fails="a connection is in use by thread MainThread"):
        forgotten = Session(site.app)
        write_note(forgotten, "forgotten")
    forgotten.remove()
    with site.isolated() as sandbox:
        assert read(sandbox.session) == []


def test_a_thread_that_is_left_open_is_reported_and_does_no_harm(site):
    """It gets an error of its own when it goes on."""
    begun, ended, errors = threading.Event(), threading.Event(), []

    def job():
        with Session(site.app) as session:
            write_note(session, "job")
            begun.set()
            ended.wait(30)
            try:
                session.commit()
            except Exception as error:  # noqa: BLE001 - which one depends on the driver
                errors.append(error)

    thread = threading.Thread(target=job, name="the job")
    with site.isolated(fails="in use by thread the job"):
        thread.start()
        begun.wait(30)
    ended.set()
    thread.join()

    assert errors
    assert site.stored == []


@pytest.mark.sweep(2)
def test_a_wait_for_another_thread_ends_with_its_name(site):
    """A transaction that has written keeps the others waiting, for the pool's timeout at most."""
    with (
        site.isolated(fails=r"has waited 1 seconds .* thread MainThread holds it"),
        session_scope(site.app) as session,
    ):
        write_note(session, "first")
        errors = []

        def job():
            try:
                with session_scope(site.app) as other:
                    write_note(other, "second")
            except SandboxError as error:
                errors.append(error)

        thread = threading.Thread(target=job)
        thread.start()
        thread.join()
        assert errors


def test_a_change_that_is_not_committed_is_refused_before_a_request(site):
    """Also one that was sent already."""
    with site.isolated() as sandbox:
        write_note(sandbox.session, "own")
        with pytest.raises(SandboxError, match="not committed"):
            sandbox.client.get("/write?body=new")


@pytest.mark.parametrize(
    "driver", ["mysql+mysqldb", "postgresql+psycopg2"], ids=["mysqlclient", "psycopg2"]
)
@pytest.mark.parametrize("commits", [False, True])
def test_the_other_drivers_are_isolated(driver, commits, request, make_site):
    """With their own errors and their own ways to ask."""
    pytest.importorskip({"mysql+mysqldb": "MySQLdb"}.get(driver, "psycopg2"))
    name = "mariadb" if driver.startswith("mysql") else "postgresql"
    database = request.getfixturevalue(name)
    make_site(database)
    url = driver + "://" + database.url.partition("://")[2]
    from support.sandboxed import Site, views

    settings = {"sqa.retry_pause": "0"}
    if name == "mariadb":
        settings["sqa.mysql.tls"] = "auto"
    with application(url, views, **settings) as app:
        site = Site(database, app)
        with site.isolated(commits=commits) as sandbox:
            for kind, at in (
                *(("deadlock", "commit"), ("deadlock", "execute"), ("gone_away", "commit")),
                *(("gone_away", "execute"), ("lock_timeout", "execute"), ("read_only", "execute")),
            ):
                sandbox.fault(kind, at=at)
                sandbox.client.get("/write?body=new")
            sandbox.client.get("/write?body=no&status=404", status=404)
            assert sandbox.outcomes == ["retry", "commit"] * 6 + ["rollback 404"]
            if not commits:
                at_once = get_sqa(app).engine.execution_options(isolation_level="AUTOCOMMIT")
                with at_once.connect() as connection:
                    connection.execute(text("INSERT INTO note VALUES ('at once')"))
                    connection.rollback()
                    connection.execute(text("DELETE FROM note WHERE body = 'at once'"))
            assert read(sandbox.session) == ["new"] * 6
        with get_sqa(app).engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM note")) == 0


def test_a_failed_transaction_is_refused_and_does_not_stop_others(postgresql, make_site):
    """PostgreSQL refuses what follows in the same transaction; a job has one of its own."""
    site = make_site(postgresql, table="CREATE TABLE note (body VARCHAR(50) PRIMARY KEY)")
    engine = get_sqa(site.app).engine
    with site.isolated() as sandbox, engine.connect() as failing, engine.connect() as reading:
        failing.execute(text("INSERT INTO note VALUES ('one')"))
        reading.execute(text("SELECT 1"))
        with pytest.raises(Exception, match="duplicate key"):
            failing.execute(text("INSERT INTO note VALUES ('one')"))
        with pytest.raises(Exception, match="current transaction is aborted"):
            failing.execute(text("SELECT 1"))
        with session_scope(site.app) as session:
            write_note(session, "job")
        with pytest.raises(Exception, match="current transaction is aborted"):
            failing.execute(text("SELECT 1"))
        with pytest.raises(Exception, match="current transaction is aborted"):
            failing.exec_driver_sql("ROLLBACK TO SAVEPOINT any_one")
        reading.execute(text("SELECT 1"))
        reading.rollback()
        failing.rollback()
        assert read(sandbox.session) == ["job"]


def test_another_user_goes_on_after_an_error(postgresql, make_site):
    """It ends its own transaction, which has not failed."""
    site = make_site(postgresql)
    engine = get_sqa(site.app).engine
    with site.isolated() as sandbox, engine.connect() as failing, engine.connect() as other:
        for end in (other.rollback, other.commit):
            other.execute(text("SELECT 1"))
            with pytest.raises(Exception, match="division by zero"):
                failing.execute(text("SELECT 1 / 0"))
            end()
            failing.rollback()
        other.execute(text("INSERT INTO note VALUES ('other')"))
        with pytest.raises(Exception, match="division by zero"):
            failing.execute(text("SELECT 1 / 0"))
        other.commit()
        failing.rollback()
        assert read(sandbox.session) == ["other"]


def test_three_open_transactions_are_told_apart(site):
    """The one in the middle is committed first."""
    engine = get_sqa(site.app).engine
    with site.isolated() as sandbox, ExitStack() as ends:
        one, two, three = (ends.enter_context(engine.connect()) for _ in range(3))
        for name, connection in (("one", one), ("two", two), ("three", three)):
            connection.execute(text(f"INSERT INTO note VALUES ('{name}')"))
        two.commit()
        one.execute(text("INSERT INTO note VALUES ('more')"))
        three.commit()
        one.commit()
        assert read(sandbox.session) == ["more", "one", "three", "two"]
        pooled = engine.raw_connection()
        pooled.commit()
        pooled.close()


def test_a_read_that_fails_undoes_nothing_of_others(postgresql, make_site):
    """Its savepoint moves up with each statement."""
    site = make_site(postgresql)
    engine = get_sqa(site.app).engine
    with site.isolated() as sandbox, engine.connect() as reading:
        reading.execute(text("SELECT 1"))
        sandbox.client.get("/write?body=new")
        with pytest.raises(Exception, match="division by zero"):
            reading.execute(text("SELECT 1 / 0"))
        reading.rollback()
        assert read(sandbox.session) == ["new"]


def test_a_commit_of_the_driver_after_an_error_rolls_back(postgresql, make_site):
    """The server says ROLLBACK in answer to COMMIT."""
    site = make_site(postgresql)
    with site.isolated() as sandbox:
        pooled = get_sqa(site.app).engine.raw_connection()
        driver = pooled.dbapi_connection
        driver.execute("INSERT INTO note VALUES ('lost')")
        with pytest.raises(Exception, match="division by zero"):
            driver.execute("SELECT 1 / 0")
        assert driver.pgconn.transaction_status == driver.info.transaction_status == 3
        assert driver.info.server_version
        driver.commit()
        assert driver.info.transaction_status == 0
        pooled.close()
        assert read(sandbox.session) == []


def test_two_open_transactions_that_both_write_are_told_apart(site):
    """The one that is rolled back was begun last: that can be imitated."""
    engine = get_sqa(site.app).engine
    with site.isolated() as sandbox, engine.connect() as one, engine.connect() as two:
        one.execute(text("INSERT INTO note VALUES ('one')"))
        two.execute(text("INSERT INTO note VALUES ('two')"))
        two.rollback()
        two.execute(text("INSERT INTO note VALUES ('again')"))
        one.commit()
        two.commit()
        assert read(sandbox.session) == ["again", "one"]


def test_two_open_transactions_that_cannot_be_told_apart_fail_the_test(site):
    """Each has written in the middle of the other."""
    engine = get_sqa(site.app).engine
    with site.isolated(fails="mark the test with"):
        with engine.connect() as one, engine.connect() as two:
            one.execute(text("INSERT INTO note VALUES ('one')"))
            two.execute(text("INSERT INTO note VALUES ('two')"))
            one.execute(text("INSERT INTO note VALUES ('more')"))
            one.commit()
            two.rollback()
    with site.isolated(fails="mark the test with"):
        with engine.connect() as one, engine.connect() as two:
            one.execute(text("INSERT INTO note VALUES ('one')"))
            two.execute(text("INSERT INTO note VALUES ('two')"))
            one.rollback()
            two.execute(text("INSERT INTO note VALUES ('after')"))
            two.commit()


def test_the_driver_s_own_connection_is_imitated_too(mariadb, make_site):
    """begin(), callproc() and an iteration over a cursor; and an error that was not heard."""
    site = make_site(mariadb)
    mariadb.run("CREATE PROCEDURE add_one() INSERT INTO note VALUES ('called')")
    with site.isolated() as sandbox:
        pooled = get_sqa(site.app).engine.raw_connection()
        driver = pooled.dbapi_connection
        driver.begin()
        driver.begin()
        with driver.cursor() as cursor:
            cursor.callproc("add_one")
            cursor.execute("SELECT body FROM note")
            assert list(cursor) == [("called",)]
            cursor.execute("CALL add_one()")
            cursor.arraysize = 7
        driver.unheard_error = ValueError()
        driver.commit()
        pooled.close()
        driver.close()
        assert read(sandbox.session) == ["called", "called"]
        with session_scope(site.app) as session:
            write_note(session, "heard")


def test_a_procedure_that_commits_is_noticed_with_every_driver(mariadb, make_site):
    """Mysqlclient says nothing of its transaction."""
    pytest.importorskip("MySQLdb")
    make_site(mariadb)
    mariadb.run("CREATE PROCEDURE end_it() BEGIN COMMIT; END")
    url = mariadb.url.replace("pymysql", "mysqldb")
    with application(url, views, **{"sqlalchemy.connect_args.connect_timeout": "5"}) as app:
        site = Site(mariadb, app)
        with site.isolated(fails="'CALL end_it' has ended") as sandbox:
            sandbox.client.get("/write?body=new")
            with pytest.raises(Exception, match="end_it"):
                sandbox.client.get("/raw", {"body": "more", "sql": "CALL end_it()"})
    assert site.stored == []


def test_a_connection_that_dies_in_a_test_is_reported(mariadb, make_site):
    """Nothing is stored: the server rolls back. The next test has another connection."""
    site = make_site(mariadb)
    with site.isolated(fails="has ended the transaction that the test runs in") as sandbox:
        write_note(sandbox.session, "own")
        sandbox.session.commit()
        number = sandbox.session.scalar(text("SELECT CONNECTION_ID()"))
        sandbox.session.rollback()
        mariadb.run(f"KILL {number}")
    with site.isolated() as sandbox:
        assert read(sandbox.session) == []


def test_a_lost_connection_cannot_be_used_again(mariadb, make_site):
    """It raises the same error."""
    site = make_site(mariadb)
    with site.isolated() as sandbox:
        sandbox.fault("gone_away")
        pooled = get_sqa(site.app).engine.raw_connection()
        for _ in range(2):
            with pytest.raises(Exception, match="Lost connection"):
                pooled.cursor().execute("SELECT 1")
        assert not pooled.dbapi_connection.open
        pooled.close()


def test_databases_with_equal_settings_share_a_sandbox(sqlite, make_site):
    """They have one engine."""
    site = make_site(sqlite, **{"sqlalchemy.binds.same.url": sqlite.url})
    with site.isolated() as sandbox:
        assert list(sandbox.engines) == ["same"]
        sandbox.client.get("/write?body=new")
        session = sandbox.session
        assert session.connection().scalar(text("SELECT body FROM note")) == "new"
        bind = {"bind": get_sqa(site.app).engine}
        assert session.scalar(text("SELECT body FROM note"), bind_arguments=bind) == "new"
        bind = {"bind_key": "same"}
        assert session.scalar(text("SELECT body FROM note"), bind_arguments=bind) == "new"


def test_outcomes_are_a_list_that_can_be_emptied(site):
    """And the application may be wrapped in middleware."""

    class Middleware:
        def __init__(self, app):
            self.application, self.registry = app, app.registry

        def __call__(self, environ, start_response):
            return self.application(environ, start_response)

    with isolated(Middleware(site.app)) as sandbox:
        client_of(sandbox).get("/write?body=new&status=400", status=400)
        assert repr(sandbox.outcomes) == "['rollback 400']"
        sandbox.outcomes.clear()
        assert sandbox.outcomes == []
    with pytest.raises(TypeError, match="is not an application of Pyramid"):
        router_of(object())


def test_a_dummy_request_takes_attributes(site):
    """And its callbacks are called at its end."""
    called = []
    with site.isolated(), dummy_request(site.app, "/?a=1", matchdict={"id": 7}) as request:
        assert (request.params["a"], request.matchdict) == ("1", {"id": 7})
        request.add_finished_callback(called.append)
    assert called == [request]


def test_constraints_that_are_immediate_stay_so(postgresql, make_site):
    """None of them is deferred by default."""
    site = make_site(postgresql)
    postgresql.run(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY IMMEDIATE)",
    )
    with site.isolated() as sandbox:
        sandbox.client.get("/raw", {"sql": "INSERT INTO parent VALUES (1)"})
        with pytest.raises(Exception, match="foreign key"):
            sandbox.client.get("/raw", {"sql": "INSERT INTO child VALUES (2)"})
