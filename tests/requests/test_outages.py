"""If a server is down, full, read-only or refuses the account: 503, until it works again."""

import signal
from contextlib import ExitStack, contextmanager

import pymysql
import pytest
from pyramid.response import Response
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from pyramid_aalam_sqa import get_sqa
from support.apps import with_view
from support.databases import MISSING, Database
from support.models import INSERT
from support.servers import MariaDB, PostgreSQL, find
from support.unavailable import BOUND, MYSQL, POSTGRESQL, lines, unavailable


class OwnMariaDB:
    """A server for this module alone, and an account without administrator's rights."""

    kind = "mariadb"

    def __init__(self):
        self.server = MariaDB(
            "--innodb-flush-log-at-trx-commit=1",
            # Cannot be set later when it was not set before.
            "--max-user-connections=100",
        )

    def start(self):
        self.server.start()
        self.url = MYSQL.format(port=self.server.port)
        self.admin = Database(self.server.url("notes_db"))
        Database(self.server.url()).run(
            "CREATE DATABASE notes_db",
            "CREATE USER app@'127.0.0.1' IDENTIFIED BY 'top-secret'",
            "GRANT ALL ON notes_db.* TO app@'127.0.0.1'",
        )

    def stop(self, how):
        if how == "killed":
            self.server.kill()
        else:
            self.server.stop()


