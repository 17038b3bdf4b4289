"""Writes a new application: the files of ``skeleton``, with the name of its package put in."""

import keyword
import os
import re
from importlib.util import find_spec
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from ..settings import is_app
from .sources import UsageError

SKELETON = Path(__file__).parent / "skeleton"
# At the end of each name, so that no tool takes a template for Python.
ENDING = ".tmpl"
# What stands in the skeleton for the folder of the package.
PACKAGE = "package"
# Another folder of the new application has this name.
TESTS = "tests"
RULE = "write lower-case letters and digits in words joined by single underscores, a letter first"


def write_application(folder: Path) -> int:
    """Write a new application into *folder*, and return the number of its files.

    The name of *folder* is the name of the application's package. *folder* appears with all of its
    files, or not at all. Raises UsageError when it is there already, when it cannot be written, or
    when a package cannot have its name.
    """
    name = check_name(folder.name)
    if os.path.lexists(folder):
        msg = f"{folder} is there already: name a folder that does not exist yet."
        raise UsageError(msg)
    if not folder.parent.is_dir():
        msg = f"There is no folder {folder.parent}: make it first."
        raise UsageError(msg)
    try:
        with TemporaryDirectory(prefix=f".{name}.", dir=folder.parent) as beside:
            written = Path(beside, name)
            count = _write_files(written, name)
            written.rename(folder)
    except OSError as error:
        msg = f"{folder} cannot be written: {error.strerror}."
        raise UsageError(msg) from None
    return count


def check_name(name: str) -> str:
    """Return *name*. Raises UsageError, with what to write instead, if no package can have it."""
    if not is_app(name):
        wanted = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        advice = f"write {wanted}" if is_app(wanted) else RULE
        msg = f"A package cannot be called {name!r}: {advice}."
        raise UsageError(msg)
    if keyword.iskeyword(name):
        msg = f"{name!r} is a word of Python's own: choose another name for the package."
        raise UsageError(msg)
    found = find_spec(name)
    # A folder without a module in it has no origin. It hides nothing.
    if name == TESTS or (found is not None and found.origin is not None):
        msg = f"Python would find another module called {name!r}: choose another name."
        raise UsageError(msg)
    return name


def _write_files(folder: Path, name: str) -> int:
    templates = [path for path in SKELETON.rglob(f"*{ENDING}") if path.is_file()]
    for path in templates:
        parts = path.relative_to(SKELETON).with_name(path.name.removesuffix(ENDING)).parts
        file = folder.joinpath(*(name if part == PACKAGE else part for part in parts))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(path.read_text("utf-8")).substitute(package=name), "utf-8")
    return len(templates)
