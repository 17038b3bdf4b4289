"""Connections that all engines of a process share: never more than the budget, none lost.

Run as a script this module is a process that forks while its budget is in use.
"""
# ruff: noqa: SLF001 - who waits, and what a driver does, has no public name

import gc
import itertools
import os
import random
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack
from pathlib import Path
from weakref import WeakSet, ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool
from webtest import TestApp

from pyramid_aalam_sqa import SettingError, engine_from_settings, get_sqa
from pyramid_aalam_sqa.backends import mysql
from pyramid_aalam_sqa.engines.pool import BUDGET, BudgetPool
from support.processes import HERE, QUIET, TRACED

BUDGET_OF_THREE = 3
MADE = WeakSet()


def budgeted(url, limit, **options):
    """Return an engine that keeps to a budget of *limit*."""
    given = {f"sqlalchemy.{name}": str(value) for name, value in options.items()}
    # With a WAL, SQLite itself keeps files open for a while that it has done with.
    own = {"sqa.max_connections": str(limit), "sqa.sqlite.journal_mode": "delete"}
    engine = engine_from_settings({"sqlalchemy.url": url, **own, **given})
    MADE.add(engine)
    return engine


@pytest.fixture(autouse=True)
def exact():
    """Every test ends with nothing open and nobody waiting."""
    assert len(BUDGET) == 0
    yield
    for engine in list(MADE):
        engine.dispose()
    gc.collect()
    assert len(BUDGET) == 0
    assert not BUDGET._queue


@pytest.fixture
def files(tmp_path):
    """Make engines of SQLite files."""
    numbers = itertools.count()

    def files(count, limit, **options):
        urls = [f"sqlite:///{tmp_path}/{next(numbers)}.sqlite" for _ in range(count)]
        return [budgeted(url, limit, **options) for url in urls]

    return files


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
    while len(BUDGET._queue) < count:
        threading.Event().wait(0.001)


# What the server sees.


@pytest.fixture(scope="module")
def six(mariadb_server):
    """Six databases, each with an account of its own."""
    names = [f"budget{number}" for number in range(6)]
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute(f"CREATE USER {name} IDENTIFIED BY 'secret'")
            cursor.execute(f"GRANT ALL ON {name}.* TO {name}")
    url = make_url(mariadb_server.url())
    yield [
        url.set(username=name, password="secret", database=name).render_as_string(
            hide_password=False
        )
        for name in names
    ]
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"DROP DATABASE {name}")
            cursor.execute(f"DROP USER {name}")


COUNT = "SELECT COUNT(*) FROM information_schema.processlist WHERE user LIKE 'budget%'"


