"""A pool lends a connection only in the process that has made it."""

import os
import sys
from types import SimpleNamespace

import pytest
from sqlalchemy import text
from sqlalchemy.pool import NullPool, QueuePool

from pyramid_aalam_sqa import engine_from_settings


@pytest.fixture
def make(sqlite):
    """Make an engine on the file. Its connections are closed after the test."""
    made = []

    def make(**options):
        given = {f"sqlalchemy.{name}": value for name, value in options.items()}
        made.append(engine_from_settings({"sqlalchemy.url": sqlite.url, **given}))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


def connection_of(engine):
    """Return the driver's connection that the pool lends, and give the connection back."""
    with engine.connect() as connection:
        return connection.connection.dbapi_connection


def test_another_process_gets_connections_of_its_own(make, monkeypatch):
    """The process ids are compared, so Python need not be told of the fork."""
    one, other = make(), make()
    before = [connection_of(one), connection_of(other)]
    assert [connection_of(one), connection_of(other)] == before
    kept = one.pool

    monkeypatch.setattr(os, "getpid", lambda: 1)
    after = [connection_of(one), connection_of(other)]

    assert not {*map(id, before)} & {*map(id, after)}
    assert [connection_of(one), connection_of(other)] == after
    assert kept.connect().dbapi_connection is after[0]
    # The connections of the parent process are open: it goes on using them.
    assert [each.execute("SELECT 1").fetchone() for each in before] == [(1,), (1,)]
    for each in before:
        each.close()


@pytest.mark.parametrize("poolclass", [QueuePool, NullPool])
def test_a_pool_is_still_of_the_class_that_was_asked_for(make, poolclass):
    """It keeps that class's name, which SQLAlchemy's logger has, also after dispose()."""
    engine = make(poolclass=poolclass)
    for _ in range(2):
        assert isinstance(engine.pool, poolclass)
        assert type(engine.pool).__name__ == poolclass.__name__
        assert type(engine.pool).__module__ == poolclass.__module__
        assert connection_of(engine)
        engine.dispose()


def test_a_ready_pool_is_used_as_it_is(sqlite):
    """The code that made the pool must handle forks."""
    ready = engine_from_settings({"sqlalchemy.url": sqlite.url}).pool.recreate()
    pool = QueuePool(ready.connect)
    engine = engine_from_settings({"sqlalchemy.url": sqlite.url, "sqlalchemy.pool": pool})

    assert engine.pool is pool
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()
    ready.dispose()


def test_while_uwsgi_loads_the_application_no_connection_stays_open(make, monkeypatch):
    """The workers are forked afterwards, and keep their own connections."""
    process = SimpleNamespace(worker_id=lambda: 0)
    monkeypatch.setitem(sys.modules, "uwsgi", process)
    engine = make()
    loading = connection_of(engine)
    with pytest.raises(Exception, match="closed"):
        loading.execute("SELECT 1")

    process.worker_id = lambda: 2
    assert connection_of(engine) is connection_of(engine)
