"""The data manager: it commits and rolls back a session together with its transaction.

It commits in one phase, so it votes last: when it is asked, all other data managers have agreed.
"""

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from pyramid_retry import mark_error_retryable
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.orm.exc import ConcurrentModificationError
from transaction.interfaces import IDataManagerSavepoint, ISavepointDataManager
from zope.interface import implementer
from zope.sqlalchemy.datamanager import _SESSION_STATE, STATUS_CHANGED, ZopeStatus

from ..engines import Outcome, WatchedTransaction, raise_if_broken
from ..exceptions import OutsideTransactionError, PartialCommitError
from ..interfaces import TransactionManager
from .commits import FirstUseOrder, commit_in_order, prepare_commit

if TYPE_CHECKING:
    from .session import JoinedSession

log = logging.getLogger(__name__)

CLOSED_IN_TRANSACTION = (
    "request.sqa_session was closed in the middle of its transaction, and what it had written is "
    "lost: remove the close(), or call request.tm.abort() to undo the work on purpose."
)
# It sorts after the keys of all other data managers, so ours votes last and may commit in its vote.
LAST = "\U0010ffff"


# The status of a transaction that can be joined, as the second can, though it will be rolled back;
# and of one whose commit has failed, so that nothing can join it.
ACTIVE, DOOMED, COMMITFAILED = ZopeStatus.ACTIVE, ZopeStatus.DOOMED, ZopeStatus.COMMITFAILED


@implementer(ISavepointDataManager)
class JoinedDataManager:
    """Commits one session in the vote of its transaction, or rolls it back."""

    __slots__ = ("lost", "session", "transaction_manager", "tx", "voted")

    def __init__(
        self, session: Any, tm: TransactionManager, transaction: SessionTransaction
    ) -> None:
        self.transaction_manager = tm
        self.session: Any = session
        # The transaction of the session; None if its user has rolled it back.
        self.tx: SessionTransaction | None = transaction
        # Whether a part of the work was closed in the middle, so that it is lost.
        self.lost = False
        # Whether we have voted, so that only another data manager can fail now.
        self.voted = False
        tm.get().join(self)

    def commit_alone(self, trans: Any) -> None:
        """Do the steps of a commit at once: no other data manager has joined the transaction."""
        if not self.has_nothing_to_write():
            self.tpc_begin(trans)
        self.tpc_vote(trans)

    def sortKey(self) -> str:  # noqa: N802 - the name in transaction's interface
        """Return a key that sorts after those of all other data managers."""
        return LAST

    def savepoint(self) -> "SessionSavepoint":
        """Return a savepoint of the session."""
        return SessionSavepoint(self.session)

    def should_retry(self, error: BaseException) -> bool:
        """Return whether *error* is a conflict; those of the database are marked already."""
        return isinstance(error, ConcurrentModificationError)

    def tpc_begin(self, trans: Any) -> None:
        """Flush. Raises when a part of the work is lost."""
        self.raise_if_incomplete()
        try:
            self.flush()
        except ConcurrentModificationError as error:
            # Marked here too: pyramid_tm does not call should_retry() after a failed commit.
            mark_error_retryable(error)
            raise

    def commit(self, trans: Any) -> None:
        """Do nothing: the work is committed in the vote."""

    def tpc_vote(self, trans: Any) -> None:
        """Commit: this is the last vote of the transaction.

        Raises :class:`OutcomeUnknownError` when the answer to COMMIT was lost, and
        :class:`PartialCommitError` when only some of several databases have committed.
        """
        self.raise_if_incomplete()
        session, note = self.session, trans.description
        session.committing = True
        for watched in session.transactions:
            watched.may_commit = True
            watched.note = note
        try:
            self.commit_all(note)
        except BaseException as error:
            # A listener for "after_commit" failed, or an interrupt came after the answer. The work
            # is stored, so the answer must say so.
            if isinstance(error, PartialCommitError) or not all_stored(session.transactions):
                raise
            self.finish()
            if not isinstance(error, Exception):
                log.error(
                    "The transaction is stored, and %r came after it: %s", error, trans.description
                )
                raise
            log.exception("The transaction is committed, but a listener for its end failed")
        else:
            self.finish()
        finally:
            session.committing = False
        self.voted = True

    def tpc_finish(self, trans: Any) -> None:
        """Do nothing: the work is committed."""

    def abort(self, trans: Any) -> None:
        """Roll back, and forget the session."""
        session, self.session = self.session, None
        if session is None:
            return
        session.data_manager = None
        try:
            session.roll_back_with_manager()
        except Exception:
            # Nothing is stored. An error that led here is the one to be told.
            log.exception("ROLLBACK failed, and its connection was thrown away")

    def tpc_abort(self, trans: Any) -> None:
        """Say that the work is stored if another data manager has failed after our vote."""
        if self.voted:
            log.critical(
                "The transaction is stored in part: another data manager has failed after the "
                "commit of the session: %s",
                trans.description,
            )

    def has_nothing_to_write(self) -> bool:
        """Return whether a flush would write nothing."""
        nothing: bool = self.session.has_nothing_to_write()
        return nothing

    def flush(self) -> None:
        """Write the pending changes."""
        self.session.flush()

    def commit_all(self, note: str) -> None:
        """Send COMMIT on each connection of the session."""
        transaction, session = self.tx, self.session
        if transaction is None:
            return
        if len(session.transactions) > 1:
            prepare_commit(transaction)
            commit_in_order(transaction, FirstUseOrder(session.bind), note)
        else:
            transaction.commit()

    def raise_if_incomplete(self) -> None:
        """Raise when a part of the work is lost, even if the view has caught the error."""
        session = self.session
        raise_if_broken(session.transactions)
        if self.lost or self.tx is not session.get_transaction():
            raise OutsideTransactionError(CLOSED_IN_TRANSACTION)

    def finish(self) -> None:
        """Forget the session, whose work is stored. It keeps its objects."""
        session, self.session = self.session, None
        session.data_manager = None
        session.listen_for_begin()
        self.tx = None


@implementer(IDataManagerSavepoint)
class SessionSavepoint:
    """A savepoint of a session, for ``tm.savepoint()``."""

    def __init__(self, session: "JoinedSession") -> None:
        self._transaction = session.begin_nested()

    def rollback(self) -> None:
        """Undo what the session has done since."""
        self._transaction.rollback()


def all_stored(transactions: Collection[WatchedTransaction]) -> bool:
    """Tell whether there are *transactions*, and the database has stored all of them."""
    return bool(transactions) and all(each.outcome is Outcome.STORED for each in transactions)


def hide_from_mark_changed(session: "JoinedSession") -> None:
    """Make ``zope.sqlalchemy.mark_changed(session)`` do nothing.

    For a session that zope.sqlalchemy does not know, mark_changed() joins the transaction manager
    of the thread, which may be another one, and the write would be lost.
    """
    _SESSION_STATE[session] = STATUS_CHANGED
