"""MySQL and MariaDB, through PyMySQL first of all: strict, UTC, utf8mb4, and every wait bounded."""

import hashlib
import re
from collections.abc import Mapping
from contextlib import nullcontext
from math import ceil
from typing import Any, ClassVar

from sqlalchemy import event, func, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from ..exceptions import SettingError
from .backend import Backend, ErrorKind
from .mysqlclient_driver import MYSQLCLIENT_ARGUMENTS, connect_watched, ping_in_time
from .pattern import Pattern
from .pymysql_driver import (
    PyMySQLConnect,
    close_and_wait,
    forget_unread_rows,
    socket_of,
    time_limit,
)
from .session_changes import MYSQL, MYSQL_READING
from .sorting import MYSQL_SORTING, Sorting

# Characters in the name of a lock of GET_LOCK().
LONGEST_LOCK_NAME = 64


# Why a login is refused: the account is wrong, locked, expired or dropped; its host is blocked or
# not allowed; TLS or an authentication plugin is missing; the server has no thread or is offline;
# the database is forbidden or missing. These codes count only while connecting, because a statement
# may name another database or another account.
LOGIN_REFUSED_CODES = frozenset(
    {
        *("1042", "1043", "1044", "1045", "1049", "1129", "1130", "1135", "1158", "1251", "1524"),
        *("1698", "1820", "1862", "2026", "2049", "2059", "2061", "3032", "3118", "3159", "3955"),
        "4151",
    }
)


AUTOCOMMIT_ADVICE = (
    "every statement would be stored at once, and an error answer could not undo it. Remove it."
)


# An init_command that turns transactions off, or makes tables that cannot roll back.
UNSAFE_INIT = Pattern(r"\bautocommit\b|\bcompletion_type\b|storage_engine\b")


INIT_ADVICE = (
    "autocommit, completion_type and the storage engine decide whether an error answer can undo "
    "what was written. Remove them from the statement."
)


# Seconds. With a shorter statement_timeout, the server could end a GET_LOCK() that waits a second.
LEAST_TIMEOUT_TO_WAIT = 3


# The bytes that a driver writes with a backslash before them.
ESCAPED_BYTES = (b"\0", b"\n", b"\r", b"\x1a", b'"', b"'", b"\\")


# max_allowed_packet where the server was not asked: what MariaDB has unless it is set.
DEFAULT_MAX_PACKET = 16 * 2**20


# The rows of the status of a node of Galera that has lost its cluster, two of them.
LOST_CLUSTER = (
    "VARIABLE_NAME = 'wsrep_ready' AND VARIABLE_VALUE = 'OFF' "
    "OR VARIABLE_NAME = 'wsrep_provider_name' AND VARIABLE_VALUE <> ''"
)


# Why a server may take no writes: it is a replica; it is a reader of Amazon Aurora; it has lost its
# cluster. The two servers read each other's part as a comment, as below.
IS_READ_ONLY = (
    "SELECT CONCAT_WS(' ', @@global.read_only, @@global.innodb_read_only /*M! , (SELECT COUNT(*) "  # noqa: S608 - of constants
    f"DIV 2 FROM information_schema.GLOBAL_STATUS WHERE {LOST_CLUSTER}) */ /*!50720 , (SELECT "
    f"COUNT(*) DIV 2 FROM performance_schema.global_status WHERE {LOST_CLUSTER}) */)"
)


# The number of a server that cannot be reached.
UNREACHABLE = 2003


# One statement, because each round trip delays every new connection. The two servers read each
# other's part as a comment (MariaDB skips 50700 to 99999).
SESSION_SETUP = (
    "SET {own}sql_mode = '{sql_mode}', time_zone = '{time_zone}', "
    "innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock} "
    "/*M! , tx_isolation = '{level}', max_statement_time = {statement}{mariadb} */ "
    "/*!50720 , transaction_isolation = '{level}', max_execution_time = {statement_ms}{mysql} */"
)


# A position, as the servers write it: of MariaDB 0-1-100, of MySQL ranges behind a UUID.
POSITION = r"[0-9A-Fa-f:,\-\s]+"
# Seconds. MySQL reads 0 as without a limit.
SHORTEST_WAIT = 0.001
# Seconds for the answer of a server that is there.
ANSWER_TIME = 0.5
WAIT_SQL = (
    "SELECT /*M! MASTER_GTID_WAIT('{position}', {seconds}) */ "
    "/*!50720 WAIT_FOR_EXECUTED_GTID_SET('{position}', {seconds}) */"
)


