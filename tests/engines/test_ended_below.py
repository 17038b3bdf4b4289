"""If a transaction ends below SQLAlchemy, the error says what has ended it and what is stored."""

import re
import threading

import pytest
from pyramid.response import Response
from pyramid_retry import RetryableException
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError, PendingRollbackError
from webtest import TestApp

from pyramid_aalam_sqa import BrokenTransactionError, Session, get_sqa, session_scope
from support.apps import with_view
from support.databases import plain_engine
from support.drivers import marked
from support.models import BODIES, INSERT

# What ends a transaction that has written, by the database: how it is sent, and whether what was
# written before is stored then.
COMMITS = {
    "mariadb": [
        "CREATE TABLE made (id INTEGER)",
        "TRUNCATE TABLE other",
        "LOCK TABLES note WRITE",
        "SET autocommit = 1",
        "COMMIT",
        "/* a comment */ COMMIT",
        "COMMIT AND CHAIN",
        "BEGIN",
        "START TRANSACTION",
        "CALL commits()",
        "CALL commits_and_writes()",
    ],
    "sqlite": ["COMMIT", "END"],
    "postgresql": ["COMMIT", "COMMIT AND CHAIN", "PREPARE TRANSACTION 'sqa'"],
}
ROLLBACKS = {
    "mariadb": ["ROLLBACK", "ROLLBACK AND CHAIN", "CALL undoes()", "CALL undoes_and_writes()"],
    "sqlite": ["ROLLBACK"],
    "postgresql": ["ROLLBACK", "ABORT"],
}
# mysqlclient does not say whether a transaction is open.
COMMITS["mysqlclient"] = COMMITS["mariadb"]
ROLLBACKS["mysqlclient"] = ROLLBACKS["mariadb"]
PROCEDURES = [
    "CREATE PROCEDURE commits() COMMIT",
    "CREATE PROCEDURE undoes() ROLLBACK",
    "CREATE PROCEDURE commits_and_writes() BEGIN COMMIT; INSERT INTO other VALUES (1); END",
    """
    CREATE PROCEDURE undoes_and_writes() BEGIN
        DECLARE EXIT HANDLER FOR SQLEXCEPTION
            BEGIN ROLLBACK; INSERT INTO other VALUES (1); END;
        INSERT INTO nowhere VALUES (1);
    END""",
]


def cases(table):
    marks = {"mysqlclient": marked("mysql+mysqldb").marks}
    return [
        pytest.param((kind, each), id=f"{kind}-{each}", marks=marks.get(kind, ()))
        for kind in table
        for each in table[kind]
    ]


@pytest.fixture
def place(request):
    """The database that a case names, with its tables and procedures."""

    def place(kind):
        database = request.getfixturevalue("mariadb" if kind == "mysqlclient" else kind)
        database.application_url = database.url
        if kind == "mysqlclient":
            database.application_url = database.url.replace("+pymysql", "+mysqldb")
        procedures = PROCEDURES if kind.startswith("m") else []
        tables = ["CREATE TABLE note (body VARCHAR(50))", "CREATE TABLE other (id INTEGER)"]
        database.run(*tables, *procedures)
        return database

    return place


class Told:
    """What the client of a request is told whose transaction ends in the middle."""

    def __init__(self, client, attempts):
        self.client, self.attempts = client, attempts
        self.error = None
        try:
            self.status = client.get("/", status="*").status_int
        except BrokenTransactionError as error:
            self.status, self.error = 500, error


