"""The session class: it belongs to one transaction manager and joins each of its transactions.

Listeners are set once on the class; registering them on each session costs ten times the session.
"""

from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction
from transaction.interfaces import NoTransaction as NothingBegun
from zope.sqlalchemy.datamanager import (
    _SESSION_STATE,
    STATUS_CHANGED,
    SessionDataManager,
    ZopeStatus,
)

from ._protocols import TransactionManager
from .exceptions import ForeignCommit, NoTransaction

# After every key that other data managers use: what votes last may commit in its vote.
LAST = "\U0010ffff"


class JoinedSession(Session):
    """A SQLAlchemy session whose work is committed and rolled back by *tm* alone.

    It joins the transaction of *tm* when it is first used in it, always as changed: a transaction
    that commits COMMITs, whatever way the writing was done.
    """

    def __init__(self, *args: Any, tm: TransactionManager, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tm = tm
        _seem_joined(self)


class JoinedDataManager(SessionDataManager):  # type: ignore[misc]  # zope.sqlalchemy has no types
    """zope.sqlalchemy's one-phase data manager, voting after all others, with savepoints."""

    def sortKey(self) -> str:  # noqa: N802 - the name in transaction's interface
        return LAST

    @property
    def savepoint(self) -> Any:
        """Offered on SQLite too, where zope.sqlalchemy denies it: our BEGIN makes it work."""
        return self._savepoint

    def _finish(self, final_state: str) -> None:
        session: Any = self.session
        try:
            super()._finish(final_state)
        finally:
            _seem_joined(session)


def _seem_joined(session: JoinedSession) -> None:
    """Keep ``zope.sqlalchemy.mark_changed(session)`` from joining the thread's own manager.

    It would do so for a session that it does not know yet, and the write would be lost.
    """
    _SESSION_STATE[session] = STATUS_CHANGED


@event.listens_for(JoinedSession, "after_transaction_create", propagate=True)
def _join(session: JoinedSession, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    try:
        JoinedDataManager(session, STATUS_CHANGED, session.tm)
    except NothingBegun:
        transaction.close()
        msg = (
            "request.sqa_session was used where its transaction manager has begun no transaction; "
            "use it inside `with request.tm:`, or in a view, where pyramid_tm has begun one."
        )
        raise NoTransaction(msg) from None


@event.listens_for(JoinedSession, "before_commit", propagate=True)
def _refuse_foreign_commit(session: JoinedSession) -> None:
    if session.in_nested_transaction():
        return
    if session.tm.get().status != ZopeStatus.COMMITTING:
        msg = (
            "The response decides whether this session commits: remove session.commit(), "
            "or use session.flush() to send what is pending, "
            "or request.tm.commit() and request.tm.begin() to commit a part at once."
        )
        raise ForeignCommit(msg)
