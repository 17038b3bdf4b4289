"""For tests and for start-up: bring a database to its last revision, or tell if it is there."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection, Engine

from ..settings import DEFAULT_KEY, read_app_settings, read_section, read_settings
from .configure import Given
from .metadata import models_of
from .products import product_of
from .scripts import GIVEN, find_scripts
from .standing import standing_of

Where = Mapping[str, Any] | str | Path


def alembic_config(
    settings: Where,
    connectable: Engine | Connection | None = None,
    *,
    bind_key: str = DEFAULT_KEY,
) -> Config:
    """Return Alembic's ``Config`` for the database of an application, for tests and for scripts.

    *settings* are those of ``get_appsettings()``, or the path of the ini file, with ``#name`` for
    another section than ``[app:main]``. They say where the revisions are: ``sqa.migrations``, or
    ``script_location`` in ``[alembic]``. *connectable* is the engine or the connection to work on;
    without it the settings name the database. ``sqa.base`` names the models, so that
    ``alembic.command.check()`` raises an error where they and the revisions differ.

    Raises :class:`SettingError` when the settings do not say where the revisions are.
    """
    if isinstance(settings, (str, Path)):
        path, _, name = str(settings).partition("#")
        found: Mapping[str, Any] = read_app_settings(path, name or "main")
    else:
        found = settings
    config = find_scripts(found, bind_key).config
    config.stdout = StringIO()
    read = read_settings(found, read_section(found))
    config.attributes[GIVEN] = Given(
        read, bind_key, connectable=connectable, metadatas=lambda: models_of(read)
    )
    return config


def upgrade_to_head(
    settings: Where,
    connectable: Engine | Connection | None = None,
    *,
    bind_key: str = DEFAULT_KEY,
) -> None:
    """Bring the database of an application to its last revision, in this process. For tests.

    The arguments and the errors are those of :func:`alembic_config`; what a revision raises is
    raised as well. A connection that has begun a transaction is not committed. A database that is
    at its last revision is not changed.
    """
    command.upgrade(alembic_config(settings, connectable, bind_key=bind_key), "heads")


class Heads:
    """Tells whether a database is at its last revision, for a check that runs often.

    The revisions are read once. *settings* are those of ``get_appsettings()``.
    """

    def __init__(self, settings: Mapping[str, Any], bind_key: str = DEFAULT_KEY) -> None:
        scripts = find_scripts(settings, bind_key)
        url = read_settings(settings, read_section(settings)).databases[bind_key].url
        self._product, self._name = product_of(url), url.get_backend_name()
        self._table = scripts.name
        self._heads: Sequence[str] = scripts.heads()

    def is_at_head(self, driver_connection: Any) -> bool:
        """Return whether the database of *driver_connection* is at its last revision."""
        with closing(driver_connection.cursor()) as cursor:
            try:
                cursor.execute(f"SELECT version_num FROM {self._table}")  # noqa: S608 - our own name
            except Exception as error:
                if self._product.is_code(error, self._product.NO_SUCH_TABLE, self._name):
                    return not self._heads
                raise
            return standing_of([row[0] for row in cursor.fetchall()]).is_at(self._heads)