def test_many_threads_never_have_more_connections_than_the_budget(mariadb_server, six):
    """The server says so, again and again, while eight threads use six databases."""
    # One place is left to the connection that the server is about to strike off its list.
    engines = [budgeted(url, BUDGET_OF_THREE + 1, pool_timeout=30) for url in six]
    barrier = threading.Barrier(9)
    counts = []

    def work(seed):
        chance = random.Random(seed)
        barrier.wait(30)
        for _ in range(25):
            with chance.choice(engines).connect() as connection:
                assert connection.scalar(text("SELECT USER()")).startswith(
                    f"{connection.engine.url.database}@"
                )

    with ThreadPoolExecutor(8) as threads:
        with mariadb_server.connect() as watcher, watcher.cursor() as cursor:
            done = [threads.submit(work, seed) for seed in range(8)]
            barrier.wait(30)
            while not all(one.done() for one in done):
                cursor.execute(COUNT)
                counts.append(cursor.fetchone()[0])
        for one in done:
            one.result()

    assert max(counts) <= BUDGET_OF_THREE + 1
    assert sorted(counts)[len(counts) * 9 // 10] == BUDGET_OF_THREE
    assert len(BUDGET) == BUDGET_OF_THREE


def test_a_connection_is_closed_on_the_server_before_its_place_is_used(six):
    """The server has said good-bye before the next connection is opened."""
    first, second = (budgeted(url, 1) for url in six[:2])
    happened = []

    # After the package's own listener, which waits for the server.
    def look(driver, _record):
        driver._sock.settimeout(0)
        happened.append(driver._sock.recv(1))

    event.listen(first, "close", look)
    event.listen(second, "connect", lambda *_: happened.append("opened"))
    use(first, second)

    assert happened == [b"", "opened"]


def peers(monkeypatch, seconds):
    """Return a driver's connection, its server's end, and what ends it."""
    monkeypatch.setattr(mysql, "SECONDS_TO_CLOSE", seconds)
    dialect = mysql.MySQLBackend(make_url("mysql+pymysql://"), {"retry_codes": None})
    ours, theirs = socket.socketpair()
    return type("Driver", (), {"_sock": ours}), theirs, dialect._quit


def test_it_is_waited_for_the_server_to_close(monkeypatch):
    """Not for the time that it takes usually."""
    driver, server, close = peers(monkeypatch, 30)
    with driver._sock, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(close, driver, None)
        farewell = server.recv(5)
        with pytest.raises(FutureTimeoutError):
            waiting.result(0.05)
        server.close()
        waiting.result(30)

    assert farewell == b"\x01\x00\x00\x00\x01"


def test_a_server_that_does_not_close_is_not_waited_for_without_end(monkeypatch):
    """Nor is one that is gone, nor a connection that was closed before."""
    driver, server, close = peers(monkeypatch, 0.01)
    with driver._sock, server:
        close(driver, None)
    close(driver, None)
    close(type("Closed", (), {"_sock": None}), None)


def test_a_new_connection_costs_two_statements(six):
    """SQLAlchemy's SET NAMES, and all that is ours in the other."""
    engine = budgeted(six[0], 1)
    use(engine)
    engine.dispose()
    with engine.connect() as connection:
        rows = connection.execute(
            text("SHOW SESSION STATUS WHERE variable_name IN ('Com_set_option', 'Com_commit')")
        ).all()

    assert {name: int(value) for name, value in rows} == {"Com_commit": 0, "Com_set_option": 2}


def test_isolation_and_autocommit_come_back_after_a_connection_had_its_own(six):
    """They are set with everything else, and SQLAlchemy knows them all the same."""
    engine = budgeted(six[0], 1)
    with engine.connect() as connection:
        assert connection.get_isolation_level() == "READ COMMITTED"
        identity = connection.scalar(text("SELECT CONNECTION_ID()"))
    for level in ("SERIALIZABLE", "AUTOCOMMIT"):
        with engine.connect().execution_options(isolation_level=level) as connection:
            assert connection.get_isolation_level() in {level, "READ COMMITTED"}
            automatic = connection.connection.dbapi_connection.get_autocommit()
            assert automatic == (level == "AUTOCOMMIT")
    with engine.connect() as connection:
        looks = connection.execute(
            text("SELECT CONNECTION_ID(), @@tx_isolation, @@autocommit")
        ).one()

    assert tuple(looks) == (identity, "READ-COMMITTED", 0)


def test_autocommit_given_to_the_driver_stays(six):
    """It was asked for."""
    engine = budgeted(six[0], 1, **{"connect_args.autocommit": "true"})
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT @@autocommit")) == 1


# Which connection goes.


def test_one_engine_reuses_what_came_back_last(files):
    """The others stay until somebody else needs their places."""
    [engine] = files(1, 3)
    with engine.connect() as first, engine.connect() as second:
        early, late = first.connection.driver_connection, second.connection.driver_connection
        second.close()
        first.close()
    with engine.connect() as again, engine.connect() as more:
        assert again.connection.driver_connection is early
        assert more.connection.driver_connection is late

    assert opened(engine) == [2]


def test_the_connection_that_was_not_used_for_longest_goes_first(files):
    """And no other."""
    first, second, third, fourth = engines = files(4, 3)
    use(first, second, third, fourth)
    assert opened(*engines) == [0, 1, 1, 1]
    use(third, fourth, first)

    assert opened(*engines) == [1, 0, 1, 1]
    use(second)
    assert opened(second) == [1]


def test_a_database_that_is_used_again_and_again_keeps_its_connection(files):
    """A walk through all the others does not close it, though it was used before them."""
    often, *others = files(6, 3)
    use(often, often, *others)

    assert opened(often, *others) == [1, 0, 0, 0, 1, 1]


def test_what_is_in_use_is_never_closed(files):
    """However long it is out."""
    first, second, third = files(3, 2)
    with first.connect() as connection:
        connection.execute(text("SELECT 1"))
        use(second, third, second, third)

        assert connection.scalar(text("SELECT 2")) == 2
        assert opened(first) == [1]


def test_an_engine_object_lives_on_without_connections(files):
    """What it knows of its database and its statements is not lost."""
    first, second = files(2, 1)
    use(first)
    pool = first.pool
    use(second, first)

    assert first.pool is pool
    assert opened(first, second) == [1, 0]


# When there is none.


def test_a_full_budget_is_waited_for_as_long_as_pool_timeout_says(files):
    """Then the error names the setting and the figures."""
    first, second = files(2, 1, pool_timeout=0)
    with first.connect(), pytest.raises(PoolTimeoutError) as caught:
        second.connect()

    assert str(caught.value) == (
        "No connection came back within 0 seconds: 0 of 5 to this database (pool_size + "
        "max_overflow) and 1 of 1 to all (sqa.max_connections) are open."
    )
    use(second)


def test_who_waits_goes_on_when_a_connection_comes_back(files):
    """It takes the place of another database's."""
    first, second = files(2, 1, pool_timeout=30)
    with ThreadPoolExecutor(1) as thread:
        with first.connect():
            waiting = thread.submit(use, second)
            until_somebody_waits()
        waiting.result(30)

    assert opened(first, second) == [0, 1]


def test_who_waits_longest_comes_first(files):
    """Also before one who finds an idle connection of its own."""
    first, second, third = files(3, 1, pool_timeout=30)
    order = []

    def take(engine):
        with engine.connect():
            order.append(engine)

    with ThreadPoolExecutor(2) as threads:
        with first.connect():
            waiting = [threads.submit(take, second)]
            until_somebody_waits()
            waiting.append(threads.submit(take, third))
            until_somebody_waits(2)
        take(first)
        for one in waiting:
            one.result(30)

    assert order == [second, third, first]


def test_all_who_can_go_on_do(files):
    """Two places become free before the first who waits has woken up."""
    first, second, third = files(3, 2, pool_timeout=30)
    one, other = first.connect(), first.connect()
    with ThreadPoolExecutor(2) as threads:
        barrier = threading.Barrier(2)

        def hold(engine):
            with engine.connect():
                barrier.wait(10)

        waiting = [threads.submit(hold, engine) for engine in (second, third)]
        until_somebody_waits(2)
        with BUDGET._lock:
            one.invalidate()
            other.invalidate()
        for thread in waiting:
            thread.result(30)

    assert opened(first, second, third) == [0, 1, 1]


def test_who_can_go_on_passes_one_who_cannot(files):
    """A database that has all the connections it may have holds up nobody else."""
    full, other = files(2, 3, pool_timeout=30, pool_size=1, max_overflow=0)
    with ThreadPoolExecutor(1) as thread:
        with full.connect():
            waiting = thread.submit(use, full)
            until_somebody_waits()
            use(other)
            assert not waiting.done()
        waiting.result(30)

    assert opened(full, other) == [1, 1]


def test_one_database_has_five_connections_at_most(files):
    """So much is left for the others."""
    busy, other = files(2, 7, pool_timeout=0)
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(busy.connect())
        with pytest.raises(PoolTimeoutError, match="5 of 5 to this database"):
            busy.connect()
        use(other)


@pytest.mark.parametrize("options", [{"pool_size": 0}, {"max_overflow": -1}])
def test_one_database_may_have_the_whole_budget(files, options):
    """In SQLAlchemy's own spelling of it."""
    [engine] = files(1, 7, pool_timeout=0, **options)
    with ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(engine.connect())
        with pytest.raises(PoolTimeoutError, match="7 of inf to this database"):
            engine.connect()


def application(url, **given):
    """Return an application with a view that reads."""
    with Configurator(settings={"sqlalchemy.url": url, **given}) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(lambda request: Response(str(request.sqa_session.scalar(text("SELECT 1")))))
    return config.make_wsgi_app()


def test_two_applications_share_the_budget_and_a_full_one_is_a_503(six):
    """Until a connection comes back."""
    given = {"sqa.max_connections": "1", "sqlalchemy.pool_timeout": "0"}
    first, second = (application(url, **given) for url in six[:2])
    with get_sqa(first).engine.connect():
        answer = TestApp(second).get("/", status=503)

    assert answer.headers["Retry-After"] == "5"
    assert TestApp(second).get("/").text == "1"
    assert [get_sqa(app).engine.pool.checkedin() for app in (first, second)] == [0, 1]
    get_sqa(second).dispose()


def test_each_engine_keeps_to_its_own_limit(files):
    """The smaller one takes places, and never makes more of them."""
    [large] = files(1, 3)
    [small] = files(1, 1, pool_timeout=0)
    with large.connect(), large.connect():
        with pytest.raises(PoolTimeoutError):
            small.connect()
        with large.connect():
            assert len(BUDGET) == 3
        use(small)

        assert len(BUDGET) == 3
        assert opened(large, small) == [2, 1]


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
    engine.pool._invalidate_time = float("inf")
    use(engine)
    engine.pool._invalidate_time = 0


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


@pytest.mark.parametrize("accident", [*ACCIDENTS, interrupt])
def test_the_count_is_exact_after(files, accident):
    """The budget, the pool and the system agree; the whole budget can be used."""
    [engine] = files(1, 2, pool_timeout=0, max_overflow=4)
    for _ in range(3):
        accident(engine)

        assert len(BUDGET) == engine.pool.checkedin() == opened(engine)[0]
        assert engine.pool.checkedout() == 0
    with engine.connect(), engine.connect():
        assert len(BUDGET) == opened(engine)[0] == 2
        assert engine.pool.status() == "2 in use, 0 idle; 2 of 2 in the process"


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([*ACCIDENTS, "hold", "let go"])), max_size=15
    )
)
def test_the_count_is_exact_after_any_of_them_in_any_order(tmp_path_factory, events):
    """With connections out at the same time."""
    folder = tmp_path_factory.mktemp("any")
    engines = [budgeted(f"sqlite:///{folder}/{number}", 3, pool_timeout=0) for number in range(3)]
    held = []
    for number, what in events:
        if what == "let go":
            if held:
                held.pop(0).close()
        elif len(held) < 2:
            if what == "hold":
                held.append(engines[number].connect())
            else:
                what(engines[number])

        assert sum(opened(*engines)) == len(BUDGET) <= 3
        assert len(BUDGET) == len(BUDGET._idle) + len(held)
    for one in held:
        one.close()
    for engine in engines:
        engine.dispose()
    assert len(BUDGET) == 0


