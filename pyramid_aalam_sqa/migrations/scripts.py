"""Finds the revisions of an application, and how Alembic is told of them.

The setting ``sqa.migrations`` names their folder, else ``script_location`` in ``[alembic]`` does.
The default database has its revisions in ``versions``, the bind ``audit`` in ``versions_audit``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import coerce_resource_to_filename

from ..exceptions import MigrationError, SettingError
from ..settings import DEFAULT_KEY

SECTION = "alembic"
VERSION_TABLE = "alembic_version"
# Where an env.py is told which database it works on: in the attributes of Alembic's Config.
GIVEN = "pyramid_aalam_sqa"
# The folder of the env.py and the template for applications that have none.
OWN_ENVIRONMENT = Path(__file__).parent / "environment"
USES_RUN = re.compile(r"pyramid_aalam_sqa\.migrations\b|\bpyramid_aalam_sqa import migrations\b")
NO_FOLDER = (
    "Where the revisions are is not set: write sqa.migrations = package:folder in the "
    "application's section of the ini file."
)


@dataclass(frozen=True)
class Scripts:
    """The revisions for one database of an application.

    ``config`` is for Alembic's commands; ``versions`` is the folder of the revisions. ``name`` is
    that of the version table.
    """

    config: Config
    versions: Path
    name: str

    @property
    def directory(self) -> ScriptDirectory:
        """The revisions, read anew; their modules are imported."""
        return ScriptDirectory.from_config(self.config)

    def heads(self) -> tuple[str, ...]:
        """Return the last revisions. Raises :class:`MigrationError` if a file cannot be read."""
        try:
            return tuple(self.directory.get_heads())
        except Exception as error:  # noqa: BLE001 - an import runs code, which may raise anything
            msg = f"{self.versions} cannot be read: {type(error).__name__}: {error}"
            raise MigrationError(msg) from None


def version_table(key: str) -> str:
    """Return the name of the version table of the bind *key*."""
    return VERSION_TABLE if key == DEFAULT_KEY else f"{VERSION_TABLE}_{key}"


def journal_table(key: str) -> str:
    """Return the name of the table that says how far a revision has come."""
    return f"{version_table(key)}_journal"


def find_scripts(settings: Mapping[str, Any], key: str = DEFAULT_KEY) -> Scripts:
    """Return the revisions for the bind *key* of the application with *settings*.

    *settings* are those of ``get_appsettings()``. Raises :class:`SettingError` when they do not say
    where the revisions are.
    """
    config = ini_config(settings)
    location = _location(settings, config)
    if not location:
        raise SettingError(NO_FOLDER)
    folder = _folder(location)
    env = folder / "env.py"
    own = env.is_file() and USES_RUN.search(env.read_text())
    versions = folder / ("versions" if key == DEFAULT_KEY else f"versions_{key}")
    listed = config.file_config.has_section(SECTION) and config.get_main_option("version_locations")
    _set(config, "script_location", str(folder if own else OWN_ENVIRONMENT))
    if not (listed and key == DEFAULT_KEY):
        _set(config, "version_locations", str(versions))
        _set(config, "path_separator", "newline")
    return Scripts(config, versions, version_table(key))


def ini_config(settings: Mapping[str, Any]) -> Config:
    """Return Alembic's Config of the ini file that *settings* come from, if they come from one."""
    path = {**getattr(settings, "global_conf", {}), **settings}.get("__file__")
    return Config(str(path) if path else None)


def _location(settings: Mapping[str, Any], config: Config) -> str | None:
    own = settings.get("sqa.migrations")
    if own or not config.file_config.has_section(SECTION):
        return own
    return config.get_main_option("script_location")


def _folder(location: str) -> Path:
    try:
        return Path(coerce_resource_to_filename(location)).absolute()
    except (ImportError, ValueError) as error:
        msg = (
            f"sqa.migrations: {location!r} cannot be found ({error}): install the application, or "
            "write the folder of its package into PYTHONPATH."
        )
        raise SettingError(msg) from None


def _set(config: Config, name: str, value: str) -> None:
    config.set_main_option(name, value.replace("%", "%%"))
