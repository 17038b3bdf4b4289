"""The databases of a test run: one for each worker, made and dropped as psqa makes and drops them.

A table in each says that it was made for tests, and from which models. A database without that
table and with other tables is never touched.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from sqlalchemy import Boolean, Column, MetaData, String, Table, inspect, select, text
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable

from ..backends import backend_class, is_file, is_memory
from ..engines import create_tables, make_engine, tables_with_bind_key
from ..exceptions import SandboxError
from ..provisioning import Provisioning
from ..settings import (
    DEFAULT_KEY,
    Database,
    Settings,
    read_app_settings,
    read_section,
    read_settings,
)
from .put_back import owners

MARK = "sqa_test_database"
FOREIGN = (
    "{} has tables and was not made for tests: name a database that does not exist, or an empty "
    "one, in the settings of the tests."
)
IN_MEMORY = (
    "A database in memory belongs to one engine: make the tables after the application is made, "
    "by create_all(app, Base), and leave base and alembic out."
)
OTHER_DATABASE = (
    "alembic upgrade has not changed the database of the tests: in env.py use the connection in "
    'config.attributes["connection"] where there is one.'
)


@contextmanager
def database_for_tests(  # noqa: PLR0913 - one for each question that a run of tests has
    settings: str | Path | Mapping[str, object],
    *,
    base: Any = None,
    alembic: str | Path | None = None,
    admin_url: str | URL | None = None,
    worker: str = "",
    reuse: bool = False,
) -> Iterator[dict[str, Any]]:
    """Make the databases of an application for its tests; the block gets the settings to use.

    *settings* are the application's, or the path of its ini file. Their databases are made if they
    are missing, with the tables of *base*, or by ``alembic upgrade heads`` with the ini file
    *alembic*. With a *worker*, such as ``gw0``, each database has that name at its end:
    ``aalam_shop_gw0``. With *admin_url* they are made as ``psqa create`` makes them, and the
    application has an account of its own in each. At the end they are removed.

    With *reuse* they stay, and the next block takes them as they are, unless the models or the
    migrations have changed since. Raises :class:`SandboxError` for a database that was not made
    for tests.
    """
    renamed = _renamed(_plain(settings), worker, with_account=admin_url is not None)
    found = read_settings(renamed)
    tables = _Tables(base, alembic)
    with ExitStack() as ends:
        for key in found.databases:
            one = _TestDatabase(renamed, found, key, admin_url)
            ends.enter_context(one.made(tables, reuse=reuse))
        yield renamed


def _plain(settings: str | Path | Mapping[str, object]) -> dict[str, Any]:
    """Return *settings* as a dictionary, with those of the section ``[sqlalchemy]``."""
    if isinstance(settings, (str, Path)):
        path, _, name = str(settings).partition("#")
        given: Mapping[str, Any] = read_app_settings(path, name or "main")
    else:
        given = settings
    section = read_section(given) or {}
    return {**{f"sqlalchemy.{key}": value for key, value in section.items()}, **given}


def _renamed(settings: dict[str, Any], worker: str, *, with_account: bool) -> dict[str, Any]:
    """Return *settings* with the databases of *worker*, and with its accounts."""
    if not worker:
        return settings
    changed = dict(settings)
    if "sqa.app" in settings:
        changed["sqa.app"] = f"{settings['sqa.app']}_{worker}"
    for key, value in settings.items():
        if key == "sqlalchemy.url" or (
            key.startswith("sqlalchemy.binds.") and key.endswith(".url")
        ):
            url = _renamed_url(make_url(value), worker, with_account=with_account)
            changed[key] = url.render_as_string(hide_password=False)
    return changed


def _renamed_url(url: URL, worker: str, *, with_account: bool) -> URL:
    if is_memory(url):
        return url
    if is_file(url):
        path = Path(str(url.database))
        return url.set(database=str(path.with_name(f"{path.stem}_{worker}{path.suffix}")))
    in_one_database = not backend_class(url.get_backend_name()).NAME_IS_DATABASE
    if with_account:
        url = url.set(username=f"{url.username}_{worker}")
        if in_one_database:
            # There an application has a schema that is called as its account.
            return url
    return url.set(database=f"{url.database}_{worker}") if url.database else url


class _Tables:
    """What makes the tables, and from what."""

    def __init__(self, base: Any, alembic: str | Path | None) -> None:
        self.base, self._alembic = base, alembic

    @property
    def is_empty(self) -> bool:
        return self.base is None and self._alembic is None

    def fingerprint(self, engine: Engine) -> str:
        """Return what is the same as long as the models and the migrations are the same."""
        parts: list[str] = []
        if self.base is not None:
            metadata: MetaData = getattr(self.base, "metadata", self.base)
            for table in metadata.sorted_tables:
                parts.append(str(CreateTable(table).compile(engine)))
                parts += sorted(str(CreateIndex(each).compile(engine)) for each in table.indexes)
        if self._alembic is not None:
            scripts = self._scripts()
            parts += [Path(each.path).read_text() for each in scripts.walk_revisions()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def make(self, engine: Engine, found: Settings, key: str) -> None:
        """Make the tables of the database *key* with *engine*."""
        if self.base is not None:
            metadata: MetaData = getattr(self.base, "metadata", self.base)
            own = tables_with_bind_key(key, metadata) if found.binds else None
            create_tables(engine, metadata, found.databases[key].name, own)
        if self._alembic is not None and key == DEFAULT_KEY:
            self._migrate(engine)

    def _config(self) -> Any:
        from alembic.config import Config  # noqa: PLC0415 - only those who use it need it

        return Config(str(self._alembic))

    def _scripts(self) -> Any:
        from alembic.script import ScriptDirectory  # noqa: PLC0415 - as above

        return ScriptDirectory.from_config(self._config())

    def _migrate(self, engine: Engine) -> None:
        from alembic import command  # noqa: PLC0415 - as above
        from alembic.runtime.migration import MigrationContext  # noqa: PLC0415 - as above

        config = self._config()
        url = engine.url.render_as_string(hide_password=False)
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "heads")
            connection.commit()
        with engine.connect() as connection:
            heads = MigrationContext.configure(connection).get_current_heads()
            if set(heads) != set(self._scripts().get_heads()):
                raise SandboxError(OTHER_DATABASE)


@dataclass
class _TestDatabase:
    """The database *key* of an application's *settings*; *found* are the same, read."""

    settings: dict[str, Any]
    found: Settings
    key: str
    admin_url: str | URL | None

    def __post_init__(self) -> None:
        self.database: Database = self.found.databases[self.key]
        self._mark = Table(
            *(MARK, MetaData(), Column("fingerprint", String(64))),
            # Whether an empty database was found, which is emptied again and not removed.
            Column("was_empty", Boolean, default=False),
            schema=self.database.name,
        )

    @contextmanager
    def made(self, tables: _Tables, *, reuse: bool) -> Iterator[None]:
        """Have the database inside the block."""
        if is_memory(self.database.url):
            if not tables.is_empty:
                raise SandboxError(IN_MEMORY)
            yield
            return
        with self._engine() as engine:
            wanted = tables.fingerprint(engine)
        was_empty, mark = self._look()
        if mark is not None and not (reuse and mark == wanted):
            self._remove()
            was_empty, mark = self._look()
        if mark is None and not was_empty:
            self._create()
        try:
            with self._owner() as owner:
                if mark is None:
                    # Without its fingerprint: an interrupted run leaves what is not used again.
                    self._write_mark(owner, "", was_empty=was_empty)
                    tables.make(owner, self.found, self.key)
                    self._write_mark(owner, wanted, was_empty=was_empty)
                yield
        finally:
            if not reuse:
                self._remove()

    def _look(self) -> tuple[bool, str | None]:
        """Return whether there is an empty database, and the fingerprint of one for tests."""
        if is_file(self.database.url) and not Path(str(self.database.url.database)).exists():
            return False, None
        with suppress(DBAPIError), self._engine() as engine, engine.connect() as connection:
            names = inspect(connection).get_table_names(schema=self.database.name)
            if MARK in names:
                return False, connection.scalar(select(self._mark.c.fingerprint)) or ""
            if names:
                raise SandboxError(FOREIGN.format(self.database))
            return True, None
        return False, None

    def _write_mark(self, owner: Engine, fingerprint: str, *, was_empty: bool) -> None:
        with owner.begin() as connection:
            self._mark.create(connection, checkfirst=True)
            connection.execute(self._mark.delete())
            connection.execute(
                self._mark.insert().values(fingerprint=fingerprint, was_empty=was_empty)
            )

    @contextmanager
    def _owner(self) -> Iterator[Engine]:
        """Lend an engine that may make tables: the application's, or that of psqa's owner.

        With an administrator, database, accounts and grants are first made as psqa makes them.
        """
        if self.admin_url is None or is_file(self.database.url):
            with self._engine() as engine:
                yield engine
            return
        password = token_urlsafe(24)
        with self._provisioning() as provisioning:
            list(provisioning.apply(password))
            tenant = provisioning.tenant
            with tenant.login(tenant.owner, password) as engine:
                owners[self.database.url] = engine
                try:
                    yield engine
                finally:
                    del owners[self.database.url]

    def _provisioning(self) -> Provisioning:
        key = None if self.key == DEFAULT_KEY else self.key
        return Provisioning(self.settings, self.admin_url, bind_key=key)

    def _create(self) -> None:
        """Make the database on its server by the application's own account."""
        if self.admin_url is None and not is_file(self.database.url):
            self._tell_server("CREATE DATABASE {}")

    def _remove(self) -> None:
        """Remove the database, or empty it again."""
        url = self.database.url
        with self._engine() as engine, engine.begin() as connection:
            was_empty = connection.scalar(select(self._mark.c.was_empty))
            if was_empty:
                everything = MetaData(schema=self.database.name)
                everything.reflect(connection)
                everything.drop_all(connection)
        if was_empty:
            return
        if is_file(url):
            for ending in ("", "-wal", "-shm", "-journal"):
                Path(f"{url.database}{ending}").unlink(missing_ok=True)
        elif self.admin_url is not None:
            with self._provisioning() as provisioning:
                list(provisioning.remove())
        else:
            self._tell_server("DROP DATABASE {}")

    def _tell_server(self, statement: str) -> None:
        url = self.database.url
        elsewhere = None if backend_class(url.get_backend_name()).NAME_IS_DATABASE else "postgres"
        with self._engine(url._replace(database=elsewhere)) as engine:
            name = engine.dialect.identifier_preparer.quote(str(url.database))
            own = engine.execution_options(isolation_level="AUTOCOMMIT")
            with own.connect() as connection:
                connection.execute(text(statement.format(name)))

    @contextmanager
    def _engine(self, url: URL | None = None) -> Iterator[Engine]:
        """Lend an engine that logs in as the application."""
        options = {**self.database.options, "poolclass": NullPool}
        for name in [name for name in options if name.startswith("pool") and name != "poolclass"]:
            del options[name]
        options.pop("max_overflow", None)
        database = replace(self.database, options=options)
        if url is not None:
            database = replace(database, url=url, name=None)
        sqa_options = {**self.found.options_for(self.key), "max_connections": None}
        engine = make_engine(database, sqa_options)
        try:
            yield engine
        finally:
            engine.dispose()
