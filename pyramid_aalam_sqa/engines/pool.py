"""One budget of connections for all engines of the process: idle ones make room for new ones."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log2
from threading import Condition, RLock
from typing import Any
from weakref import ref

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, Pool
from sqlalchemy.pool.base import _ConnectionRecord

# In uses of all databases together.
HALF_LIFE = 2000


@dataclass(frozen=True, slots=True)
class Idle:
    """A connection that waits, and how much its pool is used; see :func:`_used_again`."""

    record: ref[ConnectionPoolEntry]
    use: float


class Budget:
    """Who has which connection, who may open one more, and who waits.

    A connection's place in the budget is its record: the place is free when the record was given
    back without a connection, was closed, or is nowhere any more. Nothing is closed in here, and
    nobody is waited for while the lock is held.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew in a child process, where nobody is left who could release the lock."""
        # Re-entrant: the garbage collector gives connections back at any moment.
        self._lock = RLock()
        self._places: dict[int, tuple[object, Callable[[], BudgetPool | None]]] = {}
        # Least recently used first. Weak, so that an engine that nobody disposed can be collected.
        self._idle: dict[int, Idle] = {}
        self._queue: dict[Condition, BudgetPool] = {}
        self._uses = 0

    def __len__(self) -> int:
        return len(self._places)

    def take(self, pool: "BudgetPool") -> tuple[ConnectionPoolEntry, ConnectionPoolEntry | None]:
        """Return a record for *pool*, and the record that has to be closed before it is used.

        Who waits longest comes first. Raises SQLAlchemy's TimeoutError after ``pool.timeout``.
        """
        with self._lock:
            try:
                if self._queue or not self._may(pool):
                    self._wait(pool)
                return self._grant(pool)
            finally:
                self._wake()

    def keep(self, pool: "BudgetPool", record: ConnectionPoolEntry) -> bool:
        """Keep *record* for the next who wants it; false when it has to be closed instead."""
        with self._lock:
            place = id(record)
            if place not in self._places:
                return True  # It is the parent process's, which goes on using it.
            if pool.disposed or record.dbapi_connection is None:
                return False
            pool.kept[place] = record
            self._uses += 1
            pool.use = _used_again(pool.use, self._uses / HALF_LIFE)
            self._idle[place] = Idle(ref(record), pool.use)
            self._wake()
            return True

    def withdraw(self, pool: "BudgetPool") -> list[ConnectionPoolEntry]:
        """Return what *pool* has kept, to be closed; from now on it keeps nothing."""
        with self._lock:
            pool.disposed = True
            records = list(pool.kept.values())
            for place in pool.kept:
                del self._idle[place]
            pool.kept.clear()
            return records

    def free(self, place: int) -> None:
        """Give up the *place* of a record, which is its id."""
        with self._lock:
            self._idle.pop(place, None)
            _, owner = self._places.pop(place, (None, _nobody))
            pool = owner()
            if pool is not None:
                pool.kept.pop(place, None)
                pool.opened -= 1
            self._wake()

    def _may(self, pool: "BudgetPool") -> bool:
        if pool.kept:
            return True
        return pool.opened < pool.bound and (len(self) < pool.limit or bool(self._idle))

    def _grant(self, pool: "BudgetPool") -> tuple[ConnectionPoolEntry, ConnectionPoolEntry | None]:
        if pool.kept:
            place, kept = pool.kept.popitem()
            del self._idle[place]
            return kept, None
        evicted = self._evict() if len(self) >= pool.limit else None
        # It connects when it is checked out, and comes back when that fails.
        record = _ConnectionRecord(pool, connect=False)
        place = id(record)
        self._places[place] = (ref(record, lambda _: self.free(place)), ref(pool))
        pool.opened += 1
        return record, evicted

    def _evict(self) -> ConnectionPoolEntry | None:
        # Of databases that are used alike, the one that was used least recently. One that was used
        # once may never be used again: so half as many connections again are found idle where few
        # databases have most of the work.
        place = min(self._idle, key=lambda place: self._idle[place].use)
        # None when its pool is being collected, which closes it.
        record = self._idle[place].record()
        self.free(place)
        return record

    def _wait(self, pool: "BudgetPool") -> None:
        ticket = Condition(self._lock)
        self._queue[ticket] = pool
        try:
            granted = ticket.wait_for(lambda: self._next() is ticket, pool.timeout)
        finally:
            del self._queue[ticket]
        if not granted:
            msg = (
                f"No connection came back within {pool.timeout:g} seconds: {pool.opened} of "
                f"{pool.bound} to this database (pool_size + max_overflow) and {len(self)} of "
                f"{pool.limit} to all (sqa.max_connections) are open."
            )
            raise PoolTimeoutError(msg)

    def _next(self) -> Condition | None:
        """Return who has waited longest of those who could go on."""
        return next((ticket for ticket, pool in self._queue.items() if self._may(pool)), None)

    def _wake(self) -> None:
        ticket = self._next()
        if ticket is not None:
            ticket.notify()


BUDGET = Budget()


class BudgetPool(Pool):
    """The connections to one database, as many as the budget of the process allows.

    ``pool_size`` and ``max_overflow`` together bound them; an idle one is kept until somebody else
    needs its place. A connection that was detached has left the pool, and so the budget.
    """

    def __init__(
        self,
        creator: Any,
        max_connections: int,
        pool_size: int = 1,
        max_overflow: int = 4,
        timeout: float = 30,
        **options: Any,
    ) -> None:
        super().__init__(creator, **options)
        self.limit = max_connections
        self.bound = inf if pool_size == 0 or max_overflow == -1 else pool_size + max_overflow
        self.timeout = timeout
        self.opened = 0
        self.use = -inf
        self.kept: dict[int, ConnectionPoolEntry] = {}
        self.disposed = False
        self._arguments: dict[str, Any] = {
            "max_connections": max_connections,
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
        """Return what the pool and the process have open."""
        return (
            f"{self.checkedout()} in use, {self.checkedin()} idle; "
            f"{len(BUDGET)} of {self.limit} in the process"
        )

    def recreate(self) -> "BudgetPool":
        """Return the pool that comes after this one."""
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
        """Close the idle connections now, those in use when they come back."""
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


def _used_again(use: float, now: float) -> float:
    """Return how much a pool is used that is used *now*: the logarithm of a sum of powers of two.

    A use counts half as much as one that comes a half-life later, so that it need not be divided
    as time goes by.
    """
    return max(use, now) + log2(1 + 2 ** -abs(use - now))


def _nobody() -> None:
    """Stand for the pool of a place that is not in the budget."""
