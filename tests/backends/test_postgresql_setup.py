"""The settings of a new connection to PostgreSQL, and how to change each default."""
# ruff: noqa: PLR0913, PLR0917 - a table of cases has as many columns as it needs

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from pyramid_aalam_sqa import engine_from_settings
from support.engines import ask


def test_postgresql_keeps_its_own_settings_but_for_two_limits(make, postgresql):
    """Only two settings of the server differ from those on a plain engine of SQLAlchemy."""
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
    """The server reports the value that the setting asks for."""
    assert ask(make(postgresql.url, {key: value}), statement) == expected


def test_postgresql_ends_a_statement_that_takes_too_long(make, postgresql):
    """The error says that the statement ran into the limit."""
    with pytest.raises(OperationalError, match="statement timeout"):
        ask(make(postgresql.url, {"sqa.statement_timeout": "0.1"}), "SELECT pg_sleep(20)")


def test_the_limits_outlive_a_rollback(make, postgresql):
    """The limits are set on the connection, so a rollback does not undo them."""
    engine = make(postgresql.url)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.rollback()

        assert connection.execute(text("SHOW lock_timeout")).scalar() == "10s"


def test_autocommit_works_on_postgresql(make, postgresql):
    """VACUUM cannot run in a transaction."""
    engine = make(postgresql.url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM"))

        assert connection.execute(text("SHOW statement_timeout")).scalar() == "55s"


def test_psycopg2_waits_as_long_as_a_statement_may_take(postgresql):
    """Without a limit for statements its host is not given up either."""
    pytest.importorskip("psycopg2", reason="Tests of psycopg2 skipped: it is not installed.")
    url = postgresql.url.replace("+psycopg:", "+psycopg2:")
    found = []
    for seconds in ("3", "0"):
        engine = engine_from_settings({"sqlalchemy.url": url, "sqa.statement_timeout": seconds})
        with engine.connect() as connection:
            found.append(connection.connection.driver_connection.get_dsn_parameters())
        engine.dispose()

    assert [each.get("tcp_user_timeout") for each in found] == ["8000", None]
