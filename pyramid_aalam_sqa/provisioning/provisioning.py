"""Makes, checks and removes the database and the accounts of one application, as psqa does.

The class :class:`Provisioning` does all of it::

    with Provisioning(get_appsettings("development.ini")) as provisioning:
        for step in provisioning.apply():
            print(step)
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from sqlalchemy import MetaData, Table
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from ..backends import backend_class, read_url
from ..engines import (
    bind_key_of,
    create_tables,
    make_engine,
    missing_tables,
    next_password_path,
    tables_with_bind_key,
)
from ..exceptions import BindError, ProvisioningError, SettingError
from ..settings import (
    DEFAULT_KEY,
    NO_DATABASE,
    Database,
    Host,
    Settings,
    read_section,
    read_settings,
)
from .passwords import (
    is_open_to_others,
    new_password,
    read_own_password,
    refuse_link,
    replace_file,
    write_password,
)
from .server import Finding, Server, Step
from .servers import server_class
from .tenant import Tenant, account_name

NO_FILE = "sqa.password_file is not set: write the password into a file, and its path there."
NO_FILE_OF_BIND = (
    "sqa.password_file is that of the default database: the password of a bind stands in its URL, "
    "and psqa does not change an ini file."
)
# A name that the settings do not make is written by hand, so every statement quotes it.
PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
# Seconds. A statement of an application is short, but to drop a large database takes a while.
LONGEST_STATEMENT = 600


class Provisioning:
    """What an administrator does for the application that *settings* describe.

    *settings* are those of ``get_appsettings()``. Without ``sqa.provider`` and ``sqa.app``
    the database and its account are named by ``sqlalchemy.url``. *admin_url* is the URL of an
    administrator's account; without it the administrator logs in through the server's socket. With
    *bind_key* all of it is about the bind of that key, and the administrator is that of the bind's
    server. *wait* is how many seconds to wait for another run of psqa, for a lock that another
    connection holds, and for the application's connections to end.

    Raises :class:`SettingError` when the settings name no application or no account. Every method
    raises :class:`ProvisioningError` when the server refuses a step of the administrator, and
    SQLAlchemy's ``DBAPIError`` when it refuses the application.
    """

    def __init__(
        self,
        settings: Mapping[str, object],
        admin_url: str | URL | None = None,
        *,
        bind_key: str | None = None,
        wait: float = 30,
    ) -> None:
        self.settings = read_settings(settings, read_section(settings))
        self.bind_key = bind_key or DEFAULT_KEY
        self.database = _named_database(self.settings, bind_key)
        self.wait = wait
        self._sqa_options = self.settings.options_for(self.bind_key)
        self.tenant = _tenant_of(self.database, self._sqa_options)
        self._admin_url = admin_url
        self._admin: Engine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._admin is not None:
            self._admin.dispose()

    @cached_property
    def _server(self) -> Server:
        self._admin = _administrator_engine(self.tenant, self._admin_url)
        return server_class(self.tenant.url)(self.tenant, self._admin, self.wait)

    def doing(self) -> str:
        """Return which step is being run, or what is waited for, for a report on long work."""
        # Not made here: to make it may itself take long, in another thread.
        server: Server | None = self.__dict__.get("_server")
        return "connecting to the server" if server is None else server.doing

    def describe_server(self) -> str:
        """Return the product, the version and the address of the server, and who is logged in.

        It is proved before that the administrator and the application's URL lead to one server.
        """
        return self._server.describe()

    def plan(self, owner_password: str | None = None) -> Sequence[Step]:
        """Return the steps that make database, accounts and grants as they should be.

        The list is empty when they are. The owner account gets *owner_password*, or a random one
        that is not kept anywhere.
        """
        self.require_password()
        return self._server.plan(owner_password)

    def apply(self, owner_password: str | None = None) -> Iterator[Step]:
        """Run the steps of :meth:`plan` and yield each that is done."""
        self.require_password()
        with self._server.locked():
            yield from self._server.run(self._server.plan(owner_password))

    def prove(self, owner_password: str | None = None) -> Sequence[str]:
        """Log in as the application and return a sentence for each thing that was proved.

        On PostgreSQL the owner makes a table for it, and logs in with *owner_password*. Raises
        :class:`ProvisioningError` when the application can do less or more than it should.
        """
        return self._server.prove(owner_password)

    def check(self, owner_password: str | None = None) -> Sequence[Finding]:
        """Return what is wrong on the server, as the administrator sees it, and with the files.

        *owner_password* is what the owner account should have; without it, it should not be able
        to log in.
        """
        return [*self._file_findings(), *self._server.check(owner_password)]

    def check_as_application(self) -> Sequence[Finding]:
        """Return what is wrong on the server, as far as the application's own account sees it."""
        server = server_class(self.tenant.url)(self.tenant, None, self.wait)
        return [*self._file_findings(), *server.check()]

    def has_administrator(self) -> bool:
        """Tell whether the administrator can log in; true on SQLite, which needs none."""
        if not self.tenant.user:
            return True
        with suppress(ProvisioningError), self._server.connection():
            return True
        return False

    def plan_tables(self, metadata: MetaData) -> Sequence[str]:
        """Return the CREATE TABLE statements for the tables of *metadata* that are missing."""
        tenant = self.tenant
        with self._server.as_application() as engine, engine.connect() as connection:
            tables = self._own_tables(metadata)
            missing = missing_tables(connection, metadata, tenant.schema, tables)
            return [str(CreateTable(table).compile(engine)).strip() for table in missing]

    def create_tables(self, metadata: MetaData, owner_password: str | None = None) -> Sequence[str]:
        """Create the tables of *metadata* that are missing, as the owner; return their names.

        The owner account logs in with *owner_password*. Without it the account gets a random
        password for this call, and another one afterwards.
        """
        tables = self._own_tables(metadata)
        with self._server.locked(), self._server.as_owner(owner_password) as engine:
            return create_tables(engine, metadata, self.tenant.schema, tables)

    @contextmanager
    def as_owner(self, owner_password: str | None = None) -> Iterator[Engine]:
        """Lend an engine of the owner account, as :meth:`create_tables` uses one.

        Other runs of psqa for this application are kept out only while the account's password is
        changed, before the block and after it.
        """
        owner = ExitStack()
        with self._server.locked():
            engine = owner.enter_context(self._server.as_owner(owner_password))
        try:
            yield engine
        finally:
            with self._server.locked():
                owner.close()

    def as_application(self) -> AbstractContextManager[Engine]:
        """Lend an engine of the account that serves; it needs no administrator."""
        return server_class(self.tenant.url)(self.tenant, None, self.wait).as_application()

    def plan_rotation(self) -> Sequence[Step]:
        """Return the steps that change the password of the application's account."""
        if self.bind_key != DEFAULT_KEY:
            raise SettingError(NO_FILE_OF_BIND)
        steps = self._server.password_steps(self.tenant.user, new_password())
        refuse_link(self._password_file())
        return steps

    def rotate(self) -> Iterator[Step]:
        """Change the password and yield each step that is done; every login works meanwhile.

        The new password is written beside ``sqa.password_file`` before the server is told of it,
        and its file is renamed over the old one afterwards. The next call finishes what a crash
        has left half done.
        """
        self.plan_rotation()
        path = self._password_file()
        beside = next_password_path(path)
        user = self.tenant.user
        with self._server.locked():
            if beside.is_file() and self._logs_in(beside):
                replace_file(path, by=beside)
            elif not self._logs_in(path):
                msg = f"{user!r} does not log in with the password in {path}: run psqa create."
                raise ProvisioningError(msg)
            password = new_password()
            write_password(beside, password, like=path)
            yield from self._server.run(self._server.password_steps(user, password))
            replace_file(path, by=beside)
        self._server.tenant = self.tenant = replace(self.tenant, password=password)

    def plan_removal(self) -> Sequence[Step]:
        """Return the steps that remove database and accounts; an empty list if nothing is left."""
        return self._server.plan_removal()

    def remove(self) -> Iterator[Step]:
        """Lock the accounts, end their connections, remove everything; yield each step done."""
        with self._server.locked():
            yield from self._server.remove()

    def _own_tables(self, metadata: MetaData) -> list[Table] | None:
        """Return the tables of *metadata* with the bind key of this database; None means all.

        Raises :class:`BindError` for a key in an application without binds.
        """
        if self.settings.binds:
            return tables_with_bind_key(self.bind_key, metadata)
        for table in metadata.sorted_tables:
            key = bind_key_of(table)
            if key != DEFAULT_KEY:
                msg = (
                    f"The table {table.fullname} has the bind key {key!r}, and there is no such "
                    f"bind: set sqlalchemy.binds.{key}.url."
                )
                raise BindError(msg)
        return None

    def _logs_in(self, path: Path) -> bool:
        """Tell whether the application can log in with the password in the file at *path*."""
        with suppress(DBAPIError, SettingError, ProvisioningError):
            password = read_own_password(path)
            with self.tenant.login(self.tenant.user, password) as engine:
                engine.connect().close()
            return True
        return False

    def require_password(self) -> None:
        """Raise :class:`SettingError` when no password is set for the application's account."""
        if self.tenant.user and self.tenant.password is None:
            msg = (
                f"{self.tenant.url_key} has no password: write one there, or into a file that "
                "sqa.password_file names."
            )
            raise SettingError(msg)

    def _file_findings(self) -> Iterator[Finding]:
        """Yield the files with a password that other users of the system can open."""
        path = self._sqa_options["password_file"]
        for each in (Path(path), next_password_path(Path(path))) if path else ():
            if is_open_to_others(each.absolute()):
                problem = f"{each}, which has a password, is open to every user of the system"
                yield Finding(problem, f"chmod o-rwx {each}, then psqa rotate.")

    def _password_file(self) -> Path:
        path = self._sqa_options["password_file"]
        if path is None:
            raise SettingError(NO_FILE)
        return Path(path).absolute()


