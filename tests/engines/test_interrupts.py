"""Interrupts are not turned into other errors, and an interrupted connection is closed."""

import os
import signal
import threading
from contextlib import contextmanager

import gevent
import greenlet
import pytest
from pyramid.response import Response
from pyramid_retry import IRetryableError
from sqlalchemy import Integer, TypeDecorator, create_engine, event, literal, select, text
from sqlalchemy.exc import DBAPIError
from webtest import TestApp

from pyramid_aalam_sqa import Session, get_sqa, session_scope
from support.apps import with_view
from support.models import BODIES, INSERT


class TimeLimitError(Exception):
    """What RQ and Celery raise from a signal. Its first argument is a deadlock's number."""


INTERRUPTS = {
    "SystemExit": SystemExit(1),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "GreenletExit": greenlet.GreenletExit(),
    "gevent.Timeout": gevent.Timeout(),
    "time limit": TimeLimitError(1213, "a deadlock, it seems"),
}
SLEEP = {"mysql": "SELECT SLEEP(20)", "postgresql": "SELECT pg_sleep(20)"}
interrupts = pytest.mark.parametrize("interrupt", INTERRUPTS.values(), ids=INTERRUPTS)


@contextmanager
def raised_by_a_signal(error, seconds=0.3):
    """Raise *error* in the main thread, at the line that it is executing."""

    def raise_error(number, frame):
        raise error

    before = signal.signal(signal.SIGUSR1, raise_error)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGUSR1, before)


@pytest.fixture(params=["mariadb", "postgresql"])
def server(request):
    database = request.getfixturevalue(request.param)
    database.run("CREATE TABLE note (body VARCHAR(50))")
    return database


def serve_one(serve, database, *setups):
    settings = {"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0"}
    settings |= {"sqlalchemy.pool_timeout": "1", "sqa.retry_pause": "0"}
    return serve(database.url, *setups, **settings)


def write_next(request):
    request.sqa_session.execute(INSERT, {"body": "next"})
    return Response()


def assert_clean(app, database):
    """Check that no connection is checked out, and that only the next work is stored."""
    assert get_sqa(app).engine.pool.checkedout() == 0
    TestApp(app).get("/next")
    assert [row[0] for row in database.rows(BODIES)] == ["next"]


@interrupts
@pytest.mark.sweep(2)
def test_an_interrupt_during_a_statement_stays_what_it_is(serve, server, interrupt):
    """The request is not tried again, and its connection is not used again."""
    attempts = []

    def view(request):
        attempts.append(request)
        request.sqa_session.execute(INSERT, {"body": "lost"})
        request.sqa_session.execute(text(SLEEP[server.kind]))

    app = serve_one(serve, server, with_view(view), with_view(write_next, name="next"))
    with raised_by_a_signal(interrupt), pytest.raises(type(interrupt)) as caught:
        TestApp(app).get("/")

    assert caught.value is interrupt
    assert len(attempts) == 1
    assert not IRetryableError.providedBy(interrupt)
    assert_clean(app, server)


@interrupts
@pytest.mark.sweep(1)
def test_an_interrupt_during_a_job_stays_what_it_is(serve, server, interrupt):
    """This is true for session_scope() with attempts, and for the session of a thread."""
    app = serve_one(serve, server, with_view(write_next, name="next"))
    attempts = []

    @session_scope(app, attempts=3)
    def job(session):
        attempts.append(session)
        session.execute(INSERT, {"body": "lost"})
        session.execute(text(SLEEP[server.kind]))

    with raised_by_a_signal(interrupt), pytest.raises(type(interrupt)) as caught:
        job()
    assert caught.value is interrupt

    def thread_job():
        with Session(app) as session:
            session.execute(INSERT, {"body": "lost"})
            session.execute(text(SLEEP[server.kind]))

    with raised_by_a_signal(interrupt), pytest.raises(type(interrupt)):
        thread_job()

    assert len(attempts) == 1
    assert_clean(app, server)


@pytest.mark.sweep(1)
def test_a_view_that_swallows_an_interrupt_cannot_commit_the_rest(serve, server):
    """Its transaction has ended together with the connection."""

    def view(request):
        session = request.sqa_session
        session.execute(INSERT, {"body": "first half"})
        with pytest.raises(TimeLimitError):
            session.execute(text(SLEEP[server.kind]))
        with pytest.raises(Exception, match=r"rolled back|ended"):
            session.execute(INSERT, {"body": "second half"})
        return Response()

    app = serve_one(serve, server, with_view(view), with_view(write_next, name="next"))
    with raised_by_a_signal(TimeLimitError()), pytest.raises(Exception):  # noqa: B017, PT011 - of several
        TestApp(app).get("/")

    assert_clean(app, server)


