"""What is particular to each driver in a test: how a transaction is imitated, how it fails."""

import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

from sqlalchemy.engine import Engine

from ..backends import ENDS, driver_of
from .lent import LentConnection

READS = re.compile(
    r"\s*(?:/\*.*?\*/\s*)*\(*\s*(?:SELECT|SHOW|EXPLAIN|DESC|SET|USE|VALUES|PRAGMA(?!.*=)|"
    r"WITH(?!.*\b(?:INSERT|UPDATE|DELETE|MERGE)\b))\b",
    re.IGNORECASE | re.DOTALL,
)


class Product(ABC):
    """A driver and its database. *dbapi* is the module of the driver."""

    NAME: ClassVar[str] = ""
    # What the application gets: with an imitated transaction, and with a real one.
    LENT: ClassVar[type[LentConnection]]
    REAL: ClassVar[type[LentConnection]] = LentConnection
    # What makes the driver's connection begin a transaction.
    BEGIN: ClassVar[str] = "START TRANSACTION"
    # Whether an error makes the server refuse all statements that follow.
    ABORTS: ClassVar[bool] = False
    # Whether a procedure may commit; nothing can be done against it but to put back what was there.
    CALL_MAY_COMMIT: ClassVar[bool] = False
    # What a transaction does not begin with, though it is sent as a statement.
    OUTSIDE: ClassVar[re.Pattern[str] | None] = None
    # The faults, each with what makes its error: arguments for OperationalError.
    FAULTS: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    # The errors when the server takes no further connection, and when there is no server.
    FULL: ClassVar[tuple[Any, ...]] = ()
    UNREACHABLE: ClassVar[tuple[Any, ...]] = ()

    def __init__(self, engine: Engine) -> None:
        dialect: Any = engine.dialect
        self.dbapi: Any = dialect.loaded_dbapi
        self.ends = driver_of(dialect).ENDS if self.CALL_MAY_COMMIT else ENDS

    def error(self, arguments: tuple[Any, ...]) -> BaseException:
        """Return the driver's OperationalError with *arguments*."""
        error: BaseException = self.dbapi.OperationalError(*arguments)
        return error

    def fault(self, kind: str, *, connecting: bool = False) -> BaseException:
        """Return the driver's error for *kind*."""
        if connecting:
            return self.error(self.FULL if kind == "busy" else self.UNREACHABLE)
        if kind == "busy":
            return self.error(self.FAULTS["lock_timeout"])
        return self.error(self.FAULTS[kind])

    @abstractmethod
    def is_open(self, driver: Any) -> bool:
        """Tell whether the real transaction of *driver* is open, as far as the driver says."""

    def in_error(self, driver: Any) -> bool:
        """Tell whether the server waits for a rollback."""
        return False

    def deferred_error(self, ask: Callable[[str], list[Any]]) -> BaseException | None:
        """Check the deferred constraints, as COMMIT does.

        Raises the driver's error, or returns one that the driver would raise.
        """
        return None


class SQLiteConnection(LentConnection):
    """sqlite3's connection."""

    OWN = frozenset({"isolation_level"})

    @property
    def in_transaction(self) -> bool:
        """Whether this user has a transaction."""
        return self.work is not None and not self.work.lost

    @property
    def autocommits(self) -> bool:
        """Whether SQLAlchemy has set the isolation level AUTOCOMMIT."""
        return self.isolation_level is None


class SQLite(Product):
    """Python's sqlite3."""

    NAME = "SQLite"
    LENT = SQLiteConnection
    BEGIN = "BEGIN"
    FAULTS: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "deadlock": ("database is locked", 517, "SQLITE_BUSY_SNAPSHOT"),
        "lock_timeout": ("database is locked", 5, "SQLITE_BUSY"),
        "read_only": ("attempt to write a readonly database", 8, "SQLITE_READONLY"),
        "write_refused": ("attempt to write a readonly database", 8, "SQLITE_READONLY"),
    }
    FULL = ("database is locked", 5, "SQLITE_BUSY")
    UNREACHABLE = ("unable to open database file", 14, "SQLITE_CANTOPEN")

    def error(self, arguments: tuple[Any, ...]) -> BaseException:
        """Return the driver's error with the codes of SQLite."""
        return _with_codes(self.dbapi.OperationalError, *arguments)

    def is_open(self, driver: Any) -> bool:
        """Ask sqlite3."""
        return bool(driver.in_transaction)

    def deferred_error(self, ask: Callable[[str], list[Any]]) -> BaseException | None:
        """Look for rows without the row that they refer to, where the schema defers that check."""
        if not ask("SELECT 1 FROM sqlite_master WHERE sql LIKE '%DEFERRED%' LIMIT 1"):
            return None
        if not (ask("PRAGMA foreign_keys")[0][0] and ask("PRAGMA foreign_key_check")):
            return None
        text = "FOREIGN KEY constraint failed"
        return _with_codes(self.dbapi.IntegrityError, text, 787, "SQLITE_CONSTRAINT_FOREIGNKEY")


