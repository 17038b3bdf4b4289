"""When a pooled connection is asked for a sign of life, and what becomes of one that is dead."""

import pymysql
import pytest
from pyramid.response import Response
from pyramid.router import default_execution_policy
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from webtest import TestApp

from pyramid_aalam_sqa import engine_from_settings, get_sqa, session_scope
from pyramid_aalam_sqa.engines import Attempt
from support.apps import with_view
from support.models import BODIES, INSERT
from support.proxy import Then

SETTINGS = {
    "sqa.mysql.tls": "off",
    "sqa.retry_pause": "0",
    "sqlalchemy.pool_size": "1",
    "sqlalchemy.max_overflow": "0",
}
READ = text("SELECT 1")


@pytest.fixture
def attempts():
    """The attempts of the last request."""
    return []


@pytest.fixture
def app_of(serve, proxied, proxy, attempts):
    """Make an application behind the proxy that has one connection, which was just used."""

    def read(request):
        attempts.append(request)
        return Response(str(request.sqa_session.scalar(READ)))

    def stream(request):
        rows = request.sqa_stream(select(text("1")))
        return Response(app_iter=(str(row[0]).encode() for row in rows))

    def app_of(**settings):
        app = serve(
            proxied[2],
            with_view(read, name="read"),
            with_view(read, name="once", sqa_retry=False),
            with_view(stream, name="stream"),
            **{**SETTINGS, **settings},
        )
        get_sqa(app).engine.connect().close()
        proxy.forget()
        return app

    return app_of


def asked(proxy):
    """Return what the server was asked, in short."""
    return [said.split()[0] for said in proxy.forget()]


def test_a_connection_that_was_just_used_is_not_asked(app_of, proxy):
    """The request has another attempt, if it was lost all the same."""
    assert TestApp(app_of()).get("/read").text == "1"

    assert asked(proxy) == ["SELECT", "COMMIT"]


def test_a_connection_that_was_idle_is_asked(app_of, proxy):
    """What lies between may have dropped it silently."""
    assert TestApp(app_of(**{"sqa.ping_after": "0"})).get("/read").text == "1"

    assert asked(proxy) == ["PING", "SELECT", "COMMIT"]


def test_an_application_may_turn_it_off(app_of, proxy):
    """sqa.shortcuts = false: everything is sent that SQLAlchemy sends."""
    assert TestApp(app_of(**{"sqa.shortcuts": "false"})).get("/read").text == "1"

    assert asked(proxy) == ["PING", "SELECT", "COMMIT", "ROLLBACK"]


def test_a_pool_that_does_not_ask_at_all_still_does_not(app_of, proxy):
    """sqlalchemy.pool_pre_ping = false."""
    settings = {"sqlalchemy.pool_pre_ping": "false", "sqa.ping_after": "0"}
    assert TestApp(app_of(**settings)).get("/read").text == "1"

    assert asked(proxy) == ["SELECT", "COMMIT"]


@pytest.mark.parametrize(
    ("path", "settings"),
    [("/once", {}), ("/read", {"retry.attempts": "1"}), ("/stream", {})],
    ids=["sqa_retry=False", "retry.attempts=1", "stream"],
)
def test_what_has_no_other_attempt_always_asks(app_of, proxy, attempts, path, settings):
    """A connection that is lost unseen is replaced, and the one attempt succeeds."""
    client = TestApp(app_of(**settings))
    proxy.have("PING", Then.CUT, asked=0)

    assert client.get(path).text == "1"
    assert asked(proxy)[0] == "PING"
    assert len(attempts) <= 1


def test_an_application_that_makes_no_other_attempts_always_asks(serve, proxied, proxy):
    """It has set Pyramid's own execution policy instead of the one that tries again."""

    def read(request):
        return Response(str(request.sqa_session.scalar(READ)))

    def setup(config):
        config.set_execution_policy(default_execution_policy)

    app = serve(proxied[2], with_view(read), setup, **SETTINGS)
    get_sqa(app).engine.connect().close()
    proxy.forget()
    proxy.have("PING", Then.CUT, asked=0)

    assert TestApp(app).get("/").text == "1"


