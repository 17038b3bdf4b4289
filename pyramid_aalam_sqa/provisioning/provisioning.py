"""Makes, checks and removes the database and the accounts of one application, as psqa does.

:class:`Provisioning` is the whole of it::

    with Provisioning(get_appsettings("development.ini")) as provisioning:
        for step in provisioning.apply():
            print(step)
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from sqlalchemy import MetaData, Table
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from ..backends import read_url
from ..engines import (
    create_tables,
    make_engine,
    missing_tables,
    next_password_path,
    read_password,
    tables_with_bind_key,
)
from ..exceptions import ProvisioningError, SettingError
from ..settings import (
    DEFAULT,
    UNSET,
    Database,
    Settings,
    read_section,
    read_settings,
    sqa_options_of,
)
from .passwords import new_password, take_place, write_password
from .server import Finding, Server, Step
from .servers import server_class, server_for
from .tenant import Tenant, account_name

NO_PASSWORD = (
    "sqlalchemy.url has no password: write one there, or into a file that sqa.password_file names."  # noqa: S105 - is none
)


NO_FILE = "sqa.password_file is not set: write the password into a file, and its path there."


NO_FILE_OF_BIND = (
    "sqa.password_file is that of the default database: the password of a bind stands in its URL, "
    "and cannot be changed while the application serves."
)


class Provisioning:
    """What an administrator does for the application that *settings* describe.

    *settings* are those that ``get_appsettings()`` returns. *admin_url* is the URL of an
    administrator's account; without it, that is the login on the server's socket. With *bind_key*
    it is about the bind of that key, on whose server the administrator is. Raises
    :class:`SettingError` when the settings name no application, or no account. Every method
    raises :class:`ProvisioningError` when the server refuses something to the administrator, and
    SQLAlchemy's ``DBAPIError`` when it is the application that is refused.
    """

    def __init__(
        self,
        settings: Mapping[str, object],
        admin_url: str | URL | None = None,
        *,
        bind_key: str | None = None,
    ) -> None:
        self.settings = read_settings(settings, read_section(settings))
        self.bind_key = bind_key or DEFAULT
        self.database = database_of(self.settings, bind_key)
        self._switches = sqa_options_of(self.bind_key, self.settings)
        self.application = application_of(self.database, self._switches)
        self._admin_url = admin_url
        self._admin: Engine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._admin is not None:
            self._admin.dispose()

    @cached_property
    def _server(self) -> Server:
        self._admin = administrator_of(self.application, self._admin_url)
        return server_for(self.application, self._admin)

    def plan(self, owner_password: str | None = None) -> Sequence[Step]:
        """Return the steps that make database, accounts and grants as they should be.

        There are none when they are. The owner account has *owner_password*, or one that nobody
        knows.
        """
        self._require_password()
        return self._server.differences(owner_password)

    def apply(self, owner_password: str | None = None) -> Iterator[Step]:
        """Do what :meth:`plan` returns, yielding each step that is done."""
        self._require_password()
        with self._server.locked():
            yield from self._server.run(self._server.differences(owner_password))

    def prove(self) -> Sequence[str]:
        """Log in as the application; return a sentence for each thing that was seen to be so.

        Raises :class:`ProvisioningError` when it can do less than it should, or more.
        """
        return self._server.prove()

    def check(self) -> Sequence[Finding]:
        """Return what is wrong on the server, as the administrator sees it."""
        return self._server.findings()

    def check_as_application(self) -> Sequence[Finding]:
        """Return what of it the application's own account can see."""
        return server_for(self.application, None).findings()

    def sees_all(self) -> bool:
        """Tell whether the administrator can log in, or none is needed."""
        if not self.application.user:
            return True
        with suppress(ProvisioningError), self._server.connection():
            return True
        return False

    def plan_tables(self, metadata: MetaData) -> Sequence[str]:
        """Return the CREATE TABLE statements of the tables of *metadata* that are missing."""
        with self._login() as engine, engine.connect() as connection:
            missing = missing_tables(
                connection, metadata, self.application.name, self._own_tables(metadata)
            )
            return [str(CreateTable(table).compile(engine)).strip() for table in missing]

    def create_tables(self, metadata: MetaData, owner_password: str | None = None) -> Sequence[str]:
        """Create the tables of *metadata* that are missing, and return their names.

        The owner account does it, with *owner_password* or with one that is made for it alone.
        """
        with self._server.locked(), self._server.as_owner(owner_password) as engine:
            return create_tables(
                engine, metadata, self.application.name, self._own_tables(metadata)
            )

    def plan_rotation(self) -> Sequence[Step]:
        """Return the steps that change the password of the application's account."""
        if self.bind_key != DEFAULT:
            raise SettingError(NO_FILE_OF_BIND)
        steps = self._server.password_steps(self.application.user, new_password())
        self._password_file()
        return steps

    def rotate(self) -> Iterator[Step]:
        """Change the password, yielding each step that is done; no login fails meanwhile.

        The new one stands beside ``sqa.password_file`` before the server learns it, and takes its
        place then. What a crash has left half done is repaired by the next call.
        """
        self.plan_rotation()
        path = self._password_file()
        beside = next_password_path(path)
        user = self.application.user
        with self._server.locked():
            if beside.is_file() and self._logs_in(beside):
                take_place(beside, path)
            elif not self._logs_in(path):
                msg = f"{user!r} does not log in with the password in {path}: run psqa create."
                raise ProvisioningError(msg)
            password = new_password()
            write_password(beside, password, like=path)
            yield from self._server.run(self._server.password_steps(user, password))
            take_place(beside, path)
        self._server.application = self.application = replace(self.application, password=password)

    def plan_removal(self) -> Sequence[Step]:
        """Return the steps that remove database and accounts; none when nothing is left."""
        return self._server.removal()

    def remove(self) -> Iterator[Step]:
        """Lock the accounts, end their connections, then remove everything; yield each step."""
        with self._server.locked():
            yield from self._server.remove()

    def _own_tables(self, metadata: MetaData) -> list[Table] | None:
        """Return the tables of *metadata* with the bind key of this database."""
        return tables_with_bind_key(self.bind_key, metadata) if self.settings.binds else None

    def _login(self) -> Any:
        return self.application.login(self.application.user, self.application.password)

    def _logs_in(self, path: Path) -> bool:
        """Tell whether the application can log in with the password in the file at *path*."""
        with suppress(DBAPIError, SettingError):
            password = read_password(path)
            with self.application.login(self.application.user, password) as engine:
                engine.connect().close()
            return True
        return False

    def _require_password(self) -> None:
        if self.application.user and self.application.password is None:
            raise SettingError(NO_PASSWORD)

    def _password_file(self) -> Path:
        path = self._switches["password_file"]
        if path is None:
            raise SettingError(NO_FILE)
        return Path(path).resolve()


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


def application_of(database: Database, sqa_options: Mapping[str, Any]) -> Tenant:
    """Return what a server has to know of the application whose *database* it is."""
    name = str(database.name)
    kind = server_class(database.url)
    # Asked for what is wrong with its settings, as the application's start-up would.
    make_engine(database, sqa_options).dispose()
    given = database.options.get("connect_args", {})
    user = given.get("user", database.url.username) or ""
    owner = account_name(f"{name}__own", kind.LONGEST_ACCOUNT)
    path = sqa_options["password_file"]
    password = given.get("password", given.get("passwd", database.url.password))
    if path:
        password = read_password(Path(path).resolve())
    if database.url.get_backend_name() == "sqlite":
        user = owner = ""
    elif not user or user == owner:
        msg = f"sqlalchemy.url: write the application's account, for example {name}."
        raise SettingError(msg)
    return Tenant(name, database.url, user, owner, password, database.options, sqa_options)


def administrator_of(application: Tenant, given: str | URL | None) -> Engine | None:
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
    sqa_options = {
        **application.sqa_options,
        "password_file": None,
        "reset_connection": False,
        "statement_timeout": PATIENCE,
    }
    return make_engine(database, sqa_options)
