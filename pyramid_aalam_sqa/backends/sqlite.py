"""SQLite: real transactions, foreign keys, WAL, and one database in memory for all threads."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any, ClassVar
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from ..exceptions import SettingError
from .backend import Backend, ErrorKind
from .sqlite_schema import Attached
from .urls import is_file, is_memory

PRIMARY_CODE = 0xFF


CURSORS = "sqa.cursors"


ISOLATION = "sqa.isolation"


class SQLiteBackend(Backend):
    """SQLite as a database that keeps its promises."""

    ENGINE_DEFAULTS: ClassVar[Mapping[str, str]] = {"pool_timeout": "5"}
    # One connection, handed from thread to thread: a second one would be a second, empty database.
    MEMORY_DEFAULTS: ClassVar[Mapping[str, str]] = {
        "poolclass": "QueuePool",
        "pool_size": "1",
        "max_overflow": "0",
        "pool_timeout": "5",
        "connect_args.check_same_thread": "false",
    }

    ERROR_KINDS: ClassVar[Mapping[str, ErrorKind]] = {
        # Somebody else has written since this transaction read: it can never write.
        str(sqlite3.SQLITE_BUSY_SNAPSHOT): ErrorKind.CONFLICT,
        str(sqlite3.SQLITE_BUSY): ErrorKind.LOCKED,
        str(sqlite3.SQLITE_LOCKED): ErrorKind.LOCKED,
        str(sqlite3.SQLITE_READONLY): ErrorKind.REFUSED,
        str(sqlite3.SQLITE_CANTOPEN): ErrorKind.UNREACHABLE,
    }

    DENIED = frozenset({str(sqlite3.SQLITE_READONLY)})
    READ_ONLY = "PRAGMA query_only = ON"
    READ_WRITE = "PRAGMA query_only = OFF"

    def engine_defaults(self) -> Mapping[str, str]:
        """Return the options, waiting for locks as long as other databases do."""
        defaults = self.MEMORY_DEFAULTS if is_memory(self.url) else self.ENGINE_DEFAULTS
        return {**defaults, "connect_args.timeout": str(self.sqa_options["lock_timeout"])}

    def prepare(self, engine: Engine) -> None:
        if self.sqa_options["reset_connection"] and is_memory(self.url):
            msg = "sqa.reset_connection: a database in memory would be lost; write false."
            raise SettingError(msg)
        event.listen(engine, "do_connect", self._make_folder)
        if self.schema:
            Attached(self.schema, engine.dialect).prepare(engine)
        event.listen(engine, "connect", self._set_up)
        _begin_always(engine.dialect)
        event.listen(engine, "after_cursor_execute", _note_cursor)
        event.listen(engine, "reset", _close_cursors)

    def before_fork(self, engine: Engine) -> None:
        """Close the idle connections to a file.

        A child that inherits one takes the parent's locks for its own. What it then commits is
        lost when the parent, thinking itself alone, removes the write-ahead log.
        """
        if not is_memory(self.url):
            engine.dispose()

    def code(self, error: BaseException) -> str:
        """Return the number of the extended code where it means more than the primary one."""
        code: int = getattr(error, "sqlite_errorcode", 0)
        known = str(code) in self.ERROR_KINDS or str(code) in self.retry_codes
        return str(code if known else code & PRIMARY_CODE)

    def abandon(self, connection: Connection) -> None:
        """Do nothing: rows are made when they are fetched. A database in memory is kept."""

    def ends_transaction(self, error: BaseException, connection: Any) -> bool:
        """Tell whether SQLite has rolled back: ON CONFLICT ROLLBACK, a full disk.

        What is written from then on would be stored at once.
        """
        return connection.isolation_level is not None and not connection.in_transaction

    def take_lock(self, connection: Connection, name: str) -> bool:
        """Begin by taking the write lock of the file, which ends with the transaction."""
        driver: Any = connection.connection.dbapi_connection
        connection.info[ISOLATION] = driver.isolation_level
        driver.isolation_level = "IMMEDIATE"
        try:
            connection.begin()
        except OperationalError as error:
            self.release_lock(connection, name)
            if self.ERROR_KINDS.get(self.code(error.orig or error)) is ErrorKind.LOCKED:
                return False
            raise
        return True

    def release_lock(self, connection: Connection, name: str) -> None:
        """Have later transactions begin as they did."""
        # At the end: the driver commits when it is told of AUTOCOMMIT.
        connection.rollback()
        driver: Any = connection.connection.dbapi_connection
        driver.isolation_level = connection.info.pop(ISOLATION)

    def _make_folder(self, *_: Any) -> None:
        path = self.url.database
        if path and is_file(self.url):
            folder = Path(path).parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                msg = f"{self.prefix}url: the folder {folder} cannot be made ({error.strerror})."
                raise SettingError(msg) from error

    def _set_up(self, connection: sqlite3.Connection, _record: object) -> None:
        if self.sqa_options["sqlite.foreign_keys"]:
            connection.execute("PRAGMA foreign_keys = ON")
        deadline = monotonic() + self.sqa_options["lock_timeout"]
        while not self._has_journal_mode(connection, deadline):
            sleep(0.01)

    def _has_journal_mode(self, connection: sqlite3.Connection, deadline: float) -> bool:
        """Set the mode, which is kept in the file; false when somebody else is at it just now.

        SQLite does not wait here as it waits for other locks.
        """
        mode = self.sqa_options["sqlite.journal_mode"]
        pragma = f'PRAGMA "{self.schema or "main"}".journal_mode'
        try:
            if connection.execute(pragma).fetchone()[0] != mode:
                connection.execute(f"{pragma} = {mode}")
        except sqlite3.OperationalError as error:
            code = error.sqlite_errorcode & PRIMARY_CODE
            if code == sqlite3.SQLITE_BUSY and monotonic() < deadline:
                return False
            # A file that is read-only can be read in any mode.
            if code != sqlite3.SQLITE_READONLY:
                raise
        return True


def _note_cursor(connection: Connection, cursor: DBAPICursor, *_: object) -> None:
    # Called for each statement, so that the set is made for the first alone.
    if CURSORS not in connection.info:
        connection.info[CURSORS] = WeakSet()
    connection.info[CURSORS].add(cursor)


def _close_cursors(_connection: object, record: ConnectionPoolEntry | None, _state: object) -> None:
    """Close what was not read to its end, and is held by a traceback, say.

    Whoever gets the connection next would see the database as it was then, and could not write.
    """
    # A connection that was detached has none, and is closed.
    for cursor in record.info.pop(CURSORS, ()) if record else ():
        cursor.close()


def _begin_always(dialect: Any) -> None:
    """Let *dialect* send BEGIN; the driver would leave reads, DDL and savepoints outside."""

    def do_begin(connection: Any) -> None:
        driver = connection.dbapi_connection
        # None is how SQLAlchemy tells the driver of AUTOCOMMIT.
        if driver.isolation_level is not None:
            driver.execute(f"BEGIN {driver.isolation_level}")

    dialect.do_begin = do_begin