def test_a_connection_whose_closing_is_interrupted_gives_up_its_place(files):
    """The interruption goes on, and nothing is lost."""
    first, second = files(2, 1, pool_timeout=0)

    def stop(*_):
        raise KeyboardInterrupt

    use(first)
    event.listen(first, "close", stop)
    with pytest.raises(KeyboardInterrupt):
        second.connect()
    gc.collect()

    assert len(BUDGET) == 0
    use(second)


def test_a_failed_connection_lets_the_next_one_try(files):
    """Somebody who waits for it does not wait in vain."""
    broken, other = files(2, 1, pool_timeout=30)
    barrier = threading.Barrier(2)

    def refuse(*_):
        barrier.wait(30)
        until_somebody_waits()
        raise RuntimeError

    event.listen(broken, "do_connect", refuse)
    with ThreadPoolExecutor(1) as thread:
        failing = thread.submit(broken.connect)
        barrier.wait(30)
        use(other)
        assert isinstance(failing.exception(30), RuntimeError)


def test_a_lost_connection_is_replaced_in_its_own_place(six, mariadb_server):
    """By the ping, which finds that the server has ended it."""
    engine = budgeted(six[0], 1, pool_timeout=0)
    with engine.connect() as connection:
        identity = connection.scalar(text("SELECT CONNECTION_ID()"))
    with mariadb_server.connect() as root, root.cursor() as cursor:
        cursor.execute(f"KILL {identity}")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT CONNECTION_ID()")) != identity
        assert len(BUDGET) == 1
    with engine.connect() as connection, mariadb_server.connect() as root:
        identity = connection.scalar(text("SELECT CONNECTION_ID()"))
        with root.cursor() as cursor:
            cursor.execute(f"KILL {identity}")
        with pytest.raises(OperationalError):
            connection.execute(text("SELECT 1"))
    assert len(BUDGET) == 0
    use(engine)


