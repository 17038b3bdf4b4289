"""What each driver knows of its connection's transaction, and tells without a round trip."""

from enum import Enum
from functools import cache
from typing import Any, ClassVar

from sqlalchemy.engine import Dialect

from .pattern import Pattern

# Statements that end a transaction by themselves, behind blanks and comments.
BLANK = r"\s*(?:(?:/\*.*?\*/|--[^\n]*\n|\#[^\n]*\n)\s*)*"
TRANSACTION_WORDS = (
    r"COMMIT|END|ABORT|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b)|PREPARE\s+TRANSACTION"
)
# MySQL and MariaDB commit before these: https://mariadb.com/kb/en/sql-statements-that-cause-an-implicit-commit/
IMPLICIT_COMMITS = (
    r"BEGIN|START|ALTER|CREATE(?!\s+(?:OR\s+REPLACE\s+)?TEMPORARY)|DROP(?!\s+TEMPORARY)|RENAME|"
    r"TRUNCATE|LOCK|LOAD\s+INDEX|GRANT|REVOKE|ANALYZE|OPTIMIZE|REPAIR|CHECK|CACHE|FLUSH|RESET|CHANGE|"
    r"(?:UN)?INSTALL|SET\s+(?:PASSWORD|(?:SESSION\s+|@@(?:SESSION\.)?)?AUTOCOMMIT\s*:?=\s*(?:1|ON))"
)
ENDS = Pattern(rf"{BLANK}(?:{TRANSACTION_WORDS})\b")
ENDS_ON_MYSQL = Pattern(rf"{BLANK}(?:{TRANSACTION_WORDS}|{IMPLICIT_COMMITS})\b")
MAY_COMMIT_ANYWHERE = ENDS
MAY_COMMIT_ON_MYSQL = Pattern(rf"{BLANK}(?:{TRANSACTION_WORDS}|{IMPLICIT_COMMITS}|CALL)\b")
# On a driver that tells whether a transaction is open: what leaves another one open.
CHAINS = Pattern(rf"{BLANK}(?:COMMIT|END|ROLLBACK|ABORT)\b(?!.*\bNO\s+CHAIN).*\bCHAIN\b")
UNDOES = Pattern(rf"{BLANK}(?:ROLLBACK|ABORT)\b")
CALL = Pattern(rf"{BLANK}CALL\b")
READS = Pattern(rf"{BLANK}\(*(?:SELECT|SHOW|EXPLAIN|DESC)")


class Transaction(Enum):
    """What a driver says of the transaction on its connection."""

    OPEN = "there is one, and on MySQL it has written"
    CLOSED = "there is none"
    AUTOCOMMIT = "each statement is stored by itself"
    UNKNOWN = "the driver cannot say"


# What runs for each statement uses these names: Python 3.11 takes as long to find a member in its
# Enum as to call three functions.
IS_OPEN, IS_CLOSED, IS_AUTOCOMMIT, IS_UNKNOWN = Transaction


class Driver:
    """A driver that says nothing: what ends a transaction is seen by the text of a statement."""

    # What ends a transaction and is not seen in what the driver says; None where all is seen.
    ENDS: ClassVar[Pattern | None] = ENDS
    # What may end a transaction by COMMIT. It is not sent after an error that has broken it.
    MAY_COMMIT: ClassVar[Pattern] = MAY_COMMIT_ANYWHERE
    # Whether a procedure can end the transaction and begin another one.
    CALL_MAY_COMMIT: ClassVar[bool] = False
    # Whether what ends a transaction may leave locks or modes on the connection.
    KEEPS_STATE: ClassVar[bool] = False
    # Whether the driver says after an interruption what became of a COMMIT.
    KNOWS_ITS_COMMIT: ClassVar[bool] = False
    # Whether a cursor that was not read to its end goes on reading after the transaction.
    KEEPS_READING: ClassVar[bool] = False

    def transaction(self, connection: Any) -> Transaction:
        """Return what the driver's *connection* says of its transaction."""
        return IS_UNKNOWN

    def is_clean(self, connection: Any) -> bool:
        """Return whether the server has surely no transaction on the driver's *connection*.

        Then the ROLLBACK that each pool sends for a connection that comes back is needless, and is
        left out: it costs a round trip. Without certainty the answer is false.
        """
        return False

    def is_intact(self, connection: Any) -> bool:
        """Return whether *connection* can be used on after an exception that is not the driver's.

        It cannot when the exception came while the driver was waiting for an answer: the answer
        would be taken for that to the next statement.
        """
        return True

    def finish_results(self, connection: Any) -> None:
        """Read the results of *connection* that were not read, so that their errors are known.

        Raises the driver's error if there is one among them.
        """

    def unheard_error(self, connection: Any) -> BaseException | None:
        """Return an error that came while a cursor was closed; SQLAlchemy only logs it."""
        error: BaseException | None = getattr(connection, "unheard_error", None)
        return error


