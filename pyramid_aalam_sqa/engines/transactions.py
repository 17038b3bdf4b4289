"""Knows what a session does in a transaction on a connection, and what became of it."""

import weakref
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from pyramid_retry import IRetryableError, mark_error_retryable
from sqlalchemy.engine import Connection, RootTransaction
from sqlalchemy.orm import Session, SessionTransaction

from ..backends import backend_of, has_backend
from ..exceptions import BrokenTransactionError


class TransactionState:
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


_work: WeakKeyDictionary[RootTransaction, TransactionState] = WeakKeyDictionary()


_latest: WeakKeyDictionary[Connection, TransactionState] = WeakKeyDictionary()


def track_transaction(
    connection: Connection, transaction: SessionTransaction, *, read_only: bool, may_commit: bool
) -> TransactionState | None:
    """Note that a session begins *transaction* on *connection*; None when it had begun before."""
    root = connection.get_transaction()
    if root is None or root in _work:
        return None
    work = TransactionState(transaction, read_only=read_only, may_commit=may_commit)
    _work[root] = _latest[connection] = work
    if read_only and has_backend(connection):
        backend_of(connection).make_read_only(connection)
    return work


def raise_if_broken(works: Iterable[TransactionState]) -> None:
    """Raise :class:`BrokenTransactionError` when one of *works* was ended by an error."""
    for work in works:
        if work.broken_by is not None:
            msg = f"An error has ended this transaction before its end: {work.broken_by}"
            refusal = BrokenTransactionError(msg)
            refusal.reason = work.broken_by
            if IRetryableError.providedBy(work.broken_by):
                mark_error_retryable(refusal)
            raise refusal from work.broken_by


def session_of_connection(connection: Connection) -> Session | None:
    """Return the session whose transaction on *connection* it is."""
    work = state_of(connection)
    return work.session if work else None


def latest_state(connection: Connection) -> TransactionState | None:
    """Return the state of the last transaction that a session began on *connection*."""
    return _latest.get(connection)


def state_of(connection: Connection) -> TransactionState | None:
    """Return the state of the transaction that is open on *connection*, if a session began it."""
    transaction = connection.get_transaction()
    return _work.get(transaction) if transaction else None
