"""Finds the line of the application that asked for a statement, among the frames of libraries."""

import os
import sysconfig
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pyramid.router
import sqlalchemy

ROOM = Path(__file__).parent
PACKAGE = ROOM.parent
# The demo is an application, though it lies in this package.
DEMO = PACKAGE / "demo"
# What only these rooms send is the package's own: the set-up of a connection, for example.
OWN = tuple(f"{PACKAGE / room}{os.sep}" for room in ("backends", "engines"))
SQLALCHEMY = f"{Path(sqlalchemy.__file__).parent}{os.sep}"
LIBRARIES = tuple(
    f"{folder}{os.sep}"
    for folder in {
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
        sysconfig.get_path("scripts"),
    }
)
INSTALLED = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))


# Until Python 3.12 each is a function of its own, which no reader would search for.
COMPREHENSIONS = {"<listcomp>", "<setcomp>", "<dictcomp>"}


class Line(NamedTuple):
    """One line of an application: *file* is a path, *function* where the line is in it."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{short_path(self.file)}:{self.line} in {self.function}"


def short_path(path: str) -> str:
    """Return *path* from the current folder on, or its last three parts."""
    here = f"{Path.cwd()}{os.sep}"
    return path.removeprefix(here) if path.startswith(here) else "/".join(Path(path).parts[-3:])


# What kind of file a frame is in; the answer of each file is kept.
_kinds: dict[str, str] = {}


def _kind_of(path: str) -> str:
    kind = _kinds.get(path)
    if kind is None:
        kind = _kinds[path] = _find_kind(path)
    return kind


def _find_kind(path: str) -> str:
    if path == pyramid.router.__file__:
        return "router"
    if path.startswith(SQLALCHEMY):
        return "sqlalchemy"
    if path.startswith(OWN):
        return "own"
    if path.startswith(f"{DEMO}{os.sep}"):
        return "application"
    if path.startswith(f"{PACKAGE}{os.sep}"):
        return "ours"
    # "<string>" and the like: code that was made, by a dataclass for example.
    made = path.startswith("<")
    library = path.startswith(LIBRARIES) or any(part in path for part in INSTALLED)
    return "library" if made or library else "application"


def find_line(frame: FrameType | None, package: str = "") -> tuple[bool, Line | None]:
    """Return whether this package sent the statement itself, and the application's line.

    *frame* is the one to begin with, the walk goes outwards and ends at Pyramid's router: what is
    above it, a server or a test, did not ask. *package* is the application's, which is found also
    where it is installed among the libraries.
    """
    inside = False
    while frame is not None:
        kind = _kind_of(frame.f_code.co_filename)
        if kind == "sqlalchemy":
            inside = True
        elif kind == "router":
            break
        elif kind == "own" and inside:
            # The first frame that is not SQLAlchemy's is the one that asked it.
            return True, None
        elif kind == "application" or (kind == "library" and package and _is_in(frame, package)):
            return False, _line_of(frame)
        else:
            inside = False
        frame = frame.f_back
    return False, None


def _is_in(frame: FrameType, package: str) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] == package


def _line_of(frame: FrameType) -> Line:
    code, line = frame.f_code, frame.f_lineno
    template = frame.f_globals.get("__jinja_template__")
    if template is not None:
        # The frame counts the lines of the Python that Jinja has made of the template.
        return Line(code.co_filename, template.get_corresponding_lineno(line), "template")
    outer: FrameType | None = frame
    while outer is not None and outer.f_code.co_name in COMPREHENSIONS:
        outer = outer.f_back
    function = outer.f_code.co_name if outer is not None else code.co_name
    return Line(code.co_filename, line, function)
