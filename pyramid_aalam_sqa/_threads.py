"""Sessions that belong to a thread: ``Session(db_name)`` of the portal's documents."""

import logging
import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, cast

from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, scoped_session

from .queries import LookUps, LookUpSession

log = logging.getLogger(__name__)


class ThreadSession(LookUpSession):
    """The session of one thread, which commits and rolls back by itself."""

    def __init__(self, *args: Any, owner: "ThreadSessions", **options: Any) -> None:
        super().__init__(*args, **options)
        self._owner = owner

    def remove(self) -> None:
        """Close this session; the thread has a new one from then on."""
        if self._owner.registry.has() and self._owner() is self:
            self._owner.remove()
        else:
            self.close()


class ThreadSessions(LookUps, scoped_session[ThreadSession]):
    """The sessions of one database, one for each thread; used as the session of the own thread.

    ``remove()`` closes that session and gives its connection back; so does the end of a ``with``
    block. What was not committed is rolled back.
    """

    def __init__(self, engine: Engine, options: dict[str, Any]) -> None:
        kept = dict(options)
        session_class = _removable(kept.pop("class_"))

        def make() -> ThreadSession:
            return session_class(engine, owner=self, **kept)

        # scoped_session's own is replaced: nobody would tell of a session that was left open.
        super().__init__(cast("Any", make))
        self.registry = cast("Any", _Ending(make))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.remove()


class _Ending:
    """Holds the session of each thread, and closes it when its thread ends before it is removed.

    The session itself would live until the next run of the collector: it is in cycles.
    It is asked what SQLAlchemy's ThreadLocalRegistry is asked.
    """

    def __init__(self, make: Callable[[], ThreadSession]) -> None:
        self._make = make
        self._local = threading.local()

    def has(self) -> bool:
        """Tell whether this thread has a session, made since the process was forked."""
        held = getattr(self._local, "held", None)
        return held is not None and held.process == os.getpid()

    def __call__(self) -> ThreadSession:
        if not self.has():
            self.set(self._make())
        return cast("ThreadSession", self._local.held.session)

    def set(self, session: ThreadSession) -> None:
        """Make *session* that of this thread."""
        self.clear()
        self._local.held = held = _Held(session, os.getpid())
        weakref.finalize(held, _give_back, session, threading.current_thread().name, held.process)

    def clear(self) -> None:
        """Forget the session of this thread."""
        self._local.held = None


class _Held:
    """A session, held by nobody but its thread."""

    def __init__(self, session: ThreadSession, process: int) -> None:
        self.session = session
        self.process = process


# The sessions that a child process has from its parent's threads.
_inherited: list[ThreadSession] = []


def _give_back(session: ThreadSession, thread: str, process: int) -> None:
    if process != os.getpid():
        # Neither closed nor collected: either would roll back what the parent is doing.
        _inherited.append(session)
        return
    if session.in_transaction():
        log.error(
            "A session that thread %s had opened was not closed, and is rolled back: "
            "end the job with commit() and remove(), or use session_scope().",
            thread,
        )
    session.close()


def _removable(session_class: type[Session]) -> Callable[..., ThreadSession]:
    if session_class is Session:
        return ThreadSession
    bases = (ThreadSession, session_class)
    return cast("type[ThreadSession]", type(session_class.__name__, bases, {}))