def _named_database(settings: Settings, bind_key: str | None) -> Database:
    """Return the database of *bind_key* with a name; SettingError says what is missing for one."""
    database = settings.database if bind_key is None else settings.binds.get(bind_key)
    if database is None and bind_key is not None:
        known = ", ".join(sorted(settings.binds)) or "none"
        msg = f"There is no bind {bind_key!r}, only: {known}."
        raise SettingError(msg)
    if database is None:
        raise SettingError(NO_DATABASE)
    if database.engine is not None:
        msg = f"{database.prefix}engine: psqa needs a URL; write {database.prefix}url."
        raise SettingError(msg)
    return database if database.name else replace(database, name=_name_in_url(database, bind_key))


def _name_in_url(database: Database, bind_key: str | None) -> str:
    """Return what a database without sqa.provider and sqa.app has of its own on its server."""
    kind = database.url.get_backend_name()
    if kind == "sqlite":
        return bind_key or str(database.url.database)
    # In PostgreSQL it is a schema that is called as the user, because search_path leads there.
    part = "user" if kind == "postgresql" else "database"
    name = database.url.username if kind == "postgresql" else database.url.database
    if not PLAIN_NAME.fullmatch(name or ""):
        msg = (
            f"{database.prefix}url: write a {part} of lower-case letters, digits and underscores, "
            "a letter first."
        )
        raise SettingError(msg)
    return str(name)


