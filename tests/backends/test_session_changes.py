"""What a request leaves on its connection never reaches the next request."""

import re

import pytest
from pyramid.response import Response
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from webtest import TestApp

from pyramid_aalam_sqa import BrokenTransactionError, get_sqa
from pyramid_aalam_sqa.backends import backend_of
from pyramid_aalam_sqa.backends.session_changes import MYSQL, POSTGRESQL, SQLITE
from support.apps import with_view
from support.drivers import drivers
from support.proxy import Proxy, Then

PRODUCTS = {"mysql": MYSQL, "postgresql": POSTGRESQL, "sqlite": SQLITE}

CHANGES = {
    "mysql": [
        "SET foreign_key_checks = 0",
        "  set SESSION sql_mode = ''",
        "SET @visitor = 1",
        "SET ROLE admin",
        "SET NAMES latin1",
        "/* comment */ -- another\nSET autocommit = 1",
        "# a third\nUSE other",
        "/*!50000 SET sql_mode = '' */",
        "/*M!100000 SET sql_mode = '' */",
        "SELECT 1; SET sql_mode = ''",
        "CREATE TEMPORARY TABLE note (id INTEGER)",
        "create or replace temporary table note (id INTEGER)",
        "LOCK TABLES note WRITE",
        "FLUSH TABLES WITH READ LOCK",
        "PREPARE q FROM 'SELECT 1'",
        "HANDLER note OPEN",
        "SELECT GET_LOCK('x', 1)",
        "DO GET_LOCK('x', 1)",
        "SELECT @n := 5",
        "SELECT id INTO @n FROM note",
        "CALL anything()",
        "BEGIN NOT ATOMIC SET @x = 1; END",
        "XA START 'x'",
    ],
    "postgresql": [
        "SET search_path = other",
        "SET SESSION work_mem = '5MB'",
        "SET ROLE admin",
        "SET SESSION AUTHORIZATION admin",
        "RESET ALL",
        "DISCARD ALL",
        "LISTEN news",
        "PREPARE q AS SELECT 1",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "CREATE TEMP TABLE note (id INTEGER)",
        "CREATE TEMPORARY VIEW v AS SELECT 1",
        "CREATE TABLE pg_temp.note (id INTEGER)",
        "SELECT 1 AS id INTO TEMP note",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock_shared(1)",
        "SELECT set_config('work_mem', '5MB', false)",
        "SELECT setseed(0.5)",
        "LOAD 'auto_explain'",
        "DO $$ BEGIN PERFORM 1; END $$",
        "CALL anything()",
        "SELECT 1; SET ROLE admin",
    ],
    "sqlite": [
        "PRAGMA foreign_keys = OFF",
        "PRAGMA foreign_keys(0)",
        "PRAGMA main.synchronous=0",
        'PRAGMA "aalam_base".cache_size = 5',
        "ATTACH 'other.sqlite' AS other",
        "DETACH other",
        "CREATE TEMP TABLE note (id)",
        "CREATE TEMPORARY TRIGGER t AFTER INSERT ON note BEGIN SELECT 1; END",
        "CREATE TABLE temp.note (id)",
        "CREATE TABLE IF NOT EXISTS temp.note (id)",
        "SELECT load_extension('x')",
    ],
}
HARMLESS = {
    "mysql": [
        "SELECT * FROM settings WHERE set_at > %s",
        "UPDATE note SET body = %s",
        "INSERT INTO note (body) VALUES (%s)",
        "SET TRANSACTION READ ONLY",
        "SET STATEMENT max_statement_time = 1 FOR SELECT 1",
        "SAVEPOINT sa_savepoint_1",
        "CREATE TABLE note (id INTEGER)",
        "SELECT RELEASE_LOCK('x')",
        "SHOW TABLES",
        "WITH used AS (SELECT 1) SELECT * FROM used",
    ],
    "postgresql": [
        "UPDATE note SET body = %(body)s",
        "SET LOCAL work_mem = '5MB'",
        "SET TRANSACTION READ ONLY",
        "SET CONSTRAINTS ALL IMMEDIATE",
        "PREPARE TRANSACTION 'x'",
        "SELECT pg_advisory_xact_lock(1)",
        "CREATE TABLE note (id INTEGER)",
        "SELECT pg_catalog.version()",
    ],
    "sqlite": [
        "UPDATE note SET body = ?",
        'PRAGMA main.table_info("note")',
        "PRAGMA foreign_key_list(note)",
        "PRAGMA journal_mode",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "CREATE TABLE template (id)",
        "SELECT temp FROM weather",
    ],
}


