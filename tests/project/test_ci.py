"""On a machine without a database server, tests are skipped visibly, and CI fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
# As on a machine where no server program is installed.
RUN = """
import sys
from support import servers
servers.find = lambda program: None
import pytest
sys.exit(pytest.main(["-p", "no:cacheprovider", "requests/test_request.py", "-k", "no_statement"]))
"""


def run(**environ):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SQA_")}
    return subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=HERE,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_without_mariadb_passes_and_says_in_one_line_what_it_skipped():
    """The tests on SQLite need only Python."""
    done = run()
    said = [line for line in done.stdout.splitlines() if line.startswith("MariaDB tests skipped")]

    assert done.returncode == 0
    assert len(said) == 1
    assert "2 passed, 2 skipped" in done.stdout


@pytest.mark.deep
def test_a_run_without_mariadb_fails_where_skips_are_forbidden():
    """In CI, a skipped test counts as a failed test."""
    done = run(SQA_FORBID_SKIPS="1")

    assert done.returncode == 1
    assert "2 passed, 2 skipped" in done.stdout


def test_ci_forbids_skips_and_runs_what_a_developer_runs():
    """CI and developers use the same command."""
    script = (HERE.parent / ".ci" / "run").read_text()

    assert "export SQA_FORBID_SKIPS=1" in script
    assert "make test" in script
