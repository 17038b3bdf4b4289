"""A process that forks while its budget of connections is in use: budget_fork.py URL URL."""

import os
import sys
import threading

from pyramid_aalam_sqa.engines.pool import BUDGET
from support.budget import budgeted, use


def forked(work):
    """Run *work* in a child; return whether it returned true."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if work() else 1)
    return os.waitpid(pid, 0)[1] == 0


def fork_in_use(first, second):
    """Fork while a thread holds the lock, with one connection in use and one idle."""
    # Two, and the one that the server may still count.
    engine, other = (budgeted(url, 3, pool_timeout=0) for url in (first, second))
    use(other)
    held = engine.raw_connection()
    locked, done = threading.Event(), threading.Event()

    def hold():
        with BUDGET.lock:
            locked.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait(60)

    def child():
        empty = len(BUDGET) == 0
        with engine.connect(), other.connect():
            full = len(BUDGET) == 2
        # It is the parent's, and has no place here.
        held.detach()
        return empty and full and len(BUDGET) == 2

    good = forked(child)
    done.set()
    thread.join()
    works = held.cursor().execute("SELECT 1") == 1
    held.close()
    return good and works and len(BUDGET) == 2


if __name__ == "__main__":
    sys.exit(not fork_in_use(*sys.argv[1:]))
