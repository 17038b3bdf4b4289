"""What the rarer errors of servers and files mean for a request, on real databases."""

import sqlite3

import pytest
from pyramid.response import Response
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from webtest import TestApp

from pyramid_aalam_sqa import OutcomeUnknownError, get_sqa
from pyramid_aalam_sqa.backends import ErrorKind, backend_for
from support.apps import with_view
from support.drivers import drivers
from support.proxy import Proxy

OPTIONS = {"retry_codes": None}


class DriverError(Exception):
    """An error as a MySQL driver raises it. Its first argument is the number."""


class PostgreSQLError(Exception):
    """An error as psycopg raises it."""

    def __init__(self, sqlstate):
        super().__init__("said the server")
        self.sqlstate = sqlstate


class OldPostgreSQLError(Exception):
    """An error as psycopg2 raises it."""

    def __init__(self, pgcode):
        super().__init__("said the server")
        self.pgcode = pgcode


@pytest.fixture
def attempts():
    """The calls of a view."""
    return []


def writing(attempts, *statements):
    """Return a setup with a view that runs *statements*: texts, or pairs of text and values."""

    def view(request):
        attempts.append(1)
        for statement in statements:
            sql, values = (statement, {}) if isinstance(statement, str) else statement
            request.sqa_session.execute(text(sql), values)
        return Response("stored")

    return with_view(view)


@pytest.mark.parametrize(
    "code",
    [1042, 1043, 1129, 1130, 1135, 1251, 1524, 1820, 1862, 2026, 2059, 2061, 3032, 3159, 3955],
)
def test_a_login_that_is_refused_is_unavailable_only_while_connecting(code):
    """An administrator must repair a login. In a statement, the code has another meaning."""
    backend = backend_for(make_url("mysql+pymysql://host/base"), OPTIONS)
    error = DriverError(code, "said the server")

    assert backend.classify(error, connecting=True, disconnected=False) is ErrorKind.UNREACHABLE
    assert backend.classify(error, connecting=False, disconnected=False) is None


@pytest.mark.parametrize("kind", [PostgreSQLError, OldPostgreSQLError])
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("40001", ErrorKind.CONFLICT),
        ("55P03", ErrorKind.LOCK_TIMEOUT),
        ("08006", ErrorKind.DISCONNECT),
        ("25006", ErrorKind.READ_ONLY_SERVER),
        ("53100", ErrorKind.READ_ONLY_DATABASE),
        ("53200", ErrorKind.UNREACHABLE),
        ("58030", ErrorKind.UNREACHABLE),
        ("XX001", ErrorKind.UNREACHABLE),
        ("23505", None),
    ],
)
def test_the_codes_of_postgresql_mean_the_same_in_both_drivers(kind, code, expected):
    """One driver calls the code sqlstate, the other pgcode."""
    backend = backend_for(make_url("postgresql+psycopg://host/base"), OPTIONS)

    assert backend.classify(kind(code), connecting=False, disconnected=False) is expected


@pytest.mark.parametrize("code", ["08007", "40003"])
def test_a_server_that_does_not_know_the_outcome_of_commit_is_believed(code):
    """A pooler may answer that the outcome is unknown. That is not a refusal."""
    backend = backend_for(make_url("postgresql+psycopg://host/base"), OPTIONS)

    assert backend.is_commit_unknown(None, PostgreSQLError(code))
    assert not backend.is_commit_unknown(None, PostgreSQLError("23503"))


@pytest.mark.parametrize("driver", drivers("mysql+pymysql", "mysql+mysqldb"))
def test_a_galera_node_without_its_cluster_refuses_a_commit(
    mariadb, serve, attempts, driver, caplog
):
    """It answers 1047 to COMMIT. Nothing is stored, so the request is tried again."""
    mariadb.run("CREATE TABLE note (body VARCHAR(50))")
    url = make_url(mariadb.url)
    proxy = Proxy(url.host, url.port)
    proxy.refuse("COMMIT", 1047)
    url = url.set(drivername=driver, port=proxy.port).render_as_string(hide_password=False)
    setup = writing(attempts, "INSERT INTO note VALUES ('once')")
    TestApp(serve(url, setup, **{"sqa.retry_pause": "0"})).get("/", status=200)
    proxy.close()

    assert attempts == [1, 1]
    assert mariadb.rows("SELECT body FROM note") == [("once",)]
    assert "outcome is unknown" not in caplog.text


def test_a_galera_node_that_loses_its_cluster_in_a_commit_does_not_know_its_outcome(
    mariadb, serve, attempts, caplog
):
    """It answers 1180. The other nodes may have stored it, so the request is not tried again."""
    mariadb.run("CREATE TABLE note (body VARCHAR(50))")
    url = make_url(mariadb.url)
    proxy = Proxy(url.host, url.port)
    proxy.refuse("COMMIT", 1180, "Error while appending streaming replication fragment")
    url = url.set(port=proxy.port).render_as_string(hide_password=False)
    client = TestApp(serve(url, writing(attempts, "INSERT INTO note VALUES ('once')")))
    with pytest.raises(OutcomeUnknownError):
        client.get("/")
    proxy.close()

    assert attempts == [1]
    assert "outcome is unknown" in caplog.text