def _with_codes(kind: Any, text: str, code: int, name: str) -> BaseException:
    error: Any = kind(text)
    error.sqlite_errorcode, error.sqlite_errorname = code, name
    return cast("BaseException", error)


class RealMySQLConnection(LentConnection):
    """A connection of PyMySQL or of mysqlclient, which may be lost."""

    @property
    def open(self) -> bool:
        """Whether the connection can be used."""
        return self.lost is None and bool(self.driver.open)

    @property
    def _sock(self) -> Any:
        """PyMySQL's socket; the watcher asks whether the server has closed it, before COMMIT."""
        return self.lender.socket(self, getattr(self.driver, "_sock"))  # noqa: B009 - a wall

    def fileno(self) -> Any:
        """Mysqlclient's socket, which the watcher asks for likewise."""
        return self.lender.socket(self, self.driver).fileno()


class MySQLConnection(RealMySQLConnection):
    """The same with an imitated transaction."""

    IN_TRANSACTION = 1

    def __init__(self, *args: Any, **options: Any) -> None:
        vars(self)["each_stored"] = False
        super().__init__(*args, **options)

    @property
    def autocommits(self) -> bool:
        """Whether SQLAlchemy has set the isolation level AUTOCOMMIT."""
        return bool(self.each_stored)

    def autocommit(self, value: bool) -> None:
        """Keep the mode for this user."""
        self.each_stored = bool(value)

    def get_autocommit(self) -> bool:
        """Return the mode of this user."""
        return bool(self.each_stored)

    def cursor(self, *_: Any) -> Any:
        """Return a cursor that reads all rows at once, also where they were to be streamed."""
        return super().cursor()

    @property
    def server_status(self) -> int:
        """The status that the server has sent, which knows nothing of this user's transaction."""
        status = int(self.driver.server_status)
        return status & ~self.IN_TRANSACTION if self.work and self.work.lost else status


class MySQL(Product):
    """PyMySQL and mysqlclient."""

    NAME = "MySQL or MariaDB"
    LENT, REAL = MySQLConnection, RealMySQLConnection
    CALL_MAY_COMMIT = True
    OUTSIDE = re.compile(r"\s*SET\b", re.IGNORECASE)
    FAULTS: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "deadlock": (1213, "Deadlock found when trying to get lock; try restarting transaction"),
        "lock_timeout": (1205, "Lock wait timeout exceeded; try restarting transaction"),
        "gone_away": (2013, "Lost connection to MySQL server during query"),
        "lost_commit_reply": (2013, "Lost connection to MySQL server during query"),
        "read_only": (
            1290,
            "The MariaDB server is running with the --read-only option",
        ),
        "write_refused": (1792, "Cannot execute statement in a READ ONLY transaction"),
    }
    SQLSTATES: ClassVar[Mapping[int, str]] = {
        1213: "40001",
        1205: "HY000",
        1290: "HY000",
        1792: "25006",
    }
    FULL = (1040, "Too many connections")
    UNREACHABLE = (2003, "Can't connect to MySQL server ([Errno 111] Connection refused)")

    def error(self, arguments: tuple[Any, ...]) -> BaseException:
        """Return the driver's error; PyMySQL's has the SQLSTATE of what the server sends."""
        error: Any = super().error(arguments)
        if hasattr(error, "sqlstate"):
            error.sqlstate = self.SQLSTATES.get(arguments[0])
        return cast("BaseException", error)

    def is_open(self, driver: Any) -> bool:
        """Ask PyMySQL; mysqlclient does not say."""
        return bool(getattr(driver, "server_status", 1) & MySQLConnection.IN_TRANSACTION)


class _Status:
    """The state of one user's transaction, in the place of libpq's."""

    IDLE, IN_TRANSACTION, IN_ERROR = 0, 2, 3

    def __init__(self, lent: LentConnection, found: Any) -> None:
        self._lent, self._found = lent, found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found, name)

    @property
    def transaction_status(self) -> int:
        """Whether the user has a transaction, and whether that has failed."""
        work = self._lent.work
        if work is None or work.lost:
            return self.IDLE
        return self.IN_ERROR if work.failed else self.IN_TRANSACTION


