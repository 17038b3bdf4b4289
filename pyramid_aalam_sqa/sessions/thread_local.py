"""Sessions that belong to one thread or greenlet: what ``Session(db_name)`` returns."""

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Self, cast

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import SessionTransaction, scoped_session

from ..backends import masked
from ..engines import WatchedTransaction, attempt_note, own_transaction, raise_if_broken
from ..exceptions import OutcomeUnknownError, PartialCommitError
from ..queries import LookUps, SqaSession
from .commits import CommitOrder, FirstUseOrder, commit_in_order, prepare_commit
from .data_manager import all_stored
from .routing import Routes, RoutingSession
from .session import refuse_two_phases, with_class

log = logging.getLogger(__name__)


class ThreadSession(SqaSession):
    """The session of one thread; its user commits and rolls back."""

    def __init__(self, *args: Any, owner: "ScopedSession", **options: Any) -> None:
        super().__init__(*args, **options)
        if self.twophase:
            refuse_two_phases(self)
        self._owner = owner
        self.transactions: list[WatchedTransaction] = []

    @property
    def commit_order(self) -> CommitOrder:
        """The order in which several databases are committed."""
        return FirstUseOrder(self.bind)

    def commit(self) -> None:
        """Commit; several databases in the fixed order.

        Raises :class:`BrokenTransactionError` when an error has ended the transaction before,
        :class:`OutcomeUnknownError` when the answer to COMMIT was lost, and
        :class:`PartialCommitError` when a COMMIT fails after another one was stored.
        """
        transaction = self.get_transaction()
        if transaction is None:
            super().commit()
            return
        raise_if_broken(self.transactions)
        prepare_commit(transaction)
        try:
            commit_in_order(transaction, self.commit_order, attempt_note())
        except (PartialCommitError, OutcomeUnknownError):
            self.close()
            raise
        except BaseException as error:
            if not all_stored(self.transactions):
                raise
            log.exception("The transaction is stored, but a listener for its end failed")
            self.close()
            if not isinstance(error, Exception):
                raise

    def remove(self) -> None:
        """Close this session. The next use of the ScopedSession in this thread makes a new one."""
        if self._owner.registry.has() and self._owner() is self:
            self._owner.remove()
        else:
            self.close()


class RoutingThreadSession(RoutingSession, ThreadSession):
    """The session of one thread on several databases, which commits them in the fixed order."""

    @property
    def commit_order(self) -> CommitOrder:
        """The order of the bind keys."""
        return self.routes


class ScopedSession(LookUps, scoped_session[ThreadSession]):
    """The sessions of one database, one for each thread. It is used like the thread's own session.

    ``remove()`` closes that session and gives its connection back, and so does the end of a
    ``with`` block. What was not committed is rolled back.
    """

    def __init__(
        self, engine: Engine, options: dict[str, Any], routes: Routes | None = None
    ) -> None:
        kept = dict(options)
        base = RoutingThreadSession if routes else ThreadSession
        session_class: Callable[..., ThreadSession] = with_class(base, kept.pop("class_"))
        if routes:
            kept["routes"] = routes

        def make() -> ThreadSession:
            return session_class(None if routes else engine, owner=self, **kept)

        # Instead of scoped_session's own registry, which does not close or report a session that
        # its thread left open.
        super().__init__(cast("Any", make))
        self.registry = cast("Any", _ThreadRegistry(make, masked(engine.url)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class _ThreadRegistry:
    """Holds the session of each thread, and closes it when the thread ends without ``remove()``.

    Greenlets of one thread have sessions of their own too. They share its ``threading.local`` where
    gevent has not patched it, and one of them runs while another one waits.

    It has the methods of SQLAlchemy's ThreadLocalRegistry. The session cannot notice the end of its
    thread itself: it is in reference cycles, so it lives until the garbage collector runs.
    """

    def __init__(self, make: Callable[[], ThreadSession], database: str) -> None:
        self._make = make
        self._database = database
        self._local = threading.local()

    def has(self) -> bool:
        """Tell whether this thread or greenlet has a session that was made in this process."""
        held = self._held_by_greenlet().get(_current_greenlet())
        return held is not None and held.process == os.getpid()

    def __call__(self) -> ThreadSession:
        if not self.has():
            self.set(self._make())
        return self._held_by_greenlet()[_current_greenlet()].session

    def set(self, session: ThreadSession) -> None:
        """Make *session* the session of this thread or greenlet."""
        self.clear()
        by_greenlet = self._held_by_greenlet()
        for greenlet in [each for each in by_greenlet if getattr(each, "dead", False)]:
            # It is kept by its caller. It ended without remove(), and never runs again.
            by_greenlet.pop(greenlet)
        by_greenlet[_current_greenlet()] = held = _Held(session, os.getpid())
        thread = threading.current_thread().name
        weakref.finalize(held, _close_left_open, session, thread, held.process, self._database)

    def clear(self) -> None:
        """Let this thread or greenlet have no session; the old one is closed."""
        self._held_by_greenlet().pop(_current_greenlet(), None)

    def _held_by_greenlet(self) -> "weakref.WeakKeyDictionary[Any, _Held]":
        try:
            return cast("weakref.WeakKeyDictionary[Any, _Held]", self._local.by_greenlet)
        except AttributeError:
            held: weakref.WeakKeyDictionary[Any, _Held] = weakref.WeakKeyDictionary()
            self._local.by_greenlet = held
            return held


def _current_greenlet() -> Any:
    """Return the greenlet that runs; outside of greenlets, what stands for the whole thread."""
    greenlet: Any = sys.modules.get("greenlet")
    current = greenlet.getcurrent() if greenlet is not None else None
    # Each thread has a first greenlet, without a parent, in which it runs its other code.
    return _WHOLE_THREAD if current is None or current.parent is None else current


class _WholeThread:
    """Stands for the code of a thread that runs in no greenlet of its own."""


_WHOLE_THREAD = _WholeThread()


class _Held:
    """Holds a session for one thread, and is garbage when that thread ends."""

    def __init__(self, session: ThreadSession, process: int) -> None:
        self.session = session
        self.process = process


@event.listens_for(ThreadSession, "after_transaction_create", propagate=True)
def _begin(session: ThreadSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.transactions = []


@event.listens_for(ThreadSession, "after_begin", propagate=True)
def _own(session: ThreadSession, transaction: SessionTransaction, connection: Connection) -> None:
    watched = own_transaction(connection, transaction, read_only=False, may_commit=True)
    if watched is not None:
        session.transactions.append(watched)


# The sessions of its parent's threads that a child process has after a fork.
_inherited: list[ThreadSession] = []


def _close_left_open(session: ThreadSession, thread: str, process: int, database: str) -> None:
    if process != os.getpid():
        # It is not closed and not garbage-collected: both would send a ROLLBACK on the connection
        # that the parent process is using.
        _inherited.append(session)
        return
    if session.in_transaction():
        log.error(
            "A session that thread %s had opened was not closed, and what it did on %s is rolled "
            "back: end the job with commit() and remove(), or use session_scope().",
            thread,
            database,
        )
    session.close()
