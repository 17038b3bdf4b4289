"""Finds the ``[sqlalchemy]`` section of the ini file the application is loaded from.

It is the form that the portal's documents use; the section of the application wins over it.
"""

import configparser
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from paste.deploy.loadwsgi import ConfigLoader, LoaderContext

from ..exceptions import SettingError

SECTION = "sqlalchemy"


def read_section(settings: Mapping[str, object]) -> dict[str, str]:
    """Return the options of ``[sqlalchemy]``, empty when there is no such file or section.

    The file is the one *settings* names as ``__file__`` (an application may hand its global
    configuration over as settings; get_appsettings() keeps it in an attribute), else the one that
    is being loaded.
    """
    loader = getattr(context_in_use(), "loader", None)
    path = {**getattr(settings, "global_conf", {}), **settings}.get("__file__")
    if path and (loader is None or Path(loader.filename).resolve() != Path(str(path)).resolve()):
        loader = _load(str(path))
    try:
        return _section(loader.parser) if loader else {}
    except configparser.InterpolationError as error:
        # Not chained: its text quotes the value, which may hold a password.
        msg = (
            f"[{error.section}] {error.option}: write a percent sign as %%, "
            "and give each %(name)s a value."
        )
        raise SettingError(msg) from None


def _section(parser: configparser.ConfigParser) -> dict[str, str]:
    if not parser.has_section(SECTION):
        return {}
    # A parser counts the keys of [DEFAULT] to each section.
    shared = parser.defaults().items()
    return dict(item for item in parser.items(SECTION) if item not in shared)


def context_in_use() -> Any:
    """Return PasteDeploy's context of the application whose factory is running; None outside one.

    It is told to nobody but the factory, so ask PasteDeploy's frame. Its loader, unlike the file,
    knows the variables of pserve's command line.
    """
    for frame in _frames_of_paste():
        context = frame.f_locals.get("context")
        if isinstance(getattr(context, "loader", None), ConfigLoader):
            return context
    return None


def is_loading() -> bool:
    """Tell whether PasteDeploy is loading something just now, such as an application's module."""
    return any(True for _ in _frames_of_paste())


def _frames_of_paste() -> Iterator[FrameType]:
    """Yield PasteDeploy's frames that load something, the innermost first.

    No other frame is looked into: until Python 3.13 one that was keeps what its variables held.
    """
    frame = sys._getframe()  # noqa: SLF001 - inspect.stack() would read source files
    while frame := frame.f_back:  # type: ignore[assignment]  # None ends the walk
        # The main thread of a server never leaves its wrapper.
        serving = frame.f_code.co_name == "server_wrapper"
        if frame.f_globals.get("__name__") == LoaderContext.__module__ and not serving:
            yield frame


def _load(path: str) -> Any:
    try:
        return ConfigLoader(path)
    except (OSError, UnicodeError, configparser.Error):
        # The application was loaded from something that is no ini file.
        return None
