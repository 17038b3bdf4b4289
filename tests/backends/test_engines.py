"""What the engine's defaults do on real databases, and that each of them can be changed."""
# ruff: noqa: PLR0913, PLR0917, SLF001 - tables have columns; PyMySQL keeps its limits to itself

import gc
import logging
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import trustme
from pyramid import testing
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool, QueuePool, StaticPool
from webtest import TestApp

from pyramid_aalam_sqa import SettingError, engine_from_settings, get_sqa
from pyramid_aalam_sqa.backends.pymysql_driver import tls_context
from pyramid_aalam_sqa.backends.registry import backend_for
from pyramid_aalam_sqa.settings.reader import read_settings
from support.processes import QUIET
from support.servers import MariaDB


@pytest.fixture
def make():
    """Make the engine of settings; dispose it in the end."""
    made = []

    def make(url, settings=(), **options):
        given = {f"sqlalchemy.{name}": value for name, value in options.items()}
        made.append(engine_from_settings({"sqlalchemy.url": url, **given, **dict(settings)}))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


def ask(engine, statement):
    """Return the first value of the first row."""
    with engine.connect() as connection:
        return connection.execute(text(statement)).scalar()


def driver_of(engine):
    """Return the driver's own connection."""
    with engine.connect() as connection:
        return connection.connection.driver_connection


# When connections are made, and when they end.


@pytest.fixture
def listener():
    """A server that nobody has connected to yet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("kind", ["mysql+pymysql", "postgresql+psycopg"])
def test_no_connection_is_made_at_start_up(listener, kind):
    """The first request that needs the database makes it."""
    url = f"{kind}://me:hidden@127.0.0.1:{listener.getsockname()[1]}/base"
    config = Configurator(settings={"sqlalchemy.url": url})
    config.include("pyramid_aalam_sqa")
    config.make_wsgi_app()

    with pytest.raises(BlockingIOError):
        listener.accept()


def test_an_sqlite_file_is_not_made_at_start_up(tmp_path):
    """Nor is its folder."""
    config = Configurator(settings={"sqlalchemy.url": f"sqlite:///{tmp_path}/var/app.sqlite"})
    config.include("pyramid_aalam_sqa")
    config.make_wsgi_app()

    assert list(tmp_path.iterdir()) == []


def test_an_application_whose_database_is_down_starts(listener):
    """It serves what needs no database, and says quickly what it cannot do."""
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
    """Pyramid has no event for it: the registry is collected."""
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
    """pyramid.testing.setUp commits each action at once, so that the ini's engine comes first."""
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


# MySQL and MariaDB.

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
    """The server itself says so."""
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
    """Both by default."""
    engine = make(mariadb.url)

    assert statement_time(engine) == 55
    assert level(engine) == "READ COMMITTED"


def test_pymysql_waits_a_little_longer_than_the_server_works(make, mariadb):
    """Then the server ends a statement itself; a silent server is given up at last."""
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
        ("sqlalchemy.isolation_level", "repeatable_read", level, "REPEATABLE READ"),
        ("sqlalchemy.connect_args.charset", "latin1", "SELECT @@character_set_client", "latin1"),
    ],
)
def test_each_default_of_mysql_can_be_changed(make, mariadb, key, value, look, expected):
    """In the ini file, and the server itself says so."""
    engine = make(mariadb.url, {key: value})

    assert (ask(engine, look) if isinstance(look, str) else look(engine)) == expected


def test_an_emoji_comes_back_from_mysql(make, mariadb):
    """Every letter there is goes both ways."""
    mariadb.run("CREATE TABLE note (body VARCHAR(50)) CHARACTER SET utf8mb4")
    with make(mariadb.url).begin() as connection:
        connection.execute(text("INSERT INTO note VALUES (:body)"), {"body": "пароль € 🐘"})

    assert mariadb.rows("SELECT body FROM note") == [("пароль € 🐘",)]


def test_mysql_refuses_a_value_that_does_not_fit(make, mariadb):
    """It would be cut off in silence."""
    mariadb.run("CREATE TABLE note (body VARCHAR(3))")
    with make(mariadb.url).connect() as connection, pytest.raises(DBAPIError, match="1406"):
        connection.execute(text("INSERT INTO note VALUES ('too long')"))


