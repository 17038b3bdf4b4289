"""The tests of a small shop, written as a user writes them: on each database, in each way."""

import os
import random
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.databases import own_database
from support.processes import TRACED

SHOP = Path(__file__).parent / "shop"
ARGUMENTS = (
    *("-c", str(SHOP / "pytest.ini"), f"--rootdir={SHOP}", f"--confcutdir={SHOP / 'tests'}"),
    # The plugin of pytest-alembic 0.13 does not go with pytest 9.
    *("-p", "no:queryguard", "-p", "no:pytest_alembic", "-q", "-rA", str(SHOP / "tests")),
)


class Shop:
    """The shop's tests with databases of the test's own."""

    def __init__(self, url, audit):
        self.seed = str(random.random())
        self.environ = {**TRACED, "SHOP_URL": url, "SHOP_AUDIT_URL": audit}

    def run(self, *arguments):
        """Run them, and return which have passed."""
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *ARGUMENTS, *arguments],
            cwd=SHOP,
            env={**os.environ, **self.environ, "SHUFFLE": self.seed, "PYTHONPATH": str(SHOP)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        return {line.split(" ", 1)[1] for line in lines if line.startswith("PASSED ")}


DATABASES = [
    "mariadb",
    pytest.param("sqlite", marks=pytest.mark.deep),
    pytest.param("postgresql", marks=pytest.mark.deep),
]


@pytest.fixture(params=DATABASES)
def shop(request, tmp_path):
    """Two empty databases that stay, because the shop's tests have not made them."""
    with ExitStack() as ends:
        if request.param == "sqlite":
            yield Shop(f"sqlite:///{tmp_path}/shop.sqlite", f"sqlite:///{tmp_path}/audit.sqlite")
            return
        server = request.getfixturevalue(f"{request.param}_server")
        urls = [ends.enter_context(own_database(server.url())).url for _ in range(2)]
        yield Shop(*urls)


@pytest.mark.deep
def test_the_shop_s_tests_pass_in_random_order(shop):
    """Requests, jobs, threads, accidents: each test finds the databases empty."""
    assert len(shop.run("-p", "shuffle")) >= 60


@pytest.mark.deep
def test_the_sandbox_tells_no_lies(shop):
    """The same tests pass in the sandbox and against real COMMITs, in two processes."""
    in_sandbox = shop.run("-n", "2", "-p", "shuffle")

    assert shop.run("-n", "2", "-p", "shuffle", "--sqa-commits") == in_sandbox


@pytest.mark.deep
def test_the_shop_s_tests_pass_twice_on_one_database(shop):
    """`--sqa-reuse` keeps the databases, which each run leaves as it has found them."""
    first = shop.run("--sqa-reuse")

    assert shop.run("--sqa-reuse", "-p", "shuffle") == first == shop.run()
