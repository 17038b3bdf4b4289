"""SQLite: real transactions, foreign keys, WAL, and one database in memory for all threads."""

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any, ClassVar

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import AssertionPool, ConnectionPoolEntry, QueuePool

from ..exceptions import SettingError
from .backend import Backend, ErrorKind
from .session_changes import SQLITE, SQLITE_READING
from .sorting import SQLITE_SORTING, Sorting

# The arguments of sqlite3.connect() but for the path of the file.
DRIVER_ARGUMENTS = frozenset(
    {
        *("timeout", "detect_types", "isolation_level", "check_same_thread", "factory"),
        *("cached_statements", "uri", "autocommit"),
    }
)


# The parameters of a file: URI.
URI_PARAMETERS = frozenset({"vfs", "mode", "cache", "psow", "nolock", "immutable"})


AUTOCOMMIT_ADVICE = (
    "this package begins and ends the transactions of SQLite itself; the driver's own way leaves "
    "statements outside them. Remove it."
)


# What may stand after BEGIN.
BEGIN_MODES = frozenset({"", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"})


ISOLATION_ADVICE = (
    "every statement would be stored at once, and an error answer could not undo it. Remove it, or "
    "write DEFERRED, IMMEDIATE or EXCLUSIVE."
)


# Parameters of a URI that turn locks off.
UNLOCKED = {("nolock", "1"), ("vfs", "unix-none")}


MEMORY_ADVICE = (
    "a second connection to a database in memory would open another, empty database, and its rows "
    "are lost when its connection is closed. Remove it."
)


JOURNAL_ADVICE = (
    "without a journal SQLite cannot roll back, so an error answer would leave rows behind. "
    "Write wal, delete, truncate or persist."
)


# Pool options, each with the only value that keeps one connection to a database in memory.
MEMORY_OPTIONS = {"pool_size": 1, "max_overflow": 0, "pool_recycle": -1}


# The bits of an extended error code that are its primary code.
PRIMARY_CODE_BITS = 0xFF


# In the info of a connection that has the table lock: how its transactions began before.
USUAL_BEGIN = "sqa.usual_begin"


# Seconds between two attempts to set the journal mode.
JOURNAL_RETRY_INTERVAL = 0.01


class SQLiteBackend(Backend):
    """SQLite with real transactions, and with waits as on other databases."""

    PRODUCT = "SQLite"
    BUNDLED_DRIVER = "pysqlite"
    HAS_HOST = False
    MEMORY_PATHS = frozenset({None, "", ":memory:", "file::memory:"})
    NAME_IS_DATABASE = False
    HAS_ACCOUNTS = False
    URL_SCHEMES: ClassVar[Mapping[str, str]] = {"sqlite": "sqlite"}
    DRIVER_PACKAGES: ClassVar[Mapping[str, str]] = {"pysqlcipher": "sqlcipher3-binary"}
    # SQLite has one integer type. A row id goes beyond 32 bits by itself.
    INTEGER_BITS = 64
    SORTING: ClassVar[Sorting] = SQLITE_SORTING
    ENGINE_DEFAULTS: ClassVar[Mapping[str, str]] = {"pool_timeout": "5"}
    # One connection, handed from thread to thread: a second one would open another, empty database.
    MEMORY_DEFAULTS: ClassVar[Mapping[str, str]] = {
        "poolclass": "QueuePool",
        "pool_size": "1",
        "max_overflow": "0",
        "pool_timeout": "5",
        "connect_args.check_same_thread": "false",
    }
    ERROR_KINDS: ClassVar[Mapping[str, ErrorKind]] = {
        # Another connection has written since this transaction read, so it can never write.
        str(sqlite3.SQLITE_BUSY_SNAPSHOT): ErrorKind.CONFLICT,
        str(sqlite3.SQLITE_BUSY): ErrorKind.LOCK_TIMEOUT,
        str(sqlite3.SQLITE_LOCKED): ErrorKind.LOCK_TIMEOUT,
        # The write-ahead log is being made or recovered by another connection.
        str(sqlite3.SQLITE_PROTOCOL): ErrorKind.LOCK_TIMEOUT,
        str(sqlite3.SQLITE_READONLY): ErrorKind.READ_ONLY_DATABASE,
        str(sqlite3.SQLITE_FULL): ErrorKind.READ_ONLY_DATABASE,
        str(sqlite3.SQLITE_CANTOPEN): ErrorKind.UNREACHABLE,
        # The file is damaged, or the disk cannot read or write it.
        str(sqlite3.SQLITE_NOTADB): ErrorKind.UNREACHABLE,
        str(sqlite3.SQLITE_CORRUPT): ErrorKind.UNREACHABLE,
        str(sqlite3.SQLITE_IOERR): ErrorKind.UNREACHABLE,
    }
    ACCESS_DENIED_CODES = frozenset({str(sqlite3.SQLITE_READONLY)})
    KNOWN_DRIVERS = frozenset({"pysqlite"})
    changes_session = SQLITE
    READ_ONLY_SQL = "PRAGMA query_only = ON"
    READ_WRITE_SQL = "PRAGMA query_only = OFF"
    READS_APART = True
    reading_changes = SQLITE_READING
    SNAPSHOT_SQL = "BEGIN"
    WRITE_REFUSED_CODES = frozenset({str(sqlite3.SQLITE_READONLY)})
    PRE_COMMIT_SQL = ""
    EXPLAIN_SQL = "EXPLAIN QUERY PLAN"

    @classmethod
    def url_problem(cls, url: URL) -> str | None:
        """Return what is wrong with *url*; its path may contain an @."""
        if url.host or url.username or url.port:
            return (
                "an SQLite URL has no host; write three slashes before a relative path, "
                "sqlite:///app.sqlite, and four before an absolute one"
            )
        return None

    @classmethod
    def is_memory(cls, url: URL) -> bool:
        """Return whether *url* names a database in memory, in any of SQLite's spellings."""
        return super().is_memory(url) or url.query.get("mode") == "memory"

    @classmethod
    def is_file(cls, url: URL) -> bool:
        """Return whether *url* names a file by its path, not by a file: URI."""
        return super().is_file(url) and not str(url.database).startswith("file:")

    def engine_defaults(self) -> Mapping[str, str]:
        """Return the options, which wait for locks as long as ``sqa.lock_timeout`` says."""
        defaults = self.MEMORY_DEFAULTS if self.is_memory(self.url) else self.ENGINE_DEFAULTS
        return {**defaults, "connect_args.timeout": str(self.sqa_options["lock_timeout"])}

    def prepare(self, engine: Engine, arguments: Mapping[str, Any]) -> None:
        """Add the listeners that open and set up connections and begin transactions."""
        if self.sqa_options["reset_connection"] and self.is_memory(self.url):
            msg = "sqa.reset_connection: a database in memory would be lost; write false."
            raise SettingError(msg)
        self._make_folder_first(engine.dialect)
        if self.schema:
            from .sqlite_schema import AttachedFile  # noqa: PLC0415 - a portal's models need it

            AttachedFile(self.schema, engine.dialect).prepare(engine)
        event.listen(engine, "connect", self._set_up)
        _begin_always(engine.dialect)

    def driver_arguments(self, driver: Any) -> frozenset[str] | None:
        """Return the arguments of sqlite3, and the parameters of a URI where the URL has one.

        Without uri=true, SQLAlchemy ignores the parameters of a URI.
        """
        is_uri = bool(self.url.query.get("uri"))
        return DRIVER_ARGUMENTS | URI_PARAMETERS if is_uri else DRIVER_ARGUMENTS

    def unsafe_argument(self, name: str, value: object) -> str | None:
        """Refuse what turns transactions or locks off."""
        if name == "autocommit":
            return AUTOCOMMIT_ADVICE
        if name == "isolation_level" and str(value).upper() not in BEGIN_MODES:
            return ISOLATION_ADVICE
        if (name, value) in UNLOCKED:
            return "without locks two requests overwrite each other's work. Remove it."
        return None

    def unsafe_options(self, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Refuse a missing journal, and what would lose a database in memory or open a second."""
        yield from super().unsafe_options(options)
        if self.sqa_options["sqlite.journal_mode"] == "off":
            yield "sqa.sqlite.journal_mode", JOURNAL_ADVICE
        if self.is_memory(self.url):
            pool_class = options.get("poolclass")
            if pool_class and not issubclass(pool_class, (QueuePool, AssertionPool)):
                yield f"{self.prefix}poolclass", f"a {pool_class.__name__}: {MEMORY_ADVICE}"
            for key, allowed in MEMORY_OPTIONS.items():
                if options.get(key, allowed) != allowed:
                    yield f"{self.prefix}{key}", MEMORY_ADVICE

    def is_autocommit(self, connection: Any) -> bool:
        """Return whether the driver begins no transactions, and so our BEGIN is not sent either."""
        return connection.isolation_level is None or getattr(connection, "autocommit", -1) != -1

    def before_fork(self, engine: Engine) -> None:
        """Close the idle connections to a file.

        A child that inherited one would take the parent's locks for its own. If the parent then
        takes itself for the only user and removes the write-ahead log, what the child has
        committed is lost.
        """
        if not self.is_memory(self.url):
            engine.dispose()

    @classmethod
    def error_codes(cls, error: BaseException) -> tuple[str, ...]:
        """Return the extended code of *error*, then its primary code."""
        code: int = getattr(error, "sqlite_errorcode", 0)
        return str(code), str(code & PRIMARY_CODE_BITS)

    def ended_transaction(self, error: BaseException, connection: Any) -> bool:
        """Return whether SQLite has rolled back, as ON CONFLICT ROLLBACK and a full disk make it.

        Every statement that follows would be stored at once.
        """
        return connection.isolation_level is not None and not connection.in_transaction

    def refuses_writes(self, connection: sqlite3.Connection) -> bool:
        """Return whether the file is read-only: write a number that is there already, and undo it.

        Where another connection has the write lock, the file takes writes.
        """
        wait = self._ask(connection, "PRAGMA busy_timeout")
        number = f'PRAGMA "{self.schema or "main"}".user_version'
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            # BEGIN alone does not tell: on a file that is read-only it begins a read.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"{number} = {self._ask(connection, number)}")
        except sqlite3.OperationalError as error:
            code = error.sqlite_errorcode & PRIMARY_CODE_BITS
            if code == sqlite3.SQLITE_BUSY:
                return False
            if code == sqlite3.SQLITE_READONLY:
                return True
            raise
        finally:
            connection.rollback()
            connection.execute(f"PRAGMA busy_timeout = {wait}")
        return False

    def abandon_result(self, connection: Connection) -> None:
        """Do nothing: SQLite makes rows when they are fetched, and a database in memory is kept."""

    def end_reading(self, connection: Any) -> None:
        """End the transaction, if the driver has one."""
        connection.rollback()

    def take_table_lock(self, connection: Connection, name: str) -> bool:
        """Begin a transaction with the write lock of the file, which ends with the transaction."""
        driver: Any = connection.connection.dbapi_connection
        connection.info[USUAL_BEGIN] = driver.isolation_level
        driver.isolation_level = "IMMEDIATE"
        try:
            connection.begin()
        except OperationalError as error:
            self.release_table_lock(connection, name)
            if self.ERROR_KINDS.get(self.error_code(error.orig or error)) is ErrorKind.LOCK_TIMEOUT:
                return False
            raise
        return True

    def release_table_lock(self, connection: Connection, name: str) -> None:
        """Make later transactions begin as before."""
        # The rollback comes first: the driver commits if the level it is told means AUTOCOMMIT.
        connection.rollback()
        driver: Any = connection.connection.dbapi_connection
        driver.isolation_level = connection.info.pop(USUAL_BEGIN)

    def _make_folder_first(self, dialect: Any) -> None:
        """Let *dialect* make the folder of the file before SQLite opens it."""
        if not self.is_file(self.url):
            return
        connect = dialect.connect

        def make_and_connect(*args: Any, **kwargs: Any) -> Any:
            self._make_folder()
            return connect(*args, **kwargs)

        dialect.connect = make_and_connect

    def _make_folder(self) -> None:
        folder = Path(str(self.url.database)).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"{self.prefix}url: the folder {folder} cannot be made ({error.strerror})."
            raise SettingError(msg) from error

    def _set_up(self, connection: Any, record: ConnectionPoolEntry) -> None:
        if self.sqa_options["sqlite.foreign_keys"]:
            connection.execute("PRAGMA foreign_keys = ON")
        deadline = monotonic() + self.sqa_options["lock_timeout"]
        while not self._set_journal_mode(connection, deadline):
            sleep(JOURNAL_RETRY_INTERVAL)
        if self.reading:
            connection.execute(self.READ_ONLY_SQL)
        super()._set_up(connection, record)

    def _set_journal_mode(self, connection: sqlite3.Connection, deadline: float) -> bool:
        """Set the journal mode, which is kept in the file; return false to be called again.

        SQLite does not wait for this lock as it waits for others. After *deadline*, a busy file
        raises.
        """
        mode = self.sqa_options["sqlite.journal_mode"]
        pragma = f'PRAGMA "{self.schema or "main"}".journal_mode'
        try:
            if connection.execute(pragma).fetchone()[0] != mode:
                connection.execute(f"{pragma} = {mode}")
        except sqlite3.OperationalError as error:
            code = error.sqlite_errorcode & PRIMARY_CODE_BITS
            if code == sqlite3.SQLITE_BUSY and monotonic() < deadline:
                return False
            # A read-only file can be read in any mode.
            if code != sqlite3.SQLITE_READONLY:
                raise
        return True


def _begin_always(dialect: Any) -> None:
    """Let *dialect* send BEGIN; the driver would leave reads, DDL and savepoints outside."""

    def do_begin(connection: Any) -> None:
        driver = connection.dbapi_connection
        # None is how SQLAlchemy tells the driver of AUTOCOMMIT.
        if driver.isolation_level is not None:
            driver.execute(f"BEGIN {driver.isolation_level}")

    dialect.do_begin = do_begin
