"""Readiness is told within a second, whatever the database does; liveness asks none."""

import gc
import logging
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pyramid.response import Response
from sqlalchemy.engine import make_url
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from pyramid_aalam_sqa.debugging import recorded
from support.apps import with_view
from support.proxy import Proxy, Then
from support.servers import free_port

SMALL = {"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "1"}


def with_health(config):
    config.add_sqa_health()


def ask(app, status=200):
    """Return the states that /healthz tells, and check that it took less than a second."""
    began = time.monotonic()
    response = TestApp(app).get("/healthz", status=status)
    assert time.monotonic() - began < 1
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json["status"] == ("ok" if status == 200 else "unavailable")
    return response.json["databases"]


@contextmanager
def a_port_that_says_nothing():
    """Accept connections and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_database_that_answers_is_ready(any_database, serve):
    """With 200, before and after the first request; nothing else is told."""
    app = serve(any_database.url, with_health)

    assert ask(app) == ask(app) == {"default": "ok"}
    assert get_sqa(app).engine.pool.checkedout() == 0


@pytest.mark.parametrize("driver", ["mysql+pymysql", "postgresql+psycopg"])
def test_a_server_that_is_down_is_not_ready(driver, serve, caplog):
    """The log has one line with the driver's code; the answer has neither address nor error."""
    app = serve(f"{driver}://ann:secret@127.0.0.1:{free_port()}/shop", with_health)
    client = TestApp(app)
    # The first use of a driver in a process takes its time.
    client.get("/healthz", status=503)

    assert ask(app, 503) == {"default": "down"}
    response = client.get("/healthz", status=503)
    assert response.headers["Retry-After"] == "5"
    assert not {"ann", "secret", "127.0.0.1", "shop"} & set(response.text.split('"'))
    record = [each for each in caplog.records if each.levelno == logging.WARNING][-1]
    assert record.getMessage().startswith("The database default is down: OperationalError")
    assert "secret" not in caplog.text


@pytest.mark.parametrize("driver", ["mysql+pymysql", "postgresql+psycopg"])
def test_a_server_that_is_silent_is_not_ready(driver, serve):
    """Ten questions wait with one thread, which ends by itself."""
    with a_port_that_says_nothing() as port:
        app = serve(
            f"{driver}://ann@127.0.0.1:{port}/shop",
            with_health,
            **{"sqlalchemy.connect_args.connect_timeout": "2"},
        )
        before = threading.active_count()
        threads = [threading.Thread(target=ask, args=(app, 503)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ask(app, 503)["default"] in {"silent", "down"}
        assert threading.active_count() <= before + 1
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before


def test_a_server_that_falls_silent_is_not_ready_and_recovers(mariadb, serve):
    """The connection that was in use is thrown away, and the next one is asked."""
    url = make_url(mariadb.url)
    proxy = Proxy(url.host, url.port)
    proxied = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
    app = serve(proxied, with_health, **{"sqlalchemy.connect_args.read_timeout": "2"})
    assert ask(app) == {"default": "ok"}
    accident = proxy.have("SELECT CONCAT_WS", Then.SILENCE, asked=0)

    assert ask(app, 503) == {"default": "silent"}

    assert accident.happened
    deadline = time.monotonic() + 10
    while TestApp(app).get("/healthz", status="*").status_int != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    get_sqa(app).dispose()
    proxy.close()


def test_a_mariadb_that_is_read_only_is_not_ready(mariadb, mariadb_server, serve):
    """As after a switchover."""
    app = serve(mariadb.url, with_health)
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL read_only = 1")
        try:
            assert ask(app, 503) == {"default": "read-only"}
        finally:
            cursor.execute("SET GLOBAL read_only = 0")
    assert ask(app) == {"default": "ok"}


def test_a_postgresql_that_is_read_only_is_not_ready(postgresql, serve):
    """As a standby server is."""
    url = make_url(postgresql.url).update_query_dict(
        {"options": "-c default_transaction_read_only=on"}
    )
    app = serve(url.render_as_string(hide_password=False), with_health)

    assert ask(app, 503) == {"default": "read-only"}


def test_a_file_of_sqlite_that_is_read_only_is_not_ready(sqlite, serve):
    """Another connection's write lock is no reason, a missing folder is one."""
    path = make_url(sqlite.url).database
    sqlite.run("CREATE TABLE note (body VARCHAR(50))")
    app = serve(f"sqlite:///file:{path}?mode=ro&uri=true", with_health)
    assert ask(app, 503) == {"default": "read-only"}

    app = serve(sqlite.url, with_health)
    with get_sqa(app).engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO note (body) VALUES ('locks')")
        assert ask(app) == {"default": "ok"}
    with get_sqa(app).engine.connect() as connection:
        # The wait for locks is as it was.
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 10000

    app = serve(f"sqlite:///file:{path}.missing/x?mode=ro&uri=true", with_health)
    assert ask(app, 503) == {"default": "down"}


def test_an_error_of_the_question_is_down(sqlite, serve, tmp_path):
    """A file that is none of SQLite's, for example."""
    app = serve(sqlite.url, with_health)
    get_sqa(app).engine.connect().close()
    Path(make_url(sqlite.url).database).write_bytes(b"x" * 4096)
    get_sqa(app).dispose()

    assert ask(app, 503) == {"default": "down"}


@pytest.mark.parametrize("wait", ["0.2", "5"])
@pytest.mark.sweep(3)
def test_a_pool_that_is_full_is_not_ready(wait, any_database, serve):
    """Whether its own wait is shorter than ours or longer; afterwards it is ready again."""
    app = serve(any_database.url, with_health, **SMALL, **{"sqlalchemy.pool_timeout": wait})
    engine = get_sqa(app).engine
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(engine.connect())
        assert ask(app, 503) == {"default": "full"}
    deadline = time.monotonic() + 6
    while engine.pool.checkedout():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert ask(app) == {"default": "ok"}


def test_each_database_has_its_own_word(mariadb, sqlite, serve):
    """One that is down makes the whole not ready."""
    binds = {"audit": mariadb.url, "gone": f"mysql+pymysql://ann@127.0.0.1:{free_port()}/x"}
    settings = {f"sqlalchemy.binds.{key}.url": url for key, url in binds.items()}
    app = serve(sqlite.url, with_health, **settings)

    assert ask(app, 503) == {"default": "ok", "audit": "ok", "gone": "down"}


def test_liveness_asks_no_database(serve):
    """A process must not be restarted because its database is down."""
    app = serve(f"mysql+pymysql://ann@127.0.0.1:{free_port()}/shop", with_health)

    assert TestApp(app).get("/livez").json == {"status": "ok"}


def test_an_application_without_a_database_is_ready():
    """It has nothing to wait for."""
    from pyramid.config import Configurator

    with Configurator(settings={}) as config:
        config.include("pyramid_aalam_sqa")
        config.add_sqa_health("/ready", "/alive", seconds=0.5)
    client = TestApp(config.make_wsgi_app())

    assert client.get("/ready").json == {"status": "ok", "databases": {}}
    assert client.get("/alive").json == {"status": "ok"}
    client.get("/healthz", status=404)


def test_it_is_not_counted_as_a_request(sqlite, serve):
    """No tween, no veto, no retry, no recording; the other paths are as they were."""
    seen = []

    def tween_factory(handler, _registry):
        def tween(request):
            seen.append(request.path)
            return handler(request)

        return tween

    def setup(config):
        config.registry.tween_factory = tween_factory
        config.add_tween("test_health.seen_tween_factory")

    global seen_tween_factory  # noqa: PLW0603 - Pyramid wants a name
    seen_tween_factory = tween_factory
    settings = {"sqa.record": "true", "sqa.server_timing": "true"}
    app = serve(
        sqlite.url, with_health, setup, with_view(lambda request: Response("page")), **settings
    )
    with recorded(app) as statements:
        ask(app)

    assert statements.timeline == []
    assert seen == []
    assert "Server-Timing" not in TestApp(app).get("/livez").headers
    assert TestApp(app).get("/").text == "page"
    assert seen == ["/"]


# Coverage keeps four of them of each thread that was ever started.
OF_COVERAGE = {"method", "builtin_function_or_method"}


def live_objects():
    """Count the objects that the collector knows, by their type."""
    gc.collect()
    names = (type(each).__qualname__ for each in gc.get_objects())
    return Counter(name for name in names if name not in OF_COVERAGE)


@pytest.mark.parametrize("questions", [100, pytest.param(1000, marks=pytest.mark.deep)])
def test_many_questions_leak_nothing(questions, database, serve):
    """No thread, no connection and no object of any kind stays."""
    app = serve(database.url, with_health)
    client = TestApp(app)
    for _ in range(10):
        client.get("/healthz")
    threads, objects = threading.active_count(), live_objects()
    for _ in range(questions):
        client.get("/healthz")
    more = live_objects() - objects

    assert threading.active_count() <= threads + 1
    assert get_sqa(app).engine.pool.checkedout() == 0
    assert more.total() < questions / 2, more.most_common(9)
