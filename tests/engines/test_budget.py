"""Which connection of a budget is closed, which thread waits and how long, and the settings."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from pyramid.response import Response
from sqlalchemy import create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool
from webtest import TestApp

from pyramid_aalam_sqa import SettingError, engine_from_settings, get_sqa
from pyramid_aalam_sqa.engines.pool import BUDGET, BudgetPool
from support.apps import with_view
from support.budget import budgeted, opened, until_somebody_waits, use

pytestmark = pytest.mark.usefixtures("exact")


# Which connection goes.
def test_one_engine_reuses_what_came_back_last(files):
    """Its other connections stay open until another engine needs their places."""
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
    """No other connection is closed."""
    first, second, third, fourth = engines = files(4, 3)
    use(first, second, third, fourth)
    assert opened(*engines) == [0, 1, 1, 1]
    use(third, fourth, first)

    assert opened(*engines) == [1, 0, 1, 1]
    use(second)
    assert opened(second) == [1]


def test_a_database_that_is_used_again_and_again_keeps_its_connection(files):
    """Using all other databases once does not close it, although it was opened before theirs."""
    often, *others = files(6, 3)
    use(often, often, *others)

    assert opened(often, *others) == [1, 0, 0, 0, 1, 1]


def test_what_is_in_use_is_never_closed(files):
    """This is true however long it is in use."""
    first, second, third = files(3, 2)
    with first.connect() as connection:
        connection.execute(text("SELECT 1"))
        use(second, third, second, third)

        assert connection.scalar(text("SELECT 2")) == 2
        assert opened(first) == [1]


def test_an_engine_object_lives_on_without_connections(files):
    """The engine keeps what it knows of its database, and its compiled statements."""
    first, second = files(2, 1)
    use(first)
    pool = first.pool
    use(second, first)

    assert first.pool is pool
    assert opened(first, second) == [1, 0]


# When there is none.
def test_a_full_budget_is_waited_for_as_long_as_pool_timeout_says(files):
    """Then an error names the setting and the numbers."""
    first, second = files(2, 1, pool_timeout=0)
    with first.connect(), pytest.raises(PoolTimeoutError) as caught:
        second.connect()

    assert str(caught.value) == (
        "No connection came back within 0 seconds: 0 of 5 to this database (pool_size + "
        "max_overflow) and 1 of 1 to all (sqa.max_connections) are open."
    )
    use(second)


def test_the_error_and_the_status_show_the_number_that_was_set(mariadb_url):
    """On MariaDB one place of the budget is kept free. The error says so."""
    settings = {
        "sqlalchemy.url": mariadb_url,
        "sqa.max_connections": "2",
        "sqlalchemy.pool_timeout": "0",
    }
    engine = engine_from_settings(settings)
    with engine.connect():
        status = engine.pool.status()
        with pytest.raises(PoolTimeoutError) as caught:
            engine.connect()
    engine.dispose()

    assert status.endswith("1 of 2 in the process")
    assert str(caught.value).endswith(
        "1 of 2 to all (sqa.max_connections) are open, and 1 is kept free for one that the server "
        "is closing."
    )


def test_a_budget_of_one_is_refused_where_the_server_would_count_two(mariadb_url):
    """The server still counts a connection for a moment after it was closed."""
    settings = {"sqlalchemy.url": mariadb_url, "sqa.max_connections": "1"}
    with pytest.raises(SettingError, match=r"sqa.max_connections = 1: .*; write 2 or more"):
        engine_from_settings(settings)


def test_who_waits_goes_on_when_a_connection_comes_back(files):
    """The waiting thread takes the place of another database's connection."""
    first, second = files(2, 1, pool_timeout=30)
    with ThreadPoolExecutor(1) as thread:
        with first.connect():
            waiting = thread.submit(use, second)
            until_somebody_waits()
        waiting.result(30)

    assert opened(first, second) == [0, 1]


