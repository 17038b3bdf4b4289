"""The settings of a new connection to MySQL or MariaDB, and how to change each default."""
# ruff: noqa: PLR0913, PLR0917, SLF001 - tables have columns; PyMySQL keeps its limits to itself

import time
from types import ModuleType

import pymysql
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from pyramid_aalam_sqa.backends.registry import backend_for
from pyramid_aalam_sqa.settings.reader import read_settings
from support.engines import ask, driver_of

MYSQL_DEFAULTS = {
    "sql_mode": "STRICT_TRANS_TABLES",
    "time_zone": "+00:00",
    "innodb_lock_wait_timeout": 10,
    "lock_wait_timeout": 10,
    "character_set_client": "utf8mb4",
    "character_set_connection": "utf8mb4",
    "character_set_results": "utf8mb4",
}


@pytest.mark.parametrize("variable", MYSQL_DEFAULTS)
def test_mysql_has_our_defaults(make, mariadb, variable):
    """The server reports each default."""
    found = ask(make(mariadb.url), f"SELECT @@{variable}")

    if variable == "sql_mode":
        assert MYSQL_DEFAULTS[variable] in found
    else:
        assert found == MYSQL_DEFAULTS[variable]


def statement_time(engine):
    """Return the limit of a statement in seconds, as MariaDB or MySQL has it."""
    if "MariaDB" in ask(engine, "SELECT VERSION()"):
        return float(ask(engine, "SELECT @@max_statement_time"))
    return ask(engine, "SELECT @@max_execution_time") / 1000


def level(engine):
    with engine.connect() as connection:
        return connection.get_isolation_level()


def test_mysql_limits_a_statement_and_reads_committed_rows(make, mariadb):
    """The statement limit and READ COMMITTED hold unless the settings say otherwise."""
    engine = make(mariadb.url)

    assert statement_time(engine) == 55
    assert level(engine) == "READ COMMITTED"


def test_pymysql_waits_a_little_longer_than_the_server_works(make, mariadb):
    """So the server itself ends a slow statement, and the driver only waits for a silent server."""
    usual = driver_of(make(mariadb.url))
    longer = driver_of(make(mariadb.url, {"sqa.statement_timeout": "119.5"}))
    never = driver_of(make(mariadb.url, {"sqa.statement_timeout": "0"}))
    own = driver_of(make(mariadb.url, {"sqlalchemy.connect_args.read_timeout": "7"}))

    assert (usual.connect_timeout, usual._read_timeout, usual._write_timeout) == (5, 60, 60)
    assert (longer._read_timeout, never._read_timeout, own._read_timeout) == (125, None, 7)


@pytest.mark.parametrize(
    ("key", "value", "look", "expected"),
    [
        ("sqa.lock_timeout", "2.5", "SELECT @@innodb_lock_wait_timeout", 3),
        ("sqa.lock_timeout", "0", "SELECT @@lock_wait_timeout", 1),
        ("sqa.lock_timeout", "1000000", "SELECT @@innodb_lock_wait_timeout", 1_000_000),
        ("sqa.statement_timeout", "1.5", statement_time, 1.5),
        ("sqa.statement_timeout", "0.0001", statement_time, 0.001),
        ("sqa.statement_timeout", "0", statement_time, 0),
        ("sqa.statement_timeout", "1000000", statement_time, 1_000_000),
        (
            "sqa.mysql.sql_mode",
            "ANSI_QUOTES,NO_ZERO_DATE",
            "SELECT @@sql_mode",
            "ANSI_QUOTES,NO_ZERO_DATE",
        ),
        ("sqa.mysql.time_zone", "SYSTEM", "SELECT @@time_zone", "SYSTEM"),
        ("sqa.mysql.time_zone", "-09:30", "SELECT @@time_zone", "-09:30"),
        ("sqa.mysql.wsrep_sync_wait", "3", "SELECT @@wsrep_sync_wait", 3),
        ("sqlalchemy.isolation_level", "repeatable_read", level, "REPEATABLE READ"),
        ("sqlalchemy.connect_args.charset", "latin1", "SELECT @@character_set_client", "latin1"),
    ],
)
def test_each_default_of_mysql_can_be_changed(make, mariadb, key, value, look, expected):
    """The server reports the value that the setting asks for."""
    engine = make(mariadb.url, {key: value})

    assert (ask(engine, look) if isinstance(look, str) else look(engine)) == expected


