"""Recognises an accident of the database where it happens, before anybody can swallow it.

Of an error it is said at its birth whether the request may be tried again, whether the database is
unavailable, and whether COMMIT had been sent. Of the transaction it is noted that it is broken, so
that nobody can commit what is left of it.
"""

import weakref
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from pyramid.interfaces import IException
from pyramid_retry import IRetryableError, mark_error_retryable
from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect, Engine, ExceptionContext, RootTransaction
from sqlalchemy.orm import Session, SessionTransaction
from zope.interface import Interface, alsoProvides

from ._dialects import Fault, GenericDialect
from .exceptions import BrokenTransaction, ForeignCommit, NoTransaction, TransactionError

BY_HAND = (
    "The response, or the end of its block, decides whether the session commits: remove the "
    "commit(), or use session.flush() to send what is pending, "
    "or request.tm.commit() and request.tm.begin() to commit a part at once."
)
LATE = (
    "request.sqa_session can only read here, before or after the transaction of the request: "
    "a write would be lost. Write in the view, or inside `with request.tm:` where there is no view."
)
FAILED = "A statement has failed before, and the database would answer COMMIT by undoing all."
ROLLED_BACK = (
    "The transaction was ended by a rollback() of its connection, and its session does not know: "
    "call session.rollback() instead."
)
HUNG_UP = "The server has closed the connection before COMMIT was sent."


class IDatabaseUnavailable(IException):  # type: ignore[misc]  # pyramid has no types
    """Marks an error that says the database cannot be used now: unreachable, full, silent."""


class IOutcomeUnknown(Interface):  # type: ignore[misc]  # zope.interface has no types
    """Marks an error that came after COMMIT was sent and before its answer was read."""


class Work:
    """What a session does in one transaction on one connection.

    It is *stored* when the database has answered COMMIT, and not with an error.
    """

    def __init__(
        self, transaction: SessionTransaction, *, read_only: bool, may_commit: bool
    ) -> None:
        # Weak: it holds the connection.
        self._transaction = weakref.ref(transaction)
        self.read_only = read_only
        self.may_commit = may_commit
        self.commit_sent = False
        self.broken_by: BaseException | None = None

    @property
    def session(self) -> Session | None:
        """The session, while it has its transaction."""
        transaction = self._transaction()
        return transaction.session if transaction else None

    @property
    def over(self) -> bool:
        """Whether the session has ended its transaction."""
        transaction = self._transaction()
        return transaction is None or transaction.session.get_transaction() is not transaction

    @property
    def stored(self) -> bool:
        """Whether COMMIT was sent and no error came of it."""
        return self.commit_sent and self.broken_by is None


_work: WeakKeyDictionary[RootTransaction, Work] = WeakKeyDictionary()
_latest: WeakKeyDictionary[Connection, Work] = WeakKeyDictionary()
_watched: WeakKeyDictionary[Dialect, GenericDialect] = WeakKeyDictionary()


def watch(engine: Engine, dialect: GenericDialect) -> None:
    """Recognise the accidents of *engine*, once however often it is handed in."""
    if engine.dialect in _watched:
        return
    _watched[engine.dialect] = dialect
    event.listen(engine, "handle_error", _recognise)
    event.listen(engine, "commit", _before_commit)
    event.listen(engine, "begin", _refuse_second_begin)
    event.listen(engine, "reset", dialect.make_writable)


def dialect_of(engine: Engine) -> GenericDialect:
    """Return what is known of the database of *engine*, whose accidents are recognised."""
    return _watched[engine.dialect]


def abandon(connection: Connection) -> None:
    """Give up the answer that is being read on *connection*, without reading it to its end."""
    _watched[connection.dialect].abandon(connection)


def begin_work(
    connection: Connection, transaction: SessionTransaction, *, read_only: bool, may_commit: bool
) -> Work | None:
    """Note that a session begins *transaction* on *connection*; None when it had begun before."""
    root = connection.get_transaction()
    if root is None or root in _work:
        return None
    work = Work(transaction, read_only=read_only, may_commit=may_commit)
    _work[root] = _latest[connection] = work
    dialect = _watched.get(connection.dialect)
    if read_only and dialect:
        dialect.make_read_only(connection)
    return work


