"""No wait for a silent server is longer than its documented limit, for any operation."""

import signal
import time

import pytest
from pyramid.response import Response
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from webtest import TestApp

from pyramid_aalam_sqa import OutcomeUnknownError, engine_from_settings
from pyramid_aalam_sqa.backends import backend_of
from pyramid_aalam_sqa.backends import postgresql as postgresql_backend
from pyramid_aalam_sqa.interfaces import IDatabaseUnavailable
from support.apps import with_view
from support.drivers import drivers
from support.silence import SilentProxy

# Seconds, as the tests set them, and how much longer a wait may seem on a busy machine.
CONNECT, ANSWER, GRACE = 1, 1, 4
SETTINGS = {"sqlalchemy.connect_args.connect_timeout": str(CONNECT)}
# psycopg has no such argument; its limit is sqa.statement_timeout and a little more.
LIMITS = {
    "mysql": {"sqlalchemy.connect_args.read_timeout": str(ANSWER)},
    "postgresql": {"sqa.statement_timeout": str(ANSWER)},
}
DRIVERS = ["mysql+pymysql", "mysql+mysqldb", "postgresql+psycopg"]


@pytest.fixture(autouse=True)
def _a_little_more(monkeypatch):
    """Make the driver wait hardly longer than the server works, so that the tests are fast."""
    monkeypatch.setattr(postgresql_backend, "EXTRA_SECONDS", 0.1)


@pytest.fixture
def silent(request):
    """Return a function that makes an engine of a driver behind a proxy that can fall silent."""
    made = []

    def silent(driver, **options):
        fixture = "postgresql" if driver.startswith("postgresql") else "mariadb"
        url = make_url(request.getfixturevalue(fixture).url)
        proxy = SilentProxy(url.host, url.port, **options)
        url = url.set(drivername=driver, port=proxy.port)
        settings = {**SETTINGS, **LIMITS[url.get_backend_name()], "sqlalchemy.url": url}
        if driver == "mysql+pymysql":
            settings["sqa.mysql.tls"] = "off"
        engine = engine_from_settings(settings)
        made.append((engine, proxy))
        return engine, proxy

    yield silent
    for engine, proxy in made:
        engine.dispose()
        proxy.close()


def seconds_of(function, error=DBAPIError):
    """Return the seconds until *function* raises *error*."""
    started = time.monotonic()
    with pytest.raises(error) as caught:
        function()
    waited = time.monotonic() - started
    assert IDatabaseUnavailable.providedBy(caught.value)
    return waited


@pytest.mark.parametrize("driver", drivers(*DRIVERS, "postgresql+psycopg2"))
@pytest.mark.sweep(2)
def test_the_wait_for_the_greeting_is_bounded(silent, driver):
    """The server accepts the connection and says nothing."""
    engine, _ = silent(driver, limit=0)

    assert CONNECT * 0.9 < seconds_of(engine.connect) < CONNECT + GRACE


# Bytes of the server: PostgreSQL's AuthenticationOk, and a part of MariaDB's greeting.
SOME = {"mysql": 20, "postgresql": 9}


@pytest.mark.parametrize("driver", drivers(*DRIVERS, "postgresql+psycopg2"))
@pytest.mark.sweep(2)
def test_the_wait_for_the_rest_of_a_greeting_is_bounded(silent, driver):
    """The server stops in the middle of it."""
    engine, _ = silent(driver, limit=SOME[driver.partition("+")[0]])

    assert CONNECT * 0.9 < seconds_of(engine.connect) < CONNECT + GRACE


@pytest.mark.parametrize("driver", drivers("mysql+pymysql", "mysql+mysqldb"))
def test_the_wait_for_the_answer_to_a_login_is_bounded(silent, mariadb_server, driver):
    """The server sends the greeting, and nothing after it."""
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT LENGTH(VERSION())")
        version = cursor.fetchone()[0]
    # The greeting has a header of 4 bytes, the version, and 74 more with this server's plugin.
    engine, _ = silent(driver, limit=4 + version + 74)

    assert CONNECT * 0.9 < seconds_of(engine.connect) < CONNECT + GRACE


@pytest.mark.parametrize("driver", drivers("postgresql+psycopg", "postgresql+psycopg2"))
@pytest.mark.sweep(1)
def test_the_wait_for_tls_is_bounded_on_postgresql(silent, driver):
    """The server agrees to encrypt, and sends nothing after that."""
    engine, _ = silent(driver, answer=b"S")

    assert CONNECT * 0.9 < seconds_of(engine.connect) < CONNECT + GRACE


@pytest.mark.parametrize("driver", drivers("mysql+pymysql", "mysql+mysqldb"))
@pytest.mark.sweep(1)
def test_the_wait_for_tls_is_bounded_on_mysql(silent, tls_server, driver):
    """The server's greeting offers TLS, and it sends nothing after that."""
    url = make_url(tls_server.url()).set(drivername=driver)
    with tls_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT LENGTH(VERSION())")
        version = cursor.fetchone()[0]
    proxy = SilentProxy(url.host, url.port, limit=4 + version + 74)
    settings = {**SETTINGS, "sqlalchemy.url": url.set(port=proxy.port)}
    if driver == "mysql+pymysql":
        settings["sqa.mysql.tls"] = "required"
    else:
        settings["sqlalchemy.connect_args.ssl_mode"] = "REQUIRED"
    engine = engine_from_settings(settings)
    waited = seconds_of(engine.connect)
    engine.dispose()
    proxy.close()

    assert CONNECT * 0.9 < waited < CONNECT + GRACE