def test_who_waits_longest_comes_first(files):
    """This is true even if a later thread finds an idle connection of its own database."""
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
    """Two places become free before the first waiting thread has woken up."""
    first, second, third = files(3, 2, pool_timeout=30)
    one, other = first.connect(), first.connect()
    with ThreadPoolExecutor(2) as threads:
        barrier = threading.Barrier(2)

        def hold(engine):
            with engine.connect():
                barrier.wait(10)

        waiting = [threads.submit(hold, engine) for engine in (second, third)]
        until_somebody_waits(2)
        with BUDGET.lock:
            one.invalidate()
            other.invalidate()
        for thread in waiting:
            thread.result(30)

    assert opened(first, second, third) == [0, 1, 1]


def test_who_can_go_on_passes_one_who_cannot(files):
    """If a database has all its connections, a thread that waits for it delays no other thread."""
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
    """The rest of the budget is for other databases."""
    busy, other = files(2, 7, pool_timeout=0)
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(busy.connect())
        with pytest.raises(PoolTimeoutError, match="5 of 5 to this database"):
            busy.connect()
        use(other)


@pytest.mark.parametrize("options", [{"pool_size": 0}, {"max_overflow": -1}])
def test_one_database_may_have_the_whole_budget(files, options):
    """SQLAlchemy's own option for no limit allows that."""
    [engine] = files(1, 7, pool_timeout=0, **options)
    with ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(engine.connect())
        with pytest.raises(PoolTimeoutError, match="7 of inf to this database"):
            engine.connect()


def reading(request):
    return Response(str(request.sqa_session.scalar(text("SELECT 1"))))


def test_two_applications_share_the_budget_and_a_full_one_is_a_503(six, serve):
    """When a connection comes back, the next request succeeds."""
    given = {"sqa.max_connections": "2", "sqlalchemy.pool_timeout": "0"}
    first, second = (serve(url, with_view(reading), **given) for url in six[:2])
    with get_sqa(first).engine.connect():
        answer = TestApp(second).get("/", status=503)

    assert answer.headers["Retry-After"] == "5"
    assert TestApp(second).get("/").text == "1"
    assert [get_sqa(app).engine.pool.checkedin() for app in (first, second)] == [0, 1]


def test_each_engine_keeps_to_its_own_limit(files):
    """The engine with the smaller limit uses places, but never makes more connections."""
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
    """A pool with a budget always lends the connection that came back last."""
    with pytest.raises(SettingError, match="pool_use_lifo"):
        budgeted("sqlite:///file", 1, pool_use_lifo="false")


def test_a_database_in_memory_takes_no_part():
    """Its data would be lost if its one connection were closed."""
    engine = budgeted("sqlite://", 1)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE note (body INTEGER)"))
        assert len(BUDGET) == 0
    other = budgeted("sqlite://", 1)
    use(other)

    with engine.connect() as connection:
        assert connection.execute(text("SELECT * FROM note")).all() == []


def test_engines_in_a_budget_keep_few_statements_ready():
    """Each of many engines has its own cache, so the default is small. A setting wins."""
    usual, own = budgeted("sqlite:///a", 1), budgeted("sqlite:///a", 1, query_cache_size=7)

    assert isinstance(usual.pool, BudgetPool)
    # SQLAlchemy has no public name for it.
    assert usual._compiled_cache.capacity == 50  # noqa: SLF001
    assert own._compiled_cache.capacity == 7  # noqa: SLF001


def test_a_disposed_engine_starts_again_with_its_options(files):
    """It keeps all its options."""
    [engine] = files(1, 3, pool_timeout=7, pool_size=2, max_overflow=0, pool_recycle=9)
    before = engine.pool
    engine.dispose()

    assert engine.pool is not before
    for name in ("limit", "bound", "timeout", "_recycle", "_pre_ping", "_reset_on_return"):
        assert getattr(engine.pool, name) == getattr(before, name)
    assert (engine.pool.limit, engine.pool.bound, engine.pool.timeout) == (3, 2, 7)