def test_the_server_itself_ends_a_statement_that_takes_too_long(make, mariadb):
    """Nothing goes on there after the request was answered."""
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
def test_a_lock_of_another_transaction_is_not_waited_for_without_end(make, mariadb, statement):
    """Neither that of a row nor that of a table's definition."""
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
    """PyMySQL alone would encode it as latin-1."""
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
    """What is written is there at once."""
    mariadb.run("CREATE TABLE note (body INTEGER)")
    with make(mariadb.url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("INSERT INTO note VALUES (1)"))

        assert mariadb.rows("SELECT * FROM note") == [(1,)]


def test_another_driver_of_mysql_is_given_no_argument_it_may_not_know():
    """Only what PyMySQL and mysqlclient take is known."""
    sqa_options = read_settings({}).sqa_options
    known = backend_for(make_url("mysql+mysqldb://"), sqa_options).engine_defaults()
    other = backend_for(make_url("mysql+mysqlconnector://"), sqa_options).engine_defaults()

    assert known["connect_args.read_timeout"] == "60"
    assert other == {key: text for key, text in known.items() if "connect_args" not in key}


# TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, another one, and a certificate for 127.0.0.1 from the first."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    return folder


def started(server):
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="module")
def tls_server(certificates, mariadb_server):
    """A MariaDB that can encrypt."""
    yield from started(
        MariaDB(f"--ssl-cert={certificates}/certificate.pem", f"--ssl-key={certificates}/key.pem")
    )


@pytest.fixture(scope="module")
def plain_server(mariadb_server):
    """A MariaDB that cannot encrypt, and whose own sql_mode is another one than ours."""
    yield from started(MariaDB("--skip-ssl", "--sql-mode=ANSI_QUOTES"))


def elsewhere(server):
    """Return its URL under a name that does not look like this machine's."""
    return server.url().replace("127.0.0.1", "127.1")


def encrypted(engine):
    with engine.connect() as connection:
        return bool(connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1])


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_a_connection_is_encrypted_when_the_server_can(make, tls_server, mode):
    """Without a word in the ini file."""
    engine = make(tls_server.url(), {"sqa.mysql.tls": mode})

    assert encrypted(engine)


def test_encryption_can_be_turned_off(make, tls_server):
    """Where the network is safe otherwise."""
    assert not encrypted(make(tls_server.url(), {"sqa.mysql.tls": "off"}))
    assert not encrypted(make(tls_server.url(), {"sqlalchemy.connect_args.ssl_disabled": "true"}))


def test_a_unix_socket_is_not_encrypted(make, tls_server):
    """It does not leave this machine."""
    engine = make(f"mysql+pymysql://root@/?unix_socket={tls_server.folder}/socket")

    assert not encrypted(engine)


def test_a_server_without_tls_is_used_as_it_is_with_one_warning(make, plain_server, caplog):
    """In the log once, however many connections there are."""
    engine = make(elsewhere(plain_server), poolclass="NullPool")
    assert [encrypted(engine) for _ in range(3)] == [False] * 3

    [record] = [r for r in caplog.records if r.name.startswith("pyramid_aalam_sqa")]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "127.1 has no TLS: connections to it are not encrypted."


def test_no_warning_is_given_of_this_machine(make, plain_server, caplog):
    """Who could listen there could read the database's files."""
    assert not encrypted(make(plain_server.url()))
    assert caplog.records == []


@pytest.mark.parametrize("mode", ["required", "verify_ca", "verify_identity"])
def test_required_encryption_is_never_given_up(make, plain_server, mode):
    """No connection is better than a readable one."""
    with pytest.raises(OperationalError, match="2026"):
        encrypted(make(plain_server.url(), {"sqa.mysql.tls": mode}))


def test_an_authority_makes_encryption_required(make, plain_server, certificates):
    """Also with auto: a server that has to prove who it is cannot do so without TLS."""
    with pytest.raises(OperationalError, match="2026"):
        encrypted(make(plain_server.url(), {"sqa.mysql.tls_ca": f"{certificates}/authority.pem"}))


@pytest.mark.parametrize("mode", ["auto", "verify_ca", "verify_identity"])
def test_the_right_authority_is_accepted_and_no_other(make, tls_server, certificates, mode):
    """A server must have its certificate from the one that was named."""
    right = {"sqa.mysql.tls": mode, "sqa.mysql.tls_ca": f"{certificates}/authority.pem"}
    wrong = {"sqa.mysql.tls": mode, "sqa.mysql.tls_ca": f"{certificates}/other.pem"}

    assert encrypted(make(tls_server.url(), right))
    with pytest.raises(OperationalError, match="certificate verify failed"):
        encrypted(make(tls_server.url(), wrong))


