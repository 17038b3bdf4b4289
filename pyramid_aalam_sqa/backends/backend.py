"""What holds for every database, and the shape of what is particular to one."""

import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from time import monotonic, sleep
from typing import Any, ClassVar

from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from ..exceptions import ProvisioningError

# Linux tells it without reading anything, and so under TLS too. Elsewhere it is not asked.
CLOSED_BY_PEER = getattr(select, "POLLRDHUP", 0)


REFUSES_WRITES = "sqa.refuses_writes"


# Seconds; forty workers may be asking for the lock.
LOCK_PAUSE = 0.2


class ErrorKind(Enum):
    """What kind of accident an error of a driver is, and so what can be done about it."""

    CONFLICT = "the whole transaction lost against another one and is gone"
    LOCKED = "one statement waited too long for a lock and was undone"
    DISCONNECT = "the connection is gone, and the transaction with it"
    READ_ONLY = "the server takes no writes, though another connection may lead to one that does"
    REFUSED = "the database takes no writes"
    SILENT = "the server did not answer in time; nobody knows what it is doing"
    UNREACHABLE = "no connection can be made"

    @property
    def retryable(self) -> bool:
        """Whether the same request may well succeed when it is made again."""
        return self in {
            ErrorKind.CONFLICT,
            ErrorKind.LOCKED,
            ErrorKind.DISCONNECT,
            ErrorKind.READ_ONLY,
        }

    @property
    def unavailable(self) -> bool:
        """Whether the database cannot be used at the moment, whatever is asked of it."""
        return self not in {ErrorKind.CONFLICT, ErrorKind.LOCKED}

    @property
    def drops_pool(self) -> bool:
        """Whether the other connections of the pool are suspect too."""
        return self in {ErrorKind.DISCONNECT, ErrorKind.READ_ONLY, ErrorKind.SILENT}


