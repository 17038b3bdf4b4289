"""Lists the settings in effect, without secrets, as ``psqa show`` prints them."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError

from ..backends import backend_for, is_file, is_memory
from ..engines import host_in_use, make_engine
from ..exceptions import ProvisioningError, SettingError
from ..settings import DEFAULT_KEY, Database, Settings, all_options
from .server import error_text
from .sqlite import SQLiteServer
from .tenant import Tenant

MASK = "***"
ENGINE_PREFIX = "sqlalchemy."
ARGUMENTS = "connect_args"
BIND = re.compile(r"^sqlalchemy\.binds\.[^.]*\.")
SECRET_NAME = re.compile(r"passwd|password(?!_file)|secret|token|private", re.IGNORECASE)
FROM_DEFAULTS = "default"
# How the keys begin that this package reads.
PREFIXES = ("sqlalchemy.", "sqa.", "tm.", "retry.")
VARIABLES = {"sqa.provider": "SQA_PROVIDER", "sqa.app": "SQA_APP"}


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """One setting: its key, its value as it may be shown, and where it was written."""

    key: str
    value: str
    origin: str


def settings_in_effect(
    settings: Settings, sections: Mapping[str, Mapping[str, object]]
) -> Iterator[ShownSetting]:
    """Yield the settings in effect in the order of the documentation.

    *sections* are those of the ini file under their headings, with full keys; where two set one
    key, the later section wins. Of a bind only what was written for it is yielded.
    """
    database = settings.databases[DEFAULT_KEY]
    defaults = _defaults(database, settings.sqa_options)
    found = {key: ShownSetting(key, text, FROM_DEFAULTS) for key, text in defaults.items()}
    provider, _, app = (database.name or "").partition("_")
    for (key, variable), value in zip(VARIABLES.items(), (provider, app), strict=True):
        if value:
            found[key] = ShownSetting(key, value, variable)
    for heading, section in sections.items():
        for key, given in section.items():
            if key.startswith(PREFIXES):
                shown = MASK if _is_secret(key, str(given), defaults) else str(given)
                found[key] = ShownSetting(key, shown, heading)
    for each in settings.databases.values():
        for key in {f"{each.prefix}url", f"{each.prefix}engine"} & found.keys():
            found[key] = ShownSetting(key, str(each), found[key].origin)
    order = [option.key for option in all_options()]
    return iter(sorted(found.values(), key=lambda each: _place(each.key, order)))


def _is_secret(key: str, value: str, defaults: Mapping[str, str]) -> bool:
    """Tell whether *value* must not be shown.

    An argument of a driver may be a password, whatever the driver calls it, and a URL in the wrong
    place has one. The URLs of the databases are shown without theirs later.
    """
    # A bind has the options of the default database.
    option = BIND.sub(ENGINE_PREFIX, key)
    if option in {f"{ENGINE_PREFIX}url", f"{ENGINE_PREFIX}engine"}:
        return False
    secret = {each.key for each in all_options() if each.secret}
    of_driver = ARGUMENTS in option and option not in defaults
    return option in secret or of_driver or "://" in value or bool(SECRET_NAME.search(option))


def _defaults(database: Database, sqa_options: Mapping[str, Any]) -> dict[str, str]:
    """Return what holds where nothing was written, without the options of other databases."""
    backend = backend_for(database.url, sqa_options, database.name)
    every = {option.key: option.default for option in all_options() if option.default is not None}
    every |= {f"{ENGINE_PREFIX}{key}": text for key, text in backend.engine_defaults().items()}
    own = database.url.get_backend_name().replace("mariadb", "mysql")
    foreign = tuple(f"sqa.{name}." for name in {"mysql", "sqlite"} - {own})
    return {key: text for key, text in every.items() if not key.startswith(foreign)}


def _place(key: str, order: list[str]) -> tuple[int, str]:
    """Return what *key* is sorted by; the options that only a dialect knows come last."""
    of_driver = key.startswith(f"{ENGINE_PREFIX}{ARGUMENTS}")
    name = f"{ENGINE_PREFIX}{ARGUMENTS}" if of_driver else key
    return (order.index(name) if name in order else len(order), key)


def try_login(database: Database, sqa_options: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return why the application cannot log in to *database*, None when it can, and at which host.

    The host is None unless *sqa_options* have several.
    """
    path = database.url.database
    if is_file(database.url) and not os.path.lexists(str(path)):
        # To connect would make the file.
        return f"{path} is not there", None
    try:
        with _guard(database):
            engine = make_engine(database, {**sqa_options, "max_connections": None})
            try:
                engine.connect().close()
                return None, host_in_use(engine)
            finally:
                engine.dispose()
    except DBAPIError as error:
        return error_text(error), None
    except (SettingError, ProvisioningError) as error:
        return str(error), None


def _guard(database: Database) -> AbstractContextManager[None]:
    """Return what has a connection to a file of SQLite opened with the rights of its owner."""
    if database.url.get_backend_name() != "sqlite" or is_memory(database.url):
        return nullcontext()
    return SQLiteServer(Tenant("main", database.url, "", ""), None, 0).as_user_of_file()
