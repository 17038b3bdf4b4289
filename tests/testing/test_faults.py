"""Each fault is what the real accident is: the same class, number and meaning."""

import os
import socket
import threading
from contextlib import ExitStack, contextmanager

import pytest
from pyramid_retry import IRetryableError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pyramid_aalam_sqa import IDatabaseUnavailable, get_sqa
from support.apps import application
from support.sandboxed import Site, read, views

ROWS = "CREATE TABLE note (id INTEGER PRIMARY KEY, body VARCHAR(50))"
UPDATE = "UPDATE note SET body = 'new' WHERE id = {}"


def meaning(error):
    """What the package and SQLAlchemy make of an error."""
    cause = error.orig
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorcode", None)
    return (
        *(type(error), type(cause), code or cause.args[0] if code or len(cause.args) > 1 else None),
        *(IRetryableError.providedBy(error), IDatabaseUnavailable.providedBy(error)),
        error.connection_invalidated,
    )


def error_of(connection, statement):
    with pytest.raises(DBAPIError) as caught:
        connection.execute(text(statement))
    return caught.value


def deadlock(site, engine):
    """Two transactions that lock two rows in two orders."""
    if site.database.kind == "sqlite":
        with engine.connect() as reader:
            reader.execute(text("SELECT * FROM note")).all()
            site.database.run(UPDATE.format(1))
            return error_of(reader, UPDATE.format(2))
    errors = []

    def update(connection, number):
        try:
            connection.execute(text(UPDATE.format(number)))
        except DBAPIError as error:
            errors.append(error)

    with engine.connect() as one, engine.connect() as two:
        if site.database.kind == "postgresql":
            for connection in (one, two):
                connection.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
        update(one, 1)
        update(two, 2)
        thread = threading.Thread(target=update, args=(two, 1))
        thread.start()
        update(one, 2)
        thread.join()
    return errors[0]


def lock_timeout(site, engine):
    """A row that another transaction has locked."""
    with engine.connect() as one, engine.connect() as two:
        one.execute(text(UPDATE.format(1)))
        if site.database.kind == "sqlite":
            two.exec_driver_sql("PRAGMA busy_timeout = 0")
            return error_of(two, UPDATE.format(1))
        return error_of(two, "SELECT id FROM note WHERE id = 1 FOR UPDATE NOWAIT")


