"""Gives each process connections of its own: with a shared one it reads another process's answers.

Servers load the application, and perhaps use its database, before they fork. Python tells us of a
fork that Python code makes. uWSGI forks in C and does not, so each pool compares the number of its
process with the current one before it lends a connection.
"""

import os
import sys
import threading
from functools import cache
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

from ..backends import Backend
from .pool import BUDGET

# The engines whose pools are emptied in a child process.
_engines: WeakKeyDictionary[Engine, Backend] = WeakKeyDictionary()

# The process whose connections are in the pools.
_process = os.getpid()

# The pools of the parent process. If a driver's connection were collected here, some drivers would
# log out of the server and so end the parent's connection.
_inherited: list[Pool] = []


class OneProcessPool(Pool):
    """The part of a pool that lends connections only in the process that has made them."""

    # The engine whose pool it is, for the way to the pool of another process.
    engine: "ref[Engine] | None" = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.process = os.getpid()

    def connect(self) -> PoolProxiedConnection:
        """Lend a connection of the current process."""
        if self.process == os.getpid():
            return super().connect()
        with _lock_of(os.getpid()):
            _empty_pools()
        engine = self.engine() if self.engine else None
        # A pool that has lost its engine is used by itself.
        return (engine.pool if engine else self.recreate()).connect()

    def recreate(self) -> Pool:
        """Return the pool that takes this one's place."""
        # Of the same class, though SQLAlchemy promises no more than a Pool.
        fresh = cast("OneProcessPool", super().recreate())
        fresh.engine = self.engine
        return fresh


@cache
def one_process(poolclass: type[Pool]) -> type[Pool]:
    """Return a subclass of *poolclass* that lends connections only in their own process.

    It has the name of *poolclass*, because SQLAlchemy names the pool's logger after the class.
    """
    own = {"__module__": poolclass.__module__, "__doc__": poolclass.__doc__}
    return type(poolclass.__name__, (OneProcessPool, poolclass), own)


def separate_processes(engine: Engine, backend: Backend) -> None:
    """Make sure that each process forked from this one begins with an empty pool for *engine*."""
    _engines[engine] = backend
    if isinstance(engine.pool, OneProcessPool):
        engine.pool.engine = ref(engine)
    _watch_python_forks()
    if _uwsgi_is_loading():
        event.listen(engine, "checkin", _close_while_uwsgi_loads)


@cache
def _watch_python_forks() -> None:
    """Register what Python calls around a fork, once."""
    os.register_at_fork(before=_before_fork, after_in_child=_empty_pools)


def _before_fork() -> None:
    for engine, backend in list(_engines.items()):
        backend.before_fork(engine)


def _empty_pools() -> None:
    """Give each engine an empty pool, if this has not been done in this process."""
    global _process  # noqa: PLW0603 - it is about the process
    if _process == os.getpid():
        return
    BUDGET.start_empty()
    for engine in list(_engines):
        _inherited.append(engine.pool)
        # The connections stay open: the parent process goes on using them.
        engine.dispose(close=False)
    _process = os.getpid()


# A lock for each process: the parent's may have been held by another thread when it forked.
_locks: dict[int, threading.Lock] = {}


def _lock_of(process: int) -> threading.Lock:
    return _locks.setdefault(process, threading.Lock())


def _uwsgi_is_loading() -> bool:
    """Tell whether this is uWSGI's first process, before it forks its workers."""
    uwsgi: Any = sys.modules.get("uwsgi")
    return bool(uwsgi) and uwsgi.worker_id() == 0


def _close_while_uwsgi_loads(_connection: object, record: ConnectionPoolEntry) -> None:
    """Close a connection that comes back before uWSGI forks.

    No worker can use it. A worker that inherits a connection to an SQLite file takes the locks of
    the first process for its own, and what it commits may be lost.
    """
    if _uwsgi_is_loading():
        record.invalidate()