class Backend:
    """The defaults, the listeners and the errors of one database.

    ``ENGINE_DEFAULTS`` are create_engine options spelled as in an ini file, ``DRIVERS`` those
    drivers that are known to take the ``connect_args`` among them. ``ERROR_KINDS`` says what the codes
    of the driver's errors mean, ``NOT_SENT`` which of them a statement has when it never left,
    ``DENIED`` which say that the account may not do it, ``NO_VALUE`` which that a column can hold
    no such value. ``READ_ONLY`` makes a transaction that has
    just begun refuse writes, ``READ_WRITE`` undoes it where it holds for the connection.
    ``LOCK_WAIT`` is how many seconds one worker waits for others that create tables,
    ``STILL_COUNTED`` how many connections the server counts for a moment after it has closed them.
    ``LAST_QUESTION`` is asked before the COMMIT of one of several databases: whether the server is
    there, and nothing left for COMMIT to find.
    """

    ENGINE_DEFAULTS: ClassVar[Mapping[str, str]] = {"pool_pre_ping": "true", "pool_timeout": "5"}
    DRIVERS: ClassVar[frozenset[str]] = frozenset()
    ERROR_KINDS: ClassVar[Mapping[str, ErrorKind]] = {}
    NOT_SENT: ClassVar[frozenset[str]] = frozenset()
    DENIED: ClassVar[frozenset[str]] = frozenset()
    LOCK_WAIT: ClassVar[float] = 60
    STILL_COUNTED: ClassVar[int] = 0
    NO_VALUE: ClassVar[frozenset[str]] = frozenset()
    READ_ONLY: ClassVar[str] = ""
    READ_WRITE: ClassVar[str] = ""
    LAST_QUESTION: ClassVar[str] = "SELECT 1"

    def __init__(self, url: URL, sqa_options: Mapping[str, Any], schema: str | None = None) -> None:
        self.url = url
        self.sqa_options = sqa_options
        self.schema = schema
        # How the settings of the database begin, for errors.
        self.prefix = "sqlalchemy."
        self.retry_codes: frozenset[str] = frozenset(sqa_options["retry_codes"] or ())

    def engine_defaults(self) -> Mapping[str, str]:
        """Return the options this database's engine has unless others were given."""
        known = self.url.get_driver_name() in self.DRIVERS
        return {
            key: text
            for key, text in self.ENGINE_DEFAULTS.items()
            if known or not key.startswith("connect_args.")
        }

    def prepare(self, engine: Engine) -> None:
        """Add to *engine*, which has not connected yet, the listeners it needs."""

    def before_fork(self, engine: Engine) -> None:
        """Do to *engine* what has to be done before its process forks."""

    def code(self, error: BaseException) -> str:
        """Return what the database calls *error*, empty when it has no name for it."""
        return str(getattr(error, "sqlstate", None) or "")

    def fault(
        self, error: BaseException, *, connecting: bool, disconnected: bool
    ) -> ErrorKind | None:
        """Tell what accident *error* of the driver is; None when it is the application's own.

        *disconnected* is what SQLAlchemy thinks of it.
        """
        code = self.code(error)
        if code and code in self.retry_codes:
            return ErrorKind.CONFLICT
        fault = self.ERROR_KINDS.get(code, ErrorKind.DISCONNECT if disconnected else None)
        if fault is ErrorKind.DISCONNECT and isinstance(error.__context__, TimeoutError):
            fault = ErrorKind.SILENT
        return fault

    def lost_answer(self, fault: ErrorKind | None, error: BaseException) -> bool:
        """Tell whether *error*, of a COMMIT, leaves open whether the server has committed.

        It does unless the server has answered with an error, which has a code, and stayed.
        """
        code = self.code(error)
        answered = code.isalnum() and fault not in {ErrorKind.DISCONNECT, ErrorKind.SILENT}
        return not answered and code not in self.NOT_SENT

    def has_hung_up(self, connection: Any) -> bool:
        """Tell whether the server is known to have closed the driver's *connection*."""
        socket = self.socket(connection)
        if socket is None or not CLOSED_BY_PEER:
            return False
        poll = select.poll()
        poll.register(socket, CLOSED_BY_PEER)
        return bool(poll.poll(0))

    def socket(self, connection: Any) -> Any:
        """Return what the driver's *connection* talks through; None where that is not known."""
        return None

    def breaks_transaction(self, error: BaseException) -> bool:
        """Tell whether *error*, of one statement, has ended the transaction in the server."""
        return False

    def ends_transaction(self, error: BaseException, connection: Any) -> bool:
        """Tell whether *error* has ended the transaction with all its savepoints.

        *connection* is the driver's, on which it happened.
        """
        return False

    def would_roll_back(self, connection: Any) -> bool:
        """Tell whether a COMMIT on the driver's *connection* would undo all and be no error."""
        return False

    def abandon(self, connection: Connection) -> None:
        """Give up the answer that is being read on *connection*.

        The connection with it: a driver may read to the end of an answer before it closes it.
        """
        connection.invalidate()

    @contextmanager
    def locked(self, connection: Connection, name: str) -> Iterator[None]:
        """Keep all others from creating the tables of *name*, and commit at the end of the block.

        *connection* has not begun a transaction. Raises :class:`ProvisioningError` when somebody
        else is at it for ``LOCK_WAIT`` seconds.
        """
        deadline = monotonic() + self.LOCK_WAIT
        # Asked again and again: a wait on the server would end with its own limits.
        while not self.take_lock(connection, name):
            connection.rollback()
            if monotonic() > deadline:
                msg = (
                    f"Another process has been creating the tables of {name} for "
                    f"{self.LOCK_WAIT:g} seconds: find out what it waits for, then start again."
                )
                raise ProvisioningError(msg)
            sleep(LOCK_PAUSE)
        try:
            yield
            connection.commit()
        finally:
            # A connection that was lost has taken the lock with it.
            if not connection.invalidated:
                self.release_lock(connection, name)

    def take_lock(self, connection: Connection, name: str) -> bool:
        """Take the lock called *name*; false when another connection has it."""
        return True

    def release_lock(self, connection: Connection, name: str) -> None:
        """Release it on *connection*, whatever has happened there since."""

    def make_schema(self, connection: Connection, name: str) -> None:
        """Make the schema called *name* if it is missing and the database has schemas in it."""

    def make_read_only(self, connection: Connection) -> None:
        """Have the transaction that has just begun on *connection* refuse every write."""
        if self.READ_ONLY:
            # Noted first: when the answer is lost, it holds all the same.
            connection.info[REFUSES_WRITES] = True
            connection.exec_driver_sql(self.READ_ONLY)

    def make_writable(self, connection: DBAPIConnection | None, record: Any, _state: Any) -> None:
        """Undo it before the pool hands *connection* to somebody else."""
        # One that was detached has no record, and is closed.
        if connection is None or record is None:
            return
        if record.info.pop(REFUSES_WRITES, False) and self.READ_WRITE:
            cursor = connection.cursor()
            cursor.execute(self.READ_WRITE)
            cursor.close()
