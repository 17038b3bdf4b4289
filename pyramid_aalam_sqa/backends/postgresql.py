"""PostgreSQL through psycopg: every wait bounded, one schema, otherwise SQLAlchemy's own ways."""

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import nullcontext
from math import ceil
from time import monotonic, sleep
from typing import Any, ClassVar

from sqlalchemy import event, func, inspect, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateSchema

from .backend import Backend, ErrorKind
from .pattern import Pattern
from .psycopg_driver import bounded_connect, time_limit
from .session_changes import POSTGRESQL, POSTGRESQL_READING
from .sorting import POSTGRESQL_SORTING, Sorting

# Seconds that the driver waits longer than the server works on a statement, as PyMySQL does.
EXTRA_SECONDS = 5


# The keywords of libpq 18; an older one refuses some when it connects.
LIBPQ_KEYWORDS = frozenset(
    {
        *("service", "servicefile", "user", "password", "passfile", "channel_binding", "dbname"),
        *("connect_timeout", "host", "hostaddr", "port", "client_encoding", "options", "sslmode"),
        *("application_name", "fallback_application_name", "keepalives", "keepalives_idle"),
        *("keepalives_interval", "keepalives_count", "tcp_user_timeout", "sslnegotiation"),
        *("sslcompression", "sslcert", "sslkey", "sslcertmode", "sslpassword", "sslrootcert"),
        *("sslcrl", "sslcrldir", "sslsni", "requirepeer", "require_auth", "min_protocol_version"),
        *("max_protocol_version", "ssl_min_protocol_version", "ssl_max_protocol_version"),
        *("gssencmode", "krbsrvname", "gsslib", "gssdelegation", "replication", "sslkeylogfile"),
        *("target_session_attrs", "load_balance_hosts", "scram_client_key", "scram_server_key"),
        *("oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope"),
    }
)


PSYCOPG_ARGUMENTS = frozenset(
    {"autocommit", "context", "cursor_factory", "prepare_threshold", "row_factory"}
)


PSYCOPG2_ARGUMENTS = frozenset({"connection_factory", "cursor_factory"})


AUTOCOMMIT_ADVICE = (
    "every statement would be stored at once, and an error answer could not undo it. Remove it."
)


# Settings of the server in the argument "options" that make a COMMIT forgettable.
UNSAFE_OPTIONS = Pattern(
    r"(?:synchronous_commit\s*=\s*(?:off|0|no|false)|fsync|session_replication_role)\b"
)


OPTIONS_ADVICE = (
    "with synchronous_commit = off a COMMIT that was answered can be lost, and with "
    "session_replication_role foreign keys are not checked. Remove them from options."
)


# What psycopg and libpq call PQTRANS_INERROR: a statement failed, and only a rollback can follow.
TRANSACTION_FAILED = 3
# The same for no transaction, PQTRANS_IDLE.
NO_TRANSACTION = 0
# The first libpq with require_auth.
REQUIRE_AUTH_SINCE = 160000


# Bytes of a page of the log, and of the header of a page: the short one, and that of a file.
LOG_PAGE, LOG_HEADERS = 8192, (24, 40)
POSITION = r"[0-9A-F]{1,8}/[0-9A-F]{1,8}"
# A server that was promoted replays nothing any more.
REACHED_SQL = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
    "ELSE pg_current_wal_insert_lsn() END >= '{}'"
)
# Seconds between two questions to a replica: the first, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.02
# Seconds for the answer of a server that is there.
ANSWER_TIME = 0.5


