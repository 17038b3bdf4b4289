"""The pytest plugin of pyramid_aalam_sqa: fixtures for an application's own tests.

It stands beside the package, because pytest imports it in every project where the package is
installed. It imports nothing of it before a fixture is used.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyramid_aalam_sqa.debugging import Statements
    from pyramid_aalam_sqa.testing import Faults, Outcomes, Sandbox, SandboxSession

NO_APP = (
    "Write a fixture sqa_app in conftest.py that returns the application: "
    "@pytest.fixture(scope='session') def sqa_app(): return main({}, **settings)"
)
# Where a test keeps the statements that it has recorded.
RECORDED = pytest.StashKey[list[Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the plugin."""
    group = parser.getgroup("pyramid_aalam_sqa")
    group.addoption(
        "--sqa-reuse",
        action="store_true",
        help="keep the databases of sqa_database, and use them again while the models are the same",
    )
    group.addoption(
        "--sqa-commits",
        action="store_true",
        help="let the COMMITs of all tests be real, and put the tables back after each test",
    )
    group.addoption(
        "--sqa-admin-url",
        default=os.environ.get("SQA_ADMIN_URL"),
        help="the URL of an administrator, who makes the databases of sqa_database as psqa does",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark."""
    line = "sqa_commits: COMMITs are real in this test; the tables are put back after it"
    config.addinivalue_line("markers", line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show the statements that a failed test has recorded."""
    report = yield
    if report.failed:
        report.sections += [
            ("sqa_statements", f"{each.count} statements\n{each}")
            for each in item.stash.get(RECORDED, [])
        ]
    return report


@pytest.fixture(scope="session")
def sqa_app() -> Any:
    """The application; each project writes this fixture."""
    pytest.fail(NO_APP)


@pytest.fixture(scope="session")
def sqa_database(pytestconfig: pytest.Config) -> Iterator[Any]:
    """A function that makes a database for this run, or this worker, and returns the settings.

    See ``pyramid_aalam_sqa.testing.database_for_tests``.
    """
    from pyramid_aalam_sqa.testing import database_for_tests  # noqa: PLC0415 - see above

    defaults = {
        # Not from the environment: a test may start a pytest of its own, which is not a worker.
        "worker": getattr(pytestconfig, "workerinput", {}).get("workerid", ""),
        "reuse": pytestconfig.getoption("sqa_reuse"),
        "admin_url": pytestconfig.getoption("sqa_admin_url"),
    }
    with ExitStack() as ends:
        yield lambda settings, **options: ends.enter_context(
            database_for_tests(settings, **{**defaults, **options})
        )


@pytest.fixture
def sqa_sandbox(request: pytest.FixtureRequest, sqa_app: Any) -> Iterator["Sandbox"]:
    """The isolation of one test; all other fixtures of a test use it."""
    from pyramid_aalam_sqa.testing import isolated  # noqa: PLC0415 - see above

    marked = request.node.get_closest_marker("sqa_commits") is not None
    commits = marked or request.config.getoption("sqa_commits")
    with isolated(sqa_app, commits=bool(commits)) as sandbox:
        yield sandbox


@pytest.fixture
def sqa_session(sqa_sandbox: "Sandbox") -> "SandboxSession":
    """The session of the test, which prepares rows and looks at them. It commits by itself."""
    return sqa_sandbox.session


@pytest.fixture
def sqa_outcomes(sqa_sandbox: "Sandbox") -> "Outcomes":
    """What became of each request and job of the test."""
    return sqa_sandbox.outcomes


@pytest.fixture
def sqa_fault(sqa_sandbox: "Sandbox") -> "Faults":
    """The function that orders an accident: *kind*, at a step, how many times."""
    return sqa_sandbox.fault


@pytest.fixture
def sqa_client(sqa_sandbox: "Sandbox") -> Any:
    """WebTest's ``TestApp`` for the application."""
    from pyramid_aalam_sqa.testing import client_of  # noqa: PLC0415 - see above

    return client_of(sqa_sandbox)


@pytest.fixture
def sqa_statements(request: pytest.FixtureRequest, sqa_sandbox: "Sandbox") -> Any:
    """A function that records the statements of a ``with`` block.

    *n_plus_one* is ``off``, ``log`` or ``raise``. A test that fails shows what it has recorded.
    """
    from pyramid_aalam_sqa.debugging import recorded  # noqa: PLC0415 - see above

    shown = request.node.stash.setdefault(RECORDED, [])

    @contextmanager
    def record(n_plus_one: str = "off") -> Iterator["Statements"]:
        with recorded(sqa_sandbox.app, n_plus_one=n_plus_one) as statements:
            shown.append(statements)
            yield statements

    return record


@pytest.fixture
def sqa_request(sqa_sandbox: "Sandbox") -> Iterator[Any]:
    """A DummyRequest with ``sqa_session``, ``sqa_paginate`` and the application's own methods."""
    from pyramid_aalam_sqa.testing import dummy_request  # noqa: PLC0415 - see above

    with dummy_request(sqa_sandbox.app) as request:
        yield request


@pytest.fixture
def sqa_config(sqa_request: Any) -> Iterator[Any]:
    """A Configurator of ``pyramid.testing.testConfig`` for ``sqa_request``."""
    from pyramid.testing import testConfig  # noqa: PLC0415 - see above

    registry = sqa_request.registry
    with testConfig(request=sqa_request, settings=dict(registry.settings)) as config:
        # What this package keeps there; the views and the routes are the test's own.
        own: Any = config.registry
        own.update(registry)
        sqa_request.registry = own
        yield config
    sqa_request.registry = registry


@pytest.fixture
def sqa_server(sqa_sandbox: "Sandbox") -> Iterator[str]:
    """Return the address of the application, which is served by waitress in threads."""
    from pyramid_aalam_sqa.testing import serving  # noqa: PLC0415 - see above

    with serving(sqa_sandbox.app) as address:
        yield address
