"""Makes, checks and removes the database and the accounts of one application, as psqa does.

:class:`Provisioning` is the whole of it::

    with Provisioning(get_appsettings("development.ini")) as provisioning:
        for step in provisioning.apply():
            print(step)
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from stat import S_IMODE
from typing import Any, Self

from sqlalchemy import MetaData
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from ._engines import make_engine
from ._ini import read_section
from ._passwords import next_to, read_password
from ._servers import (
    Application,
    Finding,
    Server,
    Step,
    account_name,
    new_password,
    server_class,
    server_for,
    words,
)
from ._settings import UNSET, Database, Settings, read_settings
from ._tables import create_tables, missing_tables
from ._urls import is_file, read_url
from .exceptions import ProvisioningError, SettingError

__all__ = ["Finding", "Provisioning", "Step"]

UNNAMED = (
    "sqa.provider and sqa.app are missing: write both in the application's section, "
    "for example sqa.provider = aalam and sqa.app = base."
)
NO_PASSWORD = (
    "sqlalchemy.url has no password: write one there, or into a file that sqa.password_file names."  # noqa: S105 - is none
)
NO_FILE = "sqa.password_file is not set: write the password into a file, and its path there."
# An application's statements are short; to drop a large database takes a while.
PATIENCE = 600
# Others may not read what holds a password.
NOT_OTHERS = 0o640


class Provisioning:
    """What an administrator does for the application that *settings* describe.

    *settings* are those that ``get_appsettings()`` returns. *admin_url* is the URL of an
    administrator's account; without it, that is the login on the server's socket. Raises
    :class:`SettingError` when the settings name no application, or no account. Every method
    raises :class:`ProvisioningError` when the server refuses something to the administrator, and
    SQLAlchemy's ``DBAPIError`` when it is the application that is refused.
    """

    def __init__(self, settings: Mapping[str, object], admin_url: str | URL | None = None) -> None:
        self.settings = read_settings(settings, read_section(settings))
        self.database = _database(self.settings)
        self.application = _application(self.database, self.settings.switches)
        self._admin_url = admin_url
        self._admin: Engine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._admin is not None:
            self._admin.dispose()

    @cached_property
    def _server(self) -> Server:
        self._admin = _administrator(self.application, self._admin_url)
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
            missing = missing_tables(connection, metadata, self.application.name)
            return [str(CreateTable(table).compile(engine)).strip() for table in missing]

    def create_tables(self, metadata: MetaData, owner_password: str | None = None) -> Sequence[str]:
        """Create the tables of *metadata* that are missing, and return their names.

        The owner account does it, with *owner_password* or with one that is made for it alone.
        """
        with self._server.locked(), self._server.as_owner(owner_password) as engine:
            return create_tables(engine, metadata, self.application.name)

    def plan_rotation(self) -> Sequence[Step]:
        """Return the steps that change the password of the application's account."""
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
        beside = next_to(path)
        user = self.application.user
        with self._server.locked():
            if beside.is_file() and self._logs_in(beside):
                _take_place(beside, path)
            elif not self._logs_in(path):
                msg = f"{user!r} does not log in with the password in {path}: run psqa create."
                raise ProvisioningError(msg)
            password = new_password()
            _write_secret(beside, password, like=path)
            yield from self._server.run(self._server.password_steps(user, password))
            _take_place(beside, path)
        self._server.application = self.application = replace(self.application, password=password)

    def plan_removal(self) -> Sequence[Step]:
        """Return the steps that remove database and accounts; none when nothing is left."""
        return self._server.removal()

    def remove(self) -> Iterator[Step]:
        """Lock the accounts, end their connections, then remove everything; yield each step."""
        with self._server.locked():
            yield from self._server.remove()

    def answers(self) -> str | None:
        """Return why the application cannot log in to its database; None when it can."""
        return answers(self.database, self.settings.switches)

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
        path = self.settings.switches["password_file"]
        if path is None:
            raise SettingError(NO_FILE)
        return Path(path).resolve()


def answers(database: Database, switches: Mapping[str, Any]) -> str | None:
    """Return why nobody can log in to *database* as an application does; None when one can."""
    path = database.url.database
    if is_file(database.url) and not Path(str(path)).exists():
        # To connect would make it.
        return f"{path} is not there"
    try:
        engine = make_engine(database, {**switches, "max_connections": None})
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    except DBAPIError as error:
        return words(error)
    except SettingError as error:
        return str(error)
    return None


def _database(settings: Settings) -> Database:
    if settings.database is None:
        raise SettingError(UNSET)
    if settings.name is None:
        raise SettingError(UNNAMED)
    if settings.database.engine is not None:
        msg = "sqlalchemy.engine: psqa needs a URL; write sqlalchemy.url."
        raise SettingError(msg)
    return settings.database


def _application(database: Database, switches: Mapping[str, Any]) -> Application:
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


def _administrator(application: Application, given: str | URL | None) -> Engine | None:
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


def _write_secret(path: Path, secret: str, *, like: Path) -> None:
    """Write *secret* so that it is still there after a crash, for whoever reads *like*."""
    try:
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            model = like.stat()
            os.fchown(file, model.st_uid, model.st_gid)
            os.fchmod(file, S_IMODE(model.st_mode) & NOT_OTHERS | 0o600)
            os.write(file, f"{secret}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        msg = f"The new password cannot be written to {path}: {error.strerror}."
        raise ProvisioningError(msg) from None


def _take_place(path: Path, of: Path) -> None:
    path.replace(of)
    folder = os.open(of.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
