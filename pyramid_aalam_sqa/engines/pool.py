"""One budget of connections for all engines of a process: an idle one is closed for a new one."""

from collections.abc import Callable
from math import inf, log2
from threading import Condition, RLock
from time import time
from typing import Any, NamedTuple
from weakref import ref

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, Pool
from sqlalchemy.pool.base import ResetStyle, _ConnectionRecord

# After how many uses, of all databases together, an old use counts half.
HALF_LIFE = 2000


class Idle(NamedTuple):
    """An idle connection, and how much its pool is used; see :func:`_use_after`."""

    record: ref[ConnectionPoolEntry]
    use: float


class Budget:
    """Counts the connections of all pools, grants new ones, and keeps the queue of waiting threads.

    Each connection record of SQLAlchemy takes one place, under its ``id``. The place is free again
    when the record comes back without a connection, is closed, or is garbage-collected. The budget
    itself never closes a connection and never waits for one while it holds its lock.
    """

    def __init__(self) -> None:
        self.start_empty()

    def start_empty(self) -> None:
        """Start again with nothing, in a child process after a fork.

        The lock is new too: a thread that held the old one does not exist in the child.
        """
        # Re-entrant: the garbage collector may give a connection back at any moment.
        self.lock = RLock()
        self._places: dict[int, tuple[object, Callable[[], BudgetPool | None]]] = {}
        # Least recently used first. Weak: an engine that was not disposed must be collectable.
        self._idle: dict[int, Idle] = {}
        self._queue: dict[Condition, BudgetPool] = {}
        self._uses = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def waiting(self) -> int:
        """How many threads wait for a connection."""
        return len(self._queue)

    def take(self, pool: "BudgetPool") -> tuple[ConnectionPoolEntry, ConnectionPoolEntry | None]:
        """Return a record for *pool*, and a record that the caller must close before it connects.

        The second one is None when the budget has room. Threads are served in the order in which
        they came. Raises SQLAlchemy's TimeoutError after ``pool.timeout`` seconds.
        """
        with self.lock:
            try:
                if self._queue or not self._can_grant(pool):
                    self._wait(pool)
                return self._grant(pool)
            finally:
                self._wake()

    def keep(self, pool: "BudgetPool", record: ConnectionPoolEntry) -> bool:
        """Keep *record* as idle for *pool*; return false when the caller must close it instead."""
        with self.lock:
            place = id(record)
            if place not in self._places:
                return True  # It belongs to the parent process, which goes on using it.
            if pool.disposed or record.dbapi_connection is None:
                return False
            pool.kept[place] = record
            self._uses += 1
            pool.use = _use_after(pool.use, self._uses / HALF_LIFE)
            self._idle[place] = Idle(ref(record), pool.use)
            self._wake()
            return True

    def withdraw(self, pool: "BudgetPool") -> list[ConnectionPoolEntry]:
        """Return the idle records of *pool* for closing; from now on it keeps none."""
        with self.lock:
            pool.disposed = True
            records = list(pool.kept.values())
            for place in pool.kept:
                del self._idle[place]
            pool.kept.clear()
            return records

    def free(self, place: int) -> None:
        """Free *place*, the id of a record."""
        with self.lock:
            self._idle.pop(place, None)
            _, owner = self._places.pop(place, (None, _no_pool))
            pool = owner()
            if pool is not None:
                pool.kept.pop(place, None)
                pool.opened -= 1
            self._wake()

    def _can_grant(self, pool: "BudgetPool") -> bool:
        if pool.kept:
            return True
        return pool.opened < pool.bound and (len(self) < pool.limit or bool(self._idle))

    def _grant(self, pool: "BudgetPool") -> tuple[ConnectionPoolEntry, ConnectionPoolEntry | None]:
        if pool.kept:
            place, kept = pool.kept.popitem()
            del self._idle[place]
            return kept, None
        evicted = self._evict() if len(self) >= pool.limit else None
        # SQLAlchemy connects it at checkout, and gives it back when that fails.
        record = _ConnectionRecord(pool, connect=False)
        place = id(record)
        self._places[place] = (ref(record, lambda _: self.free(place)), ref(pool))
        pool.opened += 1
        return record, evicted

    def _evict(self) -> ConnectionPoolEntry | None:
        # The least used database loses its connection; of equals, the least recently used one.
        # By the time of use alone, a database that is used once would take the place of one that
        # is used often. Measured where few databases have most of the work: 1.5 times as often as
        # by time alone, a request finds an idle connection.
        place = min(self._idle, key=lambda place: self._idle[place].use)
        # None when its pool is being garbage-collected, which closes the connection.
        record = self._idle[place].record()
        self.free(place)
        return record

    def _wait(self, pool: "BudgetPool") -> None:
        ticket = Condition(self.lock)
        self._queue[ticket] = pool
        try:
            granted = ticket.wait_for(lambda: self._next_waiting() is ticket, pool.timeout)
        finally:
            del self._queue[ticket]
        if not granted:
            kept_free = pool.max_connections - pool.limit
            rest = f", and {kept_free} is kept free for one that the server is closing"
            msg = (
                f"No connection came back within {pool.timeout:g} seconds: {pool.opened} of "
                f"{pool.bound} to this database (pool_size + max_overflow) and {len(self)} of "
                f"{pool.max_connections} to all (sqa.max_connections) are open"
                f"{rest if kept_free else ''}."
            )
            raise PoolTimeoutError(msg)

    def _next_waiting(self) -> Condition | None:
        """Return the ticket that has waited longest among those that can be granted now."""
        return next((ticket for ticket, pool in self._queue.items() if self._can_grant(pool)), None)

    def _wake(self) -> None:
        ticket = self._next_waiting()
        if ticket is not None:
            ticket.notify()


