"""PostgreSQL through psycopg: bounded waits, and otherwise what SQLAlchemy does."""

from collections.abc import Mapping
from math import ceil
from typing import Any, ClassVar

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from .generic import Fault, GenericDialect

# libpq's PQTRANS_INERROR.
FAILED = 3


class PostgreSQLDialect(GenericDialect):
    """PostgreSQL with a bound on each wait."""

    ENGINE_DEFAULTS: ClassVar[Mapping[str, str]] = {
        **GenericDialect.ENGINE_DEFAULTS,
        "pool_recycle": "1800",
        "connect_args.connect_timeout": "5",
    }
    DRIVERS = frozenset({"psycopg", "psycopg2", "psycopg2cffi"})

    FAULTS: ClassVar[Mapping[str, Fault]] = {
        **dict.fromkeys(("40001", "40P01"), Fault.CONFLICT),
        "55P03": Fault.LOCKED,
        **dict.fromkeys(("57P01", "57P02", "57P05", "25P03"), Fault.DISCONNECT),
        "25006": Fault.READ_ONLY,
        **dict.fromkeys(("57P03", "53300"), Fault.UNREACHABLE),
    }
    READ_ONLY = "SET TRANSACTION READ ONLY"
    # What was deferred would fail at COMMIT.
    LAST_QUESTION = "SET CONSTRAINTS ALL IMMEDIATE"

    def prepare(self, engine: Engine) -> None:
        event.listen(engine, "connect", self._set_up)

    def _set_up(self, connection: DBAPIConnection, _record: Any) -> None:
        # PostgreSQL takes 0 for no limit, also where not to wait at all was meant.
        lock = max(1, ceil(self.switches["lock_timeout"] * 1000))
        statement = ceil(self.switches["statement_timeout"] * 1000)
        cursor = connection.cursor()
        cursor.execute(
            f"SELECT set_config('lock_timeout', '{lock}', false), "
            f"set_config('statement_timeout', '{statement}', false)"
        )
        cursor.close()
        connection.commit()

    def fault(self, error: BaseException, *, connecting: bool, disconnected: bool) -> Fault | None:
        """Tell what accident *error* is; libpq gives no code when there is no connection."""
        found = super().fault(error, connecting=connecting, disconnected=disconnected)
        return Fault.UNREACHABLE if connecting and not self.code(error) else found

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
