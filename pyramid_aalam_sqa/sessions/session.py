"""The session class: a session belongs to one transaction manager and joins its transactions.

The listeners are set once on the class: to set them on each session costs ten times the session.

While the manager has no transaction, the session can read, in a read-only transaction of its own
that is never committed. After its end the session cannot be used.
"""

import weakref
from collections.abc import Callable
from typing import Any, TypeVar, cast

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, SessionTransaction
from transaction.interfaces import NoTransaction as NothingBegun

from ..engines import TransactionState, track_transaction
from ..exceptions import (
    COMMIT_BY_HAND,
    SESSION_ENDED,
    WRITE_OUTSIDE_TRANSACTION,
    CommitNotAllowedError,
    OutsideTransactionError,
)
from ..interfaces import TransactionManager
from ..queries import SqaSession
from .data_manager import JoinedDataManager, hide_from_mark_changed, is_active, is_open

S = TypeVar("S", bound=Session)


class JoinedSession(SqaSession):
    """A SQLAlchemy session that only its transaction manager ``tm`` commits and rolls back.

    It joins the transaction of *tm* when it is first used in it, always as changed: COMMIT is sent
    whenever the transaction commits, in whatever way the work was written.
    """

    make_data_manager: type[JoinedDataManager] = JoinedDataManager

    def __init__(
        self,
        *args: Any,
        tm: TransactionManager,
        window: Callable[[], bool] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.tm = tm
        # Tells whether the current transaction of tm will be ended by pyramid_tm, so that the
        # session may join it; None if every transaction of tm is ended by its user.
        self.window = window
        self.works: list[TransactionState] = []
        self.data_manager: JoinedDataManager | None = None
        # Called when the database has committed, or may have.
        self.on_commit: Callable[[], object] = object
        self.voting = self.late = self.ended = False
        self.begin_listener = _BeginListener(self)
        hide_from_mark_changed(self)

    def rollback(self) -> None:
        """Undo the work so far. The transaction will commit what is done from now on."""
        super().rollback()
        if self.data_manager is not None:
            # It was undone on purpose, so the data manager must not report it as lost.
            self.data_manager.tx = None
            self.works = []

    @property
    def has_lost_write(self) -> bool:
        """Whether objects were changed outside a transaction, where nothing commits them."""
        if not self.late:
            return False
        return bool(self.new or self.deleted or any(map(self.is_modified, self.dirty)))

    def close(self) -> None:
        """Close the session. Raises :class:`OutsideTransactionError` if it holds a lost write."""
        lost = self.has_lost_write
        super().close()
        if lost:
            raise OutsideTransactionError(WRITE_OUTSIDE_TRANSACTION)

    def end(self) -> None:
        """Close the session as :meth:`close` does; it cannot be used again."""
        if self.late and not self.ended:
            self.begin_listener.stop()
        self.ended = True
        self.close()

    def leave_read_only(self) -> None:
        """End the read-only transaction: the manager has begun one that the session can join.

        Raises :class:`OutsideTransactionError` if objects were changed in the read-only one.
        """
        if self.has_lost_write:
            raise OutsideTransactionError(WRITE_OUTSIDE_TRANSACTION)
        self.begin_listener.stop()
        self.late = False
        super().rollback()

    def can_join(self) -> bool:
        """Tell whether there is a transaction to join that will be ended."""
        if not self.in_window():
            return False
        try:
            return is_open(self.tm.get())
        except NothingBegun:
            return False

    def join(self, transaction: SessionTransaction) -> None:
        """Join the manager's transaction with *transaction*, or read only if there is none."""
        joined = self.data_manager
        if joined is not None:
            joined.lost = joined.lost or joined.tx is not None
            joined.tx = transaction
            return
        self.late = not self.can_join()
        if self.late:
            self.begin_listener.start()
        else:
            self.data_manager = self.make_data_manager(self, self.tm)

    def in_window(self) -> bool:
        """Tell whether a transaction of the manager would be ended now."""
        return self.window is None or self.window()


class _BeginListener:
    """Tells a session that reads only when its manager begins a transaction.

    A transaction manager calls it as a synchronizer, and holds it weakly.
    """

    def __init__(self, session: JoinedSession) -> None:
        self._session = weakref.ref(session)
        self._tm = session.tm

    def start(self) -> None:
        self._tm.registerSynch(self)

    def stop(self) -> None:
        self._tm.unregisterSynch(self)

    def newTransaction(self, transaction: Any) -> None:  # noqa: N802 - transaction's interface
        session = self._session()
        if session is not None and is_active(transaction) and session.in_window():
            session.leave_read_only()

    def beforeCompletion(self, transaction: object) -> None:  # noqa: N802 - as above
        """Do nothing; the interface of a synchronizer requires this method."""

    afterCompletion = beforeCompletion  # noqa: N815 - as above


@event.listens_for(JoinedSession, "after_transaction_create", propagate=True)
def _join(session: JoinedSession, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    if session.ended:
        transaction.close()
        raise OutsideTransactionError(SESSION_ENDED)
    session.works = []
    session.join(transaction)


@event.listens_for(JoinedSession, "after_begin", propagate=True)
def _begin(session: JoinedSession, transaction: SessionTransaction, connection: Connection) -> None:
    work = track_transaction(
        connection, transaction, read_only=session.late, may_commit=session.voting
    )
    if work is not None:
        session.works.append(work)


@event.listens_for(JoinedSession, "before_attach", propagate=True)
@event.listens_for(JoinedSession, "before_flush", propagate=True)
def _refuse_late_write(session: JoinedSession, *_: object) -> None:
    if session.late:
        raise OutsideTransactionError(WRITE_OUTSIDE_TRANSACTION)


@event.listens_for(JoinedSession, "before_commit", propagate=True)
def _refuse_foreign_commit(session: JoinedSession) -> None:
    if session.in_nested_transaction():
        return
    if session.late:
        raise OutsideTransactionError(WRITE_OUTSIDE_TRANSACTION)
    if not session.voting:
        raise CommitNotAllowedError(COMMIT_BY_HAND)


def with_class(base: type[S], session_class: type[Session]) -> type[S]:
    """Return a class that inherits from *base* and from *session_class*, the application's own."""
    if session_class is Session:
        return base
    return cast("type[S]", type(session_class.__name__, (base, session_class), {}))