def test_an_emoji_comes_back_from_mysql(make, mariadb):
    """Cyrillic letters, the euro sign and an emoji are stored and read unchanged."""
    mariadb.run("CREATE TABLE note (body VARCHAR(50)) CHARACTER SET utf8mb4")
    with make(mariadb.url).begin() as connection:
        connection.execute(text("INSERT INTO note VALUES (:body)"), {"body": "пароль € 🐘"})

    assert mariadb.rows("SELECT body FROM note") == [("пароль € 🐘",)]


def test_mysql_refuses_a_value_that_does_not_fit(make, mariadb):
    """Without the strict mode the server would cut the value silently."""
    mariadb.run("CREATE TABLE note (body VARCHAR(3))")
    with make(mariadb.url).connect() as connection, pytest.raises(DBAPIError, match="1406"):
        connection.execute(text("INSERT INTO note VALUES ('too long')"))


def test_the_server_itself_ends_a_statement_that_takes_too_long(make, mariadb):
    """When the request is answered, the server no longer works on the statement."""
    engine = make(mariadb.url, {"sqa.statement_timeout": "0.2"})
    started = time.monotonic()
    with engine.connect() as connection, pytest.raises(OperationalError, match=r"1969|3024"):
        connection.execute(text("SELECT SLEEP(20), COUNT(*) FROM information_schema.tables"))

    assert time.monotonic() - started < 5
    assert (
        mariadb.rows("SELECT id FROM information_schema.processlist WHERE state = 'User sleep'")
        == []
    )


@pytest.mark.parametrize("statement", ["UPDATE note SET body = 2", "DROP TABLE note"])
def test_the_wait_for_a_lock_of_another_transaction_is_bounded(make, mariadb, statement):
    """The wait for a row lock and for a table's metadata lock ends after sqa.lock_timeout."""
    mariadb.run("CREATE TABLE note (body INTEGER)", "INSERT INTO note VALUES (1)")
    engine = make(mariadb.url, {"sqa.lock_timeout": "1"})
    with engine.begin() as holder, engine.connect() as waiter:
        holder.execute(text("UPDATE note SET body = 3"))
        started = time.monotonic()
        with pytest.raises(OperationalError, match="1205"):
            waiter.execute(text(statement))

        assert time.monotonic() - started < 5


@pytest.mark.parametrize("password", ["пароль€", "ÿ🐘", "latin ü"])
@pytest.mark.parametrize("how", ["url", "connect_args", "bytes"])
def test_a_password_may_hold_any_letter(make, mariadb_server, password, how):
    """Without the package, PyMySQL would encode the password as latin-1."""
    with mariadb_server.connect(charset="utf8mb4") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE USER letters IDENTIFIED BY %s", (password,))
    url = make_url(mariadb_server.url()).set(username="letters")
    engine = {
        "url": lambda: make(url.set(password=password).render_as_string(hide_password=False)),
        "connect_args": lambda: make(url, {"sqlalchemy.connect_args.password": password}),
        "bytes": lambda: make(url, {"sqlalchemy.connect_args.password": password.encode()}),
    }[how]()

    assert ask(engine, "SELECT CURRENT_USER()").startswith("letters@")


def test_autocommit_works_on_mysql(make, mariadb):
    """A row is stored at once, without a COMMIT."""
    mariadb.run("CREATE TABLE note (body INTEGER)")
    engine = make(mariadb.url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("INSERT INTO note VALUES (1)"))

        assert mariadb.rows("SELECT * FROM note") == [(1,)]


def test_another_driver_of_mysql_is_given_no_argument_it_may_not_know():
    """Only PyMySQL and mysqlclient get the package's driver arguments."""
    sqa_options = read_settings({}).sqa_options
    known = backend_for(make_url("mysql+mysqldb://"), sqa_options).engine_defaults()
    other = backend_for(make_url("mysql+mysqlconnector://"), sqa_options).engine_defaults()

    assert known["connect_args.read_timeout"] == "60"
    assert other == {key: text for key, text in known.items() if "connect_args" not in key}


class OtherConnection(pymysql.connections.Connection):
    """A connection of a module that is used in place of PyMySQL."""


def test_a_module_in_place_of_pymysql_keeps_its_own_connections(make, mariadb):
    """Some packages for tracing wrap the driver so."""
    module = ModuleType("other_pymysql")
    vars(module).update({**vars(pymysql), "__name__": "other_pymysql", "connect": OtherConnection})
    mariadb.run("CREATE TABLE note (id INTEGER)")
    engine = make(mariadb.url, module=module)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO note VALUES (1)"))
        used = type(connection.connection.driver_connection)

    assert used is OtherConnection
    assert mariadb.rows("SELECT id FROM note") == [(1,)]
