"""The databases of the tests: SQLite files, and servers that the session starts and stops."""

import gc
import os
import random
from contextlib import ExitStack

import pytest
from pyramid import threadlocal

from pyramid_aalam_sqa.applications import directory
from support.apps import application
from support.databases import MISSING, Database, own_database
from support.proxied_app import behind_a_proxy
from support.servers import MariaDB, PostgreSQL, find


def _server(program, make):
    if find(program) is None:
        pytest.skip(MISSING[program])
    server = make()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def mariadb_server():
    """A private MariaDB for the tests that need more of a server than a database."""
    yield from _server("mariadbd", MariaDB)


@pytest.fixture(scope="session")
def mariadb_url(request):
    """The MariaDB of SQA_TEST_MYSQL_URL, else the private one."""
    return os.environ.get("SQA_TEST_MYSQL_URL") or request.getfixturevalue("mariadb_server").url()


@pytest.fixture(scope="session")
def second_mariadb_server():
    """Another private MariaDB, for the tests of several databases."""
    yield from _server("mariadbd", MariaDB)


@pytest.fixture(scope="session")
def postgresql_server():
    """A private PostgreSQL."""
    yield from _server("initdb", PostgreSQL)


@pytest.fixture
def sqlite(tmp_path):
    """An SQLite file."""
    return Database(f"sqlite:///{tmp_path}/test.sqlite")


@pytest.fixture
def mariadb(mariadb_url):
    """A database on MariaDB."""
    with own_database(mariadb_url) as database:
        yield database


@pytest.fixture(scope="session")
def postgresql_database(postgresql_server):
    """One database on PostgreSQL: to make one takes longer than most tests."""
    with own_database(postgresql_server.url()) as database:
        yield database


@pytest.fixture
def postgresql(postgresql_database):
    """A database on PostgreSQL, empty."""
    yield postgresql_database
    postgresql_database.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "DROP SCHEMA public CASCADE",
        "CREATE SCHEMA public",
    )


@pytest.fixture(params=["sqlite", "mariadb"])
def database(request):
    """The test runs on each of the two databases that every promise is made for."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def any_database(request):
    """The test runs on all three."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def notes(database):
    """Return what others see of the table that the views write to."""
    database.run("CREATE TABLE note (body VARCHAR(50))")
    return lambda: [row[0] for row in database.rows("SELECT body FROM note ORDER BY body")]


@pytest.fixture
def alone():
    """The test begins without applications of other tests, and without a current request."""
    threadlocal.manager.clear()
    directory.forget_all()


@pytest.fixture
def serve():
    """Make applications as make_app() does; their connections are closed after the test."""
    with ExitStack() as ends:
        yield lambda url, *setups, **settings: ends.enter_context(
            application(url, *setups, **settings)
        )


@pytest.fixture(scope="module")
def proxied(mariadb_url):
    """One database behind one proxy for the tests of a module; each writes rows of its own."""
    with own_database(mariadb_url) as database, behind_a_proxy(database) as (proxy, url):
        yield database, proxy, url


@pytest.fixture
def proxy(proxied):
    """The proxy, letting everything through."""
    proxied[1].forget()
    return proxied[1]


@pytest.hookimpl(hookwrapper=True)
def pytest_terminal_summary(terminalreporter):
    """Say in one line what was skipped for want of a server."""
    yield
    reasons = {str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ())}
    for reason in sorted(reasons):
        terminalreporter.write_line(reason.removeprefix("Skipped: "))


# The files that take longest for the tests they have: if they are begun last, the other
# workers are idle meanwhile.
LONG = (
    *("cookiecutter", "sqlite_load", "concurrency", "demo", "outcome", "threads", "fork", "leaks"),
    *("databases", "isolation", "shop"),
)


def _mark_sweeps(items):
    """Mark all cases of a test with the marker sweep(n) as deep, but for *n* of them.

    They are drawn by lot, so that no parameter is always the same. The lot is the same in each run.
    """
    tests = {}
    for item in items:
        if item.get_closest_marker("sweep"):
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for name, cases in tests.items():
        kept = cases[0].get_closest_marker("sweep").args[0]
        others = len(cases) - kept
        for case in random.Random(name).sample(cases, others):
            case.add_marker("deep")


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by the marker "deep"
def pytest_collection_modifyitems(items):
    """Mark what is swept in test-deep alone, and begin with the longest files."""
    _mark_sweeps(items)
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)


def pytest_collection_finish():
    """Spare the collector, which some tests call, all that lives as long as the session."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session, exitstatus):
    """Where skips are forbidden (in CI), a skipped test fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    # The workers of a parallel run report to the one process that has the reporter.
    skipped = reporter is not None and reporter.stats.get("skipped")
    if os.environ.get("SQA_FORBID_SKIPS") and skipped and not exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
