"""Makes the engine of a database from its settings, and disposes it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError

from ._dialects import dialect_for
from ._settings import Database, Given, read_options
from .exceptions import SettingError

# What only a pool of SQLAlchemy's own choice is sure to understand.
POOL_DEFAULTS = {"poolclass", "pool_size", "max_overflow", "pool_timeout"}
OWN_POOL = {"pool", "poolclass"}


def make_engine(database: Database, switches: Mapping[str, Any]) -> Engine:
    """Return the engine of *database*; no connection is made before the engine is used.

    Raises :class:`SettingError` when the given options do not go together.
    """
    if database.engine is not None:
        return database.engine
    dialect = dialect_for(database.url, switches)
    options = _with_defaults(database, dialect.engine_defaults())
    try:
        engine = create_engine(database.url, **options)
    except (TypeError, ArgumentError) as error:
        # SQLAlchemy's text names the options, never their values.
        msg = f"sqlalchemy.*: these options do not go together: {error}"
        raise SettingError(msg) from None
    dialect.prepare(engine)
    return engine


def _with_defaults(database: Database, defaults: Mapping[str, str]) -> dict[str, Any]:
    given = dict(database.options)
    in_url = {f"connect_args.{name}" for name in database.url.query}
    unwanted = in_url | (POOL_DEFAULTS if OWN_POOL & given.keys() else set())
    options = read_options(
        (Given(key, key, text) for key, text in defaults.items() if key not in unwanted),
        database.url,
    )
    arguments = {**options.pop("connect_args", {}), **given.pop("connect_args", {})}
    return {**options, **given, "connect_args": arguments}
