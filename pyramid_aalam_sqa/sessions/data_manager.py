"""TODO."""

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
from ..exceptions import CLOSED, OutcomeUnknownError, OutsideTransactionError
from ..interfaces import IOutcomeUnknown, TransactionManager

if TYPE_CHECKING:
    from .session import JoinedSession


log = logging.getLogger(__name__)


# After every key that other data managers use: what votes last may commit in its vote.
LAST = "\U0010ffff"


class JoinedDataManager(SessionDataManager):  # type: ignore[misc]  # zope.sqlalchemy has no types
    """zope.sqlalchemy's one-phase data manager, voting last, with savepoints, refusing halves."""

    session: Any
    # Whether a part of the work was ended by hand, without a rollback() that says so.
    lost = False

    def __init__(self, session: Any, tm: TransactionManager) -> None:
        # Always as changed: see the design's first decision.
        super().__init__(session, STATUS_CHANGED, tm)

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
        raise_if_broken(session.works)
        if self.lost or self.tx is not session.get_transaction():
            raise OutsideTransactionError(CLOSED)

    def _finish(self, final_state: str) -> None:
        session = self.session
        session.data_manager = None
        if final_state == "committed":
            session.on_commit()
        try:
            super()._finish(final_state)
        finally:
            hide_from_mark_changed(session)

    def _leave(self) -> None:
        """Forget the session, which was rolled back by hand and not used since."""
        session, self.session = self.session, None
        if session is not None:
            session.data_manager = None


def _say_unknown(session: "JoinedSession", error: BaseException, note: str) -> None:
    session.on_commit()
    log.error("COMMIT was sent and not answered, its outcome is unknown: %s", note)
    # The end of the process, or of a greenlet's time, stays what it is.
    if isinstance(error, Exception):
        msg = f"Nobody knows whether the database has committed: {note}"
        raise OutcomeUnknownError(msg) from error


def _is_stored(session: "JoinedSession") -> bool:
    """Tell whether the database has answered the COMMIT of everything that *session* did."""
    return bool(session.works) and all(work.stored for work in session.works)


def hide_from_mark_changed(session: "JoinedSession") -> None:
    """Keep ``zope.sqlalchemy.mark_changed(session)`` from joining the thread's own manager.

    It would do so for a session that it does not know yet, and the write would be lost.
    """
    _SESSION_STATE[session] = STATUS_CHANGED


def is_active(transaction: Any) -> bool:
    """Tell whether *transaction* can be joined and will be committed."""
    return bool(transaction.status == ZopeStatus.ACTIVE)


def is_open(transaction: Any) -> bool:
    """Tell whether *transaction* can be joined, though it may be doomed to be rolled back."""
    return transaction.status in {ZopeStatus.ACTIVE, ZopeStatus.DOOMED}
