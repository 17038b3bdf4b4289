"""What the package knows about one database product, and what holds for every product.

Each product has a subclass that overrides what differs: mysql.py, postgresql.py, sqlite.py.
"""

import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from inspect import Parameter, signature
from time import monotonic, sleep
from typing import Any, ClassVar

from sqlalchemy import event
from sqlalchemy.engine import (
    URL,
    Connection,
    Dialect,
    Engine,
    ExceptionContext,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from ..exceptions import ProvisioningError, SettingError
from .session_changes import SessionChanges
from .sorting import GENERIC_SORTING, Sorting

# poll() reports this event without reading from the socket, so it works under TLS too.
# Only Linux has it; elsewhere has_server_closed() returns false.
CLOSED_BY_PEER = getattr(select, "POLLRDHUP", 0)


# In the info of a pooled connection: what has to be done when it comes back to the pool.
ON_RETURN = "sqa.on_return"
ALLOW_WRITES, CLOSE = "allow writes", "close"


# Hosts to which a connection does not leave this machine.
LOCAL_HOSTS = {None, "localhost", "127.0.0.1", "::1"}


NO_CODES = frozenset[str]()


# Seconds between two attempts to take the lock for creating tables. Forty workers may ask at once.
LOCK_RETRY_INTERVAL = 0.2


# Without the escapes, a part of the password would become the host or the database, and error
# messages print those.
ESCAPE_ADVICE = (
    "in the user name and the password write @ as %40, / as %2F and : as %3A "
    "(in an ini file %%40, %%2F and %%3A)"
)


class ErrorKind(Enum):
    """What a driver's error means for the request; the value is its explanation."""

    CONFLICT = "the server rolled back the transaction because of another transaction"
    LOCK_TIMEOUT = "one statement waited too long for a lock, and the server undid that statement"
    DISCONNECT = "the connection is lost, and its transaction with it"
    READ_ONLY_SERVER = "this server accepts no writes; another connection may reach one that does"
    READ_ONLY_DATABASE = (
        "the database accepts no writes, because it is read-only or its disk is full"
    )
    NO_ANSWER = "the server did not answer in time, so what it is doing is unknown"
    STALE_STATEMENT = (
        "a prepared statement no longer fits its table; new connections prepare it anew"
    )
    TOO_LARGE = "the statement is larger than the server accepts, and it closed the connection"
    UNREACHABLE = "no connection can be made"

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed when it is tried again."""
        return self in {
            ErrorKind.CONFLICT,
            ErrorKind.LOCK_TIMEOUT,
            ErrorKind.DISCONNECT,
            ErrorKind.READ_ONLY_SERVER,
            ErrorKind.STALE_STATEMENT,
        }

    @property
    def unavailable(self) -> bool:
        """Whether the database cannot be used at the moment, whatever the statement."""
        return self not in {
            ErrorKind.CONFLICT,
            ErrorKind.LOCK_TIMEOUT,
            ErrorKind.STALE_STATEMENT,
            ErrorKind.TOO_LARGE,
        }

    @property
    def drops_pool(self) -> bool:
        """Whether the pool's other connections are probably useless too."""
        return self in {
            ErrorKind.DISCONNECT,
            ErrorKind.READ_ONLY_SERVER,
            ErrorKind.NO_ANSWER,
            ErrorKind.STALE_STATEMENT,
        }


class Backend:
    """What is particular to one database product. This base class describes an unknown one.

    URLs and values:

    - ``PRODUCT``: its name in messages.
    - ``HAS_HOST``: whether the product is a server, with a host in its URL. If not, the URL names a
      file.
    - ``DEFAULT_PORT``: the port of a server whose URL names none. Where it is 0, ``sqa.hosts`` is
      refused.
    - ``MEMORY_PATHS``: paths that mean a database in memory, where the URL names a file.
    - ``NAME_IS_DATABASE``: whether the name of an application is the name of its database. If not,
      it is a schema in the URL's database.
    - ``HAS_ACCOUNTS``: whether a login has a user name and a password.
    - ``URL_SCHEMES``: what people write before ``://``, each with what they should write.
    - ``DRIVER_PACKAGES``: drivers, each with the name that ``pip install`` knows it by, where the
      two differ.
    - ``BUNDLED_DRIVER``: the driver that is installed together with this package; empty if none is.
    - ``INTEGER_BITS``: the size of every integer column; None where its type decides.
    - ``SORTING``: how the product sorts and compares values.

    Engines:

    - ``ENGINE_DEFAULTS``: create_engine options, spelled as in an ini file.
    - ``WRITER_ARGUMENTS``: arguments with which the driver connects only to a server that takes
      writes. Where there are none, each server is asked by ``refuses_writes()``.
    - ``REFUSED_MODULES``: packages of other drivers, refused in the option ``module``.
    - ``KNOWN_DRIVERS``: drivers whose arguments and error codes are known here. Others are refused,
      except for an unknown product.
    - ``UNLISTED_CONNECTIONS``: how many connections the server still counts for a moment after it
      has closed them. ``sqa.max_connections`` leaves room for that many.

    Errors, by the code that the driver gives:

    - ``ERROR_KINDS``: what the code means for the request.
    - ``NOT_SENT_CODES``: the statement never left the driver, so the server has not run it.
    - ``COMMIT_REFUSED_CODES``: in answer to COMMIT, the server has not committed, although the
      connection is useless.
    - ``COMMIT_UNKNOWN_CODES``: in answer to COMMIT, the server itself does not know.
    - ``ACCESS_DENIED_CODES``: the account has no privilege for the statement.
    - ``TABLE_CHANGES_CODES``: another connection has just made the table, or is changing it.
    - ``IMPOSSIBLE_VALUE_CODES``: the column cannot hold such a value, so no row has it.

    Statements and waits:

    - ``changes_session[statement]``: whether a statement leaves something on its connection; see
      session_changes.py.
    - ``READ_ONLY_SQL``: makes the transaction that has just begun refuse writes.
    - ``READ_WRITE_SQL``: undoes it where it holds for the connection; empty where it does not.
    - ``READS_APART``: whether read-only requests can have connections of their own, which the
      server keeps from writing.
    - ``reading_changes[statement]``: as ``changes_session``, on those connections. It knows what
      begins a transaction too, because such a transaction may write.
    - ``SNAPSHOT_SQL``: begins a transaction there that sees the database as it is now. Where it is
      empty, each transaction does, and begin_reading() begins one.
    - ``WRITE_REFUSED_CODES``: the error codes of a write where only reading is allowed.
    - ``POSITION_SQL``: asks the server that writes how far its log is. Empty where the product
      has no replicas.
    - ``PRE_COMMIT_SQL``: sent to each of several databases before the first COMMIT. It fails if the
      server is gone, or if COMMIT would find an error. Empty where the database has no server.
    - ``DEFERS_CHECKS``: whether COMMIT may find an error in what was written, a deferred constraint
      for example.
    - ``EXPLAIN_SQL``: before a statement, it asks for the plan of the statement.
    - ``TABLE_LOCK_TIMEOUT``: seconds that one worker waits for others that create tables.
    """

    PRODUCT: ClassVar[str] = "this database"
    HAS_HOST: ClassVar[bool] = True
    DEFAULT_PORT: ClassVar[int] = 0
    MEMORY_PATHS: ClassVar[frozenset[str | None]] = frozenset()
    NAME_IS_DATABASE: ClassVar[bool] = True
    HAS_ACCOUNTS: ClassVar[bool] = True
    URL_SCHEMES: ClassVar[Mapping[str, str]] = {
        "mssql": "mssql+pyodbc",
        "oracle": "oracle+oracledb",
    }
    DRIVER_PACKAGES: ClassVar[Mapping[str, str]] = {}
    BUNDLED_DRIVER: ClassVar[str] = ""
    INTEGER_BITS: ClassVar[int | None] = None
    SORTING: ClassVar[Sorting] = GENERIC_SORTING
    ENGINE_DEFAULTS: ClassVar[Mapping[str, str]] = {"pool_pre_ping": "true", "pool_timeout": "5"}
    WRITER_ARGUMENTS: ClassVar[Mapping[str, str]] = {}
    KNOWN_DRIVERS: ClassVar[frozenset[str]] = frozenset()
    REFUSED_MODULES: ClassVar[frozenset[str]] = frozenset()
    UNLISTED_CONNECTIONS: ClassVar[int] = 0
    ERROR_KINDS: ClassVar[Mapping[str, ErrorKind]] = {}
    NOT_SENT_CODES: ClassVar[frozenset[str]] = frozenset()
    COMMIT_REFUSED_CODES: ClassVar[frozenset[str]] = frozenset()
    COMMIT_UNKNOWN_CODES: ClassVar[frozenset[str]] = frozenset()
    ACCESS_DENIED_CODES: ClassVar[frozenset[str]] = frozenset()
    TABLE_CHANGES_CODES: ClassVar[frozenset[str]] = frozenset()
    IMPOSSIBLE_VALUE_CODES: ClassVar[frozenset[str]] = frozenset()
    changes_session: ClassVar[SessionChanges | None] = None
    READ_ONLY_SQL: ClassVar[str] = ""
    READ_WRITE_SQL: ClassVar[str] = ""
    READS_APART: ClassVar[bool] = False
    reading_changes: ClassVar[SessionChanges | None] = None
    SNAPSHOT_SQL: ClassVar[str] = ""
    WRITE_REFUSED_CODES: ClassVar[frozenset[str]] = frozenset()
    POSITION_SQL: ClassVar[str] = ""
    PRE_COMMIT_SQL: ClassVar[str] = "SELECT 1"
    DEFERS_CHECKS: ClassVar[bool] = True
    EXPLAIN_SQL: ClassVar[str] = "EXPLAIN"
    TABLE_LOCK_TIMEOUT: ClassVar[float] = 60

    def __init__(
        self,
        url: URL,
        sqa_options: Mapping[str, Any],
        schema: str | None = None,
        prefix: str = "sqlalchemy.",
    ) -> None:
        self.url = url
        self.sqa_options = sqa_options
        # The schema that the application's models name; None if they name none.
        self.schema = schema
        # How the keys of this database's settings begin, for error messages.
        self.prefix = prefix
        # Whether the engine is for read-only requests: in AUTOCOMMIT, and kept from writing.
        self.reading = False
        codes = sqa_options["retry_codes"]
        self.retry_codes = frozenset[str](codes) if codes else NO_CODES

    # URLs.

    @classmethod
    def url_problem(cls, url: URL) -> str | None:
        """Return what is wrong with *url* and what to write instead; None if it is right."""
        return ESCAPE_ADVICE if "@" in f"{url.host}{url.database}" else None

    @classmethod
    def is_memory(cls, url: URL) -> bool:
        """Return whether the database at *url* lives in this process's memory."""
        return not cls.HAS_HOST and url.database in cls.MEMORY_PATHS

    @classmethod
    def is_file(cls, url: URL) -> bool:
        """Return whether *url* names its database by the path of a file."""
        return not (cls.HAS_HOST or cls.is_memory(url))

    # Engines.

    def engine_defaults(self) -> Mapping[str, str]:
        """Return the create_engine options that hold where the settings give no others.

        They are spelled as in an ini file, without ``sqlalchemy.``.
        """
        known = self.url.get_driver_name() in self.KNOWN_DRIVERS
        return {
            key: text
            for key, text in self.ENGINE_DEFAULTS.items()
            if known or not key.startswith("connect_args.")
        }

    def prepare(self, engine: Engine, arguments: Mapping[str, Any]) -> None:
        """Add this product's event listeners to *engine*, which has made no connection yet.

        *arguments* are those of the driver.
        """
        event.listen(engine, "connect", self._set_up)

    @classmethod
    def driver_problem(cls, dialect: Dialect | type[Dialect]) -> str | None:
        """Return what to write instead of the driver of *dialect*; None if it is known here."""
        if not cls.KNOWN_DRIVERS or dialect.driver in cls.KNOWN_DRIVERS:
            return None
        return cls.driver_advice(f"{dialect.name}+{dialect.driver}://", dialect.name)

    @classmethod
    def driver_advice(cls, refused: str, product: str = "") -> str:
        """Return why the driver *refused* is refused, and which to use instead."""
        product = product or next(iter(cls.URL_SCHEMES))
        usable = []
        for driver in sorted(cls.KNOWN_DRIVERS, key=lambda each: each != cls.BUNDLED_DRIVER):
            package = cls.DRIVER_PACKAGES.get(driver, driver)
            where = "installed" if driver == cls.BUNDLED_DRIVER else f"pip install '{package}'"
            usable.append(f"{product}+{driver}:// ({where})")
        return (
            f"{refused} is not supported, because its driver's error codes are not known here; "
            f"write {' or '.join(usable)}."
        )

    def watch_connections(self, engine: Engine) -> None:
        """Refuse new connections in AUTOCOMMIT of *engine*, which the application has made."""
        event.listen(engine, "connect", self._refuse_autocommit)

    def driver_arguments(self, driver: Any) -> frozenset[str] | None:
        """Return the names of the arguments of connect() in the module *driver*.

        None if the driver does not say.
        """
        try:
            known = signature(driver.connect).parameters
        except ValueError:
            return None  # A function written in C may have no signature.
        if any(each.kind is Parameter.VAR_KEYWORD for each in known.values()):
            return None
        return frozenset(known)

    def unsafe_argument(self, name: str, value: object) -> str | None:
        """Return advice if the driver's argument *name* breaks the promise with *value*, else None.

        A value from a URL is text.
        """
        return None

    def unsafe_options(self, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the key of each option that breaks the promise on this product, with the advice.

        *options* are the options for create_engine.
        """
        module = getattr(options.get("module"), "__name__", "")
        if module.partition(".")[0] in self.REFUSED_MODULES:
            yield f"{self.prefix}module", self.driver_advice(module)

    def is_autocommit(self, connection: Any) -> bool:
        """Return whether the driver's *connection* stores every statement at once."""
        return getattr(connection, "autocommit", False) is True

    def before_fork(self, engine: Engine) -> None:
        """Prepare the connections of *engine* for a fork of this process, which comes next."""

    # Errors.

    @classmethod
    def error_codes(cls, error: BaseException) -> tuple[str, ...]:
        """Return the codes that the driver gives *error*, the most exact one first."""
        return (str(getattr(error, "sqlstate", None) or ""),)

    def error_code(self, error: BaseException) -> str:
        """Return the code that decides what *error* means; empty if the driver gives none.

        Of several it is the first with a meaning here, else the least exact one.
        """
        codes = self.error_codes(error)
        known = (code for code in codes if code in self.ERROR_KINDS or code in self.retry_codes)
        return next(known, codes[-1])

    def classify(
        self, error: BaseException, *, connecting: bool, disconnected: bool
    ) -> ErrorKind | None:
        """Return what the driver's *error* means; None if the application has to handle it.

        *connecting*: there was no connection yet. *disconnected*: SQLAlchemy takes the connection
        for lost.
        """
        code = self.error_code(error)
        if code and code in self.retry_codes:
            return ErrorKind.CONFLICT
        kind = self.ERROR_KINDS.get(code, ErrorKind.DISCONNECT if disconnected else None)
        if kind is ErrorKind.DISCONNECT and isinstance(error.__context__, TimeoutError):
            kind = ErrorKind.NO_ANSWER
        return kind

    def classify_context(self, context: ExceptionContext) -> ErrorKind | None:
        """Return what the error of *context* means, with its statement and its connection known."""
        kind = self.classify(
            context.original_exception,
            connecting=not context.connection,
            disconnected=context.is_disconnect,
        )
        is_lost = kind is ErrorKind.DISCONNECT
        if is_lost and self.is_too_large(context.statement, context.parameters):
            kind = ErrorKind.TOO_LARGE
        if kind is ErrorKind.TOO_LARGE:
            # The server has closed this connection, and no other.
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False
        return kind

    def is_commit_unknown(self, kind: ErrorKind | None, error: BaseException) -> bool:
        """Return whether the server may have committed, although COMMIT raised *error*.

        It has not if it answered with an error code and kept the connection, or if COMMIT was
        never sent.
        """
        code = self.error_code(error)
        if code in self.COMMIT_UNKNOWN_CODES:
            return True
        answered = code.isalnum() and kind not in {ErrorKind.DISCONNECT, ErrorKind.NO_ANSWER}
        return not answered and code not in self.NOT_SENT_CODES | self.COMMIT_REFUSED_CODES

    def unreachable(self, driver: Any, reason: str) -> Exception:
        """Return the error of the module *driver* that means: no connection can be made."""
        error: Exception = driver.OperationalError(reason)
        return error

    @classmethod
    def is_impossible_value(cls, error: DBAPIError) -> bool:
        """Return whether a SELECT raised *error* because no row can have the value it asks for."""
        codes = cls.error_codes(error.orig) if error.orig else ()
        # An autoflush may raise the same codes. That is the application's mistake.
        is_select = str(error.statement).startswith("SELECT")
        return is_select and not cls.IMPOSSIBLE_VALUE_CODES.isdisjoint(codes)

    def is_too_large(self, statement: str | None, parameters: Any) -> bool:
        """Return whether the server closes the connection over the size of *statement*."""
        return False

    def aborts_transaction(self, error: BaseException) -> bool:
        """Return whether *error*, of one statement, makes the server refuse all that follow.

        Only a rollback, or a rollback to a savepoint, ends that.
        """
        return False

    def ended_transaction(self, error: BaseException, connection: Any) -> bool:
        """Return whether the server rolled back the whole transaction, with all its savepoints.

        *error* is what a statement on the driver's *connection* raised.
        """
        return False

    def commit_would_roll_back(self, connection: Any) -> bool:
        """Return whether COMMIT on the driver's *connection* would roll back and raise nothing."""
        return False

    # Connections.

    def socket(self, connection: Any) -> Any:
        """Return the socket of the driver's *connection*, or an object with its fileno().

        None if the driver does not show it.
        """
        return None

    def has_server_closed(self, connection: Any) -> bool:
        """Return whether the server has closed the driver's *connection*, as far as is known."""
        socket = self.socket(connection)
        if socket is None or not CLOSED_BY_PEER:
            return False
        poll = select.poll()
        poll.register(socket, CLOSED_BY_PEER)
        return bool(poll.poll(0))

    def is_quiet(self, connection: Any) -> bool:
        """Return whether the driver's *connection* is open and nothing has come from the server.

        False where that is not known. A server that hangs up, or that says why it is going to, is
        seen without a round trip, under TLS too.
        """
        socket = self.socket(connection)
        if socket is None or not CLOSED_BY_PEER:
            return False
        poll = select.poll()
        poll.register(socket, CLOSED_BY_PEER | select.POLLIN)
        return not poll.poll(0)

    def refuses_writes(self, connection: Any) -> bool:
        """Return whether the database takes no writes at present.

        It is asked on the driver's *connection*, and nothing is written. A database whose product
        is not known is only asked for an answer.
        """
        self._ask(connection, "SELECT 1")
        return False

    def position(self, connection: Any) -> str:
        """Return the position of the log of the server that writes, asked on the *connection*.

        A replica that has reached it has all that was committed there before. Empty if the server
        keeps no such log.
        """
        return self._ask(connection, self.POSITION_SQL)

    def has_reached(self, connection: Any, position: str, seconds: float) -> bool:
        """Return whether a replica has reached *position*, waiting *seconds* for it at most."""
        raise NotImplementedError

    def _ask(self, connection: Any, question: str) -> str:
        """Return the first value that the driver's *connection* answers to *question*, as text."""
        cursor = connection.cursor()
        try:
            cursor.execute(question)
            return str(cursor.fetchone()[0])
        finally:
            cursor.close()

    def abandon_result(self, connection: Connection) -> None:
        """Stop reading the result that *connection* is in the middle of.

        The connection is given up as well: a driver may read a result to its end before it closes.
        """
        connection.invalidate()

    def make_read_only(self, connection: Connection) -> None:
        """Make the transaction that has just begun on *connection* refuse every write."""
        if self.READ_ONLY_SQL:
            # Marked before it is sent: it may hold even if its answer is lost.
            connection.info.setdefault(ON_RETURN, ALLOW_WRITES)
            connection.exec_driver_sql(self.READ_ONLY_SQL)

    def refuses_write(self, error: BaseException) -> bool:
        """Return whether the driver's *error* says that a write was tried where it may not be."""
        return not self.WRITE_REFUSED_CODES.isdisjoint(self.error_codes(error))

    def begin_reading(self, connection: Any) -> None:
        """Let the next statement begin a transaction, where rows in parts need one.

        The driver's *connection* is in AUTOCOMMIT.
        """

    def end_reading(self, connection: Any) -> None:
        """End the transaction on the driver's *connection*, which is in AUTOCOMMIT otherwise."""
        cursor = connection.cursor()
        cursor.execute("ROLLBACK")
        cursor.close()

    def on_return(self, connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        """Do what was noted for a connection that comes back to the pool.

        Close it if note_change() was called for it, or undo make_read_only().
        """
        todo = record.info.pop(ON_RETURN, None)
        # The pool has closed it already if the record has no connection.
        if todo is None or connection is None or record.dbapi_connection is None:
            return
        if todo is CLOSE:
            record.invalidate()
        elif self.READ_WRITE_SQL:
            try:
                cursor = connection.cursor()
                cursor.execute(self.READ_WRITE_SQL)
                cursor.close()
            except Exception as error:  # noqa: BLE001 - the pool must get its place back
                record.invalidate(error)

    def _set_up(self, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        """Set up a new connection of an engine that was made here; most call this last."""
        if not self.reading:
            self._refuse_autocommit(connection, record)

    def _refuse_autocommit(self, connection: DBAPIConnection, _record: object) -> None:
        """Check a new connection, because a creator or an option file may have set AUTOCOMMIT."""
        if self.is_autocommit(connection):
            connection.close()
            msg = (
                f"{self.prefix}*: a new connection is in AUTOCOMMIT: every statement would be "
                "stored at once, and an error answer could not undo it. Change what makes it."
            )
            raise SettingError(msg)

    @property
    def noted_changes(self) -> SessionChanges | None:
        """What finds the statements for :meth:`note_change`; None where none needs to be noted."""
        if self.reading:
            return self.reading_changes
        return None if self.is_memory(self.url) else self.changes_session

    def note_change(self, statement: str, info: dict[str, Any]) -> None:
        """Note in *info* that its connection, which *statement* changes, is to be closed later."""
        # The statement of make_read_only() is undone, not the application's own of that text.
        if statement != self.READ_ONLY_SQL or ON_RETURN not in info:
            info[ON_RETURN] = CLOSE

    # Creating tables.

    @contextmanager
    def table_lock(self, connection: Connection, name: str) -> Iterator[None]:
        """Hold the lock for creating tables in the database *name*, and commit at the end.

        *connection* has not begun a transaction. Raises :class:`ProvisioningError` if another
        process keeps the lock for ``TABLE_LOCK_TIMEOUT`` seconds.
        """
        deadline = monotonic() + self.TABLE_LOCK_TIMEOUT
        # A wait in the server would end with the limits that the settings put on statements.
        while not self.take_table_lock(connection, name):
            connection.rollback()
            if monotonic() > deadline:
                msg = (
                    f"Another process has been creating the tables of {name} for "
                    f"{self.TABLE_LOCK_TIMEOUT:g} seconds: find out what it waits for, "
                    "then start again."
                )
                raise ProvisioningError(msg)
            sleep(LOCK_RETRY_INTERVAL)
        try:
            yield
            connection.commit()
        finally:
            # The server frees the lock of a lost connection.
            if not connection.invalidated:
                self.release_table_lock(connection, name)

    def take_table_lock(self, connection: Connection, name: str) -> bool:
        """Try to take the lock for creating tables in the database *name*.

        Return false if another connection has it.
        """
        return True

    def release_table_lock(self, connection: Connection, name: str) -> None:
        """Release the lock of take_table_lock(), also after an error on *connection*."""

    def create_schema(self, connection: Connection, name: str) -> None:
        """Create the schema *name* if it is missing, where a database contains schemas."""
