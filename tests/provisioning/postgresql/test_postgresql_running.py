"""On PostgreSQL psqa drops an application that runs, and rotates its password."""

import threading
from queue import Queue

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from support.provisioned import status_or_unknown


def application(settings):
    """A real application that writes a row, and then says how many there are."""

    def write(request):
        request.sqa_session.execute(text("INSERT INTO note VALUES (DEFAULT)"))
        return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM note"))))

    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(write)
    return config.make_wsgi_app()


def test_drop_with_a_connected_application_leaves_nothing_and_it_answers_503(site):
    """Its connection is ended, a new one is refused, and its neighbour goes on."""
    site.create()
    site.table()
    site.create("other")
    app = application(site.settings())
    client = TestApp(app)
    client.get("/")
    try:
        steps = [str(step) for step in site.provisioning().remove()]
        client.get("/", status=503)
        client.get("/", status=503)
    finally:
        get_sqa(app).dispose()

    assert steps[:2] == ['ALTER ROLE "aalam_base" NOLOGIN', 'ALTER ROLE "aalam_base__own" NOLOGIN']
    assert "pg_terminate_backend" in steps[2]
    assert site.admin.rows("SELECT FROM pg_roles WHERE rolname LIKE 'aalam_base%'") == []
    assert site.admin.rows("SELECT FROM pg_namespace WHERE nspname = 'aalam_base'") == []
    assert site.as_application("SELECT 1", "other") == [(1,)]
    assert site.provisioning().plan_removal() == []
    assert list(site.provisioning().remove()) == []


def test_a_request_at_the_moment_of_the_drop_is_a_503(site):
    """Whatever its connection is doing: logging in, reading, waiting. A COMMIT may be unknown."""

    def count(request):
        statement = text("SELECT count(*) FROM note a, note b")
        return Response(str(request.sqa_session.scalar(statement)))

    def visit(client, stop):
        while not stop.is_set():
            answers.put(status_or_unknown(client, "/"))

    answers = Queue()
    for _ in range(3):
        site.create()
        site.table()
        settings = {**site.settings(), "sqa.reset_connection": "true", "retry.attempts": "1"}
        with Configurator(settings=settings) as config:
            config.include("pyramid_aalam_sqa")
            config.add_view(count)
        app = config.make_wsgi_app()
        stop = threading.Event()
        threads = [threading.Thread(target=visit, args=(TestApp(app), stop)) for _ in range(4)]
        for thread in threads:
            thread.start()
        first = [answers.get(timeout=30) for _ in range(8)]
        list(site.provisioning().remove())
        last = [answers.get(timeout=30) for _ in range(8)]
        stop.set()
        for thread in threads:
            thread.join(30)
        get_sqa(app).dispose()
        seen = {*first, *last, *answers.queue}
        answers.queue.clear()

        assert set(first) == {200}
        assert {200, 503} <= seen <= {200, 503, "unknown"}


def test_drop_lets_no_account_in_before_it_ends_the_connections(site):
    """A connection that is made meanwhile would stay otherwise."""
    site.create()
    before = site.as_application("SELECT 1")
    removal = site.provisioning().remove()
    next(removal)

    assert before == [(1,)]
    assert "aalam_base" in site.roles()
    assert site.as_application("SELECT 1") is None
    assert list(removal)
    assert "aalam_base" not in site.roles()


def test_drop_keeps_the_database_that_the_account_owns(site):
    """Others may live there."""
    site.create()
    site.admin.run(f"ALTER DATABASE {site.database} OWNER TO aalam_base")
    list(site.provisioning().remove())

    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    assert site.admin.scalar(owner) == "postgres"


@pytest.mark.deep
def test_the_password_is_rotated_under_constant_requests_and_none_fails(site, tmp_path):
    """Each request makes a connection of its own, and so a login."""
    site.create()
    site.table()
    file = tmp_path / "password"
    file.write_text(site.password)
    settings = site.settings(password=None, **{"sqa.password_file": str(file)})
    rotations = site.rotation(settings)
    app = application({**settings, "sqa.reset_connection": "true", "retry.attempts": "1"})
    start, done = threading.Barrier(4), threading.Event()
    answers = []

    def ask():
        client = TestApp(app)
        start.wait()
        while not done.is_set():
            answers.append(client.get("/", expect_errors=True).status_int)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    start.wait()
    try:
        for _ in range(10):
            list(rotations.rotate())
    finally:
        done.set()
        for thread in threads:
            thread.join()
        get_sqa(app).dispose()

    assert set(answers) == {200}
    assert len(answers) > 20
    assert file.read_text().strip() != site.password
