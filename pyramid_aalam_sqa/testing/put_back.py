"""Puts the tables of a database back as they were, with their automatic numbers.

Each name in a statement was quoted by SQLAlchemy or by the server.
"""
# ruff: noqa: S608

import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import Pool

from ..exceptions import SandboxError
from .lent import rows_of

COULD_NOT = "The tables could not be put back after the test: {}"
NUMBER = re.compile(r"\bAUTO_INCREMENT=(\d+)")


# Engines that log in as the owner of the tables, by the URL of the application. psqa gives an
# application no account that may empty a table.
owners: dict[URL, Engine] = {}


class PutBack:
    """What the database of *engine* holds now. *pool* lends a connection of the application."""

    def __init__(self, engine: Engine, pool: Pool) -> None:
        owner = owners.get(engine.url)
        self._copy = COPIES[engine.dialect.name](engine, owner.pool if owner else pool)

    def finish(self, *, restore: bool) -> None:
        """Put all back if *restore*, and forget it. Raises :class:`SandboxError` if that fails."""
        try:
            if restore:
                self._copy.restore()
        except self._copy.error as error:
            raise SandboxError(COULD_NOT.format(error)) from error
        finally:
            self._copy.close()


class SQLiteCopy:
    """A copy of each file, made by SQLite's own backup."""

    def __init__(self, engine: Engine, pool: Pool) -> None:
        self._pool = pool
        self.error = sqlite3.Error
        self._copies: dict[str, sqlite3.Connection] = {}
        pooled = pool.connect()
        driver: Any = pooled.dbapi_connection
        for _number, name, _file in driver.execute("PRAGMA database_list").fetchall():
            if name != "temp":
                copy = self._copies[name] = sqlite3.connect(":memory:", check_same_thread=False)
                driver.backup(copy, name=name)
        pooled.close()

    def restore(self) -> None:
        """Write the copies back."""
        pooled = self._pool.connect()
        driver: Any = pooled.dbapi_connection
        driver = getattr(driver, "driver", driver)
        try:
            for name, copy in self._copies.items():
                _back_up(copy, driver, name)
        finally:
            pooled.close()

    def close(self) -> None:
        """Forget the copies."""
        for copy in self._copies.values():
            copy.close()


def _back_up(copy: sqlite3.Connection, driver: Any, name: str) -> None:
    """Write *copy* over the database *name* of *driver*, which Python's backup() cannot name."""
    if name == "main":
        copy.backup(driver)
        return
    file = next(row[2] for row in driver.execute("PRAGMA database_list") if row[1] == name)
    target = sqlite3.connect(file)
    try:
        copy.backup(target)
    finally:
        target.close()


class ServerCopy(ABC):
    """Copies of the tables with rows, as temporary tables of one connection."""

    NUMBERS = ""

    def __init__(self, engine: Engine, pool: Pool) -> None:
        dialect: Any = engine.dialect
        self._quote = dialect.identifier_preparer.quote_identifier
        self.error = dialect.loaded_dbapi.Error
        pooled = pool.connect()
        pooled.detach()
        driver: Any = pooled.dbapi_connection
        self._driver = getattr(driver, "driver", driver)
        self.autocommit()
        self.tables = self.find_tables()
        self._copies: dict[str, str] = {}
        for number, table in enumerate(self.tables):
            if self._has_rows(table):
                copy = self._copies[table] = self._quote(f"sqa_put_back_{number}")
                self.ask(
                    f"CREATE TEMPORARY TABLE {copy} AS SELECT {self.columns(table)} FROM {table}"
                )
        self.before = self.state()

    @abstractmethod
    def autocommit(self) -> None:
        """Let each statement be stored at once."""

    @abstractmethod
    def find_tables(self) -> list[str]:
        """Return the tables, quoted, in the order in which rows can be inserted."""

    @abstractmethod
    def columns(self, table: str) -> str:
        """Return the columns of *table* that can be written, quoted."""

    @abstractmethod
    def state(self) -> Any:
        """Return what tells whether something was changed."""

    @abstractmethod
    def restore(self) -> None:
        """Put the rows and the numbers back where they differ."""

    def fill(self, tables: Iterable[str]) -> None:
        """Insert the copied rows of *tables*, which are empty."""
        for table in tables:
            if table in self._copies:
                columns = self.columns(table)
                self.ask(
                    f"INSERT INTO {table} ({columns}) {self.NUMBERS}"
                    f"SELECT {columns} FROM {self._copies[table]}"
                )

    def close(self) -> None:
        """Close the connection, and so drop the copies."""
        self._driver.close()

    def ask(self, statement: str) -> list[Any]:
        """Send a statement and return its rows."""
        return rows_of(self._driver, statement)

    def _has_rows(self, table: str) -> bool:
        return bool(self.ask(f"SELECT 1 FROM {table} LIMIT 1"))