@pytest.mark.parametrize(
    ("mode", "accepted"), [("verify_ca", True), ("verify_identity", False), ("auto", False)]
)
def test_the_name_in_the_certificate_is_looked_at(make, tls_server, certificates, mode, accepted):
    """By verify_identity, which is what auto means when an authority is named."""
    settings = {"sqa.mysql.tls": mode, "sqa.mysql.tls_ca": f"{certificates}/authority.pem"}
    engine = make(elsewhere(tls_server), settings)

    if accepted:
        assert encrypted(engine)
    else:
        with pytest.raises(OperationalError, match="certificate verify failed"):
            encrypted(engine)


def test_without_an_authority_those_of_the_system_are_asked(make, tls_server):
    """They have not signed this certificate."""
    with pytest.raises(OperationalError, match="certificate verify failed"):
        encrypted(make(tls_server.url(), {"sqa.mysql.tls": "verify_identity"}))


def test_all_connections_share_one_tls_context(make, tls_server):
    """PyMySQL would make one for each, at 20 to 45 ms of CPU."""
    contexts = {
        driver_of(make(tls_server.url(), poolclass="NullPool")).ctx,
        driver_of(make(tls_server.url())).ctx,
        tls_context("auto", None),
    }

    assert len(contexts) == 1


def test_arguments_of_pymysqls_own_are_left_to_it(make, tls_server, certificates, tmp_path):
    """ssl_* and the files that MySQL's own programs read."""
    file = tmp_path / "my.cnf"
    file.write_text(f"[client]\nuser = root\nssl-ca = {certificates}/other.pem\n")
    right = {"sqlalchemy.connect_args.ssl_ca": f"{certificates}/authority.pem"}
    url = make_url(tls_server.url())

    assert encrypted(make(url, right))
    with pytest.raises(OperationalError, match="certificate verify failed"):
        encrypted(
            make(url.set(username=None), {"sqlalchemy.connect_args.read_default_file": str(file)})
        )


@pytest.mark.parametrize("mode", ["off", "required"])
def test_an_authority_that_would_not_be_asked_is_refused(make, certificates, mode):
    """Somebody believes to be safer than they are."""
    settings = {"sqa.mysql.tls": mode, "sqa.mysql.tls_ca": f"{certificates}/authority.pem"}
    with pytest.raises(SettingError, match=rf"sqa\.mysql\.tls = '{mode}' does not look at"):
        make("mysql+pymysql://host/base", settings)


def test_a_file_without_a_certificate_is_refused_at_start_up(make, certificates):
    """Not at the first request."""
    with pytest.raises(SettingError, match=r"sqa\.mysql\.tls_ca = .*: write a file of PEM"):
        make("mysql+pymysql://host/base", {"sqa.mysql.tls_ca": f"{certificates}/key.pem"})


def test_another_driver_does_not_take_our_tls_settings_in_silence(make):
    """They would have no effect there."""
    assert make("mysql://host/base", module="pymysql")
    with pytest.raises(SettingError, match=r"sqa\.mysql\.tls, sqa\.mysql\.tls_ca: these are for"):
        make("mysql://host/base", {"sqa.mysql.tls": "required"}, module="pymysql")


def test_names_are_quoted_as_our_sql_mode_wants_it(make, plain_server):
    """Whatever the server's own was, which SQLAlchemy would go by."""
    engine = make(plain_server.url())
    with engine.begin() as connection:
        connection.execute(text("CREATE DATABASE IF NOT EXISTS quoted"))
    table = Table("order", MetaData(schema="quoted"), Column("select", Integer))
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert().values(select=7))

        assert connection.execute(table.select()).scalar() == 7


# PostgreSQL.


def test_postgresql_is_as_it_always_is_but_for_two_limits(make, postgresql):
    """Compared setting by setting with an engine of SQLAlchemy's own."""
    statement = text("SELECT name, setting FROM pg_settings")
    plain = create_engine(postgresql.url, poolclass=NullPool)
    found = []
    for engine in (plain, make(postgresql.url)):
        with engine.connect() as connection:
            found.append({tuple(row) for row in connection.execute(statement)})

    assert found[1] - found[0] == {("lock_timeout", "10000"), ("statement_timeout", "55000")}


