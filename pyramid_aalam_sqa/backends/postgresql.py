"""PostgreSQL through psycopg: every wait bounded, one schema, otherwise SQLAlchemy's own ways."""

import hashlib
import os
from collections.abc import Mapping
from math import ceil
from typing import Any, ClassVar

from sqlalchemy import event, func, inspect, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.schema import CreateSchema

from .backend import Backend, ErrorKind
from .sorting import POSTGRESQL_SORTING, Sorting

# What psycopg and libpq call PQTRANS_INERROR: a statement failed, and only a rollback can follow.
TRANSACTION_FAILED = 3
# The first libpq with require_auth.
REQUIRE_AUTH_SINCE = 160000


class PostgreSQLBackend(Backend):
    """PostgreSQL with a bound on each wait."""

    PRODUCT = "PostgreSQL"
    NAME_IS_DATABASE = False
    RESERVED_NAMES = frozenset({"information", "pg"})
    URL_SCHEMES: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("postgres", "postgresql", "psql"), "postgresql"
    )
    DRIVER_PACKAGES: ClassVar[Mapping[str, str]] = {
        "psycopg": "pyramid_aalam_sqa[postgresql]",
        "psycopg2": "psycopg2-binary",
    }
    SORTING: ClassVar[Sorting] = POSTGRESQL_SORTING
    ENGINE_DEFAULTS: ClassVar[Mapping[str, str]] = {
        **Backend.ENGINE_DEFAULTS,
        "pool_recycle": "1800",
        "connect_args.connect_timeout": "5",
    }
    KNOWN_DRIVERS = frozenset({"psycopg", "psycopg2", "psycopg2cffi"})
    ERROR_KINDS: ClassVar[Mapping[str, ErrorKind]] = {
        **dict.fromkeys(("40001", "40P01"), ErrorKind.CONFLICT),
        "55P03": ErrorKind.LOCK_TIMEOUT,
        **dict.fromkeys(("57P01", "57P02", "57P05", "25P03"), ErrorKind.DISCONNECT),
        "25006": ErrorKind.READ_ONLY_SERVER,
        **dict.fromkeys(("57P03", "53300"), ErrorKind.UNREACHABLE),
    }
    ACCESS_DENIED_CODES = frozenset({"42501"})
    # Out of range; not a date; not in the encoding; not text of that type.
    IMPOSSIBLE_VALUE_CODES = frozenset({"22003", "22007", "22008", "22021", "22P02", "22P05"})
    READ_ONLY_SQL = "SET TRANSACTION READ ONLY"
    # Checks deferred constraints now; otherwise COMMIT would fail over them.
    PRE_COMMIT_SQL = "SET CONSTRAINTS ALL IMMEDIATE"

    def engine_defaults(self) -> Mapping[str, str]:
        """Return the options; libpq sends no password in clear text, if it is new enough.

        A URL with ``sslmode=verify-full`` or ``verify-ca`` names the server for certain.
        """
        defaults = dict(super().engine_defaults())
        proved = str(self.url.query.get("sslmode", "")).startswith("verify-")
        if self.url.get_driver_name() == "psycopg" and not proved:
            libpq: Any = self.url.get_dialect().import_dbapi()
            if libpq.pq.version() >= REQUIRE_AUTH_SINCE and "PGREQUIREAUTH" not in os.environ:
                defaults["connect_args.require_auth"] = "!password"
        return defaults

    def prepare(self, engine: Engine) -> None:
        """Add the listener that sets up each new connection."""
        # With a schema, before SQLAlchemy's own listener, which asks for the current schema.
        event.listen(engine, "connect", self._set_up, insert=bool(self.schema))

    def classify(
        self, error: BaseException, *, connecting: bool, disconnected: bool
    ) -> ErrorKind | None:
        """Return what the driver's *error* means.

        libpq gives no code to an error of connecting.
        """
        found = super().classify(error, connecting=connecting, disconnected=disconnected)
        return ErrorKind.UNREACHABLE if connecting and not self.error_code(error) else found

    def aborts_transaction(self, error: BaseException) -> bool:
        """Return whether *error* came from the server, where every error aborts its transaction.

        The server would answer a COMMIT of that transaction with success, and roll back.
        """
        return bool(self.error_code(error))

    def commit_would_roll_back(self, connection: Any) -> bool:
        """Return whether the server has seen an error that SQLAlchemy has not.

        That happens on a cursor of the driver that the application opened.
        """
        status = getattr(getattr(connection, "info", None), "transaction_status", None)
        return status == TRANSACTION_FAILED

    def refuses_writes(self, connection: Any) -> bool:
        """Return whether a transaction is read-only by default, as on a standby server."""
        return self._ask(connection, "SHOW transaction_read_only") == "on"

    def socket(self, connection: Any) -> Any:
        """Return the driver's connection itself, whose fileno() is its socket; None if closed."""
        return None if connection.closed else connection

    def abandon_result(self, connection: Connection) -> None:
        """Do nothing: the server keeps the rows that were not fetched, and drops them later."""

    def take_table_lock(self, connection: Connection, name: str) -> bool:
        """Take an advisory lock that ends with the transaction."""
        # AUTOCOMMIT would end the lock at once. From REPEATABLE READ up, a transaction would see
        # the tables as they were before it had the lock.
        connection.execution_options(isolation_level="READ COMMITTED")
        key = int.from_bytes(hashlib.sha256(f"sqa:{name}".encode()).digest()[:8], signed=True)
        return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(key))))

    def create_schema(self, connection: Connection, name: str) -> None:
        """Create the schema *name* if it is missing."""
        if not inspect(connection).has_schema(name):
            connection.execute(CreateSchema(name))

    def _set_up(self, connection: DBAPIConnection, _record: Any) -> None:
        """Send what a new connection needs, in one statement."""
        # At least 1: PostgreSQL reads 0 as no limit, also where the setting says not to wait.
        lock = max(1, ceil(self.sqa_options["lock_timeout"] * 1000))
        statement = ceil(self.sqa_options["statement_timeout"] * 1000)
        options = {"lock_timeout": lock, "statement_timeout": statement}
        if self.schema:
            # Without public: a table that is missing here could be found there by the same name.
            options["search_path"] = f'"{self.schema}"'
        calls = (f"set_config('{name}', '{value}', false)" for name, value in options.items())
        cursor = connection.cursor()
        cursor.execute("SELECT " + ", ".join(calls))
        cursor.close()
        connection.commit()
