"""What the settings of an application say to whoever makes its database: names and accounts."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import NullPool

from ._engines import make_engine
from ._passwords import read_password
from ._servers import Application, account_name, server_class
from ._settings import UNSET, Database, Settings
from ._urls import read_url
from .exceptions import ProvisioningError, SettingError

UNNAMED = (
    "sqa.provider and sqa.app are missing: write both in the application's section, "
    "for example sqa.provider = aalam and sqa.app = base."
)
# What a name is where nobody composes it; it is quoted all the same.
PLAIN = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
# An application's statements are short; to drop a large database takes a while.
PATIENCE = 600


def database_of(settings: Settings, bind_key: str | None) -> Database:
    """Return the database to make, which has a name; SettingError says what is missing."""
    database = settings.database if bind_key is None else _bind(settings, bind_key)
    if database is None:
        raise SettingError(UNSET)
    if database.name is None:
        raise SettingError(UNNAMED)
    if database.engine is not None:
        msg = f"{database.prefix}engine: psqa needs a URL; write {database.prefix}url."
        raise SettingError(msg)
    return database


def _bind(settings: Settings, key: str) -> Database:
    """Return the bind called *key*, named for what it has of its own on its server."""
    database = settings.binds.get(key)
    if database is None:
        known = ", ".join(sorted(settings.binds)) or "none"
        msg = f"There is no bind {key!r}, only: {known}."
        raise SettingError(msg)
    # In PostgreSQL a schema of the URL's database, which is searched when it is called as the role.
    kinds = {"postgresql": database.url.username, "sqlite": key}
    name = kinds.get(database.url.get_backend_name(), database.url.database)
    if not PLAIN.fullmatch(name or ""):
        what = "user" if database.url.get_backend_name() == "postgresql" else "database"
        msg = (
            f"{database.prefix}url: write a {what} of lower-case letters, digits and underscores, "
            "a letter first."
        )
        raise SettingError(msg)
    return replace(database, name=name)


def application_of(database: Database, switches: Mapping[str, Any]) -> Application:
    """Return what a server has to know of the application whose *database* it is."""
    name = str(database.name)
    kind = server_class(database.url)
    # Asked for what is wrong with its settings, as the application's start-up would.
    make_engine(database, switches).dispose()
    given = database.options.get("connect_args", {})
    user = given.get("user", database.url.username) or ""
    owner = account_name(f"{name}__own", kind.LONGEST_ACCOUNT)
    path = switches["password_file"]
    password = given.get("password", given.get("passwd", database.url.password))
    if path:
        password = read_password(Path(path).resolve())
    if database.url.get_backend_name() == "sqlite":
        user = owner = ""
    elif not user or user == owner:
        msg = f"sqlalchemy.url: write the application's account, for example {name}."
        raise SettingError(msg)
    return Application(name, database.url, user, owner, password, database.options, switches)


def administrator_of(application: Application, given: str | URL | None) -> Engine | None:
    """Return the engine of the administrator, at the URL *given*; None where none is needed."""
    if not application.user:
        return None
    url = None if given is None else read_url("The administrator's URL", given)
    kind = server_class(application.url)
    if url is not None and server_class(url) is not kind:
        msg = "The administrator's URL is that of another kind of server than sqlalchemy.url."
        raise ProvisioningError(msg)
    database = Database(
        kind.administrator_url(application, url),
        {"isolation_level": "AUTOCOMMIT", "poolclass": NullPool},
    )
    switches = {
        **application.switches,
        "password_file": None,
        "reset_connection": False,
        "statement_timeout": PATIENCE,
    }
    return make_engine(database, switches)