def test_the_connections_of_an_engine_that_nobody_disposed_end_with_it(files):
    """Their places are free again."""
    [other] = files(1, 1, pool_timeout=0)
    url = str(other.url).replace("0.sqlite", "9.sqlite")
    abandoned = budgeted(url, 1)
    use(abandoned)
    # SQLAlchemy lets go of both in one cycle.
    kept = ref(abandoned)
    del abandoned
    gc.collect()

    assert kept() is None
    assert len(BUDGET) == 0
    use(other)


def test_a_stale_entry_is_no_connection_to_close(files):
    """The collector may be at its engine while somebody looks for a place."""
    first, second = files(2, 1)
    use(first)
    [place] = BUDGET._idle
    gone = ref(type("Gone", (), {})())
    BUDGET._idle[place] = type(BUDGET._idle[place])(gone, 0)
    with second.connect():
        assert len(BUDGET) == 1


# Processes.


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
        with BUDGET._lock:
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


def test_a_child_process_has_a_budget_of_its_own(six):
    """It starts empty, whatever its parent was doing at the moment."""
    run = subprocess.run(
        [sys.executable, *QUIET, __file__, *six[:2]],
        env={**os.environ, **TRACED, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])},
        timeout=30,
        check=False,
    )

    assert run.returncode == 0


