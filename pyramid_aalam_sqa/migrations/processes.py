"""Migrates many databases, each in a process of its own, a few at a time.

The processes come from a server that has imported Alembic and this package, and no application. So
a new one is there in milliseconds, and holds nothing of the one before.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from .migrate import STOPPED, Order, Outcome, migrate

# Seconds between two looks at whether Ctrl-C was pressed.
LOOK = 0.1
STOP = "stop"
# Whether signals of this process are to stop the work.
SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOT_BEGUN = "not begun: the run was stopped"


class Workers:
    """At most *limit* processes at a time; Ctrl-C lets those that run finish their revision."""

    def __init__(self, limit: int) -> None:
        self.is_stopping = False
        self._limit = limit
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([f"{__package__}.migrate"])
        self._running: dict[Connection, tuple[Any, str]] = {}

    def run(self, inis: Iterable[str], order: Order) -> Iterator[Outcome]:
        """Migrate the databases of *inis*, and yield how it went with each when it is done.

        The statement that is in flight is never interrupted. What had not begun when the run was
        stopped is yielded too.
        """
        waiting = deque(inis)
        with self._signals():
            while waiting or self._running:
                while waiting and len(self._running) < self._limit and not self.is_stopping:
                    self._start(waiting.popleft(), order)
                for ready in wait(list(self._running), LOOK):
                    yield self._end(ready)
                if self.is_stopping and waiting:
                    yield from (_not_begun(ini, order) for ini in waiting)
                    waiting.clear()

    def stop(self, *_: object) -> None:
        """Begin nothing more, and tell those that run. A handler of signals."""
        if not self.is_stopping:
            self.is_stopping = True
            for pipe in self._running:
                # One that has just ended reads no more.
                with suppress(OSError):
                    pipe.send(STOP)

    def _start(self, ini: str, order: Order) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, ini, order))
        process.start()
        theirs.close()
        self._running[ours] = (process, ini)

    def _end(self, pipe: Any) -> Outcome:
        """Return what the process at the other end of *pipe* has sent, and wait for its end."""
        process, ini = self._running.pop(pipe)
        try:
            outcome: Outcome = pipe.recv()
        except EOFError:
            process.join()
            outcome = Outcome(ini, ini, error=f"its process has ended with {process.exitcode}")
        pipe.close()
        process.join()
        return outcome

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Have signals stop the work in the block, after which they do what they did before."""
        before = {each: signal.signal(each, self.stop) for each in SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def _work(pipe: Any, ini: str, order: Order) -> None:  # pragma: no cover - in a forked process
    """Migrate one database, in a new process."""
    # Ctrl-C reaches every process of the terminal; the one that has started this one decides.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    # The process at the other end says stop, or is gone.
    pipe.send(migrate(ini, order, pipe.poll))


def _not_begun(ini: str, order: Order) -> Outcome:
    return Outcome(ini, ini, order.bind or "default", STOPPED, error=NOT_BEGUN)


def most_jobs(given: int | None) -> int:
    """Return how many processes to have at a time: as *given*, else as many as there are cores."""
    return given or os.cpu_count() or 1
