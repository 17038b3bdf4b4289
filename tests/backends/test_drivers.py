"""With real servers, every driver leads to the same answer for the same fault."""

import pytest
from pyramid.response import Response
from sqlalchemy import text
from sqlalchemy.engine import make_url
from webtest import TestApp

from support.apps import with_view
from support.databases import Database
from support.drivers import ACCIDENTS, DRIVERS, PAGE, drivers, page
from support.proxy import Proxy
from support.servers import free_port

TABLE = (
    "CREATE TABLE note (id INTEGER PRIMARY KEY, body VARCHAR(50))",
    "INSERT INTO note VALUES (1, 'before')",
)
CHILD = ("CREATE TABLE child (note_id INTEGER REFERENCES note (id) DEFERRABLE INITIALLY DEFERRED)",)
OWN_NUMBER = {"mysql": "SELECT connection_id()", "postgresql": "SELECT pg_backend_pid()"}
KILL = {"mysql": "KILL {}", "postgresql": "SELECT pg_terminate_backend({})"}


class Site:
    """A database that is used through one driver, and independent connections to it."""

    def __init__(self, driver, database):
        self.database = database
        self.url = make_url(database.url).set(drivername=driver.split()[0])
        self.kind = self.url.get_backend_name()
        self.settings = {"sqa.retry_pause": "0", "sqa.lock_timeout": "1"}
        self.holder = database._engine  # noqa: SLF001 - a connection that stays open
        self.proxy = None

    def use_proxy(self):
        self.proxy = Proxy(self.url.host, self.url.port)
        self.url = self.url.set(port=self.proxy.port)


def conflict(site, session):
    """Another transaction changes a row that this one has read and wants to change."""
    session.scalar(text("SELECT body FROM note WHERE id = 1"))
    site.database.run("UPDATE note SET body = concat(body, '.') WHERE id = 1")
    session.execute(text("UPDATE note SET body = 'mine' WHERE id = 1"))


def lock_wait(site, session):
    """Another transaction holds the row."""
    with site.holder.connect() as holder:
        holder.execute(text("UPDATE note SET body = 'held' WHERE id = 1"))
        session.execute(text("UPDATE note SET body = 'mine' WHERE id = 1"))


def lost_connection(site, session):
    """An administrator ends the connection between two statements."""
    number = session.scalar(text(OWN_NUMBER[site.kind]))
    site.database.run(KILL[site.kind].format(number))
    session.execute(text("UPDATE note SET body = 'mine' WHERE id = 1"))


def refused_commit(site, session):
    """PostgreSQL finds that a deferred constraint is violated. A proxy refuses for MariaDB."""
    session.execute(text("UPDATE note SET body = 'mine' WHERE id = 1"))
    if site.kind == "postgresql":
        session.execute(text("INSERT INTO child VALUES (77)"))


def write(site, session):
    """Write to a database that is read-only by its settings or its server."""
    session.execute(text("UPDATE note SET body = 'mine' WHERE id = 1"))


DO = {
    "conflict": conflict,
    "lock wait": lock_wait,
    "lost connection": lost_connection,
    "refused COMMIT": refused_commit,
    "read-only": write,
    "unreachable": write,
}
# What an accident needs beside the view.
SETTINGS = {
    ("conflict", "mysql"): {
        "sqlalchemy.isolation_level": "REPEATABLE READ",
        "sqlalchemy.connect_args.init_command": "SET innodb_snapshot_isolation = 1",
    },
    ("conflict", "postgresql"): {"sqlalchemy.isolation_level": "REPEATABLE READ"},
    ("read-only", "mysql"): {
        "sqlalchemy.connect_args.init_command": "SET SESSION TRANSACTION READ ONLY"
    },
    ("read-only", "postgresql"): {
        "sqlalchemy.connect_args.options": "-c default_transaction_read_only=on"
    },
}


@pytest.fixture
def site(request, driver):
    """The database of a driver's server, with a row."""
    site = Site(driver, request.getfixturevalue(DRIVERS[driver][0]))
    site.database.run(*TABLE, *(CHILD if site.kind == "postgresql" else ()))
    yield site
    if site.proxy:
        site.proxy.close()


@pytest.mark.parametrize("accident", ACCIDENTS)
@pytest.mark.parametrize("driver", drivers(*DRIVERS))
@pytest.mark.sweep(5)
def test_every_driver_tells_the_same_about_an_accident(serve, site, driver, accident, caplog):
    """The number of attempts and the answer are the same, and nothing is stored."""
    attempts, unavailable = ACCIDENTS[accident]
    made = []

    def view(request):
        made.append(1)
        DO[accident](site, request.sqa_session)
        return Response("stored")

    if accident == "refused COMMIT" and site.kind == "mysql":
        site.use_proxy()
        site.proxy.refuse("COMMIT", 1180)
    if accident == "unreachable":
        site.url = site.url.set(port=free_port())
    settings = {**site.settings, **SETTINGS.get((accident, site.kind), {})}
    url = site.url.render_as_string(hide_password=False)
    client = TestApp(serve(url, with_view(view), **settings))
    try:
        status = client.get("/", status="*").status_int
    except Exception:  # noqa: BLE001 - a server answers 500 to any
        status = 500

    assert (len(made), status) == (attempts, 503 if unavailable else 500)
    assert "outcome is unknown" not in caplog.text
    assert not site.database.rows("SELECT body FROM note WHERE body = 'mine'")


def test_the_table_of_drivers_is_that_of_the_tests():
    """If this fails, run: python tests/support/drivers.py."""
    text_of_page = PAGE.read_text()

    assert page(text_of_page) == text_of_page


@pytest.fixture
def postgresql_16(postgresql_16_database):
    """An empty database on PostgreSQL 16."""
    yield postgresql_16_database
    postgresql_16_database.run("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")


@pytest.fixture(scope="module")
def postgresql_16_database(postgresql_16_server):
    """A database on the PostgreSQL of the package pgserver."""
    return Database(postgresql_16_server.url())
