"""Finds the section ``[sqlalchemy]`` in the ini file that the application is loaded from.

Applications of the portal have their settings there. The application's own section wins over it.
"""

import configparser
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from ..exceptions import SettingError

SECTION = "sqlalchemy"

# The module in which PasteDeploy loads applications. It is not imported here, because not every
# application has an ini file.
PASTE = "paste.deploy.loadwsgi"

# In an ini file, the name of an application's section begins with one of these.
APPLICATION_PREFIXES = ("app:", "application:")
# ``use = config:other.ini#name`` means the section of the application *name* in another ini file.
OTHER_FILE = "config:"


def read_section(settings: Mapping[str, object]) -> dict[str, str]:
    """Return the options of ``[sqlalchemy]``; empty if there is no such file or section.

    If the application's section says ``use = config:other.ini``, ``[sqlalchemy]`` is read from
    that file too. If both files set an option, the first file wins.

    The ini file is the setting ``__file__``, or else the file that PasteDeploy is loading.
    ``__file__`` comes from PasteDeploy's global configuration: some applications copy that into
    their settings, and get_appsettings() returns it as the attribute ``global_conf``. Raises
    :class:`SettingError` for a value with a wrong percent sign.
    """
    loader = getattr(context_in_use(), "loader", None)
    path = {**getattr(settings, "global_conf", {}), **settings}.get("__file__")
    if path and (loader is None or Path(loader.filename).resolve() != Path(str(path)).resolve()):
        loader = _load_ini(str(path))
    try:
        loaders = [] if loader is None else [loader, *_used_files(loader, settings)]
        # The last file is read first, so that the first file overwrites its values.
        return {
            key: value
            for each in reversed(loaders)
            for key, value in _items_of_section(each.parser)
        }
    except configparser.InterpolationError as error:
        # "from None", because the text of *error* quotes the value, which may be a password.
        msg = (
            f"[{error.section}] {error.option}: write a percent sign as %%, "
            "and give each %(name)s a value."
        )
        raise SettingError(msg) from None


def read_app_settings(path: str, name: str = "main") -> Any:
    """Return the settings of the application *name* in the ini file at *path*.

    They are the same as from ``get_appsettings()``, with the global configuration as the attribute
    ``global_conf``, but the application is not imported and may even not be installed. If *name* is
    a pipeline, they are the settings of the application at its end. Raises what PasteDeploy raises.
    """
    from .paste_loader import load_settings  # noqa: PLC0415 - as in _load_ini()

    return load_settings(path, name)


def _items_of_section(parser: configparser.ConfigParser) -> list[tuple[str, str]]:
    if not parser.has_section(SECTION):
        return []
    # The parser adds the keys of [DEFAULT] to each section; they are left out here.
    shared = parser.defaults().items()
    return [item for item in parser.items(SECTION) if item not in shared]


def _used_files(loader: Any, settings: Mapping[str, object]) -> Iterator[Any]:
    """Yield a loader for each further ini file that the section of the application uses."""
    section = _section_in_use(loader.parser, settings)
    while section is not None:
        use = loader.parser.get(section, "use", fallback="")
        if use.startswith(OTHER_FILE):
            file, _, name = use.removeprefix(OTHER_FILE).partition("#")
            defaults = dict(loader.parser.defaults())
            loader = _load_ini(str(Path(loader.filename).parent / file))
            if loader is None:
                return
            # Add the variables of pserve's command line. `here` stays the folder of this file.
            loader.update_defaults(defaults, overwrite=False)
            yield loader
        else:
            name = use
        names = [f"{prefix}{name or 'main'}" for prefix in APPLICATION_PREFIXES]
        following = next((each for each in names if loader.parser.has_section(each)), None)
        section = None if following == section else following


def _section_in_use(
    parser: configparser.ConfigParser, settings: Mapping[str, object]
) -> str | None:
    """Return the name of the application's section, None if there is no such section.

    PasteDeploy does not pass the name to the application. So this takes the section whose options
    agree best with *settings*.
    """
    found: list[tuple[int, bool, str]] = []
    for section in parser.sections():
        if section.startswith(APPLICATION_PREFIXES):
            agree = [
                settings[key] == value for key, value in parser.items(section) if key in settings
            ]
            score = 2 * sum(agree) - len(agree)
            found.append((score, section.endswith(":main"), section))
    return max(found)[2] if found else None


def context_in_use() -> Any:
    """Return PasteDeploy's context of the application that it is loading; None if it loads none.

    PasteDeploy does not pass the context to code that the factory calls, so it is read from
    PasteDeploy's frame on the stack. The context's loader has the variables of pserve's command
    line, which are not in the file.
    """
    for frame in _frames_of_paste():
        context = frame.f_locals.get("context")
        # Of PasteDeploy's loaders, the one for ini files has a parser.
        if hasattr(getattr(context, "loader", None), "parser"):
            return context
    return None


def is_loading() -> bool:
    """Return whether PasteDeploy is loading something, such as an application's module."""
    return any(True for _ in _frames_of_paste())


def _frames_of_paste() -> Iterator[FrameType]:
    """Yield those frames on the stack in which PasteDeploy loads something, the innermost first.

    The callers read f_locals of these frames only. Before Python 3.13, reading f_locals keeps the
    variables of a frame alive.
    """
    frame = sys._getframe()  # noqa: SLF001 - inspect.stack() would read source files
    while frame := frame.f_back:  # type: ignore[assignment]  # None ends the walk
        # A running server's main thread stays in this function of PasteDeploy, and loads nothing.
        serving = frame.f_code.co_name == "server_wrapper"
        if frame.f_globals.get("__name__") == PASTE and not serving:
            yield frame


def _load_ini(path: str) -> Any:
    from .paste_loader import make_loader  # noqa: PLC0415 - there may be no ini file

    try:
        return make_loader(path)
    except (OSError, UnicodeError, configparser.Error):
        # The application was not loaded from an ini file.
        return None
