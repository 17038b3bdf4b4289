"""MySQL and MariaDB, through PyMySQL first of all: strict, UTC, utf8mb4, and no endless wait."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from math import ceil
from typing import Any, ClassVar

from sqlalchemy import event, func, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from ..exceptions import SettingError
from .backend import Backend, ErrorKind
from .pymysql_driver import PyMySQLConnect

LONGEST_LOCK = 64


# Seconds: with less, the server itself may end a statement that waits for one.
LEAST_LIMIT = 3


QUIT = b"\x01\x00\x00\x00\x01"


SECONDS_TO_CLOSE = 1


AUTOCOMMIT = "sqa.autocommit"


# All in one round trip, of which a budget of connections costs many. Each server reads the comment
# of the other as a comment (MariaDB skips 50700 to 99999).
SET_UP = (
    "SET {autocommit}sql_mode = '{sql_mode}', time_zone = '{time_zone}', "
    "innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock} "
    "/*M! , tx_isolation = 'READ-COMMITTED', max_statement_time = {statement} */ "
    "/*!50720 , transaction_isolation = 'READ-COMMITTED', max_execution_time = {statement_ms} */"
)


class MySQLBackend(Backend):
    """MySQL and MariaDB with bounded waits and a server that refuses bad values."""

    ENGINE_DEFAULTS: ClassVar[Mapping[str, str]] = {
        **Backend.ENGINE_DEFAULTS,
        "pool_recycle": "1800",
        "connect_args.charset": "utf8mb4",
        "connect_args.connect_timeout": "5",
        "connect_args.read_timeout": "60",
        "connect_args.write_timeout": "60",
    }
    DRIVERS = frozenset({"mysqldb", "pymysql"})
    ERROR_KINDS: ClassVar[Mapping[str, ErrorKind]] = {
        **dict.fromkeys(("1213", "1020", "3101"), ErrorKind.CONFLICT),
        "1205": ErrorKind.LOCKED,
        # 1047: a Galera node that has lost its cluster; 1053, 1927, 3169: shut down or killed.
        **dict.fromkeys(("2006", "2013", "2055", "4031"), ErrorKind.DISCONNECT),
        **dict.fromkeys(("1047", "1053", "1927", "3169"), ErrorKind.DISCONNECT),
        **dict.fromkeys(("1290", "1792", "1836"), ErrorKind.READ_ONLY),
        # The last three: no connection free on the server, for the account, of its allowance.
        **dict.fromkeys(("2002", "2003", "2005", "1040", "1203", "1226"), ErrorKind.UNREACHABLE),
    }
    # Wrong, locked or dropped account; denied, missing or dropped database. Only while connecting:
    # a statement on another database may be denied too.
    NOT_LET_IN = frozenset({"1044", "1045", "1049", "1698", "3118", "4151"})
    # 2006: writing failed; 0: PyMySQL had closed the connection before.
    NOT_SENT = frozenset({"2006", "0"})
    DENIED = frozenset({"1044", "1142"})
    # It closes the socket first, and strikes the connection off its list after that.
    STILL_COUNTED = 1
    # A letter that the column's character set has not: MariaDB, and MySQL 8.
    NO_VALUE = frozenset({"1267", "3988"})
    # Not of one transaction: DDL would end that first, and then be done.
    READ_ONLY = "SET SESSION TRANSACTION READ ONLY"
    READ_WRITE = "SET SESSION TRANSACTION READ WRITE"

    def engine_defaults(self) -> Mapping[str, str]:
        """Return the options, the driver waiting a little longer than the server works."""
        defaults = dict(super().engine_defaults())
        statement = ceil(self.sqa_options["statement_timeout"])
        if not statement:
            defaults.pop("connect_args.read_timeout", None)
        elif "connect_args.read_timeout" in defaults:
            defaults["connect_args.read_timeout"] = str(statement + 5)
        return defaults

    def prepare(self, engine: Engine) -> None:
        # Before SQLAlchemy's own listener, which looks at sql_mode to learn how to quote.
        event.listen(engine, "connect", self._set_up, insert=True)
        event.listen(engine, "checkout", _note_autocommit)
        event.listen(engine, "checkin", _restore_autocommit)
        if self.sqa_options["max_connections"]:
            event.listen(engine, "close", self._quit)
        connect = PyMySQLConnect(self.sqa_options)
        if engine.dialect.driver == "pymysql":
            event.listen(engine, "do_connect", connect)
        elif not connect.optional:
            msg = (
                "sqa.mysql.tls, sqa.mysql.tls_ca: these are for mysql+pymysql://; "
                f"set {self.prefix}connect_args for another driver."
            )
            raise SettingError(msg)

    def code(self, error: BaseException) -> str:
        """Return the server's or the driver's number."""
        return str(error.args[0]) if error.args else ""

    def fault(
        self, error: BaseException, *, connecting: bool, disconnected: bool
    ) -> ErrorKind | None:
        """Tell what accident *error* is, 1290 being one only when it is about writing.

        That nobody is let in is no fault of the request, which waits for whoever has to set it.
        """
        if connecting and self.code(error) in self.NOT_LET_IN:
            return ErrorKind.UNREACHABLE
        if self.code(error) == "1290" and "read-only" not in str(error).replace("_", "-"):
            return None
        return super().fault(error, connecting=connecting, disconnected=disconnected)

    def socket(self, connection: Any) -> Any:
        """Return PyMySQL's socket, which has no public name; other drivers keep theirs hidden."""
        return getattr(connection, "_sock", None)

    def abandon(self, connection: Connection) -> None:
        """Give up the answer and the connection; PyMySQL would try to read on all the same."""
        driver: Any = connection.connection.dbapi_connection
        with suppress(AttributeError):  # of another driver
            driver._result.unbuffered_active = False  # noqa: SLF001 - it has no public name
        super().abandon(connection)

    def ends_transaction(self, error: BaseException, connection: Any) -> bool:
        """Tell whether the lock table is full, or a savepoint is gone and so all before it.

        It goes with a lock wait that timed out under innodb_rollback_on_timeout.
        """
        code = self.code(error)
        return code == "1206" or (code == "1305" and "SAVEPOINT" in str(error))

    def take_lock(self, connection: Connection, name: str) -> bool:
        """Take a lock that all databases of the server share, hence the name in it."""
        # For a second at a time: many who ask without waiting keep the server busy.
        limit = self.sqa_options["statement_timeout"]
        wait = 0 if 0 < limit < LEAST_LIMIT else 1
        return bool(connection.scalar(select(func.GET_LOCK(lock_name(name), wait))))

    def release_lock(self, connection: Connection, name: str) -> None:
        """Release it, or close the connection: a lock would go back to the pool with it."""
        try:
            connection.execute(select(func.RELEASE_LOCK(lock_name(name))))
        except DBAPIError:
            connection.invalidate()

    def _quit(self, connection: Any, _record: object) -> None:
        """Wait until the server has closed *connection* too: until then it counts it as open.

        The driver sends its farewell and is gone.
        """
        socket = self.socket(connection)
        if socket is not None:
            with suppress(OSError):
                socket.settimeout(SECONDS_TO_CLOSE)
                socket.sendall(QUIT)
                socket.recv(1)

    def _set_up(self, connection: DBAPIConnection, _record: Any) -> None:
        statement = ceil(self.sqa_options["statement_timeout"] * 1000)
        text = SET_UP.format(
            # PyMySQL's own statement for it was left out, unless it was asked for.
            autocommit="autocommit = 0, " if _leaves_autocommit(connection) else "",
            sql_mode=self.sqa_options["mysql.sql_mode"],
            time_zone=self.sqa_options["mysql.time_zone"],
            lock=max(1, ceil(self.sqa_options["lock_timeout"])),
            statement=statement / 1000,
            statement_ms=statement,
        )
        cursor = connection.cursor()
        cursor.execute(text)
        cursor.close()


def lock_name(name: str) -> str:
    """Return what the server calls the lock of *name*; it takes 64 characters."""
    full = f"sqa:{name}"
    return full if len(full) <= LONGEST_LOCK else hashlib.sha256(full.encode()).hexdigest()


def _leaves_autocommit(connection: Any) -> bool:
    return getattr(connection, "autocommit_mode", False) is None


def _note_autocommit(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    record.info.setdefault(AUTOCOMMIT, connection.get_autocommit())


def _restore_autocommit(connection: Any, record: ConnectionPoolEntry) -> None:
    """Undo `SET autocommit = 1`: the next request could roll nothing back.

    Both sides know it without a round trip, the server says it with each answer.
    """
    wanted = record.info.get(AUTOCOMMIT)
    if connection is not None and wanted is not None and connection.get_autocommit() != wanted:
        connection.autocommit(wanted)