def visit(serve, database, end, status, *, goes_on=False):
    """Write, end the transaction with *end* (a statement or a function), and answer *status*."""
    attempts = []

    def view(request):
        attempts.append(request)
        session = request.sqa_session
        session.execute(INSERT, {"body": "before"})
        try:
            if callable(end):
                end(session)
            else:
                session.execute(text(end))
        except BrokenTransactionError:
            if not goes_on:
                raise
        if goes_on:
            try:
                session.execute(INSERT, {"body": "after"})
            except (BrokenTransactionError, PendingRollbackError):
                session.rollback()
        return Response(status=status)

    app = serve(database.application_url, with_view(view), **{"sqlalchemy.pool_size": "1"})
    told = Told(TestApp(app), attempts)
    assert get_sqa(app).engine.pool.checkedout() == 0
    return told


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("case", cases(COMMITS))
@pytest.mark.sweep(27)
def test_a_statement_that_commits_in_the_middle_is_named(serve, place, caplog, case, status):
    """There is one attempt, and a critical log line. What comes after is not stored."""
    kind, end = case
    database = place(kind)
    told = visit(serve, database, end, status)
    stored = [row[0] for row in database.rows(BODIES)]
    if "PREPARE" in end:
        # It waits for somebody who ends it.
        database_rollback(database, "ROLLBACK PREPARED 'sqa'")

    assert told.status == 500
    # A procedure is found out at the next statement, which may be the end.
    named = re.split(r"[('=]", end)[0].strip()
    assert named in str(told.error) or (status == 500 and named in caplog.text)
    assert len(told.attempts) == 1
    assert stored == ([] if "PREPARE" in end else ["before"])
    assert [record.levelname for record in caplog.records if "in part" in record.message] == [
        "CRITICAL"
    ]


