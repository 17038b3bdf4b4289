"""The session class: a session belongs to one transaction manager and joins its transactions.

The listeners are set once on the class: to set them on each session costs ten times the session.

While the manager has no transaction, the session can read, in a read-only transaction of its own
that is never committed. Its objects stay in the session from one transaction to the next. After
its end the session cannot be used.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar, cast

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstanceState, Session, SessionTransaction
from transaction.interfaces import NoTransaction

from ..engines import ReadOnly, WatchedTransaction, own_transaction
from ..exceptions import (
    COMMIT_BY_HAND,
    SESSION_ENDED,
    WRITE_OUTSIDE_TRANSACTION,
    CommitNotAllowedError,
    OutsideTransactionError,
    SettingError,
    TransactionError,
)
from ..interfaces import TransactionManager
from ..queries import SqaSession
from .data_manager import ACTIVE, COMMITFAILED, DOOMED, JoinedDataManager, hide_from_mark_changed
from .keeper import SessionKeeper

S = TypeVar("S", bound=Session)

TWO_PHASES = (
    "sqa.session.class_ = {}: remove twophase=True. After a crash, only an administrator can end "
    "what a two-phase commit has left prepared; several databases are committed in a fixed order."
)


class JoinedSession(SqaSession):
    """A SQLAlchemy session that only its transaction manager ``tm`` commits and rolls back.

    It joins the transaction of *tm* when it is first used in it, always as changed: COMMIT is sent
    whenever the transaction commits, in whatever way the work was written.
    """

    data_manager_class: type[JoinedDataManager] = JoinedDataManager
    # What refuses each write, while a read-only request or view uses the session.
    refusal: ReadOnly | None = None

    # What nearly every session begins with is of the class: each attribute costs time and memory.
    # Called when the commit of the transaction has failed; returns whether another has begun.
    begin_transaction: Callable[[TransactionManager], bool] | None = None
    data_manager: JoinedDataManager | None = None
    # Whether the data manager is committing; whether the transaction is read-only, outside one of
    # the manager; whether the manager is rolling it back; whether the session has ended.
    committing = reads_only = rolling_back = ended = False
    # Whether it is told when the manager begins a transaction, and by whom if the manager does not
    # do that by itself.
    listens = False
    _begin_listener: "_BeginListener | None" = None

    def __init__(
        self,
        *args: Any,
        tm: TransactionManager,
        window: Callable[[], bool] | None = None,
        listeners: type[Any] | None = None,
        **options: Any,
    ) -> None:
        if listeners is not None:
            # First: the application's own class may listen to its events in its constructor.
            self.dispatch = listeners()
        super().__init__(*args, **options)
        if self.twophase:
            refuse_two_phases(self)
        self.tm = tm
        # Tells whether the current transaction of tm will be ended by pyramid_tm, so that the
        # session may join it; None if every transaction of tm is ended by its user.
        self.window = window
        # What this session does in its current transaction, on each connection.
        self.transactions: list[WatchedTransaction] = []
        hide_from_mark_changed(self)

    def rollback(self) -> None:
        """Undo the work so far. The transaction will commit what is done from now on."""
        super().rollback()
        if self.data_manager is not None:
            # It was undone on purpose, so the data manager must not report it as lost.
            self.data_manager.tx = None
            self.transactions = []

    @property
    def has_lost_write(self) -> bool:
        """Whether objects were changed outside a transaction, where nothing commits them."""
        return self.reads_only and next(self.changes(), None) is not None

    # What a flush asks first: whether there is nothing to write. Session.new, Session.dirty and
    # Session.deleted cost ten times as much.
    has_nothing_to_write = Session._is_clean  # noqa: SLF001 - it has no public name

    def changes(self) -> Iterator[object]:
        """Yield the objects that a flush would write."""
        if self.has_nothing_to_write():
            return
        yield from self.new
        yield from self.deleted
        yield from filter(self.is_modified, self.dirty)

    def late_write(self) -> TransactionError:
        """Return the error for objects that were changed where nothing commits them."""
        if self.refusal is None:
            return OutsideTransactionError(WRITE_OUTSIDE_TRANSACTION)
        return self.refusal.error(f"a {type(next(self.changes())).__name__} that was changed")

    def close(self) -> None:
        """Close the session. Raises :class:`OutsideTransactionError` if it holds a lost write."""
        lost = self.late_write() if self.has_lost_write else None
        super().close()
        if lost is not None:
            raise lost

    def end(self) -> None:
        """Close the session as :meth:`close` does; it cannot be used again."""
        self.listens = False
        if self._begin_listener is not None:
            self._stop_listening()
        self.begin_transaction = None
        self.ended = True
        self.close()

    def begin_again(self) -> None:
        """Prepare for the transaction that the manager has begun, to which the session belongs.

        What was loaded before is loaded again when it is used: others may have changed it since.
        Raises :class:`OutsideTransactionError` if objects were changed outside a transaction.
        """
        if self.has_lost_write:
            raise OutsideTransactionError(WRITE_OUTSIDE_TRANSACTION)
        self._stop_listening()
        if self.reads_only:
            self.reads_only = False
            super().rollback()
        else:
            self.expire_all()

    def roll_back_with_manager(self) -> None:
        """Undo the work in the database and in the objects, which stay in the session.

        A connection whose ROLLBACK fails is thrown away, and the server rolls back.
        """
        self.rolling_back = True
        try:
            super().rollback()
        except BaseException:
            self.invalidate()
            raise
        finally:
            self.rolling_back = False

    def listen_for_begin(self) -> None:
        """Call :meth:`begin_again` when the manager begins its next transaction."""
        if not self.listens:
            self.listens = True
            if not isinstance(self.tm, SessionKeeper):
                # The manager holds it weakly.
                self._begin_listener = _BeginListener(self)
                self.tm.registerSynch(self._begin_listener)

    def _stop_listening(self) -> None:
        self.listens = False
        if self._begin_listener is not None:
            self.tm.unregisterSynch(self._begin_listener)
            self._begin_listener = None

    def transaction_begins(self, transaction: Any) -> None:
        """Call :meth:`begin_again` if *transaction*, which the manager has begun, can be joined."""
        if transaction.status is ACTIVE and (self.window is None or self.window()):
            self.begin_again()

    def can_join(self) -> bool:
        """Tell whether there is a transaction to join that will be ended.

        A listener may use the session while its manager rolls back. There is none then: the
        session would be rolled back again, and the listener would be called again.
        """
        if self.rolling_back:
            return False
        try:
            transaction = self.tm.get()
        except NoTransaction:
            return False
        status = transaction.status
        if status is COMMITFAILED:
            return self.begin_transaction is not None and self.begin_transaction(self.tm)
        return (status is ACTIVE or status is DOOMED) and (self.window is None or self.window())

    def join(self, transaction: SessionTransaction) -> None:
        """Join the manager's transaction with *transaction*, or read only if there is none."""
        joined = self.data_manager
        if joined is not None:
            joined.lost = joined.lost or joined.tx is not None
            joined.tx = transaction
            return
        self.reads_only = not self.can_join()
        if self.reads_only:
            self.listen_for_begin()
        else:
            self.data_manager = self.data_manager_class(self, self.tm, transaction)


