"""PostgreSQL through psycopg: bounded waits, one schema, and otherwise what SQLAlchemy does."""

import hashlib
from collections.abc import Mapping
from math import ceil
from typing import Any, ClassVar

from sqlalchemy import event, func, inspect, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.schema import CreateSchema

from .backend import Backend, ErrorKind

# libpq's PQTRANS_INERROR.
FAILED = 3


class PostgreSQLBackend(Backend):
    """PostgreSQL with a bound on each wait."""

    ENGINE_DEFAULTS: ClassVar[Mapping[str, str]] = {
        **Backend.ENGINE_DEFAULTS,
        "pool_recycle": "1800",
        "connect_args.connect_timeout": "5",
    }
    DRIVERS = frozenset({"psycopg", "psycopg2", "psycopg2cffi"})

    # Out of range, no date, not in the encoding, no text for that type.
    NO_VALUE = frozenset({"22003", "22007", "22008", "22021", "22P02", "22P05"})
    ERROR_KINDS: ClassVar[Mapping[str, ErrorKind]] = {
        **dict.fromkeys(("40001", "40P01"), ErrorKind.CONFLICT),
        "55P03": ErrorKind.LOCKED,
        **dict.fromkeys(("57P01", "57P02", "57P05", "25P03"), ErrorKind.DISCONNECT),
        "25006": ErrorKind.READ_ONLY,
        **dict.fromkeys(("57P03", "53300"), ErrorKind.UNREACHABLE),
    }
    DENIED = frozenset({"42501"})
    READ_ONLY = "SET TRANSACTION READ ONLY"
    # What was deferred would fail at COMMIT.
    LAST_QUESTION = "SET CONSTRAINTS ALL IMMEDIATE"

    def prepare(self, engine: Engine) -> None:
        # With a schema, before SQLAlchemy's own listener, which asks for the current one.
        event.listen(engine, "connect", self._set_up, insert=bool(self.schema))

    def _set_up(self, connection: DBAPIConnection, _record: Any) -> None:
        # PostgreSQL takes 0 for no limit, also where not to wait at all was meant.
        lock = max(1, ceil(self.sqa_options["lock_timeout"] * 1000))
        statement = ceil(self.sqa_options["statement_timeout"] * 1000)
        options = {"lock_timeout": lock, "statement_timeout": statement}
        if self.schema:
            # Alone: a table of the same name in public would be found where this one is missing.
            options["search_path"] = f'"{self.schema}"'
        calls = (f"set_config('{name}', '{value}', false)" for name, value in options.items())
        cursor = connection.cursor()
        cursor.execute("SELECT " + ", ".join(calls))
        cursor.close()
        connection.commit()

    def fault(
        self, error: BaseException, *, connecting: bool, disconnected: bool
    ) -> ErrorKind | None:
        """Tell what accident *error* is; libpq gives no code when there is no connection."""
        found = super().fault(error, connecting=connecting, disconnected=disconnected)
        return ErrorKind.UNREACHABLE if connecting and not self.code(error) else found

    def take_lock(self, connection: Connection, name: str) -> bool:
        """Take it until the end of the transaction."""
        # AUTOCOMMIT would end the lock at once. From REPEATABLE READ on, a transaction would see
        # the tables as they were before it had the lock.
        connection.execution_options(isolation_level="READ COMMITTED")
        key = int.from_bytes(hashlib.sha256(f"sqa:{name}".encode()).digest()[:8], signed=True)
        return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(key))))

    def make_schema(self, connection: Connection, name: str) -> None:
        if not inspect(connection).has_schema(name):
            connection.execute(CreateSchema(name))

    def socket(self, connection: Any) -> Any:
        """Return the connection itself, which knows its socket while it is open."""
        return None if connection.closed else connection

    def abandon(self, connection: Connection) -> None:
        """Do nothing: the server keeps what was not fetched, and forgets it."""

    def breaks_transaction(self, error: BaseException) -> bool:
        """Tell whether the server has seen it: every error ends its transaction there.

        A COMMIT of such a transaction is answered with success, and has rolled back.
        """
        return bool(self.code(error))

    def would_roll_back(self, connection: Any) -> bool:
        """Tell whether an error was seen by the driver alone, on a cursor of its own."""
        status = getattr(getattr(connection, "info", None), "transaction_status", None)
        return status == FAILED
