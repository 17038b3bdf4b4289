"""The connections of the application's own pool, whose COMMIT is real, with faults and outcomes."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from ..backends import backend_of
from .lent import LentConnection
from .products import READS, product_of
from .session import is_silent


class RealWork:
    """The real transaction of one user."""

    def __init__(self) -> None:
        # Whether it has sent a statement, and one that writes.
        self.used = self.wrote = False


class RealConnections:
    """Stands in front of each connection that the pool of *engine* lends, until :meth:`close`.

    *faults* are asked before each step, *told* is called with what became of each transaction.
    """

    def __init__(
        self, engine: Engine, key: str, *, faults: Any, told: Callable[[object, str], object]
    ) -> None:
        self.engine, self.key = engine, key
        self.product = product_of(engine)
        self._backend = backend_of(engine)
        self._faults, self._told = faults, told
        self.lent: list[LentConnection] = []
        self._pool = engine.pool
        event.listen(self._pool, "checkout", self._check_out)
        for name in ("checkin", "close"):
            event.listen(self._pool, name, self._forget)

    def close(self) -> list[LentConnection]:
        """Let the pool lend plain connections again; return those that were still lent."""
        event.remove(self._pool, "checkout", self._check_out)
        for name in ("checkin", "close"):
            event.remove(self._pool, name, self._forget)
        left = list(self.lent)
        for lent in left:
            lent.ended = True
            # It may hold locks that nothing else would end.
            lent.driver.rollback()
        return left

    def _check_out(self, driver: Any, _record: object, fairy: Any) -> None:
        silent = is_silent()
        if not silent:
            self._faults.connect(self)
        lent = self.product.REAL(self, driver, silent=silent)
        self.lent.append(lent)
        fairy.dbapi_connection = lent

    def _forget(self, driver: Any, _record: object) -> None:
        self.lent = [each for each in self.lent if each.driver is not driver]

    # What the lent connections call.

    def run(self, lent: LentConnection, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Send a statement."""
        lent.check()
        statement = args[0] if isinstance(args[0], str) else ""
        if not statement.startswith("BEGIN"):
            lent.work = lent.work or RealWork()
            lent.work.used = True
            lent.work.wrote = lent.work.wrote or not READS.match(statement)
            self._faults.statement(self, lent, statement)
        if statement and statement == self._backend.READ_ONLY_SQL:
            lent.refuses_writes = True
        return call(*args, **more)

    def begin(self, lent: LentConnection) -> None:
        """Begin a transaction."""
        lent.driver.begin()

    def commit(self, lent: LentConnection) -> None:
        """Send COMMIT."""
        lent.check()
        self._faults.commit(self, lent)
        lent.driver.commit()
        self._end(lent, "commit")

    def rollback(self, lent: LentConnection) -> None:
        """Send ROLLBACK."""
        lent.driver.rollback()
        self._end(lent, "rollback")

    def take_back(self, lent: LentConnection) -> None:
        """Close the driver's connection."""
        lent.driver.close()

    def commit_unheard(self, lent: LentConnection, error: BaseException) -> None:
        """Send COMMIT, and lose the connection with *error* before its answer."""
        lent.driver.commit()
        self._end(lent, "unknown")
        lent.lost = error

    def lose(self, lent: LentConnection, error: BaseException) -> None:
        """Lose the connection with *error*."""
        self.rollback(lent)
        lent.lost = error

    def drop_work(self, lent: LentConnection) -> None:
        """Roll back, as a server does after a deadlock."""
        lent.driver.rollback()

    def fail_work(self, lent: LentConnection) -> None:
        """Make the server refuse what follows, where an error has that effect."""
        if self.product.ABORTS:
            cursor = lent.driver.cursor()
            try:
                cursor.execute("SELECT 1 / 0")
            except self.product.dbapi.Error:
                cursor.close()

    def socket(self, lent: LentConnection, real: Any) -> Any:
        """Return the socket, or a closed one where the connection is lost before COMMIT."""
        if lent.lost is None and self._faults.is_gone(self, lent):
            self.lose(lent, self.product.fault("gone_away"))
        return real if lent.lost is None else self._faults.closed

    def _end(self, lent: LentConnection, word: str) -> None:
        work, lent.work = lent.work, None
        if work is not None and work.used and not (lent.silent or lent.refuses_writes):
            self._told(self, word)
        lent.refuses_writes = False
