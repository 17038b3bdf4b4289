"""The data manager: it commits and rolls back a session with its transaction."""

import logging
from typing import TYPE_CHECKING, Any

from pyramid_retry import mark_error_retryable
from sqlalchemy.orm.exc import ConcurrentModificationError
from zope.sqlalchemy.datamanager import (
    _SESSION_STATE,
    STATUS_CHANGED,
    SessionDataManager,
    ZopeStatus,
)

from ..engines import raise_if_broken
from ..exceptions import OutcomeUnknownError, OutsideTransactionError
from ..interfaces import IOutcomeUnknown, TransactionManager

if TYPE_CHECKING:
    from .session import JoinedSession


log = logging.getLogger(__name__)

CLOSED_IN_TRANSACTION = (
    "request.sqa_session was closed in the middle of its transaction, and what it had written is "
    "lost: remove the close(), or call request.tm.abort() to undo the work on purpose."
)


# It sorts after the keys of all other data managers, so ours votes last and may commit in its vote.
LAST = "\U0010ffff"


class JoinedDataManager(SessionDataManager):  # type: ignore[misc]  # zope.sqlalchemy has no types
    """zope.sqlalchemy's one-phase data manager, which votes last, after all others have agreed.

    It has savepoints on every database, and it refuses to commit when a part of the work is lost.
    """

    session: Any
    # Whether a part of the work was closed in the middle, so that it is lost.
    lost = False

    def __init__(self, session: Any, tm: TransactionManager) -> None:
        # Always as changed: a transaction that ends well is committed, however it was written.
        super().__init__(session, STATUS_CHANGED, tm)

    def sortKey(self) -> str:  # noqa: N802 - the name in transaction's interface
        """Return a key that sorts after those of all other data managers."""
        return LAST

    @property
    def savepoint(self) -> Any:
        """Offered on SQLite too, where zope.sqlalchemy denies it: our BEGIN makes it work."""
        return self._savepoint

    def tpc_begin(self, trans: Any) -> None:
        """Flush. Raises when a part of the work is lost."""
        self._raise_if_incomplete()
        try:
            self._flush(trans)
        except ConcurrentModificationError as error:
            # Marked here too: pyramid_tm does not call should_retry() after a failed commit.
            mark_error_retryable(error)
            raise

    def tpc_vote(self, trans: Any) -> None:
        """Commit: this is the last vote of the transaction.

        Raises :class:`OutcomeUnknownError` when the answer to COMMIT was lost.
        """
        self._raise_if_incomplete()
        session = self.session
        session.voting = True
        for work in session.works:
            work.may_commit = True
        try:
            self._commit(trans)
        except BaseException as error:
            if IOutcomeUnknown.providedBy(error):
                _report_unknown_outcome(session, error, trans.description)
            if not isinstance(error, Exception) or not _is_stored(session):
                raise
            # A listener for "after_commit" failed. The work is stored, so the answer must say so.
            log.exception("The transaction is committed, but a listener for its end failed")
            self._finish("committed")
        finally:
            session.voting = False

    def _flush(self, trans: Any) -> None:
        super().tpc_begin(trans)

    def _commit(self, trans: Any) -> None:
        super().tpc_vote(trans)

    def tpc_finish(self, trans: Any) -> None:
        """Forget the session."""
        self._forget_session()

    def abort(self, trans: Any) -> None:
        """Roll back, and forget the session."""
        super().abort(trans)
        self._forget_session()

    def _raise_if_incomplete(self) -> None:
        """Raise when a part of the work is lost, even if the view has caught the error."""
        session = self.session
        raise_if_broken(session.works)
        if self.lost or self.tx is not session.get_transaction():
            raise OutsideTransactionError(CLOSED_IN_TRANSACTION)

    def _finish(self, final_state: str) -> None:
        session = self.session
        session.data_manager = None
        if final_state == "committed":
            session.on_commit()
        try:
            super()._finish(final_state)
        finally:
            hide_from_mark_changed(session)

    def _forget_session(self) -> None:
        """Forget the session; it may have been rolled back by hand and not used since."""
        session, self.session = self.session, None
        if session is not None:
            session.data_manager = None


def _report_unknown_outcome(session: "JoinedSession", error: BaseException, note: str) -> None:
    session.on_commit()
    log.error("COMMIT was sent and not answered, its outcome is unknown: %s", note)
    # SystemExit, KeyboardInterrupt and GreenletExit stay what they are.
    if isinstance(error, Exception):
        msg = f"It cannot be known whether the database has committed: {note}"
        raise OutcomeUnknownError(msg) from error


def _is_stored(session: "JoinedSession") -> bool:
    """Tell whether the database has answered the COMMIT of everything that *session* did."""
    return bool(session.works) and all(work.stored for work in session.works)


def hide_from_mark_changed(session: "JoinedSession") -> None:
    """Make ``zope.sqlalchemy.mark_changed(session)`` do nothing.

    For a session that zope.sqlalchemy does not know, mark_changed() joins the transaction manager
    of the thread, which may be another one, and the write would be lost.
    """
    _SESSION_STATE[session] = STATUS_CHANGED


def is_active(transaction: Any) -> bool:
    """Tell whether *transaction* can be joined and will be committed."""
    return bool(transaction.status == ZopeStatus.ACTIVE)


def is_open(transaction: Any) -> bool:
    """Tell whether *transaction* can be joined, though it may be doomed to be rolled back."""
    return transaction.status in {ZopeStatus.ACTIVE, ZopeStatus.DOOMED}
