"""A product that this package does not know, and which promises are kept there."""

import sqlite3

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from transaction import TransactionManager

from pyramid_aalam_sqa import BrokenTransactionError
from pyramid_aalam_sqa.backends import check_options
from pyramid_aalam_sqa.backends.backend import Backend
from pyramid_aalam_sqa.engines.errors import install_listeners
from pyramid_aalam_sqa.sessions.session import JoinedSession


def test_a_late_session_reads_a_database_that_knows_no_read_only_transaction(sqlite):
    """No read-only statement is sent to an unknown product, and reading works."""
    engine = create_engine(sqlite.url)
    install_listeners(engine, Backend(engine.url, {"retry_codes": None, "shortcuts": True}))
    session = JoinedSession(engine, tm=TransactionManager(explicit=True))

    assert session.scalar(text("SELECT 1")) == 1
    session.end()
    engine.dispose()


class Unknown(SQLiteDialect_pysqlite):
    """A driver of which nothing is known; SQLite's stands for it."""

    driver = "unknown"
    supports_statement_cache = True


def test_a_statement_that_ends_the_transaction_is_known_by_its_text(sqlite):
    """Nothing tells whether such a driver has a transaction open."""
    sqlite.run("CREATE TABLE note (body)")
    registry.register("sqlite.unknown", __name__, "Unknown")
    engine = create_engine(sqlite.url.replace("sqlite:", "sqlite+unknown:"))
    install_listeners(engine, Backend(engine.url, {"retry_codes": None, "shortcuts": True}))
    session = JoinedSession(engine, tm=TransactionManager(explicit=True))
    session.tm.begin()
    session.execute(text("INSERT INTO note VALUES ('before')"))
    with pytest.raises(BrokenTransactionError, match="COMMIT"):
        session.execute(text("/* now */ COMMIT"))
    session.end()
    engine.dispose()


@pytest.fixture
def unknown(sqlite):
    """What is known of a product of which nothing is known; SQLite stands for it."""
    return Backend(create_engine(sqlite.url).url, {"retry_codes": None, "shortcuts": True})


def test_a_database_that_is_not_known_takes_writes_if_it_answers(unknown):
    """How its product says that it is read-only cannot be known."""
    with sqlite3.connect(":memory:") as connection:
        assert unknown.refuses_writes(connection) is False
    connection.close()
    with pytest.raises(sqlite3.ProgrammingError):
        unknown.refuses_writes(connection)


def test_an_argument_of_a_driver_that_is_not_known_is_not_judged(unknown):
    """What it does there cannot be known; its name is checked."""
    check_options(unknown, {"connect_args": {"timeout": 5, "autocommit": True}})


def test_the_code_of_an_error_that_is_not_known_is_its_sqlstate(unknown):
    """Every driver may have one; sqa.retry_codes is compared with it."""
    error = type("Error", (Exception,), {"sqlstate": "40001"})()

    assert unknown.error_code(error) == "40001"
    assert unknown.error_code(ValueError()) == ""
