"""A slow statement is logged with where it was asked for, without its values."""

import threading

import pytest
from pyramid.response import Response
from sqlalchemy import event, text
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa, session_scope
from support.apps import with_view

SLEEP = {
    "mysql": "SELECT SLEEP(0.3), :secret",
    "postgresql": "SELECT pg_sleep(0.3), CAST(:secret AS text)",
    "sqlite": "SELECT sleep(0.3), :secret",
}


@pytest.fixture
def slow(any_database, serve):
    """Make an application on a database in which a statement can sleep."""

    def make(*setups, **settings):
        app = serve(any_database.url, *setups, **{"sqa.slow_statement": "0.2", **settings})
        if any_database.kind == "sqlite":
            import time

            @event.listens_for(get_sqa(app).engine, "connect")
            def connect(connection, _record):
                connection.create_function("sleep", 1, time.sleep)

        return app, text(SLEEP[any_database.kind])

    return make


def setup(config):
    config.add_route("shelf", "/shelves/{name}")
    config.add_view(view, route_name="shelf")


def view(request):
    request.sqa_session.execute(request.environ["test.statement"], {"secret": "xyzzy"})
    return Response("slept")


def test_a_slow_statement_is_logged_with_route_line_and_seconds(slow, caplog):
    """By the pattern of the route, which has no values either."""
    app, statement = slow(setup)
    client = TestApp(app, lint=False, extra_environ={"test.statement": statement})
    client.get("/shelves/plugh")

    [record] = caplog.records
    message = record.getMessage()
    assert message.startswith("GET /shelves/{name}: a statement took 0.")
    assert "[default]" in message
    assert "test_slow_statements.py" in message
    assert "in view: SELECT" in message
    assert "xyzzy" not in message
    assert "plugh" not in message


def test_a_fast_statement_is_not_logged(slow, caplog):
    """With 0 every statement is."""
    for limit, lines in (("0.2", 0), ("0", 1)):
        app, _ = slow(setup, **{"sqa.slow_statement": limit})
        get_sqa(app).engine.connect().close()
        caplog.clear()
        client = TestApp(app, lint=False, extra_environ={"test.statement": text("SELECT 1")})
        client.get("/shelves/plugh")
        said = [record.getMessage() for record in caplog.records]
        assert len([each for each in said if each.endswith("SELECT 1")]) == lines


@pytest.mark.sweep(1)
def test_without_a_route_it_is_the_path_and_outside_a_request_the_thread(slow, caplog):
    """A job's line is named too."""
    app, statement = slow(with_view(view, name="nap"))
    TestApp(app, lint=False, extra_environ={"test.statement": statement}).get("/nap")

    def job():
        with session_scope(app) as session:
            session.execute(statement, {"secret": "xyzzy"})

    thread = threading.Thread(target=job, name="nightly")
    thread.start()
    thread.join()

    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("GET /nap: a statement took")
    assert second.startswith("thread nightly: a statement took")
    assert "in job: SELECT" in second


def test_a_slow_commit_is_logged(slow, caplog):
    """It is often the slowest of all."""
    app, _ = slow(setup, **{"sqa.slow_statement": "0"})
    client = TestApp(app, lint=False, extra_environ={"test.statement": text("SELECT 1")})
    client.get("/shelves/plugh")

    said = [record.getMessage() for record in caplog.records]
    assert [each for each in said if ": COMMIT took 0." in each]