@pytest.mark.parametrize(
    ("changes", "statement"),
    [(PRODUCTS[each], text) for each, texts in CHANGES.items() for text in texts],
)
def test_a_statement_that_leaves_something_is_recognized(changes, statement):
    """The package looks at its first word, after blanks and comments, and at function calls."""
    assert changes[statement]
    # A long statement is not remembered, and judged in the same way.
    assert changes[statement + " " * 20_000]


@pytest.mark.parametrize(
    ("changes", "statement"),
    [(PRODUCTS[each], text) for each, texts in HARMLESS.items() for text in texts],
)
def test_a_usual_statement_costs_no_new_connection(changes, statement):
    """Words inside a statement do not count, nor does what ends with the transaction."""
    assert not changes[statement]


@pytest.fixture
def visits(serve):
    """Return a function that makes an application with one connection, and visits it.

    Each visit runs statements in a request of its own, and returns the first value of the last one.
    """

    def visits(url, **settings):
        def view(request):
            value = None
            for statement in request.json_body["statements"]:
                result = request.sqa_session.execute(text(statement))
                value = result.scalar() if result.returns_rows else None
            return Response(str(value), status=request.json_body["status"])

        one = {"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0", **settings}
        app = serve(url, with_view(view), **one)
        client = TestApp(app)

        def visit(*statements, status=200):
            body = {"statements": statements, "status": status}
            return client.post_json("/", body, status=status).text

        visit.engine = get_sqa(app).engine
        return visit

    return visits


NUMBER = {
    "mysql": "SELECT connection_id()",
    "postgresql": "SELECT pg_backend_pid()",
}


@pytest.mark.parametrize("status", [200, 500])
def test_a_temporary_table_does_not_swallow_the_next_visitors_row(any_database, visits, status):
    """The temporary table has the name of a real table, and hides it."""
    any_database.run("CREATE TABLE note (body VARCHAR(50))")
    visit = visits(any_database.url)
    visit("CREATE TEMPORARY TABLE note (body VARCHAR(50))", status=status)
    visit("INSERT INTO note VALUES ('stored')")

    assert any_database.rows("SELECT body FROM note") == [("stored",)]


MYSQL_LEFTOVERS = {
    "another database": (["USE information_schema"], "SELECT DATABASE() <> 'information_schema'"),
    "foreign keys": (["SET foreign_key_checks = 0"], "SELECT @@foreign_key_checks"),
    "sql_mode": (["SET sql_mode = ''"], "SELECT @@sql_mode LIKE '%STRICT%'"),
    "time zone": (["SET time_zone = '-09:30'"], "SELECT @@time_zone = '+00:00'"),
    "user variable": (["SET @secret = 7"], "SELECT @secret IS NULL"),
    "assigned variable": (["SELECT @secret := 7"], "SELECT @secret IS NULL"),
    "named lock": (
        ["SELECT GET_LOCK('sqa_test_left', 1)"],
        "SELECT IS_USED_LOCK('sqa_test_left') IS NULL",
    ),
    "procedure": (["CALL keep()"], "SELECT @kept IS NULL"),
}