class MySQLCopy(ServerCopy):
    """Tables of MySQL or MariaDB; those whose checksum differs were touched."""

    def autocommit(self) -> None:
        """Let each statement be stored at once, and in any order."""
        self._driver.autocommit(True)
        self.ask(
            "SET foreign_key_checks = 0, sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')"
        )

    def find_tables(self) -> list[str]:
        """Return the tables of the current database."""
        rows = self.ask(
            "SELECT table_name FROM information_schema.tables "
            "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'"
        )
        return [self._quote(name) for (name,) in rows]

    def columns(self, table: str) -> str:
        """Leave out what the server computes."""
        rows = self.ask(f"SHOW COLUMNS FROM {table}")
        names = [row[0] for row in rows if not re.search("GENERATED|VIRTUAL|PERSISTENT", row[5])]
        return ", ".join(map(self._quote, names))

    def state(self) -> dict[str, tuple[Any, int]]:
        """Return the checksum and the next number of each table."""
        if not self.tables:
            return {}
        sums = self.ask(f"CHECKSUM TABLE {', '.join(self.tables)}")
        return {
            table: (checksum, self._next_number(table))
            for table, (_, checksum) in zip(self.tables, sums, strict=True)
        }

    def _next_number(self, table: str) -> int:
        found = NUMBER.search(self.ask(f"SHOW CREATE TABLE {table}")[0][1])
        return int(found[1]) if found else 1

    def restore(self) -> None:
        """Empty and fill the tables that were touched."""
        now = self.state()
        touched = [table for table in self.tables if now[table] != self.before[table]]
        for table in touched:
            self.ask(f"TRUNCATE TABLE {table}")
            self.fill([table])
            number = self.before[table][1]
            if number > 1:
                self.ask(f"ALTER TABLE {table} AUTO_INCREMENT = {number}")


class PostgreSQLCopy(ServerCopy):
    """Tables of PostgreSQL in all schemas that the account may write to."""

    NUMBERS = "OVERRIDING SYSTEM VALUE "
    TABLES = (
        "SELECT c.oid, format('%I.%I', n.nspname, c.relname) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') "
        "AND NOT c.relispartition AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' "
        "AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'TRUNCATE')"
    )
    SEQUENCES = (
        "SELECT format('%I.%I', schemaname, sequencename), coalesce(last_value, start_value), "
        "last_value IS NOT NULL FROM pg_sequences "
        "WHERE has_sequence_privilege(format('%I.%I', schemaname, sequencename), 'UPDATE')"
    )

    def autocommit(self) -> None:
        """Let each statement be stored at once."""
        self._driver.autocommit = True

    def find_tables(self) -> list[str]:
        """Return the tables, those that others refer to first."""
        names = dict(self.ask(self.TABLES))
        found = self.ask("SELECT conrelid, confrelid FROM pg_constraint WHERE contype = 'f'")
        needs: dict[Any, set[Any]] = {oid: set() for oid in names}
        for own, other in found:
            if own != other and own in names and other in names:
                needs[own].add(other)
        ordered: list[str] = []
        while needs:
            # In a circle of tables any is the first; its rows are refused if they need the others.
            ready = [oid for oid, before in needs.items() if not before] or [next(iter(needs))]
            for oid in ready:
                ordered.append(names[oid])
                del needs[oid]
            for before in needs.values():
                before.difference_update(ready)
        return ordered

    def columns(self, table: str) -> str:
        """Leave out what the server computes."""
        rows = self.ask(
            "SELECT quote_ident(attname) FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped "
            f"AND attgenerated = '' AND attrelid = $name${table}$name$::regclass ORDER BY attnum"
        )
        return ", ".join(name for (name,) in rows)

    def state(self) -> list[Any]:
        """Return where each sequence is."""
        return self.ask(self.SEQUENCES)

    def restore(self) -> None:
        """Empty all tables with rows, and fill those that had some."""
        if any(map(self._has_rows, self.tables)):
            # All at once: tables that refer to each other can only be emptied together.
            self.ask(f"TRUNCATE {', '.join(self.tables)}")
        self.fill(self.tables)
        for name, value, called in self.before:
            self.ask(f"SELECT setval($name${name}$name$, {value}, {called})")


COPIES: dict[str, Any] = {
    "mysql": MySQLCopy,
    "mariadb": MySQLCopy,
    "postgresql": PostgreSQLCopy,
    "sqlite": SQLiteCopy,
}
