"""The benchmarks can be started. A person reads what they measure."""

import subprocess
import sys

import pytest

from support.pages import ROOT

BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda script: script.stem)
@pytest.mark.sweep(2)
def test_a_benchmark_can_be_started(script):
    """Its imports work. If it is imported, it measures nothing."""
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(script.parent)!r}); "
        f"print(len(runpy.run_path({str(script)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