class MySQLBackend(Backend):
    """MySQL and MariaDB with bounded waits and a server that refuses bad values."""

    PRODUCT = "MySQL or MariaDB"
    DEFAULT_PORT = 3306
    URL_SCHEMES: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("mysql", "mysql2", "pymysql"), "mysql+pymysql"
    ) | {"mariadb": "mariadb+pymysql"}
    DRIVER_PACKAGES: ClassVar[Mapping[str, str]] = {
        "mariadbconnector": "mariadb",
        "mysqlconnector": "mysql-connector-python",
        "mysqldb": "mysqlclient",
    }
    BUNDLED_DRIVER = "pymysql"
    SORTING: ClassVar[Sorting] = MYSQL_SORTING
    ENGINE_DEFAULTS: ClassVar[Mapping[str, str]] = {
        **Backend.ENGINE_DEFAULTS,
        "pool_recycle": "1800",
        "connect_args.charset": "utf8mb4",
        "connect_args.connect_timeout": "5",
        "connect_args.read_timeout": "60",
        "connect_args.write_timeout": "60",
    }
    KNOWN_DRIVERS = frozenset({"mysqldb", "pymysql"})
    REFUSED_MODULES = frozenset({"cymysql", "mariadb", "mysql"})
    # The server closes the socket before it takes the connection off its list.
    UNLISTED_CONNECTIONS = 1
    ERROR_KINDS: ClassVar[Mapping[str, ErrorKind]] = {
        # 1412: another connection has changed the table since this transaction began to read.
        **dict.fromkeys(("1213", "1020", "1412", "3101"), ErrorKind.CONFLICT),
        # 3572: NOWAIT on MySQL 8; MariaDB answers 1205.
        **dict.fromkeys(("1205", "3572"), ErrorKind.LOCK_TIMEOUT),
        # 1047: a Galera node that has lost its cluster; 1053, 1927, 3169: shut down or killed.
        **dict.fromkeys(("2006", "2013", "2055", "4031"), ErrorKind.DISCONNECT),
        # 1180: it was sending the transaction to the others, which may have stored it.
        **dict.fromkeys(("1047", "1053", "1180", "1927", "3169"), ErrorKind.DISCONNECT),
        **dict.fromkeys(("1290", "1792", "1836"), ErrorKind.READ_ONLY_SERVER),
        # An administrator has ended the statement by KILL, and may have ended the connection.
        "1317": ErrorKind.UNREACHABLE,
        # 1040: the server has no free connection; 1203: the account has none; 1226: the account has
        # used up what it may have in an hour.
        **dict.fromkeys(("2002", "2003", "2005", "1040", "1203", "1226"), ErrorKind.UNREACHABLE),
        # 1021: the disk is full; 1114: the table, or the disk of its tablespace.
        **dict.fromkeys(("1021", "1114"), ErrorKind.READ_ONLY_DATABASE),
        # 1153 by the server, 2020 by libmysqlclient.
        **dict.fromkeys(("1153", "2020"), ErrorKind.TOO_LARGE),
    }
    LOGIN_REFUSED_CODES = LOGIN_REFUSED_CODES
    # A Galera node that has lost its cluster commits nothing.
    COMMIT_REFUSED_CODES = frozenset({"1047"})
    # 2006: writing to the socket failed; 0: PyMySQL had closed the connection before.
    NOT_SENT_CODES = frozenset({"2006", "0"})
    ACCESS_DENIED_CODES = frozenset({"1044", "1142"})
    # 1684: on Galera, of a table that another node is creating.
    TABLE_CHANGES_CODES = frozenset({"1050", "1684"})
    # The column's character set lacks a letter: 1267 on MariaDB, 3988 on MySQL 8.
    IMPOSSIBLE_VALUE_CODES = frozenset({"1267", "3988"})
    changes_session = MYSQL
    # For the session, not for one transaction: DDL would end a read-only transaction, and run.
    READ_ONLY_SQL = "SET SESSION TRANSACTION READ ONLY"
    READ_WRITE_SQL = "SET SESSION TRANSACTION READ WRITE"
    READS_APART = True
    reading_changes = MYSQL_READING
    SNAPSHOT_SQL = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
    WRITE_REFUSED_CODES = frozenset({"1290", "1792", "1836"})
    POSITION_SQL = "SELECT /*M! @@global.gtid_binlog_pos */ /*!50720 @@global.gtid_executed */"
    DEFERS_CHECKS = False

    # What max_allowed_packet is on the server; None before the first connection.
    max_packet: int | None = None

    def engine_defaults(self) -> Mapping[str, str]:
        """Return the options; the driver waits five seconds longer than ``statement_timeout``.

        So the server ends a slow statement itself, and the driver gives up a silent server.
        """
        defaults = dict(super().engine_defaults())
        statement = ceil(self.sqa_options["statement_timeout"])
        if not statement:
            defaults.pop("connect_args.read_timeout", None)
        elif "connect_args.read_timeout" in defaults:
            defaults["connect_args.read_timeout"] = str(statement + 5)
        return defaults

    def prepare(self, engine: Engine, arguments: Mapping[str, Any]) -> None:
        """Add the listeners that open, set up and close connections.

        Raises :class:`SettingError` if the settings ask another driver for PyMySQL's TLS.
        """
        self.connect_timeout = float({**arguments, **self.url.query}.get("connect_timeout") or 5)
        # Before SQLAlchemy's own listener, which reads sql_mode to learn how to quote.
        event.listen(engine, "connect", self._set_up, insert=True)
        if not self.reading:
            # After the listeners of others, which may set the mode.
            self.watch_connections(engine)
        if self.sqa_options["max_connections"]:
            event.listen(engine, "close", close_and_wait)
        dialect: Any = engine.dialect
        connect = PyMySQLConnect(self.sqa_options, dialect.connect)
        if dialect.driver == "pymysql":
            dialect.connect = connect
        elif not connect.optional:
            msg = (
                "sqa.mysql.tls, sqa.mysql.tls_ca: these are for mysql+pymysql://; "
                f"set {self.prefix}connect_args for another driver."
            )
            raise SettingError(msg)
        if dialect.driver == "mysqldb":
            dialect.connect = connect_watched(dialect)
        # Without this a ping waits as long as a statement may take.
        dialect.do_ping = self._ping

    def driver_arguments(self, driver: Any) -> frozenset[str] | None:
        """Return the names of the arguments of PyMySQL or mysqlclient."""
        if driver.__name__ == "MySQLdb":
            return MYSQLCLIENT_ARGUMENTS
        return super().driver_arguments(driver)

    def unsafe_argument(self, name: str, value: object) -> str | None:
        """Refuse autocommit, also in a statement that is sent on connecting."""
        if name == "autocommit" and value not in {None, False}:
            return AUTOCOMMIT_ADVICE
        if name == "init_command" and UNSAFE_INIT.search(str(value)):
            return INIT_ADVICE
        return None

    def is_autocommit(self, connection: Any) -> bool:
        """Return whether the server has said that every statement is stored at once."""
        return bool(connection.get_autocommit())

    @classmethod
    def error_codes(cls, error: BaseException) -> tuple[str, ...]:
        """Return the number that the server or the driver gives *error*."""
        return (str(error.args[0]) if error.args else "",)

    def classify(
        self, error: BaseException, *, connecting: bool, disconnected: bool
    ) -> ErrorKind | None:
        """Return what the driver's *error* means.

        A refused login counts as unavailable (503): only an administrator can repair it. Error 1290
        counts only if it is about writing, and 1180 only if Galera has raised it. Both have many
        other causes.
        """
        code = self.error_code(error)
        if connecting and code in self.LOGIN_REFUSED_CODES:
            return ErrorKind.UNREACHABLE
        if code == "1290" and "read-only" not in str(error).replace("_", "-"):
            return None
        if code == "1180" and "replication" not in str(error):
            return None
        return super().classify(error, connecting=connecting, disconnected=disconnected)

    def is_too_large(self, statement: str | None, parameters: Any) -> bool:
        """Return whether *statement* with its parameters is larger than max_allowed_packet.

        The server closes the connection over it, often before the driver has read why. In a batch
        each row is sent with the statement.
        """
        rows = parameters if isinstance(parameters, list) else [parameters]
        size = len((statement or "").encode()) + max(map(_sent_size, rows), default=0)
        return size > (self.max_packet or DEFAULT_MAX_PACKET)

    def ended_transaction(self, error: BaseException, connection: Any) -> bool:
        """Return whether the lock table is full, or a savepoint does not exist any more.

        The savepoint is gone when the server rolled back the whole transaction, as it does after a
        lock wait under innodb_rollback_on_timeout.
        """
        code = self.error_code(error)
        return code == "1206" or (code == "1305" and "SAVEPOINT" in str(error))

    def unreachable(self, driver: Any, reason: str) -> Exception:
        """Return the driver's error with the number of a server that cannot be reached."""
        error: Exception = driver.OperationalError(UNREACHABLE, reason)
        return error

    def refuses_writes(self, connection: Any) -> bool:
        """Return whether the server is read-only, or a node of Galera without its cluster."""
        return not {"0", "OFF"}.issuperset(self._ask(connection, IS_READ_ONLY).upper().split())

    def has_reached(self, connection: Any, position: str, seconds: float) -> bool:
        """Wait for *position* in the server, which knows when a transaction was applied."""
        if not re.fullmatch(POSITION, position, re.ASCII):
            return False
        wait = max(SHORTEST_WAIT, seconds)
        # Another driver than PyMySQL waits as long as for any statement, if the server is silent.
        limited = hasattr(connection, "connect_timeout")
        with time_limit(connection, wait + ANSWER_TIME) if limited else nullcontext():
            return self._ask(connection, WAIT_SQL.format(position=position, seconds=wait)) == "0"

    def on_return(self, connection: Any, record: ConnectionPoolEntry) -> None:
        """Undo ``SET autocommit = 1`` too; otherwise the next request could roll nothing back.

        The driver knows the mode without a round trip, because the server sends it with each
        answer. A new connection in this mode is refused, so each has begun without it.
        """
        super().on_return(connection, record)
        if connection is None or record.dbapi_connection is None or self.reading:
            return
        try:
            if connection.get_autocommit():
                connection.autocommit(False)
        except Exception as error:  # noqa: BLE001 - the pool must get its place back
            record.invalidate(error)

    def socket(self, connection: Any) -> Any:
        """Return PyMySQL's socket; None for other drivers, which hide theirs."""
        return socket_of(connection)

    def abandon_result(self, connection: Connection) -> None:
        """Give up the rest of the result, and the connection.

        PyMySQL would read the rest before it closes the connection.
        """
        forget_unread_rows(connection.connection.dbapi_connection)
        super().abandon_result(connection)

    def take_table_lock(self, connection: Connection, name: str) -> bool:
        """Take the lock by GET_LOCK(). All databases of the server share its names."""
        # A second each time, because many workers that ask without waiting keep the server busy.
        limit = self.sqa_options["statement_timeout"]
        wait = 0 if 0 < limit < LEAST_TIMEOUT_TO_WAIT else 1
        return bool(connection.scalar(select(func.GET_LOCK(lock_name(name), wait))))

    def release_table_lock(self, connection: Connection, name: str) -> None:
        """Release the lock, or close the connection, which would take it back to the pool."""
        try:
            connection.execute(select(func.RELEASE_LOCK(lock_name(name))))
        except DBAPIError:
            connection.invalidate()

    def _ping(self, dbapi_connection: Any) -> bool:
        """Ask the server for a sign of life, and wait for it as long as for a connection."""
        if hasattr(dbapi_connection, "connect_timeout"):
            with time_limit(dbapi_connection, dbapi_connection.connect_timeout):
                dbapi_connection.ping(reconnect=False)
        else:
            ping_in_time(dbapi_connection, self.connect_timeout)
        return True

    def _set_up(self, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        """Send what a new connection needs, in one statement."""
        statement = ceil(self.sqa_options["statement_timeout"] * 1000)
        # PyMySQLConnect leaves out PyMySQL's own statement for it unless the settings ask.
        sets_autocommit = self.reading or _leaves_autocommit(connection)
        own = f"autocommit = {self.reading:d}, " if sets_autocommit else ""
        if self.sqa_options["mysql.wsrep_sync_wait"] is not None:
            # Only where it is asked for: a server without Galera may not know it.
            own += f"wsrep_sync_wait = {self.sqa_options['mysql.wsrep_sync_wait']}, "
        text = SESSION_SETUP.format(
            own=own,
            # A statement by itself sees the same at both levels; a snapshot needs the higher one.
            level="REPEATABLE-READ" if self.reading else "READ-COMMITTED",
            mariadb=", tx_read_only = 1" if self.reading else "",
            mysql=", transaction_read_only = 1" if self.reading else "",
            sql_mode=self.sqa_options["mysql.sql_mode"],
            time_zone=self.sqa_options["mysql.time_zone"],
            lock=max(1, ceil(self.sqa_options["lock_timeout"])),
            statement=statement / 1000,
            statement_ms=statement,
        )
        cursor = connection.cursor()
        cursor.execute(text)
        if self.max_packet is None:
            # Once for each engine: the limit belongs to the server.
            cursor.execute("SELECT @@max_allowed_packet")
            [(self.max_packet,)] = cursor.fetchall()
        cursor.close()


def lock_name(name: str) -> str:
    """Return the name of the lock for creating tables in the database *name*.

    The server accepts 64 characters.
    """
    full = f"sqa:{name}"
    if len(full) <= LONGEST_LOCK_NAME:
        return full
    return hashlib.sha256(full.encode()).hexdigest()


def _sent_size(value: Any) -> int:
    """Return how many bytes *value*, or a row of values, has in a statement that is sent."""
    if isinstance(value, Mapping):
        return sum(map(_sent_size, value.values()))
    if isinstance(value, (tuple, list)):
        return sum(map(_sent_size, value))
    data = value if isinstance(value, bytes) else str(value).encode()
    return len(data) + sum(map(data.count, ESCAPED_BYTES))


def _leaves_autocommit(connection: Any) -> bool:
    return getattr(connection, "autocommit_mode", False) is None