BUDGET = Budget()


class BudgetPool(Pool):
    """The pool of one database, which opens as many connections as the process's budget allows.

    ``pool_size`` and ``max_overflow`` together are its own limit. An idle connection is kept until
    another pool needs its place. A detached connection has left the pool, and so the budget.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each is an option of create_engine
        self,
        creator: Any,
        max_connections: int,
        reserve: int = 0,
        pool_size: int = 1,
        max_overflow: int = 4,
        timeout: float = 30,
        **options: Any,
    ) -> None:
        super().__init__(creator, **options)
        self.max_connections = max_connections
        # What is left of it for this pool: the reserve is for those that the server is closing.
        self.limit = max_connections - reserve
        self.bound = inf if pool_size == 0 or max_overflow == -1 else pool_size + max_overflow
        self.timeout = timeout
        self.opened = 0
        self.use = -inf
        self.kept: dict[int, ConnectionPoolEntry] = {}
        self.disposed = False
        self._arguments: dict[str, Any] = {
            "max_connections": max_connections,
            "reserve": reserve,
            "pool_size": pool_size,
            "max_overflow": max_overflow,
            "timeout": timeout,
        }

    def checkedin(self) -> int:
        """Return how many connections are idle."""
        return len(self.kept)

    def checkedout(self) -> int:
        """Return how many connections are in use."""
        return self.opened - len(self.kept)

    def status(self) -> str:
        """Return as text how many connections the pool and the process have open."""
        return (
            f"{self.checkedout()} in use, {self.checkedin()} idle; "
            f"{len(BUDGET)} of {self.max_connections} in the process"
        )

    def recreate(self) -> "BudgetPool":
        """Return a new pool with the same options, which takes the place of this one."""
        return type(self)(
            self._creator,
            **self._arguments,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    def dispose(self) -> None:
        """Close the idle connections now, and those in use when they come back."""
        for record in BUDGET.withdraw(self):
            self._close(record)

    def _do_get(self) -> ConnectionPoolEntry:
        record, evicted = BUDGET.take(self)
        if evicted is not None:
            evicted.close()
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if not BUDGET.keep(self, record):
            self._close(record)

    def _close(self, record: ConnectionPoolEntry) -> None:
        try:
            record.close()
        finally:
            BUDGET.free(id(record))


def _use_after(use: float, now: float) -> float:
    """Return the use of a pool after one more use *now*, both in half-lives.

    It is the base-2 logarithm of the sum of ``2 ** time`` over all uses. So a use counts half as
    much as one that comes a half-life later, and old sums need no update as time goes by.
    """
    return max(use, now) + log2(1 + 2 ** -abs(use - now))


def rolls_back_on_return(pool: Pool) -> bool:
    """Tell whether *pool* itself sends ROLLBACK on a connection that comes back to it."""
    return pool._reset_on_return is ResetStyle.reset_rollback  # noqa: SLF001 - no public name


def replace_connections(pool: Pool) -> None:
    """Have each connection of *pool* closed and made anew before it is lent again."""
    # As SQLAlchemy does when one of them was lost.
    pool._invalidate_time = time()  # noqa: SLF001 - no public name


def _no_pool() -> None:
    """Return None, the pool of a place that is not in the budget."""
