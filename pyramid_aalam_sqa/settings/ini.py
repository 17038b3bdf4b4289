"""Finds the section ``[sqlalchemy]`` of the ini file that the application is loaded from.

The portal's documents write settings there. The application's own section wins over it.
"""

import configparser
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import unquote

from paste.deploy.loadwsgi import APP, ConfigLoader, LoaderContext

from ..exceptions import SettingError

SECTION = "sqlalchemy"

# How a section of an application is called in an ini file.
APPLICATION_PREFIXES = ("app:", "application:")
# How its ``use`` names another ini file; its section follows after a #.
OTHER_FILE = "config:"


def read_section(settings: Mapping[str, object]) -> dict[str, str]:
    """Return the options of ``[sqlalchemy]``; empty if there is no such file or section.

    If the application's section says ``use = config:other.ini``, the section of that file is read
    too. An option of the first file wins over it.

    The file is the one that *settings* name as ``__file__``, else the one that PasteDeploy is
    loading. ``__file__`` is in the global configuration. Some applications pass that on as
    settings, and get_appsettings() keeps it in an attribute. Raises :class:`SettingError` for a
    value with a wrong percent sign.
    """
    loader = getattr(context_in_use(), "loader", None)
    path = {**getattr(settings, "global_conf", {}), **settings}.get("__file__")
    if path and (loader is None or Path(loader.filename).resolve() != Path(str(path)).resolve()):
        loader = _load(str(path))
    try:
        loaders = [] if loader is None else [loader, *_used_files(loader, settings)]
        # The last file first, so that the first one wins.
        return {key: value for each in reversed(loaders) for key, value in _section(each.parser)}
    except configparser.InterpolationError as error:
        # Not chained, because its text quotes the value, which may be a password.
        msg = (
            f"[{error.section}] {error.option}: write a percent sign as %%, "
            "and give each %(name)s a value."
        )
        raise SettingError(msg) from None


def read_app_settings(path: str, name: str = "main") -> Any:
    """Return the settings of the application *name* in the ini file at *path*, importing nothing.

    They are what ``get_appsettings()`` returns, of the application at the end of a pipeline too,
    and have the global configuration as ``global_conf``. The package that ``use`` names is neither
    imported nor looked for. Raises what PasteDeploy raises.
    """
    context = SettingsLoader(path).get_context(APP, name)
    while (inner := _application_behind(context)) is not None:
        context = inner
    return context.config()


def _application_behind(context: Any) -> Any:
    """Return the context of the application behind a pipeline or a filter; None for one itself."""
    return getattr(context, "app_context", None) or getattr(context, "next_context", None)


class SettingsLoader(ConfigLoader):  # type: ignore[misc]  # paste has no types
    """Reads what an application is told, and does not import the application."""

    def get_context(
        self, object_type: Any, name: str | None = None, global_conf: Any = None
    ) -> LoaderContext:
        """Return the context of the section *name*; where it would be imported, an empty one."""
        kind, colon, rest = (name or "").partition(":")
        if not colon or not self.absolute_name(name):
            return super().get_context(object_type, name, global_conf)
        if kind != "config":
            return LoaderContext(None, object_type, None, global_conf or {}, {}, self)
        path, _, section = rest.partition("#")
        whole = Path(self.filename).parent / unquote(path.removeprefix("//"))
        loader = SettingsLoader(str(whole))
        loader.update_defaults(global_conf or {}, overwrite=False)
        return loader.get_context(object_type, section or None, global_conf)

    def _context_from_explicit(
        self,
        object_type: Any,
        local_conf: Any,
        global_conf: Any,
        global_addition: Any,
        section: Any,
    ) -> LoaderContext:
        """Return the context of a section that names its factory itself."""
        return LoaderContext(None, object_type, None, global_conf, local_conf, self)


def _section(parser: configparser.ConfigParser) -> list[tuple[str, str]]:
    if not parser.has_section(SECTION):
        return []
    # A parser adds the keys of [DEFAULT] to each section.
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
            loader = _load(str(Path(loader.filename).parent / file))
            if loader is None:
                return
            # The variables of pserve's command line; `here` is that of the file itself.
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
    """Return the application's section: the one whose options agree best with *settings*.

    PasteDeploy does not tell its name.
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
    """Return PasteDeploy's context of the application whose factory is running; None if none is.

    PasteDeploy passes it to the factory alone, so it is read from PasteDeploy's frame. Its loader
    knows the variables of pserve's command line; the file does not.
    """
    for frame in _frames_of_paste():
        context = frame.f_locals.get("context")
        if isinstance(getattr(context, "loader", None), ConfigLoader):
            return context
    return None


def is_loading() -> bool:
    """Return whether PasteDeploy is loading something, such as an application's module."""
    return any(True for _ in _frames_of_paste())


def _frames_of_paste() -> Iterator[FrameType]:
    """Yield PasteDeploy's frames on the stack that load something, the innermost first.

    The caller may read their f_locals. Until Python 3.13 that keeps the variables of a frame alive,
    so it is not done to other frames.
    """
    frame = sys._getframe()  # noqa: SLF001 - inspect.stack() would read source files
    while frame := frame.f_back:  # type: ignore[assignment]  # None ends the walk
        # While a server runs, its main thread stays in this function.
        serving = frame.f_code.co_name == "server_wrapper"
        if frame.f_globals.get("__name__") == LoaderContext.__module__ and not serving:
            yield frame


def _load(path: str) -> Any:
    try:
        return ConfigLoader(path)
    except (OSError, UnicodeError, configparser.Error):
        # The application was loaded from something else than an ini file.
        return None