@pytest.fixture
def small_packets(mariadb_server, mariadb):
    """A MariaDB that accepts statements of at most one megabyte on new connections."""
    mariadb.run("CREATE TABLE note (body LONGTEXT)")
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL max_allowed_packet = 1048576")
        yield mariadb
        cursor.execute("SET GLOBAL max_allowed_packet = 16777216")


@pytest.mark.parametrize("driver", drivers("mysql+pymysql", "mysql+mysqldb"))
@pytest.mark.parametrize("size", [1_100_000, 5_000_000])
def test_a_value_that_is_too_large_is_the_requests_own_error(
    small_packets, serve, attempts, driver, size
):
    """It is neither a retry nor a 503. The next request finds a connection that works."""
    url = small_packets.url.replace("mysql+pymysql", driver)
    large = ("INSERT INTO note VALUES (:body)", {"body": "x" * size})
    app = serve(url, writing(attempts, large), with_view(lambda request: Response("up"), name="up"))
    with pytest.raises(DBAPIError):
        TestApp(app).get("/")
    TestApp(app).get("/up", status=200)
    with get_sqa(app).engine.connect() as connection:
        assert connection.scalar(text("SELECT COUNT(*) FROM note")) == 0

    assert attempts == [1]


def test_a_large_value_in_the_middle_of_a_batch_is_found():
    """The driver sends each row of a batch by itself, and the largest row counts."""
    backend = backend_for(make_url("mysql+pymysql://host/base"), OPTIONS)
    backend.max_packet = 1000
    rows = [("small",), ("x" * 990 + "'" * 20,), (b"small",)]

    assert backend.is_too_large("INSERT", rows)
    assert backend.is_too_large("INSERT", {"body": rows[1]})
    assert not backend.is_too_large("INSERT", [rows[0]])
    assert not backend.is_too_large(None, None)


def test_a_file_that_is_not_a_database_is_a_503(tmp_path, serve, attempts):
    """An administrator must repair it."""
    (tmp_path / "app.sqlite").write_bytes(b"This is a text file. " * 500)
    app = serve(f"sqlite:///{tmp_path}/app.sqlite", writing(attempts, "SELECT 1"))
    TestApp(app).get("/", status=503)

    assert attempts == [1]


def test_a_damaged_file_is_a_503(sqlite, serve, attempts):
    """The test overwrites a page in the middle of the file."""
    sqlite.run("CREATE TABLE note (body)")
    sqlite.run("INSERT INTO note VALUES (zeroblob(100000))")
    path = make_url(sqlite.url).database
    with open(path, "r+b") as file:  # noqa: PTH123 - written in the middle
        file.seek(4096)
        file.write(b"\xff" * 4096)
    app = serve(sqlite.url, writing(attempts, "SELECT sum(length(body)) FROM note"))
    TestApp(app).get("/", status=503)

    assert attempts == [1]


def test_a_full_disk_is_a_503_and_nothing_is_stored(sqlite, serve, attempts):
    """SQLite may roll back by itself. In both cases the request fails."""
    sqlite.run("CREATE TABLE note (body)")
    setup = writing(
        attempts,
        "INSERT INTO note VALUES ('first')",
        "INSERT INTO note VALUES (zeroblob(1000000))",
    )
    app = serve(sqlite.url, setup)

    def limit(connection, _record):
        connection.execute("PRAGMA max_page_count = 20")

    event.listen(get_sqa(app).engine, "connect", limit)
    TestApp(app).get("/", status=503)

    assert attempts == [1]
    assert sqlite.rows("SELECT count(*) FROM note") == [(0,)]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_CORRUPT_INDEX])
def test_an_extended_code_of_sqlite_means_what_its_primary_code_means(code):
    """SQLite has dozens of extended codes."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    backend = backend_for(make_url("sqlite:///file"), OPTIONS)

    assert backend.classify(error, connecting=False, disconnected=False) is ErrorKind.UNREACHABLE


def test_a_prepared_statement_whose_table_was_changed_is_prepared_anew(postgresql, serve, attempts):
    """Connections with the old statement are closed, and the request is tried again."""
    postgresql.run("CREATE TABLE note (id INTEGER)", "INSERT INTO note VALUES (1)")
    settings = {"sqlalchemy.connect_args.prepare_threshold": "0", "sqa.retry_pause": "0"}
    client = TestApp(serve(postgresql.url, writing(attempts, "SELECT * FROM note"), **settings))
    client.get("/", status=200)
    postgresql.run("ALTER TABLE note ADD COLUMN body VARCHAR(50)")
    client.get("/", status=200)
    client.get("/", status=200)

    assert attempts == [1, 1, 1, 1]