class PostgreSQLBackend(Backend):
    """PostgreSQL with a bound on each wait."""

    PRODUCT = "PostgreSQL"
    DEFAULT_PORT = 5432
    NAME_IS_DATABASE = False
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
    # A server from 14 on says it as it greets; libpq asks an older one.
    WRITER_ARGUMENTS: ClassVar[Mapping[str, str]] = {"target_session_attrs": "read-write"}
    KNOWN_DRIVERS = frozenset({"psycopg", "psycopg2"})
    REFUSED_MODULES = frozenset({"pg8000"})
    ERROR_KINDS: ClassVar[Mapping[str, ErrorKind]] = {
        **dict.fromkeys(("40001", "40P01"), ErrorKind.CONFLICT),
        "55P03": ErrorKind.LOCK_TIMEOUT,
        **dict.fromkeys(("57P01", "57P02", "57P05", "25P03", "25P04"), ErrorKind.DISCONNECT),
        # A pooler or a proxy has lost the server.
        **dict.fromkeys(("08000", "08003", "08006"), ErrorKind.DISCONNECT),
        "25006": ErrorKind.READ_ONLY_SERVER,
        # 53100: the disk is full.
        "53100": ErrorKind.READ_ONLY_DATABASE,
        # 53200: out of memory; 53300: out of connections; 58030: the disk cannot read or write.
        **dict.fromkeys(("57P03", "53200", "53300", "58030"), ErrorKind.UNREACHABLE),
        # The server's files are damaged.
        **dict.fromkeys(("XX001", "XX002"), ErrorKind.UNREACHABLE),
    }
    # A pooler, or a server of the same protocol, has lost track of the transaction.
    COMMIT_UNKNOWN_CODES = frozenset({"08007", "40003"})
    ACCESS_DENIED_CODES = frozenset({"42501"})
    # Out of range; not a date; not in the encoding; not text of that type.
    IMPOSSIBLE_VALUE_CODES = frozenset({"22003", "22007", "22008", "22021", "22P02", "22P05"})
    changes_session = POSTGRESQL
    READ_ONLY_SQL = "SET TRANSACTION READ ONLY"
    READS_APART = True
    reading_changes = POSTGRESQL_READING
    WRITE_REFUSED_CODES = frozenset({"25006"})
    POSITION_SQL = "SELECT pg_current_wal_insert_lsn()"
    # Checks deferred constraints now; otherwise COMMIT would fail over them.
    PRE_COMMIT_SQL = "SET CONSTRAINTS ALL IMMEDIATE"

    def prepare(self, engine: Engine, arguments: Mapping[str, Any]) -> None:
        """Add the listeners that open and set up each new connection, with limits on its waits."""
        if engine.dialect.driver == "psycopg":
            statement = self.sqa_options["statement_timeout"]
            limit = statement + EXTRA_SECONDS if statement else None
            dialect: Any = engine.dialect
            dialect.connect = bounded_connect(dialect.loaded_dbapi, limit)
            seconds = float({**arguments, **self.url.query}.get("connect_timeout") or 5)
            self._limit_ping(engine, seconds)
        # With a schema, before SQLAlchemy's own listener, which asks for the current schema.
        event.listen(engine, "connect", self._set_up, insert=bool(self.schema))

    def classify(
        self, error: BaseException, *, connecting: bool, disconnected: bool
    ) -> ErrorKind | None:
        """Return what the driver's *error* means.

        libpq gives no code to an error of connecting. A prepared statement whose table was changed
        has the code of many other errors; the function of the server that raised it tells.
        """
        if getattr(getattr(error, "diag", None), "source_function", "") == "RevalidateCachedQuery":
            return ErrorKind.STALE_STATEMENT
        found = super().classify(error, connecting=connecting, disconnected=disconnected)
        return ErrorKind.UNREACHABLE if connecting and not self.error_code(error) else found

    def engine_defaults(self) -> Mapping[str, str]:
        """Return the options: the limits that psycopg2 needs, and no password in clear text.

        psycopg2 notices with them that a host is gone, but not that a server is silent; psycopg has
        limits of its own for both. With psycopg, libpq sends no password in clear text, if it is
        new enough. A URL with ``sslmode=verify-full`` or ``verify-ca`` names the server for
        certain, and so may send one.
        """
        defaults = dict(super().engine_defaults())
        if self.url.get_driver_name() == "psycopg2":
            defaults |= self._psycopg2_limits()
        elif self._refuses_clear_text():
            defaults["connect_args.require_auth"] = "!password"
        return defaults

    def _psycopg2_limits(self) -> Mapping[str, str]:
        statement = self.sqa_options["statement_timeout"]
        if not statement:
            return {}
        return {
            "connect_args.tcp_user_timeout": str(ceil(statement + EXTRA_SECONDS) * 1000),
            "connect_args.keepalives_idle": "30",
            "connect_args.keepalives_interval": "5",
            "connect_args.keepalives_count": "5",
        }

    def _refuses_clear_text(self) -> bool:
        """Tell whether libpq is to refuse a server that asks for the password in clear text."""
        proved = str(self.url.query.get("sslmode", "")).startswith("verify-")
        if self.url.get_driver_name() != "psycopg" or proved or "PGREQUIREAUTH" in os.environ:
            return False
        libpq: Any = self.url.get_dialect().import_dbapi()
        return bool(libpq.pq.version() >= REQUIRE_AUTH_SINCE)

    def driver_arguments(self, driver: Any) -> frozenset[str] | None:
        """Return libpq's keywords and the arguments of the driver itself."""
        own = PSYCOPG_ARGUMENTS if driver.__name__ == "psycopg" else PSYCOPG2_ARGUMENTS
        return LIBPQ_KEYWORDS | own

    def unsafe_argument(self, name: str, value: object) -> str | None:
        """Refuse autocommit, and a COMMIT that the server answers before it is on the disk."""
        if name == "autocommit" and value not in {None, False}:
            return AUTOCOMMIT_ADVICE
        if name == "options" and UNSAFE_OPTIONS.search(str(value)):
            return OPTIONS_ADVICE
        return None

    @classmethod
    def error_codes(cls, error: BaseException) -> tuple[str, ...]:
        """Return the SQLSTATE of *error*, which psycopg2 calls pgcode."""
        code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        return (str(code or ""),)

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

    def position(self, connection: Any) -> str:
        """Return the end of the last record of the log, also of one that is not written yet."""
        return end_of_record(super().position(connection))

    def has_reached(self, connection: Any, position: str, seconds: float) -> bool:
        """Ask again and again: PostgreSQL before 18 has no statement that waits."""
        if not re.fullmatch(POSITION, position, re.ASCII):
            return False
        # psycopg2 waits as long as for any statement, if the server is silent.
        limited = hasattr(connection, "seconds")
        with time_limit(connection, seconds + ANSWER_TIME) if limited else nullcontext():
            deadline, pause = monotonic() + seconds, FIRST_PAUSE
            while self._ask(connection, REACHED_SQL.format(position)) != "True":
                if monotonic() + pause > deadline:
                    return False
                sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        return True

    def socket(self, connection: Any) -> Any:
        """Return the driver's connection itself, whose fileno() is its socket; None if closed."""
        return None if connection.closed else connection

    def abandon_result(self, connection: Connection) -> None:
        """Do nothing: the server keeps the rows that were not fetched, and drops them later."""

    def begin_reading(self, connection: Any) -> None:
        """Let the driver begin a transaction: the server keeps a cursor only inside of one."""
        if connection.info.transaction_status == NO_TRANSACTION:
            connection.autocommit = False

    def end_reading(self, connection: Any) -> None:
        """End the transaction, whichever side has begun it."""
        if connection.autocommit:
            # psycopg2 knows of no transaction here, and would send nothing.
            super().end_reading(connection)
        else:
            connection.rollback()
            connection.autocommit = True

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

    def _limit_ping(self, engine: Engine, seconds: float) -> None:
        """Make a ping of *engine* wait *seconds* at most."""
        # A ping has no event.
        dialect: Any = engine.dialect
        ping = dialect.do_ping

        def do_ping(connection: Any) -> bool:
            with time_limit(connection, seconds):
                return bool(ping(connection))

        dialect.do_ping = do_ping

    def _set_up(self, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        """Send what a new connection needs, in one statement."""
        # At least 1: PostgreSQL reads 0 as no limit, also where the setting says not to wait.
        lock = max(1, ceil(self.sqa_options["lock_timeout"] * 1000))
        statement = ceil(self.sqa_options["statement_timeout"] * 1000)
        options: dict[str, Any] = {"lock_timeout": lock, "statement_timeout": statement}
        if self.reading:
            options["default_transaction_read_only"] = "on"
            # For a snapshot. It makes no difference to a statement by itself.
            options["default_transaction_isolation"] = "repeatable read"
        if self.schema:
            # Without public: a table that is missing here could be found there by the same name.
            options["search_path"] = f'"{self.schema}"'
        calls = (f"set_config('{name}', '{value}', false)" for name, value in options.items())
        cursor = connection.cursor()
        cursor.execute("SELECT " + ", ".join(calls))
        cursor.close()
        connection.commit()
        super()._set_up(connection, record)


def end_of_record(position: str) -> str:
    """Return where the record before *position* ends, at which the next one is going to begin.

    They differ where a page of the log is full: the next record begins after the header of the next
    page, and no replica gets there before that record is written.
    """
    file, _, place = position.partition("/")
    behind = int(place, 16) % LOG_PAGE
    if behind not in LOG_HEADERS:
        return position
    return f"{file}/{int(place, 16) - behind:X}"