@pytest.mark.parametrize("case", MYSQL_LEFTOVERS)
@pytest.mark.parametrize("driver", drivers("mysql+pymysql", "mysql+mysqldb"))
def test_mysql_gives_the_next_visitor_a_connection_as_new(mariadb, visits, case, driver):
    """What one request sets is gone in the next one, with either driver."""
    mariadb.run("CREATE TABLE t (id INTEGER)", "CREATE PROCEDURE keep() SET @kept = 1")
    visit = visits(mariadb.url.replace("mysql+pymysql", driver))
    statements, look = MYSQL_LEFTOVERS[case]
    visit(*statements)

    assert visit(look) == "1"


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("set_it", ["SET autocommit = 1", "SET @@autocommit = 1", "CALL sets_it()"])
@pytest.mark.parametrize("driver", drivers("mysql+pymysql", "mysql+mysqldb"))
def test_autocommit_is_refused_and_gone_in_the_next_request(
    mariadb, visits, driver, set_it, status
):
    """Each statement after it would be stored at once, also where nothing was written before."""
    mariadb.run("CREATE TABLE note (id INTEGER)", "CREATE PROCEDURE sets_it() SET autocommit = 1")
    visit = visits(mariadb.url.replace("mysql+pymysql", driver))
    with pytest.raises(BrokenTransactionError, match=re.split("[(=]", set_it)[0].strip()):
        visit(set_it, "INSERT INTO note VALUES (1)", status=status)

    assert visit("SELECT @@autocommit = 0") == "1"
    assert mariadb.rows("SELECT id FROM note") == []


def test_a_table_lock_ends_with_its_request(mariadb, visits):
    """LOCK TABLES would block every other connection."""
    mariadb.run("CREATE TABLE note (body VARCHAR(50))")
    visit = visits(mariadb.url)
    visit("LOCK TABLES note WRITE")
    mariadb.run("SET lock_wait_timeout = 5", "INSERT INTO note VALUES ('other')")

    assert visit("SELECT body FROM note") == "other"


POSTGRESQL_LEFTOVERS = {
    "search_path": (["SET search_path = pg_catalog"], "SELECT current_schema() = 'public'"),
    "role": (["SET ROLE pg_read_all_data"], "SELECT current_user = session_user"),
    "setting": (["SET work_mem = '5MB'"], "SELECT current_setting('work_mem') <> '5MB'"),
    "function": (
        ["SELECT set_config('work_mem', '5MB', false)"],
        "SELECT current_setting('work_mem') <> '5MB'",
    ),
    "our limits": (["RESET ALL"], "SELECT current_setting('lock_timeout') = '10s'"),
    "listening": (["LISTEN news"], "SELECT count(*) = 0 FROM pg_listening_channels()"),
    "prepared": (
        ["PREPARE left_over AS SELECT 1"],
        "SELECT count(*) = 0 FROM pg_prepared_statements WHERE name = 'left_over'",
    ),
    "advisory lock": (
        ["SELECT pg_advisory_lock(4711)"],
        "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'",
    ),
    "cursor": (
        ["DECLARE left_over CURSOR WITH HOLD FOR SELECT 1"],
        "SELECT count(*) = 0 FROM pg_cursors WHERE name = 'left_over'",
    ),
}


@pytest.mark.parametrize("case", POSTGRESQL_LEFTOVERS)
@pytest.mark.parametrize("driver", drivers("postgresql+psycopg", "postgresql+psycopg2"))
def test_postgresql_gives_the_next_visitor_a_connection_as_new(postgresql, visits, case, driver):
    """What one request sets is gone in the next one, with either driver."""
    visit = visits(postgresql.url.replace("postgresql+psycopg", driver))
    statements, look = POSTGRESQL_LEFTOVERS[case]
    visit(*statements)

    assert visit(look) == "True"


SQLITE_LEFTOVERS = {
    "foreign keys": (["PRAGMA foreign_keys = OFF"], "PRAGMA foreign_keys", "1"),
    "busy timeout": (["PRAGMA busy_timeout = 1"], "PRAGMA busy_timeout", "10000"),
    "read-only": (["PRAGMA query_only = ON"], "PRAGMA query_only", "0"),
    "temporary view": (
        ["CREATE TEMP VIEW seen AS SELECT 1"],
        "SELECT count(*) FROM sqlite_temp_master",
        "0",
    ),
}


