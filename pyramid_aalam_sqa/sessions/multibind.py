"""Several sessions in one transaction over several databases, which has one outcome for all.

One of them leads: it routes, it holds the connections, and its data manager commits them. The
others follow, each wholly on one database and on the leader's connection to it.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import SessionTransaction

from ..exceptions import CLOSED, BindError, OutsideTransactionError
from .commits import commit_in_order, detach_connections, disable_own_commit, prepare
from .data_manager import JoinedDataManager
from .routing import RoutingSession
from .session import JoinedSession

UNWRITTEN = (
    "A listener for the end of the transaction has changed objects of a session that had been "
    "written already: change them before the transaction ends."
)


class MultiBindDataManager(JoinedDataManager):
    """Commits what a leading session and those that follow it have done."""

    def __init__(self, *args: Any) -> None:
        self.following: dict[BindSession, SessionTransaction] = {}
        super().__init__(*args)

    def follow(self, session: "BindSession", transaction: SessionTransaction) -> None:
        """Take *transaction* of *session* in; a second one says that the first was closed."""
        self.lost = self.lost or session in self.following
        self.following[session] = transaction

    def tpc_vote(self, trans: Any) -> None:
        followers = list(self.following)
        for session in followers:
            session.voting = True
        try:
            super().tpc_vote(trans)
        finally:
            for session in followers:
                session.voting = False

    def _flush(self, trans: Any) -> None:
        for session in self.following:
            session.flush()
        super()._flush(trans)

    def _commit(self, trans: Any) -> None:
        if self.tx is None:
            return
        leader, transactions = self.session, list(self.following.values())
        # The savepoints of those that came last are the innermost.
        for transaction in [*reversed(transactions), self.tx]:
            prepare(transaction)
        if any(each.new or each.dirty or each.deleted for each in [leader, *self.following]):
            raise OutsideTransactionError(UNWRITTEN)
        commit_in_order(self.tx, leader.routes, trans.description, leader.on_commit)
        for transaction in transactions:
            transaction.commit()
        self._finish("committed")

    def _refuse_half(self) -> None:
        super()._refuse_half()
        if any(each.get_transaction() is not its for each, its in self.following.items()):
            raise OutsideTransactionError(CLOSED)

    def _finish(self, final_state: str) -> None:
        followers = list(self.following)
        self.following.clear()
        with ExitStack() as ends:
            for session in followers:
                ends.callback(session.close)
            super()._finish(final_state)


class MultiBindSession(RoutingSession, JoinedSession):
    """The session of a transaction over several databases; *follow* makes the others."""

    make_data_manager = MultiBindDataManager

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
        """Return the session of this transaction that is wholly on the database called *key*."""
        if key not in self.followers:
            self.routes.engine_for(key)
            self.followers[key] = self._follow(self, key)
        return self.followers[key]

    @property
    def has_lost_write(self) -> bool:
        """Whether objects were changed where nobody commits, in this session or a following one."""
        mine = super().has_lost_write
        return mine or any(each.has_lost_write for each in self.followers.values())

    def rollback(self) -> None:
        """Undo what was done in all databases, by this session and by those that follow it."""
        super().rollback()
        self._roll_back_followers()

    def begin_nested(self) -> SessionTransaction:
        """Begin a savepoint, behind what the following sessions have pending."""
        for session in self.followers.values():
            session.flush()
        return super().begin_nested()

    def end(self) -> None:
        """Close this session and those that follow it for good."""
        with ExitStack() as ends:
            ends.callback(super().end)
            while self.followers:
                ends.callback(self.followers.popitem()[1].end)

    def newTransaction(self, transaction: Any) -> None:  # noqa: N802 - transaction's interface
        """Leave the read-only transaction, all together."""
        late = self.late
        super().newTransaction(transaction)
        if late and not self.late:
            self._roll_back_followers()

    def _roll_back_followers(self) -> None:
        if isinstance(self.data_manager, MultiBindDataManager):
            self.data_manager.following.clear()
        for session in self.followers.values():
            session.roll_back_with_leader()


class BindSession(JoinedSession):
    """A session wholly on the database *bind_key*, in the transaction of *leader*."""

    def __init__(self, *, leader: MultiBindSession, bind_key: str, **options: Any) -> None:
        # A COMMIT or ROLLBACK of its own is not for it to send.
        super().__init__(join_transaction_mode="rollback_only", **options)
        self.leader = leader
        self.bind_key = bind_key

    def get_bind(
        self,
        mapper: Any = None,
        *,
        bind: Any = None,
        bind_key: str | None = None,
        **_: Any,
    ) -> Connection:
        """Return the leader's connection to the one database, whatever is asked of it."""
        own = self.leader.routes.engine_for(self.bind_key)
        if bind_key not in {None, self.bind_key} or (bind is not None and bind.engine is not own):
            msg = (
                f"This session is wholly on the bind {self.bind_key!r}: "
                "use request.sqa_session for another one."
            )
            raise BindError(msg)
        return self.leader.connection(bind_arguments={"bind": own})

    def join(self, transaction: SessionTransaction) -> None:
        """Take part in the transaction of the leader."""
        leader = self.leader
        if not leader.in_transaction():
            leader.begin()
        self.late = leader.late
        if isinstance(leader.data_manager, MultiBindDataManager):
            leader.data_manager.follow(self, transaction)

    def begin_nested(self) -> SessionTransaction:
        """Begin a savepoint, at once: one of the leader that begins later has to lie in it."""
        nested = super().begin_nested()
        self.connection()
        return nested

    def rollback(self) -> None:
        """Undo what was done in all databases, by all sessions of the transaction."""
        self.leader.rollback()

    def roll_back_with_leader(self) -> None:
        """Undo what was done to the objects; the connection was rolled back before."""
        detach_connections(self.get_nested_transaction() or self.get_transaction())
        self.late = False
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
    """Stands for the leader's transaction where a following session would roll that back.

    The flush of a session that fails does so, and its leader would know nothing of it.
    """

    is_active = True

    def rollback(self) -> None:
        """Leave it to the leader."""


@event.listens_for(BindSession, "after_begin", propagate=True)
def _leave_to_leader(session: BindSession, transaction: SessionTransaction, _: Connection) -> None:
    if transaction.parent is None:
        disable_own_commit(transaction, _LeadersTransaction())


@event.listens_for(MultiBindSession, "after_soft_rollback", propagate=True)
def _forget_what_was_undone(session: MultiBindSession, ended: SessionTransaction) -> None:
    """Empty the following sessions, which cannot know what of theirs lay behind a savepoint."""
    if ended.nested and session.in_transaction():
        for follower in session.followers.values():
            follower.expunge_all()
