"""Engines in a budget of connections, and what the system and the budget count."""

import gc
import threading
from pathlib import Path
from weakref import WeakSet

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from pyramid_aalam_sqa import engine_from_settings
from pyramid_aalam_sqa.engines.pool import BUDGET

MADE = WeakSet()


def budgeted(url, limit, **options):
    """Return an engine that keeps to a budget of *limit*."""
    given = {f"sqlalchemy.{name}": str(value) for name, value in options.items()}
    # With a WAL, SQLite itself keeps files open for a while that it has done with.
    own = {"sqa.max_connections": str(limit), "sqa.sqlite.journal_mode": "delete"}
    engine = engine_from_settings({"sqlalchemy.url": url, **own, **given})
    MADE.add(engine)
    return engine


def opened(*engines):
    """Return how many connections to the file of each engine the system knows of."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:  # the one that lists them
            continue
    return [links.count(engine.url.database) for engine in engines]


def use(*engines):
    """Use one after the other."""
    for engine in engines:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))


def until_somebody_waits(count=1):
    while BUDGET.waiting < count:
        threading.Event().wait(0.001)


# Nothing is lost, and nothing counted twice.
def invalidate(engine):
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.invalidate()


def invalidate_softly(engine):
    with engine.connect() as connection:
        connection.connection.invalidate(soft=True)


def leak(engine):
    """Forget a connection that is out, in a cycle."""
    cycle = [engine.raw_connection()]
    cycle.append(cycle)
    del cycle
    gc.collect()


def detach(engine):
    connection = engine.raw_connection()
    driver = connection.driver_connection
    connection.detach()
    driver.close()


def dispose_in_use(engine):
    with engine.connect() as connection:
        engine.dispose()
        assert len(BUDGET) >= 1
        connection.execute(text("SELECT 1"))


def renew(engine):
    """Use it through a pool that takes nothing for good."""
    invalidated = "_invalidate_time"
    setattr(engine.pool, invalidated, float("inf"))
    use(engine)
    setattr(engine.pool, invalidated, 0)


def fail(engine):
    """Fail to connect, and to set a connection up."""

    def refuse(*_):
        raise RuntimeError

    engine.dispose()
    for name in ("do_connect", "connect"):
        event.listen(engine, name, refuse, insert=True)
        with pytest.raises(RuntimeError):
            engine.connect()
        event.remove(engine, name, refuse)


def fail_at_checkout(engine):
    def refuse(*_):
        raise RuntimeError

    event.listen(engine, "checkout", refuse)
    with pytest.raises(RuntimeError):
        engine.connect()
    event.remove(engine, "checkout", refuse)


def fail_to_come_back(engine):
    """Meet an error of the reset, after which the connection is thrown away."""

    def refuse(*_):
        raise DBAPIError("reset", {}, Exception())

    event.listen(engine, "reset", refuse)
    use(engine)
    event.remove(engine, "reset", refuse)


def interrupt(engine):
    """Be stopped between taking a place and using it."""
    engine.dispose()
    BUDGET.take(engine.pool)


ACCIDENTS = (
    use,
    invalidate,
    invalidate_softly,
    leak,
    detach,
    dispose_in_use,
    renew,
    fail,
    fail_at_checkout,
    fail_to_come_back,
)
