"""The numbers of an application's pools and transactions, for a monitor or a dashboard."""

import threading
from collections import Counter
from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

from sqlalchemy.engine import Engine

from ..engines import host_in_use
from ..exceptions import OutcomeUnknownError, PartialCommitError


class Holder(NamedTuple):
    """The holder of a connection.

    *who* is the method and route of a request, or the name of a thread. It has held the connection
    for *seconds*.
    """

    who: str
    seconds: float


class DatabaseStats(NamedTuple):
    """The pool of one database, and how its transactions ended.

    *size* is the largest number of connections that the pool may open; None means no limit.
    *in_use* and *idle* count the open connections. The other values are None unless ``sqa.stats``
    is on. *waiting* is the number of threads that wait for a connection, or for a new one to be
    opened. *longest* is the holder that has held a connection for the longest time. *commits* and
    *rollbacks* are counted since the application started. *host* is the host of ``sqa.hosts`` that
    new connections go to, as ``db1:3306``; None before the first one, and without ``sqa.hosts``.
    """

    size: int | None
    in_use: int
    idle: int
    waiting: int | None
    longest: Holder | None
    commits: int | None
    rollbacks: int | None
    host: str | None = None


class Stats(NamedTuple):
    """The numbers of an application in this process, since it started.

    *databases* has the numbers of each database by its bind key. *retries* counts the failed
    attempts after which another one was made. *unknown_outcomes* counts the COMMITs that were sent
    and never answered. *partial_commits* counts the transactions over several databases that were
    stored only in part. *unavailable* counts the responses with the status 503. *readers* has the
    numbers of the pools of read-only requests, once there was such a request: ``default.reader`` is
    that of the bind key ``default``.
    """

    databases: Mapping[str, DatabaseStats]
    retries: int
    unknown_outcomes: int
    partial_commits: int
    unavailable: int
    readers: Mapping[str, DatabaseStats]


class Counters:
    """Counts how an application's transactions end. All methods are safe to call from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: Counter[tuple[str, str]] = Counter()
        # By the id of the pool's entry: the bind key, the holder, and the time it took the entry.
        self._holders: dict[int, tuple[str, str, float]] = {}
        # Whether commits, rollbacks, waiting threads and holders are counted.
        self.complete = False

    def add(self, key: str, what: str, number: int = 1) -> None:
        """Add *number* to the count of *what* for the database *key*; "" means the application."""
        with self._lock:
            self._numbers[key, what] += number

    def add_outcome(self, error: BaseException) -> None:
        """Count *error* if it means an unknown outcome or a partial commit."""
        if isinstance(error, OutcomeUnknownError):
            self.add("", "unknown_outcomes")
        elif isinstance(error, PartialCommitError):
            self.add("", "partial_commits")

    def hold(self, key: str, entry: object, who: str) -> None:
        """Note that *who* has taken *entry* from the pool of the database *key*."""
        with self._lock:
            self._holders[id(entry)] = (key, who, monotonic())

    def release(self, entry: object) -> None:
        """Note that *entry* is back in its pool, or was removed from it."""
        with self._lock:
            self._holders.pop(id(entry), None)

    def read(self, engines: Mapping[str, Engine], readers: Mapping[str, Engine]) -> Stats:
        """Return the current numbers of *engines* and *readers*, and of the application."""
        now = monotonic()
        with self._lock:
            numbers, holders = Counter(self._numbers), list(self._holders.values())
        pools, reading = (
            {key: self._read_pool(key, each, numbers, holders, now) for key, each in group.items()}
            for group in (engines, readers)
        )
        return Stats(
            pools,
            retries=numbers["", "retries"],
            unknown_outcomes=numbers["", "unknown_outcomes"],
            partial_commits=numbers["", "partial_commits"],
            unavailable=numbers["", "unavailable"],
            readers=reading,
        )

    def _read_pool(
        self,
        key: str,
        engine: Engine,
        numbers: Counter[tuple[str, str]],
        holders: list[tuple[str, str, float]],
        now: float,
    ) -> DatabaseStats:
        size, in_use, idle = pool_numbers(engine)
        host = host_in_use(engine)
        if not self.complete:
            return DatabaseStats(size, in_use, idle, None, None, None, None, host)
        own = [(began, who) for its, who, began in holders if its == key]
        longest = min(own, default=None)
        return DatabaseStats(
            size,
            in_use,
            idle,
            waiting=numbers[key, "waiting"],
            longest=Holder(longest[1], now - longest[0]) if longest else None,
            commits=numbers[key, "commits"],
            rollbacks=numbers[key, "rollbacks"],
            host=host,
        )


def pool_numbers(engine: Engine) -> tuple[int | None, int, int]:
    """Return three numbers of the pool of *engine*: its size, connections in use, idle connections.

    The size is the most connections that the pool may open; None means no limit. For a pool that
    does not keep connections, such as NullPool, the other two are 0.
    """
    pool: Any = engine.pool
    in_use, idle = (getattr(pool, name, int)() for name in ("checkedout", "checkedin"))
    bound = getattr(pool, "bound", None)
    if bound is None and hasattr(pool, "size"):
        # SQLAlchemy has no public name for max_overflow; -1 and a size of 0 mean no limit.
        overflow, size = pool._max_overflow, pool.size()  # noqa: SLF001
        bound = size + overflow if size and overflow >= 0 else None
    if bound is None or bound == float("inf"):
        return None, in_use, idle
    return int(bound), in_use, idle
