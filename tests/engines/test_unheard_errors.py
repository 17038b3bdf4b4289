"""Database errors that SQLAlchemy does not report are noticed before COMMIT."""

import pytest
from pyramid.response import Response
from pyramid_retry import IRetryableError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import InterfaceError
from sqlalchemy.orm import Session as PlainSession
from webtest import TestApp

from pyramid_aalam_sqa import BrokenTransactionError, get_sqa, session_scope
from support.apps import with_view
from support.drivers import drivers
from support.models import BODIES, INSERT

DUPLICATE = (
    "CREATE PROCEDURE returns_and_fails() "
    "BEGIN INSERT INTO note VALUES ('half'); SELECT 1; INSERT INTO single VALUES (1); END"
)
CONFLICT = (
    "CREATE PROCEDURE returns_and_conflicts() "
    "BEGIN SELECT 1; SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213; END"
)
TWO_RESULTS = "CREATE PROCEDURE returns_twice() BEGIN SELECT 1; SELECT 2; END"


@pytest.fixture(params=drivers("mysql+pymysql", "mysql+mysqldb"))
def application_url(request, database):
    """The URL of the application, with each MySQL driver."""
    return database.url.replace("mysql+pymysql", request.param)


@pytest.fixture
def database(mariadb):
    mariadb.run(
        "CREATE TABLE note (body VARCHAR(50))",
        "CREATE TABLE single (id INTEGER PRIMARY KEY)",
        "INSERT INTO single VALUES (1)",
        *(DUPLICATE, CONFLICT, TWO_RESULTS),
    )
    return mariadb


def read_all(result):
    return result.all()


def read_first(result):
    return result.first()


def leave_unread(result):
    KEPT.append(result)


KEPT = []


@pytest.mark.parametrize("read", [read_all, read_first, leave_unread])
def test_a_procedure_that_returns_rows_and_then_fails_is_not_a_200(
    serve, application_url, database, read
):
    """SQLAlchemy only logs an error of cursor.close(). The rows may be read or not."""

    def view(request):
        read(request.sqa_session.execute(text("CALL returns_and_fails()")))
        if read is not leave_unread:
            request.sqa_session.execute(INSERT, {"body": "after"})
        return Response()

    client = TestApp(serve(application_url, with_view(view)))
    with pytest.raises(Exception, match="1062"):
        client.get("/")
    KEPT.clear()

    assert database.rows(BODIES) == []
    assert get_sqa(client.app).engine.pool.checkedout() == 0


def test_a_conflict_behind_the_rows_of_a_procedure_is_tried_again(serve, application_url, database):
    """The transaction is broken. The error that broke it is a conflict."""
    attempts = []

    def view(request):
        attempts.append(request)
        request.sqa_session.execute(INSERT, {"body": "once"})
        if len(attempts) == 1:
            assert request.sqa_session.execute(text("CALL returns_and_conflicts()")).all()
        return Response()

    TestApp(serve(application_url, with_view(view), **{"sqa.retry_pause": "0"})).get("/")

    assert len(attempts) == 2
    assert [row[0] for row in database.rows(BODIES)] == ["once"]


def test_a_job_is_told_too(serve, application_url, database):
    """The commit of session_scope() fails with the server's error."""
    app = serve(application_url)

    @session_scope(app)
    def job(session):
        session.execute(INSERT, {"body": "job"})
        assert session.execute(text("CALL returns_and_conflicts()")).all()

    with pytest.raises(BrokenTransactionError, match="1213") as caught:
        job()

    assert IRetryableError.providedBy(caught.value)
    assert database.rows(BODIES) == []


@pytest.mark.parametrize("read", [read_all, leave_unread])
def test_a_second_result_that_was_not_read_does_not_stop_the_next_statement(
    serve, application_url, database, read
):
    """The transaction commits although the result was not read."""

    def view(request):
        request.sqa_session.execute(INSERT, {"body": "kept"})
        read(request.sqa_session.execute(text("CALL returns_twice()")))
        return Response()

    TestApp(serve(application_url, with_view(view))).get("/")
    KEPT.clear()

    assert [row[0] for row in database.rows(BODIES)] == ["kept"]


def many(database, count=1000):
    database.run(
        "INSERT INTO note SELECT CONCAT('row', a.n, b.n, c.n) FROM "
        + ", ".join(f"({' UNION '.join(f'SELECT {n} AS n' for n in range(10))}) {x}" for x in "abc")
    )


def test_a_statement_between_streamed_rows_is_refused_and_no_row_is_lost(serve, database):
    """PyMySQL would only warn, and drop the rest of the rows."""
    many(database)

    def view(request):
        session = request.sqa_session
        rows = session.execute(text(BODIES), execution_options={"yield_per": 100})
        count = 0
        for row in rows:
            if count == 150:
                with pytest.raises(InterfaceError, match="sqa_stream"):
                    session.execute(INSERT, {"body": row.body})
            count += 1
        session.execute(INSERT, {"body": "after"})
        return Response(str(count))

    client = TestApp(serve(database.url, with_view(view)))

    assert client.get("/").text == "1000"
    assert database.scalar("SELECT count(*) FROM note") == 1001


def test_a_stream_may_be_left_early(serve, database):
    """The view has all rows that it wants, and its transaction commits."""
    many(database)

    def view(request):
        session = request.sqa_session
        session.execute(INSERT, {"body": "kept"})
        rows = session.execute(text(BODIES), execution_options={"yield_per": 10})
        first = next(iter(rows))
        rows.close()
        return Response(first.body)

    TestApp(serve(database.url, with_view(view))).get("/")

    assert database.scalar("SELECT count(*) FROM note WHERE body = 'kept'") == 1


def test_the_sessions_of_an_engine_that_was_handed_in_still_work(serve, database):
    """Its connections are plain PyMySQL connections, which report less."""
    engine = create_engine(database.url, connect_args={"ssl_disabled": True})

    def view(request):
        request.sqa_session.execute(INSERT, {"body": "kept"})
        assert request.sqa_session.execute(text("CALL returns_twice()")).all()
        return Response()

    app = serve("sqlite://", with_view(view), **{"sqlalchemy.engine": engine})
    TestApp(app).get("/")
    with PlainSession(engine) as session:
        assert session.scalar(text("SELECT count(*) FROM note")) == 1
    engine.dispose()