def test_the_last_attempt_of_a_request_asks(app_of, proxy, attempts):
    """Attempts before it have lost the whole pool, but it may have been filled again."""
    client = TestApp(app_of(**{"retry.attempts": "2"}))
    proxy.have("SELECT 1", Then.CUT, asked=0)

    assert client.get("/read").text == "1"
    assert len(attempts) == 2


def test_a_connection_that_is_lost_unseen_costs_an_attempt(app_of, proxy, attempts):
    """The client is not told of it, and what was to be stored is stored once."""
    client = TestApp(app_of())
    proxy.have("SELECT 1", Then.CUT, asked=0)

    assert client.get("/read").text == "1"
    assert len(attempts) == 2


def test_a_job_without_attempts_asks(app_of, proxy, proxied):
    """Its connection is replaced before its first statement."""
    app = app_of()
    proxy.have("PING", Then.CUT, asked=0)
    with session_scope(app) as session:
        session.execute(INSERT, {"body": "job without attempts"})

    assert asked(proxy)[0] == "PING"
    assert ("job without attempts",) in proxied[0].rows(BODIES)


def test_a_job_without_attempts_fails_if_the_connection_is_lost_after_that(app_of, proxy, proxied):
    """Nothing is stored, and the next job has a new connection."""
    app = app_of()
    proxy.have("INSERT", Then.CUT, asked=0)
    with pytest.raises(OperationalError), session_scope(app) as session:
        session.execute(INSERT, {"body": "lost"})
    with session_scope(app) as session:
        session.execute(INSERT, {"body": "next"})

    stored = proxied[0].rows(BODIES)
    assert ("lost",) not in stored
    assert ("next",) in stored


def test_a_job_with_attempts_asks_before_its_last_one(app_of, proxy, proxied):
    """Until then a connection that was lost unseen costs an attempt."""
    app = app_of()
    calls = []

    @session_scope(app, attempts=2)
    def job(session):
        calls.append(session)
        session.execute(INSERT, {"body": "job with attempts"})

    proxy.have("INSERT", Then.CUT, asked=0)
    job()

    assert len(calls) == 2
    assert proxied[0].rows(BODIES).count(("job with attempts",)) == 1


def test_work_that_has_stored_a_part_asks(app_of, proxy):
    """It is not done again, so nothing would make up for a lost connection."""
    app = app_of()
    with Attempt():
        with session_scope(app) as session:
            session.execute(READ)
        assert asked(proxy) == ["SELECT", "COMMIT"]
        with session_scope(app) as session:
            session.execute(READ)

    assert asked(proxy) == ["PING", "SELECT", "COMMIT"]


def test_an_engine_that_is_used_by_itself_asks(app_of, proxy):
    """Nobody does its work again."""
    app = app_of()
    with Session(get_sqa(app).engine) as session:
        session.execute(READ)

    assert asked(proxy)[0] == "PING"


def test_a_connection_of_another_maker_is_always_asked(proxied, proxy):
    """It does not know when it was answered."""

    class Plain(pymysql.connections.Connection):
        """Of the application's own."""

    port = proxy.port
    user = proxied[2].split("//")[1].split(":")[0]
    password = proxied[2].split(":")[2].split("@")[0]

    def creator():
        return Plain(host="127.0.0.1", port=port, user=user, password=password, database=user)

    engine = engine_from_settings(
        {"sqlalchemy.url": proxied[2], "sqlalchemy.creator": creator, **SETTINGS}
    )
    with Attempt():
        engine.connect().close()
        proxy.forget()
        engine.connect().close()
    engine.dispose()

    assert asked(proxy) == ["PING", "ROLLBACK"]
