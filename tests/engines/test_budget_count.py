"""The count of a budget is exact after every fault: no place is lost or counted twice."""

import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from pyramid_aalam_sqa.engines.pool import BUDGET
from support import budget_fork
from support.budget import ACCIDENTS, budgeted, interrupt, opened, until_somebody_waits, use
from support.processes import HERE, QUIET, TRACED

pytestmark = pytest.mark.usefixtures("exact")


@pytest.mark.parametrize("accident", [*ACCIDENTS, interrupt])
def test_the_count_is_exact_after(files, accident):
    """Budget, pool and operating system agree, and the whole budget can be used."""
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
    """Other connections are in use at the same time."""
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
        assert len(BUDGET) == sum(engine.pool.checkedin() for engine in engines) + len(held)
    for one in held:
        one.close()
    for engine in engines:
        engine.dispose()
    assert len(BUDGET) == 0


def test_a_connection_whose_closing_is_interrupted_gives_up_its_place(files):
    """The interrupt is raised, and no place is lost."""
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
    """A thread that waits for its place gets it."""
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
    """The ping finds that the server has ended the connection."""
    engine = budgeted(six[0], 2, pool_timeout=0)
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


def test_the_connections_of_an_engine_that_was_not_disposed_end_with_it(files):
    """When the engine is freed, the places of its connections are free again."""
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


def test_a_stale_entry_is_not_taken_for_a_connection_to_close(files):
    """Python may be freeing an engine while another thread looks for a place."""
    first, second = files(2, 1)
    use(first)
    # What the budget knows while the collector is at work.
    idle = BUDGET._idle  # noqa: SLF001
    [place] = idle
    idle[place] = type(idle[place])(ref(type("Gone", (), {})()), 0)
    with second.connect():
        assert len(BUDGET) == 1


# Processes.
def test_a_child_process_has_a_budget_of_its_own(six):
    """It starts empty, even if the parent was using its budget at that moment."""
    run = subprocess.run(
        [sys.executable, *QUIET, budget_fork.__file__, *six[:2]],
        env={**os.environ, **TRACED, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])},
        timeout=30,
        check=False,
    )

    assert run.returncode == 0


def test_a_connection_of_the_parent_is_left_alone(files):
    """If the child closed it, it would end in the parent too."""
    [engine] = files(1, 1)
    connection = engine.raw_connection()
    driver = connection.driver_connection
    BUDGET.start_empty()
    connection.close()

    assert driver.execute("SELECT 1").fetchone() == (1,)
    assert len(BUDGET) == 0
    driver.close()
