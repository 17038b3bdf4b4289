"""When connections are opened and closed, and which pools and creators may be used."""

import gc
import socket

import pytest
from pyramid import testing
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import AssertionPool, QueuePool
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from support.engines import ask, driver_of


@pytest.fixture
def listener():
    """A server to which no client has connected yet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("kind", ["mysql+pymysql", "postgresql+psycopg"])
def test_no_connection_is_made_at_start_up(listener, kind):
    """The first request that needs the database makes the first connection."""
    url = f"{kind}://me:hidden@127.0.0.1:{listener.getsockname()[1]}/base"
    config = Configurator(settings={"sqlalchemy.url": url})
    config.include("pyramid_aalam_sqa")
    config.make_wsgi_app()

    with pytest.raises(BlockingIOError):
        listener.accept()


def test_an_sqlite_file_is_not_made_at_start_up(tmp_path):
    """Neither the file nor its folder is made before the first connection."""
    config = Configurator(settings={"sqlalchemy.url": f"sqlite:///{tmp_path}/var/app.sqlite"})
    config.include("pyramid_aalam_sqa")
    config.make_wsgi_app()

    assert list(tmp_path.iterdir()) == []


def test_an_application_whose_database_is_down_starts(listener):
    """Pages without a database work, and the others answer 503 soon."""
    port = listener.getsockname()[1]
    listener.close()
    config = Configurator(settings={"sqlalchemy.url": f"mysql+pymysql://me@127.0.0.1:{port}/base"})
    config.include("pyramid_aalam_sqa")
    config.add_view(lambda request: Response("up"))
    config.add_view(lambda request: request.sqa_session.connection(), name="down")
    app = TestApp(config.make_wsgi_app())

    assert app.get("/").text == "up"
    app.get("/down", status=503)


def test_connections_end_with_their_application(any_database):
    """Pyramid has no event for the end of an application, so the pool closes with the registry."""
    config = Configurator(settings={"sqlalchemy.url": any_database.url})
    config.include("pyramid_aalam_sqa")
    app = config.make_wsgi_app()
    pool = get_sqa(app).engine.pool
    ask(get_sqa(app).engine, "SELECT 1")
    assert pool.checkedin() == 1
    del app, config
    gc.collect()

    assert pool.checkedin() == 0


def test_connections_end_when_the_application_is_configured_again(any_database):
    """pyramid.testing.setUp() runs each action at once, so the ini's engine is made first."""
    config = testing.setUp(settings={"sqlalchemy.url": any_database.url})
    config.include("pyramid_aalam_sqa")
    first = get_sqa(config).engine
    pool = first.pool
    ask(first, "SELECT 1")
    config.add_sqa_database("sqlite://")
    second = get_sqa(config).engine
    testing.tearDown()

    assert pool.checkedin() == 0
    assert ask(second, "SELECT 1") == 1
    second.dispose()


@pytest.fixture
def connect(any_database):
    """Make the driver's connections, as an application's own creator does."""
    url = make_url(any_database.url)
    dialect = create_engine(url).dialect
    positional, named = dialect.create_connect_args(url)
    return lambda: dialect.connect(*positional, **named)


LIMIT_OF_A_LOCK = {
    "sqlite": ("PRAGMA journal_mode", "wal"),
    "mysql": ("SELECT @@innodb_lock_wait_timeout", 10),
    "postgresql": ("SHOW lock_timeout", "10s"),
}


def test_a_creator_of_the_applications_own_is_used(make, any_database, connect):
    """A connection from the application's creator is set up like every other."""
    made = []

    def creator():
        made.append(connect())
        return made[-1]

    statement, expected = LIMIT_OF_A_LOCK[any_database.kind]
    engine = make(any_database.url, creator=creator)

    assert ask(engine, statement) == expected
    assert driver_of(engine) is made[0]


def test_a_pool_of_the_applications_own_is_used(make, any_database, connect):
    """The defaults for pool options are left out for a ready pool."""
    pool = QueuePool(connect, pool_size=1)
    engine = make(any_database.url, pool=pool)

    assert ask(engine, "SELECT 1") == 1
    assert engine.pool is pool
    assert pool.checkedin() == 1


def test_a_pool_class_of_the_applications_own_is_used(make):
    """The chosen class is used, also where the default pool would be a special one."""
    assert isinstance(make("sqlite://", poolclass=AssertionPool).pool, AssertionPool)


def test_a_detached_connection_is_closed_without_a_complaint(any_database, make, caplog):
    """The pool's listeners run for it too, but have nothing to undo."""
    connection = make(any_database.url).connect()
    connection.execute(text("SELECT 1"))
    connection.detach()
    connection.close()

    assert caplog.records == []
    assert connection.closed
