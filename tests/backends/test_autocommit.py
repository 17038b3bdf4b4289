"""AUTOCOMMIT of one connection, and the transaction of the next one that uses it."""

import sqlite3

import pytest
from sqlalchemy import event, text
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import CreateEnginePlugin

from pyramid_aalam_sqa import SettingError


def test_autocommit_works_on_sqlite(make, sqlite):
    """No transaction is begun: VACUUM works, and a row is stored at once."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    engine = make(sqlite.url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM"))
        connection.execute(text("INSERT INTO note VALUES (1)"))

        assert sqlite.rows("SELECT body FROM note") == [(1,)]


def test_one_connection_alone_may_be_in_autocommit(make, any_database):
    """The next user of the pooled connection has a transaction again."""
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
    """SQLAlchemy takes a connection for one in AUTOCOMMIT only if it is."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    engine = make(sqlite.url, skip_autocommit_rollback="true")
    for _ in range(2):
        with engine.connect() as connection:
            connection.execute(text("INSERT INTO note VALUES (1)"))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO note VALUES (2)"))

    assert sqlite.rows("SELECT body FROM note") == [(2,)]


class SetsAutocommit(CreateEnginePlugin):
    """A plugin of SQLAlchemy, which changes each new connection."""

    def update_url(self, url):
        return url

    def engine_created(self, engine):
        event.listen(engine, "connect", lambda connection, _: set_autocommit(connection))


def set_autocommit(connection):
    if isinstance(connection, sqlite3.Connection):
        connection.isolation_level = None
    elif hasattr(connection, "get_autocommit"):
        connection.autocommit(True)
    else:
        connection.autocommit = True


def test_autocommit_that_a_plugin_sets_is_refused(make, any_database):
    """The package looks at a connection after the plugin has changed it."""
    plugins.register("sets_autocommit", __name__, "SetsAutocommit")
    engine = make(any_database.url, plugins="sets_autocommit")

    with pytest.raises(SettingError, match="AUTOCOMMIT"):
        engine.connect()


def test_autocommit_that_a_statement_has_set_ends_with_its_user(make, mariadb):
    """Also where nobody was told that it has ended the transaction."""
    mariadb.run("CREATE TABLE note (body INTEGER)")
    engine = make(mariadb.url, pool_size="1", max_overflow="0")
    with engine.connect() as connection:
        connection.execute(text("SET autocommit = 1"))
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO note VALUES (1)"))

    assert mariadb.rows("SELECT body FROM note") == []