class RealPostgreSQLConnection(LentConnection):
    """A connection of psycopg or psycopg2, which may be lost."""

    @property
    def closed(self) -> Any:
        """Whether the connection is closed."""
        return self.driver.closed if self.lost is None else 1

    def fileno(self) -> int:
        """The number of the socket; the watcher asks whether the server has closed it."""
        number: int = self.lender.socket(self, self.driver).fileno()
        return number


class PostgreSQLConnection(RealPostgreSQLConnection):
    """The same with an imitated transaction."""

    OWN = frozenset({"autocommit", "isolation_level", "read_only", "readonly", "deferrable"})

    @property
    def autocommits(self) -> bool:
        """Whether SQLAlchemy has set the isolation level AUTOCOMMIT."""
        return self.autocommit is True

    @property
    def info(self) -> Any:
        """What the driver knows of the connection."""
        return _Status(self, self.driver.info)

    @property
    def pgconn(self) -> Any:
        """Psycopg's handle of libpq."""
        return _Status(self, self.driver.pgconn)

    def set_isolation_level(self, level: Any) -> None:
        """Keep psycopg2's level for this user; 0 is AUTOCOMMIT."""
        self.autocommit = level == 0

    def cursor(self, *_: Any, **__: Any) -> Any:
        """Return a cursor that reads all rows at once, also where they were to be streamed."""
        return super().cursor()


class PostgreSQL(Product):
    """psycopg and psycopg2."""

    NAME = "PostgreSQL"
    LENT, REAL = PostgreSQLConnection, RealPostgreSQLConnection
    BEGIN = "SELECT 1"
    ABORTS = True
    # The name of a class in the driver's module "errors"; empty for OperationalError.
    FAULTS: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "deadlock": ("DeadlockDetected", "deadlock detected", "40P01"),
        "lock_timeout": ("LockNotAvailable", "canceling statement due to lock timeout", "55P03"),
        "gone_away": ("", "server closed the connection unexpectedly", ""),
        "lost_commit_reply": ("", "server closed the connection unexpectedly", ""),
        "read_only": (
            "ReadOnlySqlTransaction",
            "cannot execute INSERT in a read-only transaction",
            "25006",
        ),
        "write_refused": (
            "ReadOnlySqlTransaction",
            "cannot execute INSERT in a read-only transaction",
            "25006",
        ),
        "aborted": (
            "InFailedSqlTransaction",
            "current transaction is aborted, commands ignored until end of transaction block",
            "25P02",
        ),
    }
    FULL = ("", "connection failed: FATAL:  sorry, too many clients already", "")
    UNREACHABLE = ("", "connection failed: connection to server failed: Connection refused", "")
    DEFERRED = (
        "SELECT condeferred, format('%I.%I', nspname, conname) FROM pg_constraint "
        "JOIN pg_namespace ON pg_namespace.oid = connamespace WHERE condeferrable"
    )

    def error(self, arguments: tuple[Any, ...]) -> BaseException:
        """Return an error of the driver with its SQLSTATE."""
        name, text, code = arguments
        kind = getattr(self.dbapi.errors, name) if name else self.dbapi.OperationalError
        error: Any = kind(text)
        if code and hasattr(error, "pgcode") and not hasattr(error, "sqlstate"):
            # psycopg2 sets the code of what the server sends; this is how it is unpickled.
            error.__setstate__({"pgcode": code, "pgerror": f"ERROR:  {text}\n"})
        return cast("BaseException", error)

    def is_open(self, driver: Any) -> bool:
        """Ask libpq."""
        return bool(driver.info.transaction_status != _Status.IDLE)

    def in_error(self, driver: Any) -> bool:
        """Ask libpq."""
        return bool(driver.info.transaction_status == _Status.IN_ERROR)

    def deferred_error(self, ask: Callable[[str], list[Any]]) -> BaseException | None:
        """Check the deferred constraints, and defer again those that are deferred by default."""
        found = ask(self.DEFERRED)
        if found:
            ask("SET CONSTRAINTS ALL IMMEDIATE")
            for deferred, state in ((True, "DEFERRED"), (False, "IMMEDIATE")):
                names = ", ".join(name for each, name in found if each is deferred)
                if names:
                    ask(f"SET CONSTRAINTS {names} {state}")
        return None


PRODUCTS: dict[str, type[Product]] = {
    "mysql": MySQL,
    "mariadb": MySQL,
    "postgresql": PostgreSQL,
    "sqlite": SQLite,
}


def product_of(engine: Engine) -> Product:
    """Return what is known of the product of *engine*.

    Raises :class:`SettingError` for a product that cannot be imitated.
    """
    return PRODUCTS[engine.dialect.name](engine)


def closed_socket() -> socket.socket:
    """Return a socket whose other end is closed."""
    here, there = socket.socketpair()
    there.close()
    return here