@pytest.mark.parametrize(
    ("key", "value", "statement", "expected"),
    [
        ("sqa.lock_timeout", "2.5", "SHOW lock_timeout", "2500ms"),
        ("sqa.lock_timeout", "0", "SHOW lock_timeout", "1ms"),
        ("sqa.lock_timeout", "1000000", "SELECT 1", 1),
        ("sqa.statement_timeout", "0.0001", "SHOW statement_timeout", "1ms"),
        ("sqa.statement_timeout", "0", "SHOW statement_timeout", "0"),
        ("sqa.statement_timeout", "1000000", "SELECT 1", 1),
        (
            "sqlalchemy.isolation_level",
            "serializable",
            "SHOW transaction_isolation",
            "serializable",
        ),
        ("sqlalchemy.connect_args.application_name", "2024", "SHOW application_name", "2024"),
    ],
)
def test_each_default_of_postgresql_can_be_changed(
    make, postgresql, key, value, statement, expected
):
    """In the ini file, and the server itself says so."""
    assert ask(make(postgresql.url, {key: value}), statement) == expected


def test_postgresql_ends_a_statement_that_takes_too_long(make, postgresql):
    """It says why."""
    with pytest.raises(OperationalError, match="statement timeout"):
        ask(make(postgresql.url, {"sqa.statement_timeout": "0.1"}), "SELECT pg_sleep(20)")


def test_the_limits_outlive_a_rollback(make, postgresql):
    """They belong to the connection, not to its first transaction."""
    engine = make(postgresql.url)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.rollback()

        assert connection.execute(text("SHOW lock_timeout")).scalar() == "10s"