@interrupts
@pytest.mark.sweep(5)
def test_an_interrupt_between_statements_keeps_the_connection_usable(
    serve, any_database, interrupt
):
    """The driver was not interrupted, so the work is rolled back as after any error."""
    any_database.run("CREATE TABLE note (body VARCHAR(50))")

    def view(request):
        request.sqa_session.execute(INSERT, {"body": "lost"})
        raise interrupt

    app = serve_one(serve, any_database, with_view(view), with_view(write_next, name="next"))
    with pytest.raises(type(interrupt)) as caught:
        TestApp(app).get("/")

    assert caught.value is interrupt
    assert_clean(app, any_database)


@pytest.mark.parametrize("error", [RuntimeError("broken pipe"), TimeLimitError(1205)])
def test_a_rollback_that_fails_without_a_disconnect_loses_no_connection(
    serve, any_database, caplog, error
):
    """The connection is closed, and the client gets the view's error."""
    any_database.run("CREATE TABLE note (body VARCHAR(50))")
    options = {"connect_args": {"ssl_disabled": True}} if any_database.kind == "mysql" else {}
    engine = create_engine(any_database.url, pool_size=1, max_overflow=0, pool_timeout=1, **options)
    rollback, faults = engine.dialect.do_rollback, []

    def do_rollback(connection):
        if faults:
            raise faults.pop()
        rollback(connection)

    engine.dialect.do_rollback = do_rollback

    def view(request):
        request.sqa_session.execute(INSERT, {"body": "lost"})
        faults.append(error)
        raise ZeroDivisionError

    app = serve(
        "sqlite://",
        *(with_view(view), with_view(write_next, name="next")),
        **{"sqlalchemy.engine": engine},
    )
    with pytest.raises(ZeroDivisionError):
        TestApp(app).get("/")

    assert "ROLLBACK failed" in caplog.text
    assert_clean(app, any_database)

    @session_scope(app)
    def job(session):
        session.execute(INSERT, {"body": "lost"})
        faults.append(error)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job()
    assert engine.pool.checkedout() == 0
    engine.dispose()


def test_an_error_of_the_driver_is_still_wrapped_and_marked(serve, server):
    """A real conflict is still retryable."""
    engine = get_sqa(serve_one(serve, server)).engine
    conflict = {
        "mysql": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213",
        "postgresql": "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$",
    }
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.execute(text(conflict[server.kind]))

    assert IRetryableError.providedBy(caught.value)


def test_an_interrupt_after_the_commit_goes_on_and_the_work_is_stored(serve, server, caplog):
    """The interrupt ends the process. The log says that all of the work is stored."""

    def interrupt(session):
        raise KeyboardInterrupt

    def write(request):
        request.sqa_session.execute(INSERT, {"body": "stored"})
        event.listen(request.sqa_session, "after_commit", interrupt)
        return Response()

    app = serve_one(serve, server, with_view(write))
    with pytest.raises(KeyboardInterrupt):
        TestApp(app).get("/")

    assert [row[0] for row in server.rows(BODIES)] == ["stored"]
    assert get_sqa(app).engine.pool.checkedout() == 0
    assert "the transaction is stored, but something after its commit" in caplog.text
    assert "stored in part" not in caplog.text


@pytest.fixture
def one(serve, server):
    """An engine with one connection."""
    return get_sqa(serve_one(serve, server)).engine


def test_an_interrupt_while_a_connection_is_made_anew_stays_what_it_is(one):
    """SQLAlchemy connects again within the statement, when the connection was invalidated."""

    def fail(*_):
        event.remove(one, "connect", fail)
        raise SystemExit

    with one.connect() as connection:
        connection.invalidate()
        event.listen(one, "connect", fail)
        with pytest.raises(SystemExit):
            connection.execute(text("SELECT 1"))
        assert connection.scalar(text("SELECT 1")) == 1


def test_an_interrupt_before_the_first_statement_is_sent_stays_what_it_is(one):
    """No transaction has begun. The next user gets another connection."""

    class Interrupted(TypeDecorator):
        impl, cache_ok = Integer, True

        def process_bind_param(self, value, dialect):
            raise SystemExit

    with one.connect() as connection:
        before = connection.connection.dbapi_connection
        with pytest.raises(SystemExit):
            connection.execute(select(literal(1, Interrupted)))

    assert one.pool.checkedout() == 0
    with one.connect() as connection:
        assert connection.connection.dbapi_connection is not before
        assert connection.scalar(text("SELECT 1")) == 1