class SQLiteDriver(Driver):
    """Python's sqlite3, which is interrupted only after SQLite has done its work."""

    ENDS = None
    KNOWS_ITS_COMMIT = KEEPS_READING = True

    def transaction(self, connection: Any) -> Transaction:
        """Return what ``in_transaction`` says."""
        if connection.in_transaction:
            return IS_OPEN
        # None is how SQLAlchemy tells the driver of AUTOCOMMIT.
        return IS_AUTOCOMMIT if connection.isolation_level is None else IS_CLOSED

    def is_clean(self, connection: Any) -> bool:
        """Return what ``in_transaction`` says. The driver itself sends no ROLLBACK then."""
        return not connection.in_transaction


class PsycopgDriver(Driver):
    """psycopg and psycopg2, with the status that libpq keeps."""

    # libpq's PQTRANS_IDLE, PQTRANS_INTRANS, PQTRANS_INERROR; ACTIVE (1) and UNKNOWN (4) say that
    # an answer is awaited, or that the connection is gone.
    IDLE, IN_TRANSACTION, IN_ERROR = 0, 2, 3
    ENDS = CHAINS

    def transaction(self, connection: Any) -> Transaction:
        """Return what libpq says."""
        status = self._status(connection)
        if status == self.IDLE:
            return IS_AUTOCOMMIT if connection.autocommit else IS_CLOSED
        return IS_OPEN if status in {self.IN_TRANSACTION, self.IN_ERROR} else IS_UNKNOWN

    def is_clean(self, connection: Any) -> bool:
        """Return what libpq says. The driver itself sends no ROLLBACK then."""
        return self._status(connection) == self.IDLE

    def is_intact(self, connection: Any) -> bool:
        """Return whether no answer is awaited."""
        return self._status(connection) in {self.IDLE, self.IN_TRANSACTION, self.IN_ERROR}

    def _status(self, connection: Any) -> int:
        handle = getattr(connection, "pgconn", None)
        status = handle.transaction_status if handle else connection.info.transaction_status
        return int(status)


class MySQLClientDriver(Driver):
    """mysqlclient, which tells of autocommit alone."""

    ENDS, MAY_COMMIT = ENDS_ON_MYSQL, MAY_COMMIT_ON_MYSQL
    CALL_MAY_COMMIT = KEEPS_STATE = True

    def transaction(self, connection: Any) -> Transaction:
        """Return what the server said of autocommit after the last statement."""
        is_autocommit = connection.open and connection.get_autocommit()
        return IS_AUTOCOMMIT if is_autocommit else IS_UNKNOWN

    def is_clean(self, connection: Any) -> bool:
        """Return what a connection that was made here has noted of itself."""
        return getattr(connection, "clean", False)

    def finish_results(self, connection: Any) -> None:
        """Read the further results of a procedure; mysqlclient refuses a COMMIT before."""
        next_result = getattr(connection, "next_result", None)
        # -1 says that there is no other one.
        while next_result is not None and next_result() == 0:
            connection.store_result()


class PyMySQLDriver(MySQLClientDriver):
    """PyMySQL, which keeps the status that the server sends after each write.

    What it says is out of date after LOCK TABLES, and after a statement that returns rows.
    """

    IN_TRANSACTION, AUTOCOMMIT = 1, 2

    def transaction(self, connection: Any) -> Transaction:
        """Return what the server said after the last statement that was not a SELECT."""
        status = connection.server_status
        if status & self.IN_TRANSACTION:
            return IS_OPEN
        return IS_AUTOCOMMIT if status & self.AUTOCOMMIT else IS_CLOSED

    def is_intact(self, connection: Any) -> bool:
        """Return whether it is open: PyMySQL closes it when it is interrupted while it reads."""
        return bool(connection.open)

    def finish_results(self, connection: Any) -> None:
        """Read the further results of a procedure."""
        finish = getattr(connection, "finish_results", None)
        if finish is not None:
            finish()


DRIVERS: dict[str, Driver] = {
    "pysqlite": SQLiteDriver(),
    "pymysql": PyMySQLDriver(),
    "mysqldb": MySQLClientDriver(),
    "psycopg": PsycopgDriver(),
    "psycopg2": PsycopgDriver(),
}


def driver_of(dialect: Dialect) -> Driver:
    """Return what is known of the driver of *dialect*."""
    return DRIVERS.get(dialect.driver) or Driver()


@cache
def keeping_errors(cursor_class: Any) -> type:
    """Return *cursor_class*, whose instances keep the error of ``close()`` on their connection."""

    class KeepingCursor(cursor_class):  # type: ignore[misc]  # it is a driver's, without types
        def close(self) -> None:
            # Of PyMySQL, or of mysqlclient.
            connection = self.connection
            try:
                # Not by super(), which takes as long in Python 3.11 as two calls.
                cursor_class.close(self)
            except Exception as error:
                # The first one tells what happened.
                connection.unheard_error = getattr(connection, "unheard_error", None) or error
                raise

    return KeepingCursor
