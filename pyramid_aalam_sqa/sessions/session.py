"""The session class: it belongs to one transaction manager and joins each of its transactions.

Listeners are set once on the class; registering them on each session costs ten times the session.

Where the manager has no transaction, before it begins and after it ended, the session can read,
in a read-only transaction of its own that nobody commits. After its end it can do nothing.
"""

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
    """A SQLAlchemy session whose work is committed and rolled back by its manager ``tm`` alone.

    It joins the transaction of *tm* when it is first used in it, always as changed: a transaction
    that commits COMMITs, whatever way the writing was done.
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
        # Tells whether the transaction of tm is one that somebody is going to end.
        self.window = window
        self.works: list[TransactionState] = []
        self.data_manager: JoinedDataManager | None = None
        # Called when the database has committed, or may have.
        self.on_commit: Callable[[], object] = object
        self.voting = self.late = self.ended = False
        hide_from_mark_changed(self)

    def rollback(self) -> None:
        """Undo what was done, and stay usable: the request commits what is done from now on."""
        super().rollback()
        if self.data_manager is not None:
            # Undone on purpose: nothing of it is left to commit, or to be missed.
            self.data_manager.tx = None
            self.works = []

    @property
    def has_lost_write(self) -> bool:
        """Whether objects were changed where nobody commits."""
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
        """Close the session for good, as :meth:`close` does."""
        if self.late and not self.ended:
            self.tm.unregisterSynch(self)
        self.ended = True
        self.close()

    def newTransaction(self, transaction: Any) -> None:  # noqa: N802 - transaction's interface
        """Leave the read-only transaction when the manager begins one, to join that."""
        if is_active(transaction) and self._in_window():
            if self.has_lost_write:
                raise OutsideTransactionError(WRITE_OUTSIDE_TRANSACTION)
            self.tm.unregisterSynch(self)
            self.late = False
            super().rollback()

    def beforeCompletion(self, transaction: object) -> None:  # noqa: N802 - as above
        """Do nothing, as transaction's interface allows."""

    afterCompletion = beforeCompletion  # noqa: N815 - as above

    def can_join(self) -> bool:
        """Tell whether there is a transaction that somebody is going to end."""
        if not self._in_window():
            return False
        try:
            return is_open(self.tm.get())
        except NothingBegun:
            return False

    def join(self, transaction: SessionTransaction) -> None:
        """Join the manager's transaction with *transaction*, or begin to read only."""
        joined = self.data_manager
        if joined is not None:
            joined.lost = joined.lost or joined.tx is not None
            joined.tx = transaction
            return
        self.late = not self.can_join()
        if self.late:
            self.tm.registerSynch(self)
        else:
            self.data_manager = self.make_data_manager(self, self.tm)

    def _in_window(self) -> bool:
        return self.window is None or self.window()


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
    """Return *base* with what *session_class*, the application's own, has besides."""
    if session_class is Session:
        return base
    return cast("type[S]", type(session_class.__name__, (base, session_class), {}))