@pytest.mark.parametrize("case", SQLITE_LEFTOVERS)
def test_sqlite_gives_the_next_visitor_a_connection_as_new(sqlite, visits, case):
    """What one request sets is gone in the next one."""
    statements, look, expected = SQLITE_LEFTOVERS[case]
    visit = visits(sqlite.url)
    visit("SELECT 1")
    visit(*statements)

    assert visit(look) == expected


def test_a_database_in_memory_keeps_its_rows(visits):
    """Its connection is never closed, whatever a statement leaves on it."""
    visit = visits("sqlite://")
    visit("CREATE TABLE note (body)", "PRAGMA cache_size = 5")
    visit("INSERT INTO note VALUES ('kept')")

    assert visit("SELECT body FROM note") == "kept"


@pytest.mark.parametrize("database", ["mariadb", "postgresql"])
def test_a_clean_connection_is_used_again(database, request, visits):
    """Usual statements, an error, or a read after the request do not cost a new connection."""
    database = request.getfixturevalue(database)
    database.run("CREATE TABLE note (body VARCHAR(50))")
    visit = visits(database.url)
    opened = []
    event.listen(visit.engine, "connect", lambda *_: opened.append(1))
    number = NUMBER[database.kind]
    first = visit(number)
    visit("INSERT INTO note VALUES ('a')", "SELECT body FROM note")
    visit("UPDATE note SET body = 'b'", status=500)

    assert visit(number) == first
    assert opened == [1]


def test_a_change_outside_a_request_is_not_left_either(any_database, visits):
    """The same pool serves engine.begin() and the application's own sessions."""
    any_database.run("CREATE TABLE note (body VARCHAR(50))")
    visit = visits(any_database.url)
    with visit.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE note (body VARCHAR(50))")
    visit("INSERT INTO note VALUES ('stored')")

    assert any_database.rows("SELECT body FROM note") == [("stored",)]


def test_the_connection_budget_counts_a_renewed_connection_once(mariadb, visits):
    """The closed connection's place is free for the new one."""
    visit = visits(mariadb.url, **{"sqa.max_connections": "3"})
    for _ in range(5):
        visit("SET @x = 1")

    assert visit("SELECT @x IS NULL") == "1"


def test_a_statement_that_is_sent_as_it_is_counts_too(mariadb, visits):
    """SQLAlchemy sends statements without parameters in another way."""
    visit = visits(mariadb.url)
    with visit.engine.connect().execution_options(no_parameters=True) as connection:
        connection.exec_driver_sql("SET @x = 1")

    assert visit("SELECT @x IS NULL") == "1"


def test_a_connection_that_is_lost_as_it_is_made_writable_again_goes_back_too(mariadb, visits):
    """The rollback before was answered, and the statement that follows is not."""
    url = make_url(mariadb.url)
    proxy = Proxy(url.host, url.port)
    proxy.have("SET SESSION TRANSACTION READ WRITE", Then.CUT)
    visit = visits(url.set(port=proxy.port).render_as_string(hide_password=False))
    with visit.engine.connect() as connection:
        backend_of(connection).make_read_only(connection)

    assert visit.engine.pool.checkedout() == 0
    assert visit("SELECT 1") == "1"
    visit.engine.dispose()
    proxy.close()


def test_a_connection_that_is_lost_while_it_refuses_writes_still_goes_back(mariadb, visits):
    """Making it writable again fails, but its place in the pool becomes free."""
    visit = visits(mariadb.url)
    with visit.engine.connect() as connection:
        number = connection.scalar(text(NUMBER["mysql"]))
        backend_of(connection).make_read_only(connection)
        connection.rollback()
        # As if the server had closed it just now.
        mariadb.run(f"KILL {number}")

    assert visit.engine.pool.checkedout() == 0
    assert visit("SELECT 1") == "1"
