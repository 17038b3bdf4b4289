"""Finds the ``[sqlalchemy]`` section of the ini file the application is loaded from.

It is the form that the portal's documents use; the section of the application wins over it.
"""

import sys
from collections.abc import Mapping

import plaster
from paste.deploy.loadwsgi import LoaderContext

SECTION = "sqlalchemy"


def read_section(settings: Mapping[str, object]) -> dict[str, object]:
    """Return the options of ``[sqlalchemy]``, empty when there is no such file or section.

    The file is the one *settings* names as ``__file__`` (an application may hand its global
    configuration over as settings), else the one that is being loaded.
    """
    path = settings.get("__file__") or _file_being_loaded()
    if not path:
        return {}
    return dict(plaster.get_settings(str(path), SECTION))


def _file_being_loaded() -> str | None:
    """PasteDeploy tells the file to nobody but the application's factory, so ask its frame."""
    frame = sys._getframe()  # noqa: SLF001 - inspect.stack() would read source files
    while frame := frame.f_back:  # type: ignore[assignment]  # None ends the walk
        context = frame.f_locals.get("context")
        if isinstance(context, LoaderContext):
            path: str | None = context.global_conf.get("__file__")
            return path
    return None