def database_rollback(database, statement):
    with plain_engine(database.url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("case", cases(ROLLBACKS))
def test_a_statement_that_rolls_back_in_the_middle_is_named(serve, place, caplog, case, status):
    """If rows are lost, the response is never a 200."""
    kind, end = case
    database = place(kind)
    told = visit(serve, database, end, status)

    assert told.status == 500
    named = end.split("(")[0]
    assert named in str(told.error) or (status == 500 and named in caplog.text)
    assert len(told.attempts) == 1
    assert database.rows(BODIES) == []


def commit_of_the_driver(session):
    session.connection().connection.dbapi_connection.commit()


def rollback_of_the_driver(session):
    session.connection().connection.dbapi_connection.rollback()


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
@pytest.mark.parametrize(
    "case",
    [(commit_of_the_driver, 200), (rollback_of_the_driver, 200), (commit_of_the_driver, 500)],
)
def test_the_drivers_own_commit_is_noticed(serve, place, caplog, kind, case):
    """The response is never a 200. Even with status 500 there is a critical log line."""
    end, status = case
    told = visit(serve, place(kind), end, status)

    assert told.status == 500
    assert len(told.attempts) == 1
    assert "in part" in caplog.text


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
def test_nothing_is_written_any_more_after_the_transaction_has_ended(serve, place, kind):
    """Each further statement is refused, because it would be stored at once."""
    database = place(kind)
    told = visit(serve, database, "COMMIT", 200, goes_on=True)

    # The view has rolled back on purpose, and has written nothing since.
    assert told.status == 200
    assert [row[0] for row in database.rows(BODIES)] == ["before"]


def test_ddl_with_nothing_written_before_is_fine(serve, place):
    """MySQL commits before DDL, but there is nothing to commit. The rest is one transaction."""
    database = place("mariadb")

    def view(request):
        request.sqa_session.scalar(text("SELECT count(*) FROM note"))
        request.sqa_session.execute(text("CREATE TABLE made (id INTEGER)"))
        request.sqa_session.execute(INSERT, {"body": "after"})
        return Response(status=request.params["status"])

    client = TestApp(serve(database.url, with_view(view)))
    client.get("/?status=500", status=500)
    database.run("DROP TABLE made")
    client.get("/?status=200")

    assert [row[0] for row in database.rows(BODIES)] == ["after"]


def test_a_temporary_table_and_a_savepoint_end_nothing(serve, place):
    """They do not end the transaction, even after a write."""
    database = place("mariadb")

    def view(request):
        session = request.sqa_session
        session.execute(INSERT, {"body": "one"})
        session.execute(text("CREATE TEMPORARY TABLE IF NOT EXISTS mine (id INTEGER)"))
        with session.begin_nested() as nested:
            session.execute(INSERT, {"body": "undone"})
            session.execute(text("CALL undoes_nothing()"))
            nested.rollback()
        session.execute(text("CALL undoes_nothing()"))
        session.execute(INSERT, {"body": "two"})
        return Response(status=request.params["status"])

    database.run("CREATE PROCEDURE undoes_nothing() INSERT INTO other VALUES (1)")
    client = TestApp(serve(database.url, with_view(view)))
    client.get("/?status=500", status=500)
    assert database.rows(BODIES) == []
    client.get("/?status=200")

    assert [row[0] for row in database.rows(BODIES)] == ["one", "two"]


def test_after_a_truncate_a_conflict_does_not_store_twice(serve, place):
    """After INSERT, TRUNCATE and a conflict, the request is not tried again."""
    database = place("mariadb")
    attempts = []

    def view(request):
        attempts.append(request)
        request.sqa_session.execute(INSERT, {"body": "before"})
        with pytest.raises(BrokenTransactionError, match="TRUNCATE TABLE other"):
            request.sqa_session.execute(text("TRUNCATE TABLE other"))
        raise RetryableException

    with pytest.raises(RetryableException):
        TestApp(serve(database.url, with_view(view))).get("/")

    assert len(attempts) == 1
    assert [row[0] for row in database.rows(BODIES)] == ["before"]


@pytest.mark.parametrize("end", ["TRUNCATE TABLE other", "CALL commits()", "COMMIT"])
def test_after_a_swallowed_error_nothing_is_sent_that_would_commit(serve, place, end):
    """The error has broken the transaction. A part would be stored once for each attempt."""
    database = place("mariadb")
    attempts = []

    def view(request):
        attempts.append(request)
        session = request.sqa_session
        session.execute(INSERT, {"body": "lost"})
        with pytest.raises(OperationalError):
            session.execute(text("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1205"))
        assert session.scalar(text("SELECT count(*) FROM note")) == 1
        session.execute(text(end))
        return Response()

    with pytest.raises(BrokenTransactionError, match="1205"):
        TestApp(serve(database.url, with_view(view), **{"sqa.retry_pause": "0"})).get("/")

    assert len(attempts) == 3
    assert database.rows(BODIES) == []


def test_after_a_swallowed_error_a_file_is_not_committed_either(serve, place):
    """Another connection has the lock, and lets it go."""
    database = place("sqlite")
    engine = get_sqa(serve(database.url)).engine
    with engine.connect() as reader:
        reader.execute(text("SELECT * FROM note")).all()
        database.run("INSERT INTO note VALUES ('other')")
        with pytest.raises(OperationalError, match="locked"):
            reader.execute(INSERT, {"body": "lost"})
        with pytest.raises(BrokenTransactionError, match="locked"):
            reader.execute(text("COMMIT"))

    assert database.rows(BODIES) == [("other",)]


def test_after_a_swallowed_error_a_connection_in_autocommit_goes_on(serve, place):
    """Each of its statements is stored by itself."""
    database = place("mariadb")
    engine = get_sqa(serve(database.url)).engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        with pytest.raises(OperationalError):
            connection.execute(text("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1205"))
        connection.execute(text("CREATE TABLE made (body INTEGER)"))

    assert database.rows("SELECT * FROM made") == []


def test_a_transaction_that_the_server_has_undone_after_an_error_is_not_stored_in_part(
    serve, place, caplog
):
    """As after a deadlock: the error is the reason, and the request is tried again."""
    database = place("mariadb")
    attempts = []

    def view(request):
        attempts.append(request)
        session = request.sqa_session
        session.execute(INSERT, {"body": "lost"})
        with pytest.raises(OperationalError):
            session.execute(text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213"))
        # What the server does by itself at a real one.
        session.connection().connection.dbapi_connection.rollback()
        session.execute(text("SET @seen = 1"))
        return Response()

    with pytest.raises(BrokenTransactionError, match="1213"):
        TestApp(serve(database.url, with_view(view), **{"sqa.retry_pause": "0"})).get("/")

    assert len(attempts) == 3
    assert database.rows(BODIES) == []
    assert "stored in part" not in caplog.text


def test_a_job_whose_transaction_is_stored_in_part_is_named_by_its_thread(serve, place, caplog):
    """A job has no path."""
    database = place("mariadb")

    @session_scope(serve(database.url), attempts=2)
    def job(session):
        session.execute(INSERT, {"body": "before"})
        session.execute(text("TRUNCATE TABLE other"))

    with pytest.raises(BrokenTransactionError, match="TRUNCATE TABLE other"):
        job()

    assert "stored, or lost, and cannot be undone here" in caplog.text
    assert f": thread {threading.current_thread().name}" in caplog.text


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
def test_the_session_of_a_thread_notices_it_too(serve, place, kind):
    """With Session(app), the commit of the rest is refused."""
    database = place(kind)
    app = serve(database.url)
    with Session(app) as session:
        session.execute(INSERT, {"body": "before"})
        with pytest.raises(BrokenTransactionError, match="COMMIT"):
            session.execute(text("COMMIT"))
        with pytest.raises(BrokenTransactionError, match="COMMIT"):
            session.commit()

    assert [row[0] for row in database.rows(BODIES)] == ["before"]


def test_a_migration_on_a_plain_connection_may_write_and_change_tables(serve, place):
    """The caller decides in engine.begin(). But a request around it is not tried again."""
    database = place("mariadb")
    attempts = []

    def view(request):
        attempts.append(request)
        with get_sqa(request).engine.begin() as connection:
            connection.execute(INSERT, {"body": "migrated"})
            connection.execute(text("CREATE TABLE IF NOT EXISTS made (id INTEGER)"))
        request.sqa_session.execute(text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213"))

    with pytest.raises(Exception, match="1213"):
        TestApp(serve(database.url, with_view(view))).get("/")

    assert len(attempts) == 1
    assert [row[0] for row in database.rows(BODIES)] == ["migrated"]


def test_after_sqlite_has_rolled_back_by_itself_nothing_is_stored_at_once(serve, place):
    """After ON CONFLICT ROLLBACK, a view that has caught the error cannot write."""
    database = place("sqlite")
    database.run("CREATE TABLE single (id INTEGER PRIMARY KEY)", "INSERT INTO single VALUES (1)")

    def view(request):
        session = request.sqa_session
        session.execute(INSERT, {"body": "first half"})
        with pytest.raises(IntegrityError):
            session.execute(text("INSERT OR ROLLBACK INTO single VALUES (1)"))
        with pytest.raises(BrokenTransactionError, match="UNIQUE"):
            session.execute(text("CREATE TABLE second_half (id INTEGER)"))
        return Response()

    with pytest.raises(BrokenTransactionError, match="UNIQUE"):
        TestApp(serve(database.url, with_view(view))).get("/")

    assert database.rows(BODIES) == []
    assert database.scalar("SELECT count(*) FROM sqlite_master WHERE name = 'second_half'") == 0


def test_reading_on_an_autocommitting_connection_keeps_the_retry(serve, place):
    """Only a write on such a connection makes the attempt the last one."""
    database = place("sqlite")
    attempts = []

    def view(request):
        attempts.append(request)
        engine = get_sqa(request).engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("SELECT count(*) FROM note"))
        if len(attempts) == 1:
            raise RetryableException
        return Response()

    TestApp(serve(database.url, with_view(view), **{"sqa.retry_pause": "0"})).get("/")

    assert len(attempts) == 2
