"""docs/guide/testing.md: its files make a project whose tests pass."""

import subprocess
import sys

from support.pages import ROOT, blocks

PAGE = ROOT / "docs" / "guide" / "testing.md"


def test_the_tests_of_the_page_pass(tmp_path):
    """Written into one folder, as the page says."""
    for block in blocks(PAGE, "python"):
        name = block.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(block)
    [ini] = blocks(PAGE, "ini")
    (tmp_path / "testing.ini").write_text(ini)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:queryguard", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert not (tmp_path / "testing.sqlite").exists()
