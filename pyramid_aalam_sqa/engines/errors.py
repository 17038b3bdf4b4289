"""Classifies each error of the database when it happens, before application code can catch it.

An error is marked as retryable or as unavailable. It becomes an :class:`OutcomeUnknownError` when
COMMIT was sent and not answered. An error that has ended the transaction in the server is noted, so
that the rest of the transaction is never committed.

Only errors of the driver have codes. Every other exception, such as the end of the process or a
time limit, stays what it is and is never marked. A connection that it has interrupted is thrown
away.
"""

import random

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext

from ..backends import (
    IS_CLOSED,
    Backend,
    ErrorKind,
    attach_backend,
    backend_of,
    driver_of,
    has_backend,
)
from ..exceptions import (
    WRITE_OUTSIDE_TRANSACTION,
    BrokenTransactionError,
    OutcomeUnknownError,
    OutsideTransactionError,
    TransactionError,
)
from .marks import mark
from .transaction import Outcome, WatchedTransaction
from .watcher import report_unknown, transaction_on, watch_transactions


def install_listeners(engine: Engine, backend: Backend) -> bool:
    """Classify the errors of *engine* and watch its transactions, once for each engine.

    Return false if that was done before.
    """
    if has_backend(engine):
        return False
    attach_backend(engine, backend)
    watch_transactions(engine, backend)
    event.listen(engine, "handle_error", classify)
    return True


def classify(context: ExceptionContext) -> None:
    """Mark the error of *context* for those who read it above. A "handle_error" listener."""
    if context.is_pre_ping:
        # The pool replaces the connection, and the application does not see the error.
        return
    connection = context.connection
    transaction = transaction_on(connection) if connection is not None else None
    cause = context.original_exception
    if isinstance(cause, context.dialect.loaded_dbapi.Error):
        _classify_driver_error(context, connection, transaction)
    elif not isinstance(cause, TransactionError):
        _throw_away_interrupted(context, connection, transaction)
    if transaction is not None and transaction.discard:
        context.is_disconnect = True
    if transaction is not None and transaction.outcome is Outcome.UNKNOWN:
        _raise_unknown(context, transaction)


def _classify_driver_error(
    context: ExceptionContext,
    connection: Connection | None,
    transaction: WatchedTransaction | None,
) -> None:
    """Mark an error of the driver, and note it if it has broken the transaction."""
    backend, cause = backend_of(context), context.original_exception
    kind = backend.classify_context(context)
    read_only = {ErrorKind.READ_ONLY_SERVER, ErrorKind.READ_ONLY_DATABASE}
    if transaction and transaction.read_only and kind in read_only:
        if transaction.refusal is not None:
            raise transaction.refusal.statement_error(context.statement)
        raise OutsideTransactionError(WRITE_OUTSIDE_TRANSACTION)
    if kind and kind.drops_pool:
        context.is_disconnect = True
    error = context.sqlalchemy_exception or cause
    if transaction is not None and connection is not None:
        refused = transaction.outcome is Outcome.REFUSED
        if refused or _breaks(backend, kind, cause, connection):
            # The first error is the reason; later ones may be its consequences.
            transaction.broken_by = transaction.broken_by or error
            # SQLite has rolled back by itself: what follows would be stored at once.
            transaction.ended = transaction.is_owned and _has_rolled_back(context, connection)
        if transaction.outcome is Outcome.UNKNOWN:
            return
    if kind is not None:
        mark(error, kind)


def _has_rolled_back(context: ExceptionContext, connection: Connection) -> bool:
    """Tell whether the driver knows for sure that it has no transaction any more."""
    driver = driver_of(context.dialect)
    if not driver.KNOWS_ITS_COMMIT:
        return False
    return driver.transaction(connection.connection.dbapi_connection) is IS_CLOSED


def _breaks(
    backend: Backend, kind: ErrorKind | None, cause: BaseException, connection: Connection
) -> bool:
    """Tell whether *cause* has ended the transaction on *connection*, or a part of it."""
    if kind not in {None, ErrorKind.LOCK_TIMEOUT}:
        return True
    if backend.ended_transaction(cause, connection.connection.dbapi_connection):
        return True
    # Only one statement failed. A savepoint around it undoes it, and the rest is whole.
    failed = kind is ErrorKind.LOCK_TIMEOUT or backend.aborts_transaction(cause)
    return failed and not connection.in_nested_transaction()


def _throw_away_interrupted(
    context: ExceptionContext,
    connection: Connection | None,
    transaction: WatchedTransaction | None,
) -> None:
    """Throw the connection away when an exception has interrupted the driver.

    SQLAlchemy does this only for exceptions that are not an :class:`Exception`. A time limit that a
    signal raises is an Exception. The other connections of the pool are kept.
    """
    if connection is None or connection.closed or connection.invalidated:
        return
    driver = connection.connection.dbapi_connection
    in_commit = transaction is not None and transaction.outcome is not Outcome.OPEN
    if context.is_disconnect or in_commit or not driver_of(context.dialect).is_intact(driver):
        if not context.is_disconnect:
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False
        if transaction is not None:
            transaction.broken_by = transaction.broken_by or context.original_exception


def _raise_unknown(context: ExceptionContext, transaction: WatchedTransaction) -> None:
    """Say that the outcome of a COMMIT is unknown; raise it in the place of an Exception."""
    context.is_disconnect = True
    note = report_unknown(transaction)
    # SystemExit, KeyboardInterrupt and GreenletExit stay what they are.
    if isinstance(context.original_exception, Exception):
        unknown = OutcomeUnknownError(
            f"It cannot be known whether the database has committed: {note}"
        )
        unknown.reason = context.sqlalchemy_exception or context.original_exception
        raise unknown from unknown.reason


# Seconds. A thread that sleeps serves no other request, so the pause is short.
LONGEST_PAUSE = 2


def pause_after(number: int, first: float) -> float:
    """Return the seconds to wait after attempt *number*.

    *first* is the longest pause after the first attempt. Each further pause is up to twice as long.
    Half of each pause is random, so that two requests that were in conflict do not start together.
    """
    pause: float = min(first * 2 ** (number - 1), max(first, LONGEST_PAUSE))
    return pause * random.uniform(0.5, 1)  # noqa: S311 - no secret depends on it


def error_name(error: BaseException) -> str:
    """Return the class and the code of *error*, without its statement and values."""
    if isinstance(error, BrokenTransactionError):
        error = error.reason or error
    cause = getattr(error, "orig", None) or error
    number = cause.args[0] if cause.args else None
    names = ("sqlstate", "pgcode", "sqlite_errorname")
    codes = (getattr(cause, name, None) for name in names)
    code = number if isinstance(number, int) else next(filter(None, codes), "")
    return f"{type(cause).__name__} {code}".rstrip()