def refuse_broken(works: Iterable[Work]) -> None:
    """Raise :class:`BrokenTransaction` when one of *works* was ended by an error."""
    for work in works:
        if work.broken_by is not None:
            msg = f"An error has ended this transaction before its end: {work.broken_by}"
            refusal = BrokenTransaction(msg)
            refusal.reason = work.broken_by
            if IRetryableError.providedBy(work.broken_by):
                mark_error_retryable(refusal)
            raise refusal from work.broken_by


def ask_before_commits(connection: Connection) -> None:
    """Raise what COMMIT on *connection* would raise, as far as it can be known before.

    Asked on each connection before the first of several COMMITs is sent.
    """
    work = _work_on(connection)
    dialect = _watched.get(connection.dialect)
    if work is not None and dialect is not None:
        _refuse_commit(connection, work)
        connection.exec_driver_sql(dialect.LAST_QUESTION)


def session_on(connection: Connection) -> Session | None:
    """Return the session whose transaction on *connection* it is."""
    work = _work_on(connection)
    return work.session if work else None


def _refuse_second_begin(connection: Connection) -> None:
    """Refuse what follows a rollback by hand: nobody would commit it, or somebody by hand."""
    work = _latest.get(connection)
    if work is not None and not work.over:
        raise BrokenTransaction(ROLLED_BACK)


def _work_on(connection: Connection) -> Work | None:
    transaction = connection.get_transaction()
    return _work.get(transaction) if transaction else None


def _before_commit(connection: Connection) -> None:
    work = _work_on(connection)
    if work is None:
        return
    try:
        _refuse_commit(connection, work)
    except TransactionError:
        if not connection.invalidated and not _roll_back(connection):
            connection.invalidate()
        raise
    work.commit_sent = True


def _refuse_commit(connection: Connection, work: Work) -> None:
    """Raise when there must not be a COMMIT."""
    if not work.may_commit:
        # session.connection().commit(): half of the request would be stored, whatever comes.
        raise ForeignCommit(LATE if work.read_only else BY_HAND)
    dialect = _watched[connection.dialect]
    if dialect.would_roll_back(connection.connection.dbapi_connection):
        raise BrokenTransaction(FAILED)
    if dialect.has_hung_up(connection.connection.dbapi_connection):
        # A COMMIT would be written to nobody, and nobody could tell that from a lost answer.
        error = BrokenTransaction(HUNG_UP)
        _mark(error, Fault.DISCONNECT)
        connection.invalidate(error)
        raise error


def _recognise(context: ExceptionContext) -> None:
    if context.is_pre_ping:
        # The pool replaces the connection, and nobody sees the error.
        return
    connection = context.connection
    work = _work_on(connection) if connection else None
    dialect = _watched[context.dialect]
    cause = context.original_exception
    fault = dialect.fault(cause, connecting=not connection, disconnected=context.is_disconnect)
    if work and work.read_only and fault in {Fault.READ_ONLY, Fault.REFUSED}:
        raise NoTransaction(LATE)
    if fault and fault.drops_pool:
        context.is_disconnect = True
    error = context.sqlalchemy_exception or cause
    if work and connection and _breaks(dialect, fault, cause, connection):
        # Of several the first is the reason, the others may be its consequences.
        work.broken_by = work.broken_by or error
    if work and connection and work.commit_sent:
        work.broken_by = error
        if dialect.lost_answer(fault, cause):
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
    dialect: GenericDialect, fault: Fault | None, cause: BaseException, connection: Connection
) -> bool:
    if fault in {None, Fault.LOCKED}:
        driver = None if connection.invalidated else connection.connection.dbapi_connection
        if driver is not None and dialect.ends_transaction(cause, driver):
            return True
        # Only a statement failed. A savepoint around it undoes it, and the rest is whole.
        failed = fault is Fault.LOCKED or dialect.breaks_transaction(cause)
        return failed and not connection.in_nested_transaction()
    return True


def _mark(error: BaseException, fault: Fault) -> None:
    if fault.retryable:
        mark_error_retryable(error)
    if fault.unavailable:
        alsoProvides(error, IDatabaseUnavailable)
