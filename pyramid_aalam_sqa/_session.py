"""The session class: it belongs to one transaction manager and joins each of its transactions.

Listeners are set once on the class; registering them on each session costs ten times the session.

Where the manager has no transaction, before it begins and after it ended, the session can read,
in a read-only transaction of its own that nobody commits. After its end it can do nothing.
"""

import logging
from collections.abc import Callable
from typing import Any

from pyramid_retry import mark_error_retryable
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.orm.exc import ConcurrentModificationError
from transaction.interfaces import NoTransaction as NothingBegun
from zope.sqlalchemy.datamanager import (
    _SESSION_STATE,
    STATUS_CHANGED,
    SessionDataManager,
    ZopeStatus,
)

from ._faults import BY_HAND, LATE, IOutcomeUnknown, Work, begin_work, refuse_broken
from ._protocols import TransactionManager
from .exceptions import ForeignCommit, NoTransaction, OutcomeUnknown
from .queries import LookUpSession

log = logging.getLogger(__name__)

# After every key that other data managers use: what votes last may commit in its vote.
LAST = "\U0010ffff"
ENDED = (
    "This session has ended with its request. Take what a later function needs out of its objects, "
    "or give that function a session of its own."
)
CLOSED = (
    "request.sqa_session was closed in the middle of its transaction, and what it had written is "
    "lost: remove the close(), or call request.tm.abort() to undo the work on purpose."
)


class JoinedSession(LookUpSession):
    """A SQLAlchemy session whose work is committed and rolled back by its manager ``tm`` alone.

    It joins the transaction of *tm* when it is first used in it, always as changed: a transaction
    that commits COMMITs, whatever way the writing was done.
    """

    make_data_manager: type["JoinedDataManager"]

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
        self.works: list[Work] = []
        self.data_manager: JoinedDataManager | None = None
        # Called when the database has committed, or may have.
        self.on_commit: Callable[[], object] = object
        self.voting = self.late = self.ended = False
        _seem_joined(self)

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
        """Close the session. Raises :class:`NoTransaction` if it holds a lost write."""
        lost = self.has_lost_write
        super().close()
        if lost:
            raise NoTransaction(LATE)

    def end(self) -> None:
        """Close the session for good, as :meth:`close` does."""
        if self.late and not self.ended:
            self.tm.unregisterSynch(self)
        self.ended = True
        self.close()

    def newTransaction(self, transaction: Any) -> None:  # noqa: N802 - transaction's interface
        """Leave the read-only transaction when the manager begins one, to join that."""
        if transaction.status == ZopeStatus.ACTIVE and self._in_window():
            if self.has_lost_write:
                raise NoTransaction(LATE)
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
            return self.tm.get().status in {ZopeStatus.ACTIVE, ZopeStatus.DOOMED}
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
            self.data_manager = self.make_data_manager(self, STATUS_CHANGED, self.tm)

    def _in_window(self) -> bool:
        return self.window is None or self.window()


class JoinedDataManager(SessionDataManager):  # type: ignore[misc]  # zope.sqlalchemy has no types
    """zope.sqlalchemy's one-phase data manager, voting last, with savepoints, refusing halves."""

    session: Any
    # Whether a part of the work was ended by hand, without a rollback() that says so.
    lost = False

    def sortKey(self) -> str:  # noqa: N802 - the name in transaction's interface
        return LAST

    @property
    def savepoint(self) -> Any:
        """Offered on SQLite too, where zope.sqlalchemy denies it: our BEGIN makes it work."""
        return self._savepoint

    def tpc_begin(self, trans: Any) -> None:
        self._refuse_half()
        try:
            self._flush(trans)
        except ConcurrentModificationError as error:
            # Marked here too: after a COMMIT that failed nobody asks should_retry.
            mark_error_retryable(error)
            raise

    def tpc_vote(self, trans: Any) -> None:
        self._refuse_half()
        session = self.session
        session.voting = True
        for work in session.works:
            work.may_commit = True
        try:
            self._commit(trans)
        except BaseException as error:
            if IOutcomeUnknown.providedBy(error):
                _say_unknown(session, error, trans.description)
            if not isinstance(error, Exception) or not _is_stored(session):
                raise
            # A listener for "after_commit". An answer that denies the commit would be untrue.
            log.exception("The transaction is committed, but a listener for its end failed")
            self._finish("committed")
        finally:
            session.voting = False

    def _flush(self, trans: Any) -> None:
        super().tpc_begin(trans)

    def _commit(self, trans: Any) -> None:
        super().tpc_vote(trans)

    def tpc_finish(self, trans: Any) -> None:
        self._leave()

    def abort(self, trans: Any) -> None:
        super().abort(trans)
        self._leave()

    def _refuse_half(self) -> None:
        """Raise when the database has lost a part of the work, whatever was made of its error."""
        session = self.session
        refuse_broken(session.works)
        if self.lost or self.tx is not session.get_transaction():
            raise NoTransaction(CLOSED)

    def _finish(self, final_state: str) -> None:
        session = self.session
        session.data_manager = None
        if final_state == "committed":
            session.on_commit()
        try:
            super()._finish(final_state)
        finally:
            _seem_joined(session)

    def _leave(self) -> None:
        """Forget the session, which was rolled back by hand and not used since."""
        session, self.session = self.session, None
        if session is not None:
            session.data_manager = None


JoinedSession.make_data_manager = JoinedDataManager


def _say_unknown(session: JoinedSession, error: BaseException, note: str) -> None:
    session.on_commit()
    log.error("COMMIT was sent and not answered, its outcome is unknown: %s", note)
    # The end of the process, or of a greenlet's time, stays what it is.
    if isinstance(error, Exception):
        msg = f"Nobody knows whether the database has committed: {note}"
        raise OutcomeUnknown(msg) from error


def _is_stored(session: JoinedSession) -> bool:
    """Tell whether the database has answered the COMMIT of everything that *session* did."""
    return bool(session.works) and all(work.stored for work in session.works)


def _seem_joined(session: JoinedSession) -> None:
    """Keep ``zope.sqlalchemy.mark_changed(session)`` from joining the thread's own manager.

    It would do so for a session that it does not know yet, and the write would be lost.
    """
    _SESSION_STATE[session] = STATUS_CHANGED


@event.listens_for(JoinedSession, "after_transaction_create", propagate=True)
def _join(session: JoinedSession, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    if session.ended:
        transaction.close()
        raise NoTransaction(ENDED)
    session.works = []
    session.join(transaction)


@event.listens_for(JoinedSession, "after_begin", propagate=True)
def _begin(session: JoinedSession, transaction: SessionTransaction, connection: Connection) -> None:
    work = begin_work(connection, transaction, read_only=session.late, may_commit=session.voting)
    if work is not None:
        session.works.append(work)


@event.listens_for(JoinedSession, "before_attach", propagate=True)
@event.listens_for(JoinedSession, "before_flush", propagate=True)
def _refuse_late_write(session: JoinedSession, *_: object) -> None:
    if session.late:
        raise NoTransaction(LATE)


@event.listens_for(JoinedSession, "before_commit", propagate=True)
def _refuse_foreign_commit(session: JoinedSession) -> None:
    if session.in_nested_transaction():
        return
    if session.late:
        raise NoTransaction(LATE)
    if not session.voting:
        raise ForeignCommit(BY_HAND)
