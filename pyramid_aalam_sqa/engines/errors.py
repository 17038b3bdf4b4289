"""Classifies each error of the database when it happens, before application code can catch it.

An error is marked as retryable, as unavailable, or as "outcome unknown" after COMMIT was sent. An
error that ended the transaction in the server is noted, so that the rest of it is never committed.
"""

import random

from pyramid_retry import mark_error_retryable
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from zope.interface import alsoProvides

from ..backends import Backend, ErrorKind, attach_backend, backend_of, has_backend
from ..exceptions import (
    COMMIT_BY_HAND,
    WRITE_OUTSIDE_TRANSACTION,
    BrokenTransactionError,
    CommitNotAllowedError,
    OutsideTransactionError,
    TransactionError,
)
from ..interfaces import IDatabaseUnavailable, IOutcomeUnknown
from .transactions import TransactionState, latest_state, state_of

CONNECTION_ROLLED_BACK = (
    "The transaction was ended by a rollback() of its connection, and its session does not know: "
    "call session.rollback() instead."
)
COMMIT_WOULD_ROLL_BACK = (
    "A statement has failed before, and the database would answer COMMIT by undoing all."
)
SERVER_HUNG_UP = "The server has closed the connection before COMMIT was sent."


def install_error_listeners(engine: Engine, backend: Backend) -> None:
    """Recognise the accidents of *engine*, once however often it is handed in."""
    if has_backend(engine):
        return
    attach_backend(engine, backend)
    event.listen(engine, "handle_error", _recognise)
    event.listen(engine, "commit", _before_commit)
    event.listen(engine, "begin", _refuse_second_begin)
    backend.watch_connections(engine)


def check_before_commit(connection: Connection) -> None:
    """Raise what COMMIT on *connection* would raise, as far as it can be known before.

    Asked on each connection before the first of several COMMITs is sent.
    """
    work = state_of(connection)
    if work is not None and has_backend(connection):
        _refuse_commit(connection, work)
        connection.exec_driver_sql(backend_of(connection).PRE_COMMIT_SQL)


def _refuse_second_begin(connection: Connection) -> None:
    """Refuse what follows a rollback by hand: nobody would commit it, or somebody by hand."""
    work = latest_state(connection)
    if work is not None and not work.over:
        raise BrokenTransactionError(CONNECTION_ROLLED_BACK)


def _before_commit(connection: Connection) -> None:
    work = state_of(connection)
    if work is None:
        return
    try:
        _refuse_commit(connection, work)
    except TransactionError:
        if not connection.invalidated and not _roll_back(connection):
            connection.invalidate()
        raise
    work.commit_sent = True


def _refuse_commit(connection: Connection, work: TransactionState) -> None:
    """Raise when there must not be a COMMIT."""
    if not work.may_commit:
        # session.connection().commit(): half of the request would be stored, whatever comes.
        raise CommitNotAllowedError(WRITE_OUTSIDE_TRANSACTION if work.read_only else COMMIT_BY_HAND)
    backend = backend_of(connection)
    if backend.commit_would_roll_back(connection.connection.dbapi_connection):
        raise BrokenTransactionError(COMMIT_WOULD_ROLL_BACK)
    if backend.has_server_closed(connection.connection.dbapi_connection):
        # A COMMIT would be written to nobody, and nobody could tell that from a lost answer.
        error = BrokenTransactionError(SERVER_HUNG_UP)
        _mark(error, ErrorKind.DISCONNECT)
        connection.invalidate(error)
        raise error


def _recognise(context: ExceptionContext) -> None:
    if context.is_pre_ping:
        # The pool replaces the connection, and nobody sees the error.
        return
    connection = context.connection
    work = state_of(connection) if connection else None
    backend = backend_of(context)
    cause = context.original_exception
    fault = backend.classify_context(context)
    read_only = {ErrorKind.READ_ONLY_SERVER, ErrorKind.READ_ONLY_DATABASE}
    if work and work.read_only and fault in read_only:
        raise OutsideTransactionError(WRITE_OUTSIDE_TRANSACTION)
    if fault and fault.drops_pool:
        context.is_disconnect = True
    error = context.sqlalchemy_exception or cause
    if work and connection and _breaks(backend, fault, cause, connection):
        # Of several the first is the reason, the others may be its consequences.
        work.broken_by = work.broken_by or error
    if work and connection and work.commit_sent:
        work.broken_by = error
        if backend.is_commit_unknown(fault, cause):
            context.is_disconnect = True
            alsoProvides(error, IOutcomeUnknown)
            return
        if not _roll_back(connection):
            context.is_disconnect = True
    if fault:
        _mark(error, fault)


def _roll_back(connection: Connection) -> bool:
    """Roll back what was refused to be committed; false when the connection is lost.

    For SQLAlchemy it has ended, and the next commit on the connection would store it.
    """
    try:
        connection.dialect.do_rollback(connection.connection)
    except connection.dialect.loaded_dbapi.Error:
        return False
    return True


def _breaks(
    backend: Backend, fault: ErrorKind | None, cause: BaseException, connection: Connection
) -> bool:
    if fault in {None, ErrorKind.LOCK_TIMEOUT}:
        driver = None if connection.invalidated else connection.connection.dbapi_connection
        if driver is not None and backend.ended_transaction(cause, driver):
            return True
        # Only a statement failed. A savepoint around it undoes it, and the rest is whole.
        failed = fault is ErrorKind.LOCK_TIMEOUT or backend.aborts_transaction(cause)
        return failed and not connection.in_nested_transaction()
    return True


def _mark(error: BaseException, fault: ErrorKind) -> None:
    if fault.retryable:
        mark_error_retryable(error)
    if fault.unavailable:
        alsoProvides(error, IDatabaseUnavailable)


# Seconds; a thread that sleeps serves nobody.
LONGEST_PAUSE = 2


def pause_after(number: int, first: float) -> float:
    """Return the seconds to wait after attempt *number*; *first* is the longest after the first.

    Half of it at random, so that two that met do not meet again.
    """
    pause: float = min(first * 2 ** (number - 1), max(first, LONGEST_PAUSE))
    return pause * random.uniform(0.5, 1)  # noqa: S311 - no secret depends on it


def error_name(error: BaseException) -> str:
    """Return what kind of error it is, without the statement and the values of its text."""
    if isinstance(error, BrokenTransactionError):
        error = error.reason or error
    cause = getattr(error, "orig", None) or error
    number = cause.args[0] if cause.args else None
    names = ("sqlstate", "pgcode", "sqlite_errorname")
    codes = (getattr(cause, name, None) for name in names)
    code = number if isinstance(number, int) else next(filter(None, codes), "")
    return f"{type(cause).__name__} {code}".rstrip()
