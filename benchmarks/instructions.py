"""Counts the instructions of a processor inside valgrind, which finds the same in each run.

A benchmark runs its own file again by :func:`count_inside`, and is then inside. It needs valgrind
with its header files, and gcc.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# The environment variable with the folder of the counts, inside valgrind.
FOLDER = "SQA_BENCHMARK"
SHIM = """
#include <valgrind/callgrind.h>
void on(void) { CALLGRIND_START_INSTRUMENTATION; }
void zero(void) { CALLGRIND_ZERO_STATS; }
void dump(char *name) { CALLGRIND_DUMP_STATS_AT(name); }
"""


def can_count():
    """Return whether there is what it needs."""
    return shutil.which("valgrind") is not None and shutil.which("gcc") is not None


def is_inside():
    """Return whether this process runs inside valgrind."""
    return FOLDER in os.environ


def count_inside(file, *arguments):
    """Run *file* again inside valgrind."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "shim.c")
        source.write_text(SHIM)
        library = str(source.with_suffix(".so"))
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, str(source)], check=True)  # noqa: S603, S607 - a benchmark
        options = ["-q", "--tool=callgrind", "--instr-atstart=no", "--combine-dumps=no"]
        command = ["valgrind", *options, f"--callgrind-out-file={folder}/out", sys.executable]
        environ = {"PYTHONHASHSEED": "0", **os.environ, FOLDER: folder}
        subprocess.run([*command, file, *arguments], check=True, env=environ)  # noqa: S603 - a benchmark


class Instructions:
    """Counts what a function does, for a process inside valgrind."""

    def __init__(self):
        self.folder = Path(os.environ[FOLDER])
        self.shim = ctypes.CDLL(str(self.folder / "shim.so"))
        self.shim.on()

    def __call__(self, function):
        """Call *function*, and return how many instructions that took."""
        self.shim.zero()
        function()
        self.shim.dump(b"here")
        newest = max(self.folder.glob("out.*"), key=lambda file: int(file.suffix[1:]))
        found = re.search(r"^(?:summary|totals): (\d+)", newest.read_text(), re.MULTILINE)
        return int(found[1])