class OwnPostgreSQL:
    """The same on PostgreSQL."""

    kind = "postgresql"

    def __init__(self):
        self.server = PostgreSQL()

    def start(self):
        self.server.start()
        self.url = POSTGRESQL.format(port=self.server.port)
        self.admin = Database(self.server.url("notes_db"))
        outside = create_engine(self.server.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with outside.connect() as connection:
            connection.execute(text("CREATE ROLE app LOGIN PASSWORD 'top-secret'"))
            connection.execute(text("CREATE DATABASE notes_db OWNER app"))

    def stop(self, how):
        # SIGTERM would wait until the clients have gone.
        self.server.process.send_signal(signal.SIGQUIT if how == "killed" else signal.SIGINT)
        self.server.process.wait(BOUND)


def own(program, make):
    if find(program) is None:
        pytest.skip(MISSING[program])
    site = make()
    try:
        site.start()
        site.admin.run("CREATE TABLE note (body VARCHAR(50))")
        if site.kind == "postgresql":
            site.admin.run("GRANT ALL ON note TO app")
        yield site
    finally:
        if site.server.process is not None and site.server.process.poll() is None:
            site.stop("stopped")
        site.server.remove()


@pytest.fixture(scope="module")
def own_mariadb():
    yield from own("mariadbd", OwnMariaDB)


@pytest.fixture(scope="module")
def own_postgresql():
    yield from own("initdb", OwnPostgreSQL)


@pytest.fixture
def maria(own_mariadb):
    own_mariadb.admin.run("DELETE FROM note")
    return own_mariadb


@pytest.fixture
def postgres(own_postgresql):
    own_postgresql.admin.run("DELETE FROM note")
    return own_postgresql


@pytest.fixture(params=["maria", "postgres"])
def site(request):
    return request.getfixturevalue(request.param)


def test_a_wrong_password_is_a_503_whose_reason_is_in_the_log(serve_pages, maria, attempts, caplog):
    """An administrator must repair it (error 1045), so the request is not tried again."""
    unavailable(serve_pages(maria.url.replace("top-secret", "wrong")), "/read")

    assert attempts == ["read"]
    [(level, line)] = lines(caplog)
    assert level == "ERROR"
    assert "1045" in line


def test_a_database_that_does_not_exist_is_a_503_whose_reason_is_in_the_log(
    serve_pages, maria, caplog
):
    """The database was dropped, or not made yet (errors 1044 and 1049)."""
    unavailable(serve_pages(maria.url.replace("notes_db", "nowhere")), "/read")

    [(_level, line)] = lines(caplog)
    assert "1044" in line


def test_what_a_statement_is_denied_is_an_error_and_no_outage(serve_pages, maria):
    """The application asks for another's database. Waiting would not help."""

    def enter(request):
        request.sqa_session.execute(text("USE mysql"))

    client = serve_pages(maria.url, with_view(enter, name="enter"))
    with pytest.raises(OperationalError, match="1044"):
        client.get("/enter")


def test_on_postgresql_the_log_tells_a_missing_database_from_a_missing_server(
    serve_pages, postgres, caplog
):
    """Both are a 503, because the driver has no code for a failed connection."""
    unavailable(serve_pages(postgres.url.replace("notes_db", "nowhere")), "/read")

    [(_level, line)] = lines(caplog)
    assert 'database "nowhere" does not exist' in line


@pytest.mark.parametrize("how", ["stopped", "killed"])
@pytest.mark.sweep(2)
def test_an_application_outlives_its_server(serve_pages, site, attempts, how):
    """The same application answers 200, then 503 while the server is down, then 200."""
    client = serve_pages(site.url)
    client.get("/write?body=before")
    assert client.get("/read").text == "1"
    site.stop(how)
    attempts.clear()
    for _ in range(3):
        unavailable(client, "/read")
        unavailable(client, "/write?body=never")
    assert attempts == ["read", "write"] * 3
    site.server.start()

    assert client.get("/read").text == "1"
    client.get("/write?body=after")
    assert site.admin.rows("SELECT body FROM note ORDER BY body") == [("after",), ("before",)]


def test_an_application_starts_while_its_database_is_down(serve_pages, site):
    """When the server is up, the next request is served."""
    site.stop("stopped")
    client = serve_pages(site.url)
    unavailable(client, "/read")
    site.server.start()

    assert client.get("/read").text == "0"


def test_a_server_that_dies_under_a_request_stores_nothing_and_answers_503(
    serve_pages, site, attempts, caplog
):
    """A lost connection is tried again, a refused one is not. One log line says why."""

    def interrupted(request):
        attempts.append("write")
        request.sqa_session.execute(INSERT, {"body": "half"})
        site.stop("killed")
        request.sqa_session.execute(INSERT, {"body": "other half"})
        return Response()

    client = serve_pages(site.url, with_view(interrupted, name="interrupted"))
    client.get("/read")
    attempts.clear()
    unavailable(client, "/interrupted")
    site.server.start()

    assert attempts == ["write", "write"]
    assert client.get("/read").text == "0"
    assert [level for level, _line in lines(caplog)] == ["ERROR"]


@contextmanager
def read_only(site):
    """Make the server refuse writes, as after a switchover to another server."""
    on, off = {
        "mariadb": ("SET GLOBAL read_only = ON", "SET GLOBAL read_only = OFF"),
        "postgresql": (
            "ALTER DATABASE notes_db SET default_transaction_read_only = on",
            "ALTER DATABASE notes_db RESET default_transaction_read_only",
        ),
    }[site.kind]
    site.admin.run(on)
    try:
        yield
    finally:
        # The administrator's own session would be read-only too.
        allowed = "SET TRANSACTION READ WRITE"
        site.admin.run(*([allowed] if site.kind == "postgresql" else []), off)


def test_a_read_only_server_serves_reads_and_answers_writes_with_503(serve_pages, site, attempts):
    """Writes are tried again on other connections. They work when the server accepts them."""
    client = serve_pages(site.url)
    if site.kind == "mariadb":
        client.get("/write?body=before")
    with read_only(site):
        attempts.clear()
        for _ in range(2):
            unavailable(client, "/write?body=never")
            assert client.get("/read").text == str(int(site.kind == "mariadb"))
        assert attempts == [*["write"] * 3, "read"] * 2
    client.get("/write?body=after")

    told = {"mariadb": [("after",), ("before",)], "postgresql": [("after",)]}[site.kind]
    assert site.admin.rows("SELECT body FROM note ORDER BY body") == told


def test_a_pool_of_connections_to_a_read_only_server_heals_within_one_request(
    serve_pages, postgres, attempts
):
    """A connection from the read-only time is dropped, and the request succeeds."""
    client = serve_pages(postgres.url)
    with read_only(postgres):
        client.get("/read")
    attempts.clear()
    client.get("/write?body=after")

    assert attempts == ["write", "write"]
    assert postgres.admin.rows("SELECT body FROM note") == [("after",)]


def connect(site):
    """Connect with the application's account, without SQLAlchemy."""
    return pymysql.connect(
        host="127.0.0.1",
        port=site.server.port,
        user="app",
        password="top-secret",
        database="notes_db",
    )


def take_all_connections(site, stack):
    while True:
        stack.callback(connect(site).close)


def wait_for_room(site):
    """Wait until the server has forgotten closed connections, which it counts a moment longer."""
    for _ in range(1000):
        try:
            connect(site).close()
        except pymysql.err.OperationalError:
            continue
        return
    raise AssertionError


FULL = {
    "1040": ("SET GLOBAL max_connections = 10", "SET GLOBAL max_connections = 200"),
    "1203": ("SET GLOBAL max_user_connections = 1", "SET GLOBAL max_user_connections = 100"),
    "1226": (
        "ALTER USER app@'127.0.0.1' WITH MAX_USER_CONNECTIONS 1",
        "ALTER USER app@'127.0.0.1' WITH MAX_USER_CONNECTIONS 0",
    ),
}


@pytest.mark.parametrize("code", FULL)
@pytest.mark.sweep(1)
def test_a_server_without_a_free_connection_answers_503_until_it_has_one(
    serve_pages, maria, attempts, caplog, code
):
    """The server is full (1040), or the account's limit is reached (1203, 1226)."""
    client = serve_pages(maria.url)
    limit, reset = FULL[code]
    with ExitStack() as stack:
        maria.admin.run(limit)
        stack.callback(maria.admin.run, reset)
        with ExitStack() as others:
            with pytest.raises(pymysql.err.OperationalError, match=code):
                take_all_connections(maria, others)
            unavailable(client, "/read")
        wait_for_room(maria)

        assert client.get("/read").text == "0"
        get_sqa(client.app).engine.dispose()

    assert attempts == ["read", "read"]
    [(_level, line)] = lines(caplog)
    assert code in line


def test_an_account_without_a_free_connection_on_postgresql_answers_503(
    serve_pages, postgres, attempts
):
    """PostgreSQL reports the account's limit as 53300."""
    postgres.admin.run("ALTER ROLE app CONNECTION LIMIT 1")
    client = serve_pages(postgres.url)
    other = create_engine(postgres.url, poolclass=NullPool)
    with other.connect():
        unavailable(client, "/read")
    postgres.admin.run("ALTER ROLE app CONNECTION LIMIT -1")

    assert client.get("/read").text == "0"
    assert attempts == ["read", "read"]
