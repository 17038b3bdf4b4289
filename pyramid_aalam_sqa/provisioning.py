"""Makes, checks and removes the database and the accounts of one application, as psqa does.

:class:`Provisioning` is the whole of it::

    with Provisioning(get_appsettings("development.ini")) as provisioning:
        for step in provisioning.apply():
            print(step)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from sqlalchemy import MetaData, Table
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from ._engines import make_engine
from ._ini import read_section
from ._keys import tables_with
from ._passwords import next_to, read_password, take_place, write_password
from ._provisioned import administrator_of, application_of, database_of
from ._servers import Finding, Server, Step, new_password, server_for, words
from ._settings import DEFAULT, Database, read_settings
from ._sqa import switches_of
from ._tables import create_tables, missing_tables
from ._urls import is_file
from .exceptions import ProvisioningError, SettingError

__all__ = ["Finding", "Provisioning", "Step"]

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
        self._switches = switches_of(self.bind_key, self.settings)
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
        beside = next_to(path)
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
        return tables_with(self.bind_key, metadata) if self.settings.binds else None

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