class _BeginListener:
    """Tells a session when its manager begins the next transaction.

    A transaction manager calls it as a synchronizer, and holds it weakly.
    """

    def __init__(self, session: JoinedSession) -> None:
        self._session = weakref.ref(session)

    def newTransaction(self, transaction: Any) -> None:  # noqa: N802 - transaction's interface
        session = self._session()
        if session is not None:
            session.transaction_begins(transaction)

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
    session.transactions = []
    session.join(transaction)


@event.listens_for(JoinedSession, "after_begin", propagate=True)
def _own(session: JoinedSession, transaction: SessionTransaction, connection: Connection) -> None:
    watched = own_transaction(
        connection, transaction, read_only=session.reads_only, may_commit=session.committing
    )
    if watched is not None:
        watched.refusal = session.refusal
        session.transactions.append(watched)


# raw: SQLAlchemy gives it the state of the object, without a call more for each object.
@event.listens_for(JoinedSession, "before_attach", propagate=True, raw=True)
def _refuse_late_object(session: JoinedSession, state: InstanceState[Any]) -> None:
    refusal = session.refusal
    # An object that is stored already may be attached to be read, from a cache for example.
    if refusal is not None and state.key is None:
        what = f"a {state.class_.__name__} that was added"
        raise refusal.error(what)
    if refusal is None and session.reads_only:
        raise OutsideTransactionError(WRITE_OUTSIDE_TRANSACTION)


@event.listens_for(JoinedSession, "before_flush", propagate=True)
def _refuse_late_write(session: JoinedSession, *_: object) -> None:
    refuses = session.reads_only or session.refusal is not None
    # SQLAlchemy flushes an attribute that was set to its own value too, and writes nothing.
    if refuses and next(session.changes(), None) is not None:
        raise session.late_write()


@event.listens_for(JoinedSession, "before_commit", propagate=True)
def _refuse_commit_by_hand(session: JoinedSession) -> None:
    if session.committing or session.in_nested_transaction():
        return
    if session.reads_only and session.refusal is None:
        raise OutsideTransactionError(WRITE_OUTSIDE_TRANSACTION)
    raise CommitNotAllowedError(COMMIT_BY_HAND)


def refuse_two_phases(session: Session) -> NoReturn:
    """Raise :class:`SettingError` for *session*, which would commit in two phases."""
    raise SettingError(TWO_PHASES.format(type(session).__name__))


def with_class(base: type[S], session_class: type[Session]) -> type[S]:
    """Return a class that inherits from *base* and from *session_class*, the application's own."""
    if session_class is Session:
        return base
    own: dict[str, Any] = {}
    if session_class.flush is not Session.flush:
        # It may write more than the objects that were changed, so it is called before each COMMIT.
        own["has_nothing_to_write"] = lambda _: False
    return cast("type[S]", type(session_class.__name__, (base, session_class), own))
