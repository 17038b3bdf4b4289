"""Loads an ini file as PasteDeploy does. This is the only module that imports PasteDeploy.

It is imported where there is an ini file: an application may have its settings from elsewhere.
"""

from pathlib import Path
from typing import Any
from urllib.parse import unquote

from paste.deploy.loadwsgi import APP, ConfigLoader, LoaderContext


def make_loader(path: str) -> Any:
    """Return PasteDeploy's loader of the ini file at *path*. Raises what PasteDeploy raises."""
    return ConfigLoader(path)


def load_settings(path: str, name: str) -> Any:
    """Return the settings of the application *name*; see ``read_app_settings()``."""
    context = SettingsLoader(path).get_context(APP, name)
    while (inner := _wrapped_context(context)) is not None:
        context = inner
    return context.config()


def _wrapped_context(context: Any) -> Any:
    """Return the context that a pipeline or a filter wraps; None if *context* wraps none."""
    return getattr(context, "app_context", None) or getattr(context, "next_context", None)


class SettingsLoader(ConfigLoader):  # type: ignore[misc]  # paste has no types
    """Reads the settings of an application without importing the application."""

    def get_context(
        self, object_type: Any, name: str | None = None, global_conf: Any = None
    ) -> LoaderContext:
        """Return the context of *name*; an empty one if *name* is not a section but a package."""
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
