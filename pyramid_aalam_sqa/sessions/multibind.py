"""Several sessions in one transaction over several databases, with one outcome for all of them.

One session leads: it routes statements, holds the connections, and its data manager commits them.
The others follow: each uses one database only, on the leader's connection to it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import SessionTransaction

from ..engines import ReadOnly
from ..exceptions import BindError, OutsideTransactionError
from .commits import commit_in_order, detach_connections, disable_own_commit, prepare_commit
from .data_manager import CLOSED_IN_TRANSACTION, JoinedDataManager
from .routing import RoutingSession
from .session import JoinedSession

UNWRITTEN = (
    "A listener for the end of the transaction has changed objects of a session that had been "
    "written already: change them before the transaction ends."
)


class MultiBindDataManager(JoinedDataManager):
    """Commits the work of a leading session and of the sessions that follow it."""

    __slots__ = ("following",)

    def __init__(self, *args: Any) -> None:
        self.following: dict[BindSession, SessionTransaction] = {}
        super().__init__(*args)

    def follow(self, session: "BindSession", transaction: SessionTransaction) -> None:
        """Take *transaction* of a following *session* in.

        A second transaction of the same session shows that the first one was closed, and with it
        a part of the work.
        """
        self.lost = self.lost or session in self.following
        self.following[session] = transaction

    def tpc_vote(self, trans: Any) -> None:
        """Commit on all databases: this is the last vote of the transaction."""
        followers = list(self.following)
        for session in followers:
            session.committing = True
        try:
            super().tpc_vote(trans)
        finally:
            for session in followers:
                session.committing = False

    def has_nothing_to_write(self) -> bool:
        """Return whether a flush of each session would write nothing."""
        return super().has_nothing_to_write() and all(
            each.has_nothing_to_write() for each in self.following
        )

    def flush(self) -> None:
        """Write the pending changes of all sessions."""
        for session in self.following:
            session.flush()
        super().flush()

    def commit_all(self, note: str) -> None:
        """Send COMMIT on each connection, in the fixed order."""
        leader, transactions = self.session, list(self.following.values())
        if self.tx is None or (not transactions and len(leader.transactions) <= 1):
            super().commit_all(note)
            return
        # The last session comes first: its savepoints are the innermost.
        for transaction in [*reversed(transactions), self.tx]:
            prepare_commit(transaction)
        if any(each.new or each.dirty or each.deleted for each in [leader, *self.following]):
            raise OutsideTransactionError(UNWRITTEN)
        commit_in_order(self.tx, leader.routes, note)
        for transaction in transactions:
            transaction.commit()

    def raise_if_incomplete(self) -> None:
        """Raise when a part of the work of any session is lost."""
        super().raise_if_incomplete()
        for session, transaction in self.following.items():
            if session.get_transaction() is not transaction:
                raise OutsideTransactionError(CLOSED_IN_TRANSACTION)

    def finish(self) -> None:
        """Forget all sessions, whose work is stored. They keep their objects."""
        for session, transaction in self.following.items():
            if session.get_transaction() is transaction:
                # An interrupt came after the COMMITs: the session still seems to be in its own.
                session.close()
        self.following.clear()
        super().finish()


class MultiBindSession(RoutingSession, JoinedSession):
    """The leading session of a transaction over several databases; *follow* makes the others."""

    data_manager_class = MultiBindDataManager

    def __init__(
        self,
        *args: Any,
        follow: "Callable[[MultiBindSession, str], BindSession]",
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._follow = follow
        self.followers: dict[str, BindSession] = {}

    def on(self, key: str) -> "BindSession":
        """Return the session of this transaction that uses only the database with the key *key*."""
        if key not in self.followers:
            self.routes.engine_for(key)
            self.followers[key] = self._follow(self, key)
        return self.followers[key]

    @property
    def has_lost_write(self) -> bool:
        """Whether this session or a following one has changes that nothing will commit."""
        if not self.followers:
            return super().has_lost_write
        return super().has_lost_write or any(
            each.has_lost_write for each in self.followers.values()
        )

    def changes(self) -> Iterator[object]:
        """Yield the objects that a flush of this session or of a following one would write."""
        yield from super().changes()
        for session in self.followers.values():
            yield from session.changes()

    def rollback(self) -> None:
        """Undo the work in all databases, of this session and of those that follow it."""
        super().rollback()
        self._roll_back_followers()

    def begin_nested(self) -> SessionTransaction:
        """Begin a savepoint, after the following sessions have flushed their pending changes."""
        for session in self.followers.values():
            session.flush()
        return super().begin_nested()

    def end(self) -> None:
        """Close this session and those that follow it; they cannot be used again."""
        if not self.followers:
            super().end()
            return
        with ExitStack() as ends:
            ends.callback(super().end)
            while self.followers:
                ends.callback(self.followers.popitem()[1].end)

    def begin_again(self) -> None:
        """Prepare for the next transaction, this session and those that follow it."""
        super().begin_again()
        for session in self.followers.values():
            session.roll_back_with_leader()
            session.expire_all()

    def roll_back_with_manager(self) -> None:
        """Undo the work of this session and of those that follow it; all keep their objects."""
        super().roll_back_with_manager()
        self._roll_back_followers()

    def _roll_back_followers(self) -> None:
        if isinstance(self.data_manager, MultiBindDataManager):
            self.data_manager.following.clear()
        for session in self.followers.values():
            session.roll_back_with_leader()


class BindSession(JoinedSession):
    """A session that uses only the database *bind_key*, in the transaction of *leader*."""

    def __init__(self, *, leader: MultiBindSession, bind_key: str, **options: Any) -> None:
        # The leader sends COMMIT and ROLLBACK.
        super().__init__(join_transaction_mode="rollback_only", **options)
        self.leader = leader
        self.bind_key = bind_key

    @property
    def refusal(self) -> "ReadOnly | None":  # type: ignore[override]  # the leader decides
        """What refuses each write of the leader, and so of this session."""
        return self.leader.refusal

    def get_bind(
        self,
        mapper: Any = None,
        *,
        bind: Any = None,
        bind_key: str | None = None,
        **_: Any,
    ) -> Connection:
        """Return the leader's connection to the one database, for every statement.

        Raises :class:`BindError` when the caller names another database.
        """
        own = self.leader.routes.engine_for(self.bind_key)
        if bind_key not in {None, self.bind_key} or (bind is not None and bind.engine is not own):
            msg = (
                f"This session uses only the bind {self.bind_key!r}: "
                "use request.sqa_session for another one."
            )
            raise BindError(msg)
        return self.leader.connection(bind_arguments={"bind": own})

    def join(self, transaction: SessionTransaction) -> None:
        """Take part in the transaction of the leader."""
        leader = self.leader
        if not leader.in_transaction():
            leader.begin()
        self.reads_only = leader.reads_only
        if isinstance(leader.data_manager, MultiBindDataManager):
            leader.data_manager.follow(self, transaction)

    def begin_nested(self) -> SessionTransaction:
        """Begin a savepoint, and send it at once.

        A savepoint that the leader begins later must lie inside this one.
        """
        nested = super().begin_nested()
        self.connection()
        return nested

    def rollback(self) -> None:
        """Undo the work in all databases, of all sessions of the transaction."""
        self.leader.rollback()

    def roll_back_with_leader(self) -> None:
        """Undo the changes to objects; the leader has rolled the connection back."""
        detach_connections(self.get_nested_transaction() or self.get_transaction())
        self.reads_only = False
        super().rollback()

    def close(self) -> None:
        """Close the session and leave the connection to its leader."""
        detach_connections(self.get_nested_transaction() or self.get_transaction())
        super().close()

    def end(self) -> None:
        """Close the session for good."""
        self.ended = True
        self.close()


class _LeadersTransaction:
    """Stands for the leader's transaction in a following session.

    A flush that fails rolls its transaction back. In a following session this would roll back the
    leader's transaction, and the leader would not know.
    """

    is_active = True

    def rollback(self) -> None:
        """Do nothing; the leader rolls back."""


@event.listens_for(BindSession, "after_begin", propagate=True)
def _let_leader_commit(
    session: BindSession, transaction: SessionTransaction, _: Connection
) -> None:
    if transaction.parent is None:
        disable_own_commit(transaction, _LeadersTransaction())


@event.listens_for(MultiBindSession, "after_soft_rollback", propagate=True)
def _empty_followers(session: MultiBindSession, ended: SessionTransaction) -> None:
    """Remove all objects from the following sessions after a savepoint was rolled back.

    They cannot know which of their changes were made inside the savepoint.
    """
    if ended.nested and session.in_transaction():
        for follower in session.followers.values():
            follower.expunge_all()
