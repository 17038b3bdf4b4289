"""One replica that read-only requests read from: whether it can be used, and has what is needed.

Nothing is asked in the background. A request finds out that a replica is down or behind, and reads
from another server. Then the replica is left alone for a while. After that one request tries it
again, while the others still leave it alone. One that was behind has to reach the position that it
lacked.
"""

import logging
import threading
from collections import OrderedDict
from time import monotonic
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..backends import backend_of
from ..engines import error_name
from .stats import pool_numbers

log = logging.getLogger(__name__)

# How many positions are remembered that the replica is known to have reached.
REMEMBERED = 1000
# Seconds after which a position that was never reached is forgotten. A server that has failed over
# may have lost it, and a client may bring it for as long as its cookie lives.
GIVEN_UP = 600


class Replica:
    """One replica, read through *engine*; *wait* and *pause* are seconds."""

    def __init__(self, name: str, engine: Engine, wait: float, pause: float) -> None:
        self.name = name
        self.engine = engine
        self._wait, self._pause = wait, pause
        self._lock = threading.Lock()
        # Until when it is left alone, by time.monotonic(); 0 while it is used.
        self._alone_until = 0.0
        # The position that it lacked when it was last asked for it, and until when that matters.
        self.lacks = ""
        self._lacks_until = 0.0
        self._reached: OrderedDict[str, None] = OrderedDict()
        event.listen(engine, "handle_error", self._note_error)

    @property
    def is_used(self) -> bool:
        """Whether requests read from it now."""
        return not self._alone_until

    def is_ready(self, position: str) -> bool:
        """Return whether a request can read from it what was stored at *position*.

        Empty: whatever it has. Waits for ``sqa.reader.wait`` at most.
        """
        trying = not self.is_used
        if (trying and not self._may_try()) or self._is_full():
            return False
        if self.lacks and monotonic() > self._lacks_until:
            log.warning("%s has not reached a position in %g seconds", self.name, GIVEN_UP)
            self.lacks = ""
        # What it lacked before is not waited for: it has had the pause for that.
        waits = {self.lacks: 0.0, position: 0.0 if trying else self._wait}
        waits.pop("", None)
        try:
            lacks = self._lacks({each: waits[each] for each in waits if each not in self._reached})
        except PoolTimeoutError:
            # Others took the last connections meanwhile: it is busy, not broken.
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, another server can be used
            self.leave_alone(error_name(error))
            return False
        if lacks:
            self.leave_alone("it is behind", lacks)
            return False
        if trying:
            log.info("%s is used again", self.name)
        self._alone_until, self.lacks = 0.0, ""
        return True

    def _is_full(self) -> bool:
        """Return whether a request would wait for a connection; another server may have one."""
        size, in_use, _idle = pool_numbers(self.engine)
        return size is not None and in_use >= size

    def leave_alone(self, reason: str, lacks: str = "") -> None:
        """Let no request read from it for a while; it *lacks* a position, if it is behind."""
        if self.is_used:
            log.warning("%s is left alone for %g seconds: %s", self.name, self._pause, reason)
        if lacks and lacks != self.lacks:
            self.lacks, self._lacks_until = lacks, monotonic() + GIVEN_UP
        self._alone_until = monotonic() + self._pause
        # Another server may be at its address when it is back.
        with self._lock:
            self._reached.clear()

    def _may_try(self) -> bool:
        """Return whether the pause is over, and no other thread tries at this moment."""
        with self._lock:
            now = monotonic()
            if now < self._alone_until:
                return False
            self._alone_until = now + self._pause
            return True

    def _lacks(self, waits: dict[str, float]) -> str:
        """Return the first position of *waits* that is not reached in its seconds; or nothing."""
        backend = backend_of(self.engine)
        # This finds out, too, whether it can be reached at all.
        connection = self.engine.raw_connection()
        try:
            for position, seconds in waits.items():
                if not backend.has_reached(connection.dbapi_connection, position, seconds):
                    return position
                self._remember(position)
        except BaseException as error:
            # The driver was asked directly, so that SQLAlchemy does not know that it is broken.
            connection.invalidate(error)
            raise
        finally:
            connection.close()
        return ""

    def _remember(self, position: str) -> None:
        with self._lock:
            self._reached[position] = None
            while len(self._reached) > REMEMBERED:
                self._reached.popitem(last=False)

    def _note_error(self, context: ExceptionContext) -> Any:
        """Leave the replica alone when a request has lost its connection to it."""
        if context.is_disconnect and not context.is_pre_ping:
            self.leave_alone(error_name(context.original_exception))