def test_autocommit_works_on_postgresql(make, postgresql):
    """VACUUM cannot run in a transaction."""
    with make(postgresql.url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM"))

        assert connection.execute(text("SHOW statement_timeout")).scalar() == "55s"


# SQLite.


@pytest.mark.parametrize(
    ("key", "value", "pragma", "expected"),
    [
        (None, None, "foreign_keys", 1),
        (None, None, "journal_mode", "wal"),
        (None, None, "busy_timeout", 10_000),
        ("sqa.sqlite.foreign_keys", "false", "foreign_keys", 0),
        ("sqa.sqlite.journal_mode", "truncate", "journal_mode", "truncate"),
        ("sqa.sqlite.journal_mode", "memory", "journal_mode", "memory"),
        ("sqa.lock_timeout", "0.5", "busy_timeout", 500),
        ("sqa.lock_timeout", "1000000", "busy_timeout", 1_000_000_000),
        ("sqlalchemy.connect_args.timeout", "3", "busy_timeout", 3000),
        ("sqlalchemy.isolation_level", "READ UNCOMMITTED", "read_uncommitted", 1),
    ],
)
def test_the_defaults_of_sqlite_and_how_to_change_them(make, sqlite, key, value, pragma, expected):
    """SQLite itself says so."""
    engine = make(sqlite.url, {key: value} if key else {})

    assert ask(engine, f"PRAGMA {pragma}") == expected


def test_sqlite_refuses_a_row_that_refers_to_nothing(make, sqlite):
    """Foreign keys are checked."""
    sqlite.run("CREATE TABLE a (id INTEGER PRIMARY KEY)", "CREATE TABLE b (a REFERENCES a (id))")
    with (
        make(sqlite.url).connect() as connection,
        pytest.raises(IntegrityError, match="FOREIGN KEY"),
    ):
        connection.execute(text("INSERT INTO b VALUES (7)"))


@pytest.mark.parametrize("level", ["", "IMMEDIATE"])
def test_ddl_is_inside_the_transaction(make, sqlite, level):
    """It is rolled back with the rest."""
    with make(
        sqlite.url, {"sqlalchemy.connect_args.isolation_level": level} if level else {}
    ).connect() as connection:
        connection.execute(text("CREATE TABLE note (body INTEGER)"))
        connection.execute(text("INSERT INTO note VALUES (1)"))
        connection.rollback()

    assert sqlite.rows("SELECT name FROM sqlite_master") == []


def test_a_savepoint_is_inside_the_transaction(make, sqlite):
    """What came before it stays, and is rolled back in the end all the same."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    with make(sqlite.url).connect() as connection:
        with connection.begin_nested() as savepoint:
            connection.execute(text("INSERT INTO note VALUES (1)"))
            savepoint.rollback()
        with connection.begin_nested():
            connection.execute(text("INSERT INTO note VALUES (2)"))
        assert connection.execute(text("SELECT body FROM note")).all() == [(2,)]
        connection.rollback()

    assert sqlite.rows("SELECT * FROM note") == []


def test_reads_are_inside_the_transaction(make, sqlite):
    """Two of them see the same, whoever writes between them."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    with make(sqlite.url).connect() as connection:
        before = connection.execute(text("SELECT count(*) FROM note")).scalar()
        sqlite.run("INSERT INTO note VALUES (1)")
        after = connection.execute(text("SELECT count(*) FROM note")).scalar()

    assert (before, after) == (0, 0)


def test_a_writer_waits_for_another_as_long_as_is_set(make, sqlite):
    """And no longer."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    engine = make(sqlite.url, {"sqa.lock_timeout": "0.3"})
    with engine.connect() as first, engine.connect() as second:
        first.execute(text("INSERT INTO note VALUES (1)"))
        started = time.monotonic()
        with pytest.raises(OperationalError, match="database is locked"):
            second.execute(text("INSERT INTO note VALUES (2)"))

        assert 0.2 < time.monotonic() - started < 2


def test_the_write_lock_can_be_taken_at_the_beginning(make, sqlite):
    """connect_args.isolation_level = IMMEDIATE, as the driver itself calls it."""
    engine = make(
        sqlite.url,
        {"sqlalchemy.connect_args.isolation_level": "IMMEDIATE", "sqa.lock_timeout": "0"},
    )
    with engine.connect() as first, engine.connect() as second:
        first.execute(text("SELECT 1"))

        with pytest.raises(OperationalError, match="database is locked"):
            second.execute(text("SELECT 1"))


def test_the_folder_of_the_file_is_made(make, tmp_path):
    """A clone of a project runs at once."""
    ask(make(f"sqlite:///{tmp_path}/var/lib/app.sqlite"), "SELECT 1")

    assert (tmp_path / "var" / "lib" / "app.sqlite").is_file()


def test_a_relative_path_is_relative_to_where_the_process_runs(make, tmp_path, monkeypatch):
    """As SQLAlchemy has it."""
    monkeypatch.chdir(tmp_path)
    ask(make("sqlite:///app.sqlite"), "SELECT 1")

    assert (tmp_path / "app.sqlite").is_file()


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("how", ["mode=ro", "immutable=1"])
def test_a_read_only_file_can_be_read(make, tmp_path, journal, how):
    """In whatever journal mode it was left."""
    path = tmp_path / "read-only.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE note AS SELECT 7 AS body")
    connection.close()
    engine = make(f"sqlite:///file:{path}?{how}&uri=true")

    assert ask(engine, "SELECT body FROM note") == 7
    with pytest.raises(OperationalError, match="readonly"):
        ask(engine, "DELETE FROM note")


def test_a_file_that_stays_locked_is_given_up_in_time(make, sqlite):
    """Somebody else holds it exclusively."""
    holder = sqlite3.connect(make_url(sqlite.url).database, isolation_level=None)
    holder.execute("CREATE TABLE note (body INTEGER)")
    holder.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    with pytest.raises(OperationalError, match="database is locked"):
        ask(make(sqlite.url, {"sqa.lock_timeout": "0.3"}), "SELECT 1")
    waited = time.monotonic() - started
    holder.close()

    assert waited < 2


def test_a_file_becomes_a_wal_although_somebody_writes_to_it(make, sqlite):
    """SQLite does not wait here, but answers "database is locked" at once."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    path = make_url(sqlite.url).database
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    end = threading.Timer(0.2, writer.execute, ["COMMIT"])
    end.start()
    found = ask(make(sqlite.url), "PRAGMA journal_mode")
    end.join()
    writer.close()

    assert found == "wal"


def test_many_threads_may_open_a_new_file_at_once(make, tmp_path):
    """Each with an engine of its own, as several applications of one process."""
    at_once = 16

    def open_it(engine, barrier):
        barrier.wait()
        return ask(engine, "PRAGMA journal_mode")

    with ThreadPoolExecutor(at_once) as threads:
        for number in range(20):
            url = f"sqlite:///{tmp_path}/{number}.sqlite"
            barrier = threading.Barrier(at_once)
            tries = [threads.submit(open_it, make(url), barrier) for _ in range(at_once)]

            assert [found.result() for found in tries] == ["wal"] * at_once


OPENER = """
import sys, time
from sqlalchemy import text
from pyramid_aalam_sqa import engine_from_settings

folder, start = sys.argv[1], float(sys.argv[2])
for number in range(40):
    engine = engine_from_settings({"sqlalchemy.url": f"sqlite:///{folder}/{number}.sqlite"})
    time.sleep(max(0, start + number / 100 - time.time()))
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    engine.dispose()
"""


def test_many_processes_may_open_a_new_file_at_once(tmp_path):
    """As the workers of a server do after the first installation."""
    arguments = [sys.executable, *QUIET, "-c", OPENER, str(tmp_path), str(time.time() + 2)]
    workers = [subprocess.Popen(arguments, stderr=subprocess.PIPE) for _ in range(4)]
    told = [worker.communicate()[1].decode() for worker in workers]

    assert told == [""] * 4


IN_MEMORY = [
    "sqlite://",
    "sqlite:///",
    "sqlite:///:memory:",
    "sqlite:///file::memory:?uri=true",
    "sqlite:///file:shared?mode=memory&uri=true",
    "sqlite:///file:shared?mode=memory&cache=shared&uri=true",
]


@pytest.mark.parametrize("poolclass", [None, "QueuePool", "StaticPool"])
@pytest.mark.parametrize("url", IN_MEMORY)
def test_a_database_in_memory_is_one_for_all_threads(make, tmp_path, monkeypatch, url, poolclass):
    """And leaves nothing on the disk."""
    monkeypatch.chdir(tmp_path)
    engine = make(url, {"sqlalchemy.poolclass": poolclass} if poolclass else {})
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE note (body INTEGER)"))

    def write(number):
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO note VALUES (:body)"), {"body": number})

    # A StaticPool hands one connection to all at once: that is what its choosers asked for.
    with ThreadPoolExecutor(1 if poolclass == "StaticPool" else 8) as threads:
        list(threads.map(write, range(20)))

    assert ask(engine, "SELECT count(*) FROM note") == 20
    assert list(tmp_path.iterdir()) == []


def test_a_second_connection_to_memory_waits_for_the_first(make):
    """It would be another, empty database."""
    engine = make("sqlite://", pool_timeout="0.1")
    with engine.connect(), pytest.raises(PoolTimeoutError):
        engine.connect()


# AUTOCOMMIT, and back.


def test_autocommit_works_on_sqlite(make, sqlite):
    """No transaction is begun: VACUUM works, and what is written is there at once."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    with make(sqlite.url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM"))
        connection.execute(text("INSERT INTO note VALUES (1)"))

        assert sqlite.rows("SELECT body FROM note") == [(1,)]


def test_one_connection_alone_may_be_in_autocommit(make, any_database):
    """The next one to use it has a transaction again."""
    any_database.run("CREATE TABLE note (body INTEGER)")
    engine = make(any_database.url, pool_size="1", max_overflow="0")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("INSERT INTO note VALUES (1)"))
        assert any_database.rows("SELECT body FROM note") == [(1,)]
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO note VALUES (2)"))
        connection.rollback()

    assert any_database.rows("SELECT body FROM note") == [(1,)]


def test_a_rollback_is_sent_although_those_of_autocommit_are_skipped(make, sqlite):
    """A connection in a transaction does not look like one in AUTOCOMMIT."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    engine = make(sqlite.url, skip_autocommit_rollback="true")
    for _ in range(2):
        with engine.connect() as connection:
            connection.execute(text("INSERT INTO note VALUES (1)"))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO note VALUES (2)"))

    assert sqlite.rows("SELECT body FROM note") == [(2,)]


# Pools and makers of connections of the application's own.


@pytest.fixture
def connect(any_database):
    """A function of the application's own that makes the driver's connections."""
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
    """What it makes is set up as every connection is."""
    made = []

    def creator():
        made.append(connect())
        return made[-1]

    statement, expected = LIMIT_OF_A_LOCK[any_database.kind]
    engine = make(any_database.url, creator=creator)

    assert ask(engine, statement) == expected
    assert driver_of(engine) is made[0]


def test_a_pool_of_the_applications_own_is_used(make, any_database, connect):
    """None of our defaults for pools is in its way."""
    pool = QueuePool(connect, pool_size=1)
    engine = make(any_database.url, pool=pool)

    assert ask(engine, "SELECT 1") == 1
    assert engine.pool is pool
    assert pool.checkedin() == 1


def test_a_pool_class_of_the_applications_own_is_used(make):
    """For a database in memory too."""
    assert type(make("sqlite://", poolclass=StaticPool).pool) is StaticPool


def test_a_detached_connection_is_closed_without_a_complaint(any_database, make, caplog):
    """It has left the pool, and what the pool would undo goes with it."""
    connection = make(any_database.url).connect()
    connection.execute(text("SELECT 1"))
    connection.detach()
    connection.close()

    assert caplog.records == []
    assert connection.closed
