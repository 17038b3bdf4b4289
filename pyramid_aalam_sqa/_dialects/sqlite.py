"""SQLite: real transactions, foreign keys, WAL, and one database in memory for all threads."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from .._urls import is_memory
from .generic import GenericDialect


class SQLiteDialect(GenericDialect):
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

    def engine_defaults(self) -> Mapping[str, str]:
        defaults = self.MEMORY_DEFAULTS if is_memory(self.url) else self.ENGINE_DEFAULTS
        return {**defaults, "connect_args.timeout": str(self.switches["lock_timeout"])}

    def prepare(self, engine: Engine) -> None:
        event.listen(engine, "do_connect", self._make_folder)
        event.listen(engine, "connect", self._set_up)
        event.listen(engine, "begin", _begin)

    def _make_folder(self, *_: Any) -> None:
        if self.url.database and not is_memory(self.url) and not self.url.query.get("uri"):
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)

    def _set_up(self, connection: sqlite3.Connection, _record: object) -> None:
        # The driver would begin a transaction of its own before some statements and not before
        # others, so that reads, DDL and savepoints are outside it: _begin does it instead.
        connection.isolation_level = None
        if self.switches["sqlite.foreign_keys"]:
            connection.execute("PRAGMA foreign_keys = ON")
        mode = self.switches["sqlite.journal_mode"]
        # The mode is kept in the file. It is only asked for again when it differs, because setting
        # it takes a lock and writes, which a read-only file refuses.
        current = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if current not in {mode, "memory"}:
            connection.execute(f"PRAGMA journal_mode = {mode}")


def _begin(connection: Connection) -> None:
    if connection.get_isolation_level() != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN")
