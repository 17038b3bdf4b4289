"""Guards the connections of read-only requests: they cost no BEGIN and no COMMIT, and stay clean.

The server refuses each write there by itself. An application can lift that on its connection, for
example by ``START TRANSACTION READ WRITE``. The next request must not get such a connection, so it
is closed when it comes back.

The guard stands around the methods of the engine's own dialect, as the watcher does on an engine
that writes. What the watcher follows, from BEGIN to the answer to COMMIT, does not exist here.
"""

from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect, Engine, ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry

from ..backends import IS_AUTOCOMMIT, Backend, attach_backend, backend_of, driver_of
from ..exceptions import COMMIT_BY_HAND, CommitNotAllowedError
from .errors import classify
from .refusals import ReadOnly

# In the info of a pooled connection: who reads on it, whether it has begun a snapshot, its
# savepoints, and the cursors that may have rows left.
REFUSAL, SNAPSHOT = "sqa.refusal", "sqa.snapshot"
SAVEPOINTS, CURSORS = "sqa.savepoints", "sqa.cursors"


class ReadingGuard:
    """Stands around the methods of one reading engine's dialect that talk to the driver."""

    def __init__(self, dialect: Any, backend: Backend) -> None:
        self.backend = backend
        self._driver = driver_of(dialect)
        dialect.do_begin, dialect.do_commit = self.do_begin, self.do_commit
        dialect.do_rollback = self.do_rollback
        for name in ("do_savepoint", "do_rollback_to_savepoint", "do_release_savepoint"):
            setattr(dialect, name, self._around_savepoint(getattr(dialect, name)))
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            setattr(dialect, name, self._around(getattr(dialect, name)))

    def do_begin(self, pooled: Any) -> None:
        """Do nothing: each statement is a transaction by itself."""

    def do_commit(self, pooled: Any) -> None:
        """Refuse: the application has called commit() on the connection."""
        raise CommitNotAllowedError(COMMIT_BY_HAND)

    def do_rollback(self, pooled: Any) -> None:
        """End the transaction of a snapshot or a stream; there is no other one."""
        if not self.is_idle(pooled):
            self.backend.end_reading(pooled.dbapi_connection)
            info = _info_of(pooled)
            info.pop(SNAPSHOT, None)
            info.pop(SAVEPOINTS, None)

    def is_idle(self, pooled: Any) -> bool:
        """Return whether there is no transaction on *pooled*, so that there is nothing to end."""
        # The second: mysqlclient cannot tell.
        found = self._driver.transaction(pooled.dbapi_connection)
        return found is IS_AUTOCOMMIT and SNAPSHOT not in _info_of(pooled)

    def begin_snapshot(self, connection: Connection) -> None:
        """Let all that is read on *connection* from now on be as it is at one moment."""
        connection.info[SNAPSHOT] = True
        if self.backend.SNAPSHOT_SQL:
            connection.exec_driver_sql(self.backend.SNAPSHOT_SQL)
        else:
            self.backend.begin_reading(connection.connection.dbapi_connection)

    def release(self, connection: Any, record: ConnectionPoolEntry) -> None:
        """Close the driver's *connection* if its user has left it changed. A "checkin" listener."""
        info = record.info
        cursors = info.pop(CURSORS, ())
        for name in (REFUSAL, SNAPSHOT, SAVEPOINTS):
            info.pop(name, None)
        if connection is None or record.dbapi_connection is None:
            return
        try:
            for cursor in list(cursors):
                cursor.close()
            if self._driver.transaction(connection) is not IS_AUTOCOMMIT:
                record.invalidate()
        except Exception as error:  # noqa: BLE001 - the pool must get its place back
            record.invalidate(error)
        self.backend.on_return(connection, record)

    def _around(self, execute: Any) -> Any:
        """Return *execute*, of the dialect, which notes what a statement leaves behind."""
        backend, keeps_reading = self.backend, self._driver.KEEPS_READING
        changes, snapshot = backend.noted_changes, backend.SNAPSHOT_SQL

        def guarded(cursor: Any, statement: str, *arguments: Any) -> None:
            context = arguments[-1]
            pooled = context.root_connection.connection
            if changes is not None and changes[statement] and statement != snapshot:
                backend.note_change(statement, _info_of(pooled))
            streams = context.execution_options.get("stream_results")
            if streams:
                backend.begin_reading(pooled.dbapi_connection)
            execute(cursor, statement, *arguments)
            if streams or (keeps_reading and cursor.description is not None):
                # The next user would see the database as it was when this one began to read.
                _info_of(pooled).setdefault(CURSORS, WeakSet()).add(cursor)

        return guarded

    def _around_savepoint(self, original: Any) -> Any:
        """Return *original*, a method of the dialect, which sends nothing outside a transaction.

        A statement that fails outside of one leaves nothing to go back from.
        """

        def savepoint(connection: Connection, name: str) -> None:
            own = connection.info.setdefault(SAVEPOINTS, set())
            if name in own or not self.is_idle(connection.connection):
                own.add(name)
                original(connection, name)

        return savepoint


# The dialect holds its guard, which holds the dialect: a strong reference here would keep both.
_guards: WeakKeyDictionary[Dialect, ref[ReadingGuard]] = WeakKeyDictionary()


def install_reading_listeners(engine: Engine, backend: Backend) -> None:
    """Guard the connections of *engine*, and classify its errors."""
    attach_backend(engine, backend)
    guard = ReadingGuard(engine.dialect, backend)
    _guards[engine.dialect] = ref(guard)
    event.listen(engine, "handle_error", _refuse_write)
    event.listen(engine, "handle_error", classify)
    event.listen(engine, "checkin", guard.release)


def begin_reading(connection: Connection, refusal: ReadOnly) -> None:
    """Note that *refusal* reads on *connection* now, and begin its snapshot if it has one.

    Does nothing on an engine that is not for reading alone.
    """
    guard = _guard_of(connection.dialect)
    if guard is not None:
        connection.info[REFUSAL] = refusal
        if refusal.snapshot:
            guard.begin_snapshot(connection)


def sends_nothing(dialect: Dialect, pooled: Any) -> bool:
    """Tell whether BEGIN and ROLLBACK are not sent on *pooled*, because it only reads."""
    guard = _guard_of(dialect)
    return guard is not None and guard.is_idle(pooled)


def _guard_of(dialect: Dialect) -> ReadingGuard | None:
    found = _guards.get(dialect)
    return found() if found is not None else None


def _refuse_write(context: ExceptionContext) -> None:
    """Raise the error of a read-only request for a write that the server has refused."""
    connection, cause = context.connection, context.original_exception
    if (
        connection is not None
        and isinstance(cause, context.dialect.loaded_dbapi.Error)
        and backend_of(context).refuses_write(cause)
    ):
        refusal: ReadOnly | None = connection.info.get(REFUSAL)
        if refusal is not None:
            raise refusal.statement_error(context.statement)


def _info_of(pooled: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = pooled.info
    except NotImplementedError:
        # SQLAlchemy makes such a connection while it asks the server what it can do.
        return {}
    return found