def _tenant_of(database: Database, sqa_options: Mapping[str, Any]) -> Tenant:
    """Return the :class:`Tenant` whose *database* it is; SettingError when it has no account."""
    name = str(database.name)
    url_key = f"{database.prefix}url"
    kind = server_class(database.url)
    # Raises for wrong settings what the application's start-up would raise.
    make_engine(database, sqa_options).dispose()
    given = database.options.get("connect_args", {})
    user = given.get("user", database.url.username) or ""
    owner = account_name(f"{name}__own", kind.LONGEST_ACCOUNT)
    path = sqa_options["password_file"]
    password = given.get("password", given.get("passwd", database.url.password))
    if path:
        password = read_own_password(Path(path).absolute())
    if database.url.get_backend_name() == "sqlite":
        user = owner = ""
    elif not user or user == owner:
        msg = f"{url_key}: write the application's account, for example {name}."
        raise SettingError(msg)
    options = database.options
    # The file of an application without a name has no schema.
    schema = None if name == database.url.database and not user else name
    return Tenant(name, database.url, user, owner, password, options, sqa_options, url_key, schema)


def _administrator_engine(tenant: Tenant, given: str | URL | None) -> Engine | None:
    """Return the administrator's engine, at the URL *given* if there is one; None on SQLite."""
    if not tenant.user:
        return None
    url = None if given is None else read_url("The administrator's URL", given)
    kind = server_class(tenant.url)
    if url is not None and server_class(url) is not kind:
        msg = f"The administrator's URL is that of another kind of server than {tenant.url_key}."
        raise ProvisioningError(msg)
    database = Database(
        kind.administrator_url(tenant, url),
        {"poolclass": NullPool, "connect_args": dict(kind.ADMINISTRATOR_ARGUMENTS)},
    )
    named = (
        url is not None
        and Host(str(url.host), url.port or backend_class(url.get_backend_name()).DEFAULT_PORT)
        in tenant.hosts
    )
    sqa_options = {
        **tenant.sqa_options,
        # The administrator goes where the application goes if one of its hosts is meant.
        "hosts": tenant.hosts if named else None,
        "password_file": None,
        "reset_connection": False,
        "statement_timeout": LONGEST_STATEMENT,
        # An application may have chosen one in which names and texts are quoted in another way.
        "mysql.sql_mode": "TRADITIONAL",
    }
    # make_engine() refuses this as an option, because requests need transactions.
    return make_engine(database, sqa_options).execution_options(isolation_level="AUTOCOMMIT")