def test_a_connection_of_the_parent_is_left_alone(files):
    """Closed in the child, it would end in the parent."""
    [engine] = files(1, 1)
    connection = engine.raw_connection()
    driver = connection.driver_connection
    BUDGET.start_empty()
    connection.close()

    assert driver.execute("SELECT 1").fetchone() == (1,)
    assert len(BUDGET) == 0
    driver.close()


# Settings.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("poolclass", "NullPool"),
        ("pool", QueuePool(lambda: None)),
        ("engine", create_engine("sqlite://")),
    ],
)
def test_a_pool_of_ones_own_has_no_budget(name, value):
    """The error says which of the two to remove."""
    given = {"sqlalchemy.url": "sqlite:///file", f"sqlalchemy.{name}": value}
    with pytest.raises(SettingError) as caught:
        engine_from_settings({**given, "sqa.max_connections": "1"})

    assert str(caught.value) == (
        "sqa.max_connections needs a pool of its own: "
        f"remove sqlalchemy.{name}, or sqa.max_connections."
    )


def test_an_option_that_such_a_pool_does_not_know_is_refused():
    """It always hands out what came back last."""
    with pytest.raises(SettingError, match="pool_use_lifo"):
        budgeted("sqlite:///file", 1, pool_use_lifo="false")


def test_a_database_in_memory_takes_no_part():
    """Its one connection is its data."""
    engine = budgeted("sqlite://", 1)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE note (body INTEGER)"))
        assert len(BUDGET) == 0
    other = budgeted("sqlite://", 1)
    use(other)

    with engine.connect() as connection:
        assert connection.execute(text("SELECT * FROM note")).all() == []


def test_engines_in_a_budget_keep_few_statements_ready():
    """Each has its own, and there are many engines; what is set wins."""
    usual, own = budgeted("sqlite:///a", 1), budgeted("sqlite:///a", 1, query_cache_size=7)

    assert isinstance(usual.pool, BudgetPool)
    assert usual._compiled_cache.capacity == 50
    assert own._compiled_cache.capacity == 7


def test_a_disposed_engine_starts_again_as_it_was(files):
    """With all its options."""
    [engine] = files(1, 3, pool_timeout=7, pool_size=2, max_overflow=0, pool_recycle=9)
    before = engine.pool
    engine.dispose()

    assert engine.pool is not before
    for name in ("limit", "bound", "timeout", "_recycle", "_pre_ping", "_reset_on_return"):
        assert getattr(engine.pool, name) == getattr(before, name)
    assert (engine.pool.limit, engine.pool.bound, engine.pool.timeout) == (3, 2, 7)


if __name__ == "__main__":
    sys.exit(not fork_in_use(*sys.argv[1:]))
