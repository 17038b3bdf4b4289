"""The connections of a budget on the server: never too many, closed before they are replaced."""
# ruff: noqa: SLF001 - the end of a connection is seen at the socket, which drivers keep to themselves

import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

import pytest
from sqlalchemy import event, text

from pyramid_aalam_sqa.backends import pymysql_driver
from pyramid_aalam_sqa.engines.pool import BUDGET
from support.budget import budgeted, use

pytestmark = pytest.mark.usefixtures("exact")

BUDGET_OF_THREE = 3


COUNT = "SELECT COUNT(*) FROM information_schema.processlist WHERE user LIKE 'budget%'"


def test_many_threads_never_have_more_connections_than_the_budget(mariadb_server, six):
    """Eight threads use six databases. The server is asked for the number again and again."""
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
    """The server has closed the old connection before the new one is opened."""
    first, second = (budgeted(url, 2) for url in six[:2])
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
    """Return a driver's connection, the server's end of it, and a function that ends it."""
    monkeypatch.setattr(pymysql_driver, "CLOSE_TIMEOUT", seconds)
    ours, theirs = socket.socketpair()
    return type("Driver", (), {"_sock": ours}), theirs, pymysql_driver.close_and_wait


def test_it_is_waited_for_the_server_to_close(monkeypatch):
    """The pool waits for the real end, and not for a fixed time."""
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
    """The wait is also short if the server is gone, or the connection was closed before."""
    driver, server, close = peers(monkeypatch, 0.01)
    with driver._sock, server:
        close(driver, None)
    close(driver, None)
    close(type("Closed", (), {"_sock": None}), None)


def test_a_new_connection_costs_two_statements(six):
    """SQLAlchemy sends SET NAMES, and the package sends all its settings in one statement."""
    engine = budgeted(six[0], 2)
    use(engine)
    engine.dispose()
    with engine.connect() as connection:
        rows = connection.execute(
            text("SHOW SESSION STATUS WHERE variable_name IN ('Com_set_option', 'Com_commit')")
        ).all()

    assert {name: int(value) for name, value in rows} == {"Com_commit": 0, "Com_set_option": 2}


def test_isolation_and_autocommit_come_back_after_a_connection_had_its_own(six):
    """They are sent with all other settings, but SQLAlchemy knows their values."""
    engine = budgeted(six[0], 2)
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
