"""The settings in effect and where each comes from, as an administrator may see them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from ..backends import backend_for, is_file
from ..engines import make_engine
from ..exceptions import SettingError
from ..settings import DEFAULT, Database, Settings, table
from .server import words

SECRET = "***"  # noqa: S105 - what stands in the place of one


PREFIX = "sqlalchemy."


ARGUMENTS = "connect_args"


NOBODY = "default"


OURS = ("sqlalchemy.", "sqa.", "tm.", "retry.")


VARIABLES = {"sqa.provider": "SQA_PROVIDER", "sqa.app": "SQA_APP"}


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting: its key, what it is, and who said so."""

    key: str
    value: str
    origin: str


def shown(settings: Settings, sections: Mapping[str, Mapping[str, object]]) -> Iterator[Shown]:
    """Yield the settings in effect, in the order of the documentation; a bind has only its own.

    *sections* are those of the ini file under their headings, with full keys; of two that set the
    same key the later one wins.
    """
    database = settings.databases[DEFAULT]
    defaults = _defaults(database, settings.sqa_options)
    found = {key: Shown(key, text, NOBODY) for key, text in defaults.items()}
    provider, _, app = (database.name or "").partition("_")
    for (key, variable), value in zip(VARIABLES.items(), (provider, app), strict=True):
        if value:
            found[key] = Shown(key, value, variable)
    for heading, section in sections.items():
        for key in filter(_is_ours, section):
            # A driver's arguments may hold a password, under whatever name.
            hidden = ARGUMENTS in key and key not in defaults
            found[key] = Shown(key, SECRET if hidden else str(section[key]), heading)
    for each in settings.databases.values():
        for key in {f"{each.prefix}url", f"{each.prefix}engine"} & found.keys():
            found[key] = Shown(key, str(each), found[key].origin)
    order = [option.key for option in table()]
    return iter(sorted(found.values(), key=lambda each: _place(each.key, order)))


def _defaults(database: Database, sqa_options: Mapping[str, Any]) -> dict[str, str]:
    """Return what holds where nothing was written, without what another database has."""
    dialect = backend_for(database.url, sqa_options, database.name)
    every = {option.key: option.default for option in table() if option.default is not None}
    every |= {f"{PREFIX}{key}": text for key, text in dialect.engine_defaults().items()}
    own = database.url.get_backend_name().replace("mariadb", "mysql")
    foreign = tuple(f"sqa.{name}." for name in {"mysql", "sqlite"} - {own})
    return {key: text for key, text in every.items() if not key.startswith(foreign)}


def _is_ours(key: str) -> bool:
    return key.startswith(OURS)


def _place(key: str, order: list[str]) -> tuple[int, str]:
    # An argument of the driver stands where all of them do; SQLAlchemy's dialects add options.
    name = f"{PREFIX}{ARGUMENTS}" if key.startswith(f"{PREFIX}{ARGUMENTS}") else key
    return (order.index(name) if name in order else len(order), key)


def answers(database: Database, sqa_options: Mapping[str, Any]) -> str | None:
    """Return why nobody can log in to *database* as an application does; None when one can."""
    path = database.url.database
    if is_file(database.url) and not Path(str(path)).exists():
        # To connect would make it.
        return f"{path} is not there"
    try:
        engine = make_engine(database, {**sqa_options, "max_connections": None})
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    except DBAPIError as error:
        return words(error)
    except SettingError as error:
        return str(error)
    return None