def gone_away(site, engine):
    """The connection is cut."""
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        if site.database.kind == "mysql":
            number = connection.scalar(text("SELECT CONNECTION_ID()"))
            site.database.run(f"KILL {number}")
            return error_of(connection, UPDATE.format(1))
        with socket.socket(fileno=os.dup(driver.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)
        return error_of(connection, UPDATE.format(1))


def read_only(site, engine):
    """The server, or the file, takes no writes."""
    if site.database.kind == "mysql":
        pytest.skip("see test_a_read_only_mariadb")
    with engine.connect() as connection:
        how = {"sqlite": "PRAGMA query_only = ON", "postgresql": "SET TRANSACTION READ ONLY"}
        connection.exec_driver_sql(how[site.database.kind])
        try:
            return error_of(connection, UPDATE.format(1))
        finally:
            connection.invalidate()


ACCIDENTS = {
    "sqlite": (deadlock, lock_timeout, read_only),
    "mariadb": (deadlock, lock_timeout, gone_away),
    "postgresql": (deadlock, lock_timeout, gone_away, read_only),
}


@pytest.mark.parametrize(
    ("kind", "accident"),
    [(kind, accident) for kind, accidents in ACCIDENTS.items() for accident in accidents],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_fault_is_what_the_accident_is(kind, accident, request, make_site):
    """Its class, its number, whether it is retried or a 503, what the pool does."""
    site = make_site(request.getfixturevalue(kind), table=ROWS)
    site.database.run("INSERT INTO note VALUES (1, 'one')", "INSERT INTO note VALUES (2, 'two')")
    engine = get_sqa(site.app).engine
    real = accident(site, engine)
    with site.isolated() as sandbox:
        sandbox.fault(accident.__name__, at="execute")
        with engine.connect() as connection:
            imitated = error_of(connection, UPDATE.format(1))
    with site.isolated(commits=True) as sandbox:
        sandbox.fault(accident.__name__, at="execute")
        with engine.connect() as connection:
            for_real = error_of(connection, UPDATE.format(1))

    assert meaning(imitated) == meaning(for_real) == meaning(real)


@contextmanager
def read_only_server(server):
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL read_only = 1")
        try:
            yield
        finally:
            cursor.execute("SET GLOBAL read_only = 0")


def test_a_read_only_mariadb(mariadb, mariadb_server, make_site):
    """An account without privileges over the server is refused by number 1290."""
    site = make_site(mariadb, table=ROWS)
    mariadb.run("CREATE USER IF NOT EXISTS weak", "GRANT ALL ON `sqa%`.* TO weak")
    weak = mariadb.url.replace("root@", "weak@")
    with application(weak, views) as app:
        engine = get_sqa(app).engine
        with read_only_server(mariadb_server), engine.connect() as connection:
            real = error_of(connection, UPDATE.format(1))
        with Site(mariadb, app).isolated() as sandbox:
            sandbox.fault("read_only")
            with engine.connect() as connection:
                imitated = error_of(connection, UPDATE.format(1))

    assert meaning(imitated) == meaning(real)
    assert site.stored == []


def test_an_exhausted_pool(any_database, make_site):
    """SQLAlchemy's own error, after no wait."""
    options = {"pool_size": "1", "max_overflow": "0", "pool_timeout": "0.01"}
    site = make_site(any_database, **{f"sqlalchemy.{key}": value for key, value in options.items()})
    engine = get_sqa(site.app).engine
    with engine.connect(), pytest.raises(PoolTimeoutError) as real:
        engine.connect()
    with site.isolated() as sandbox:
        sandbox.fault("pool_exhausted")
        with pytest.raises(PoolTimeoutError) as imitated:
            engine.connect()

    assert (type(imitated.value), imitated.value.code) == (type(real.value), real.value.code)


def test_a_full_mariadb(mariadb, mariadb_server, make_site):
    """Number 1040 for everybody who connects."""
    site = make_site(mariadb)
    engine = get_sqa(site.app).engine
    engine.dispose()
    with ExitStack() as ends:
        root = ends.enter_context(mariadb_server.connect())
        with root.cursor() as cursor:
            cursor.execute("SELECT @@max_connections")
            usual = cursor.fetchone()[0]
            cursor.execute("SET GLOBAL max_connections = 10")
            ends.callback(root.query, f"SET GLOBAL max_connections = {usual}")
            held = []
            with pytest.raises(DBAPIError) as real:
                for _ in range(20):
                    held.append(engine.connect())
                    held[-1].detach()
            for connection in held:
                connection.close()
    with site.isolated() as sandbox:
        sandbox.fault("busy", at="connect")
        with pytest.raises(DBAPIError) as imitated:
            engine.connect()

    assert meaning(imitated.value)[:5] == meaning(real.value)[:5]


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_no_server(kind, request, make_site):
    """A refused connection is a 503."""
    site = make_site(request.getfixturevalue(kind))
    engine = get_sqa(site.app).engine
    from sqlalchemy.engine import make_url

    from support.servers import free_port

    nowhere = make_url(site.database.url).set(port=free_port())
    with application(nowhere.render_as_string(hide_password=False), views) as app:
        with pytest.raises(DBAPIError) as real:
            get_sqa(app).engine.connect()
    with site.isolated() as sandbox:
        sandbox.fault("gone_away", at="connect", times=3)
        with pytest.raises(DBAPIError) as imitated:
            engine.connect()
        sandbox.client.get("/write?body=new", status=503)
        sandbox.client.get("/write?body=new", status=503)

    assert meaning(imitated.value) == meaning(real.value)


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_lost_reply_to_commit_is_stored_and_unknown(kind, commits, request, make_site, caplog):
    """As behind a proxy that cuts the reply: no second attempt, an error in the log, the row."""
    site = make_site(request.getfixturevalue(kind))
    with site.isolated(commits=commits) as sandbox:
        sandbox.fault("lost_commit_reply")
        with pytest.raises(Exception, match="cannot be known"):
            sandbox.client.get("/write?body=new")
        assert read(sandbox.session) == ["new"]
        assert sandbox.outcomes == ["unknown"]

    assert "its outcome is unknown: /write" in caplog.text


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("at", ["execute", "commit"])
def test_a_broken_transaction_of_the_session_of_the_test(site, at, commits):
    """The session of the test has no accidents, and a fault that did not happen is reported."""
    with site.isolated(
        fails=f"did not happen: deadlock at {at}: 0 of 2", commits=commits
    ) as sandbox:
        sandbox.fault("deadlock", at=at, times=2)
        sandbox.session.execute(text("INSERT INTO note VALUES ('own')"))
        sandbox.session.commit()
        assert read(sandbox.session) == ["own"]


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        ("flood", {}, "write one of deadlock, lock_timeout"),
        ("deadlock", {"at": "connect"}, "at one of execute, flush, commit"),
        ("gone_away", {}, "does not happen on SQLite"),
        ("lost_commit_reply", {}, "does not happen on SQLite"),
    ],
)
def test_a_fault_that_there_is_not_is_refused(sqlite, make_site, kind, options, text):
    """The error lists what there is."""
    with make_site(sqlite).isolated() as sandbox, pytest.raises(ValueError, match=text):
        sandbox.fault(kind, **options)


def test_a_busy_database_is_tried_again(site):
    """At a statement it is a lock that was not free."""
    with site.isolated() as sandbox:
        sandbox.fault("busy")
        sandbox.client.get("/write?body=new")

        assert sandbox.outcomes == ["retry", "commit"]


def test_a_fault_may_be_meant_for_one_statement(site):
    """And for one database."""
    with site.isolated() as sandbox:
        sandbox.fault("deadlock", match="INSERT", database="default")
        sandbox.client.get("/raw", {"sql": "SELECT 1"})
        sandbox.client.get("/write?body=new")

        assert sandbox.outcomes == ["commit", "retry", "commit"]
