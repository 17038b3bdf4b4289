"""What a connection of MySQL knows of itself: whether the server has a transaction on it."""

import ast
import inspect
from contextlib import closing
from types import ModuleType

import pymysql.connections
import pytest
from sqlalchemy.engine import make_url

from pyramid_aalam_sqa import engine_from_settings
from pyramid_aalam_sqa.backends import driver_of
from support.drivers import drivers


@pytest.fixture(params=drivers("mysql+pymysql", "mysql+mysqldb"))
def engine(request, mariadb):
    """An engine with one connection on each of the drivers."""
    url = make_url(mariadb.url).set(drivername=request.param)
    mariadb.run("CREATE TABLE note (body INTEGER)")
    engine = engine_from_settings(
        {"sqlalchemy.url": url, "sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0"}
    )
    yield engine
    engine.dispose()


@pytest.fixture
def driver(engine):
    """The driver's connection, after a ROLLBACK."""
    with closing(engine.raw_connection()) as pooled:
        pooled.dbapi_connection.rollback()
        yield pooled.dbapi_connection


def run(driver, *statements):
    with closing(driver.cursor()) as cursor:
        for statement in statements:
            cursor.execute(statement)


def is_clean(engine, driver):
    return driver_of(engine.dialect).is_clean(driver)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_connection_is_clean_after_the_end_of_its_transaction(engine, driver, end):
    """And until something is sent."""
    run(driver, "INSERT INTO note VALUES (1)")
    getattr(driver, end)()

    assert is_clean(engine, driver)


@pytest.mark.parametrize(
    "use",
    [
        lambda driver: run(driver, "SELECT body FROM note"),
        lambda driver: run(driver, "INSERT INTO note VALUES (1)"),
        lambda driver: run(driver, "SET TRANSACTION READ ONLY"),
        lambda driver: driver.begin(),
        lambda driver: run(driver, "COMMIT AND CHAIN"),
    ],
    ids=["read", "write", "set", "begin", "chain"],
)
def test_whatever_is_sent_ends_that(engine, driver, use):
    """A read too, of which the server's answer says that it began no transaction."""
    use(driver)

    assert not is_clean(engine, driver)


@pytest.mark.parametrize("name", drivers("mysql+mysqldb"))
def test_a_ping_of_mysqlclient_ends_that(mariadb, name):
    """It is sent as a statement. Nothing is known of a connection while its answer is awaited."""
    url = make_url(mariadb.url).set(drivername=name)
    engine = engine_from_settings({"sqlalchemy.url": url})
    with closing(engine.raw_connection()) as pooled:
        driver = pooled.dbapi_connection
        driver.rollback()
        assert is_clean(engine, driver)
        assert engine.dialect.do_ping(driver)
        assert not is_clean(engine, driver)
    engine.dispose()


@pytest.mark.parametrize("name", drivers("mysql+mysqldb"))
def test_a_module_in_the_place_of_mysqlclient_makes_its_own_connections(mariadb, name):
    """They know nothing of themselves, so everything is sent on them."""
    import MySQLdb

    stand_in = ModuleType("stand_in")
    stand_in.__dict__.update({**vars(MySQLdb), "__name__": "stand_in"})
    url = make_url(mariadb.url).set(drivername=name)
    settings = {"sqlalchemy.url": url, "sqlalchemy.module": stand_in}
    engine = engine_from_settings(settings)
    with closing(engine.raw_connection()) as pooled:
        driver = pooled.dbapi_connection
        driver.rollback()
        assert type(driver) is MySQLdb.connections.Connection
        assert not is_clean(engine, driver)
    engine.dispose()


def test_a_commit_that_fails_ends_that(engine, driver, mariadb):
    """What became of it is not known."""
    number = driver.thread_id()
    mariadb.run(f"KILL CONNECTION {number}")
    with pytest.raises(engine.dialect.loaded_dbapi.Error):
        driver.commit()

    assert not is_clean(engine, driver)


def test_under_completion_type_chain_a_commit_leaves_no_clean_connection(mariadb):
    """PyMySQL keeps the status of the answer, which says that the next transaction has begun."""
    engine = engine_from_settings({"sqlalchemy.url": mariadb.url})
    with closing(engine.raw_connection()) as pooled:
        driver = pooled.dbapi_connection
        run(driver, "SET completion_type = CHAIN", "SELECT 1")
        driver.commit()
        assert not is_clean(engine, driver)
        run(driver, "SET completion_type = NO_CHAIN")
        driver.rollback()
        assert is_clean(engine, driver)
    engine.dispose()


def test_a_procedure_of_the_application_can_be_left_to_the_driver(engine, driver, mariadb):
    """It begins a transaction that nobody sees; the connection is not clean."""
    mariadb.run("CREATE PROCEDURE begins() BEGIN START TRANSACTION; END")
    run(driver, "CALL begins()")

    assert not is_clean(engine, driver)


def callers_of(name, tree):
    """Return the methods in *tree* that call a method called *name*."""
    return {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr == name
    }


def test_all_that_pymysql_sends_goes_through_one_method():
    """If this fails, look whether WatchedConnection still sees each statement."""
    tree = ast.parse(inspect.getsource(pymysql.connections))

    assert callers_of("_write_bytes", tree) == {"write_packet", "_execute_command", "close"}
    # Beside the statement itself: the login, and the file of LOAD DATA LOCAL after its statement,
    # which PyMySQL 1.2.0 sends in a method of another name.
    files = {"_send_local_file", "_read_load_local_packet", "send_data"}
    assert callers_of("write_packet", tree) - files == {
        *("_execute_command", "_request_authentication", "_process_auth"),
    }