@pytest.mark.parametrize("driver", drivers(*DRIVERS))
@pytest.mark.sweep(1)
def test_the_wait_for_a_ping_is_bounded(silent, driver):
    """The pool pings a connection that was idle, and then opens a new one."""
    engine, proxy = silent(driver)
    engine.connect().close()
    proxy.fall_silent()

    assert CONNECT * 1.8 < seconds_of(engine.connect) < 2 * CONNECT + GRACE


@pytest.mark.parametrize("driver", drivers(*DRIVERS))
@pytest.mark.parametrize("what", ["statement", "savepoint"])
@pytest.mark.sweep(2)
def test_the_wait_for_a_statement_is_bounded(silent, driver, what):
    """A driver waits a little longer than the server may work on it."""
    engine, proxy = silent(driver)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        proxy.fall_silent()
        ask = {
            "statement": lambda: connection.execute(text("SELECT 2")),
            "savepoint": connection.begin_nested,
        }[what]
        waited = seconds_of(ask)

    assert ANSWER * 0.9 < waited < ANSWER + GRACE


@pytest.mark.parametrize("driver", drivers(*DRIVERS))
@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.sweep(2)
def test_the_wait_for_the_end_of_a_transaction_is_bounded(silent, driver, end):
    """COMMIT and ROLLBACK have the same limit. Closing afterwards does not wait."""
    engine, proxy = silent(driver)
    connection = engine.connect()
    connection.execute(text("SELECT 1"))
    proxy.fall_silent()
    started = time.monotonic()
    # Nothing tells whether a COMMIT without an answer has stored anything.
    told = OutcomeUnknownError if end == "commit" else OperationalError
    with pytest.raises(told):
        getattr(connection, end)()
    waited = time.monotonic() - started
    started = time.monotonic()
    connection.close()
    closed = time.monotonic() - started

    assert ANSWER * 0.9 < waited < ANSWER + GRACE
    assert closed < GRACE


@pytest.mark.parametrize("driver", drivers(*DRIVERS))
def test_closing_an_idle_connection_waits_for_nothing(silent, driver):
    """The driver says goodbye and does not wait for an answer."""
    engine, proxy = silent(driver)
    engine.connect().close()
    proxy.fall_silent()
    started = time.monotonic()
    engine.dispose()

    assert time.monotonic() - started < GRACE


@pytest.mark.parametrize("driver", drivers(*DRIVERS))
def test_a_slow_answer_that_keeps_coming_is_not_given_up(silent, driver):
    """The limit is for silence. A statement may take as long as the server allows."""
    engine, _ = silent(driver)
    sleep = "SLEEP" if driver.startswith("mysql") else "pg_sleep"
    with engine.connect() as connection:
        started = time.monotonic()
        connection.execute(text(f"SELECT {sleep}(0.5)"))

        assert time.monotonic() - started >= 0.5


def test_a_request_to_a_silent_postgresql_is_a_503_and_not_tried_again(serve, postgresql):
    """The server's state is unknown, and another attempt would wait as long."""
    url = make_url(postgresql.url)
    proxy = SilentProxy(url.host, url.port)
    attempts = []

    def view(request):
        attempts.append(1)
        request.sqa_session.execute(text("SELECT 1"))
        proxy.fall_silent()
        request.sqa_session.execute(text("SELECT 2"))

    url = url.set(port=proxy.port).render_as_string(hide_password=False)
    client = TestApp(serve(url, with_view(view), **{"sqa.statement_timeout": "1"}))
    client.get("/", status=503)
    proxy.close()

    assert attempts == [1]


def test_a_commit_that_a_silent_postgresql_does_not_answer_is_unknown(serve, postgresql, caplog):
    """The request is never tried again, and the log says that the outcome is unknown."""
    url = make_url(postgresql.url)
    proxy = SilentProxy(url.host, url.port)

    def view(request):
        request.sqa_session.execute(text("SELECT 1"))
        request.tm.get().addBeforeCommitHook(proxy.fall_silent)
        return Response()

    url = url.set(port=proxy.port).render_as_string(hide_password=False)
    client = TestApp(serve(url, with_view(view), **{"sqa.statement_timeout": "1"}))
    with pytest.raises(OutcomeUnknownError):
        client.get("/")
    proxy.close()

    assert "outcome is unknown" in caplog.text


class TimeLimitError(Exception):
    """What a worker of a task queue raises from a signal."""


def test_an_exception_of_a_signal_leaves_no_half_read_connection(make, postgresql):
    """The next statement would otherwise read the answer to the interrupted one."""

    def stop(*_):
        raise TimeLimitError

    engine = make(postgresql.url, pool_size="1", max_overflow="0")
    usual = signal.signal(signal.SIGALRM, stop)
    raw = engine.raw_connection()
    cursor = raw.cursor()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(TimeLimitError):
            cursor.execute("SELECT pg_sleep(5)")
        assert raw.driver_connection.closed
        raw.invalidate()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 7")) == 7


@pytest.mark.parametrize("driver", drivers("mysql+mysqldb"))
def test_a_connection_that_is_closed_has_no_socket_to_ask(mariadb, make, driver):
    """The driver raises its own error."""
    engine = make(mariadb.url.replace("mysql+pymysql", driver))
    backend = backend_of(engine)
    raw = engine.raw_connection()
    assert not backend.has_server_closed(raw.driver_connection)
    raw.driver_connection.close()

    assert backend.socket(raw.driver_connection) is None
    raw.invalidate()
