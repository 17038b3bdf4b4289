"""What an env.py calls: it configures Alembic for one database, and runs the revisions.

Alembic does the migrating. This module tells it which database, which tables and which schema,
keeps other runs out, and notes how far a revision has come.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from alembic import context
from sqlalchemy import MetaData
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ..applications import metadatas_of
from ..exceptions import MigrationError, SettingError
from ..settings import (
    DEFAULT_KEY,
    NO_DATABASE,
    Database,
    Settings,
    read_app_settings,
    read_section,
    read_settings,
)
from .journal import Journal, half_way, read_journal
from .metadata import compared_metadata, differs_as_number, name_filter, other_schemas
from .products import product_of
from .scripts import GIVEN, journal_table, version_table
from .standing import MARK, Standing
from .waits import Patience, Statements, migration_engine

BIND_OPTION = "sqa.bind"
# Seconds that a run waits for another one on the same database.
WAIT = 30


@dataclass
class Given:
    """What a command of ours tells the env.py; without one the ini file says it.

    *connectable* is what to connect by. *metadatas* finds the models; it is called where Alembic
    compares them, and nowhere else. *stop* is asked before each revision. *revisions* collects
    those that are done.
    """

    settings: Settings
    key: str = DEFAULT_KEY
    connectable: Engine | Connection | None = None
    metadatas: Callable[[], Sequence[MetaData]] = list
    patience: Patience = field(default_factory=Patience)
    wait: float = WAIT
    online: bool = False
    on_galera: bool = False
    is_locked: bool = False
    stop: Callable[[], bool] = bool
    revisions: list[str] = field(default_factory=list)

    @property
    def database(self) -> Database:
        """The database of the bind key. Raises :class:`SettingError` for an unknown one."""
        if self.key not in self.settings.databases:
            known = ", ".join(self.settings.databases)
            raise SettingError(
                f"There is no database {self.key!r}, only: {known}." if known else NO_DATABASE
            )
        return self.settings.databases[self.key]


def run(
    *bases: Any,
    wait: float | None = None,
    lock_timeout: float | None = None,
    on_galera: bool = False,
    **options: Any,
) -> None:
    """Run what Alembic was asked for, on the application's database; an env.py calls it.

    ::

        from pyramid_aalam_sqa.migrations import run
        from notes.models import Base

        run(Base)

    *bases* are declarative bases or their MetaData; without any, autogenerate knows no models.
    The engine is the application's own, from the ini file that Alembic was given, or from
    ``sqlalchemy.url`` in ``[alembic]`` where that file describes no application. psqa gives another
    one, of the owner account. *wait* is how many seconds to wait for another run on the same
    database (30), *lock_timeout* how many a statement waits for a lock (3). *on_galera* says that
    there is no other run, where the server cannot know. *options* go to Alembic's
    ``context.configure()``.

    Raises :class:`MigrationError` when another run does not end, when a revision is half-way, or
    when one has failed and is half-way now.
    """
    given: Given = context.config.attributes.get(GIVEN) or _from_file()
    if wait is not None:
        given.wait = wait
    if lock_timeout is not None:
        given.patience = Patience(lock_timeout, given.patience.retries)
    given.on_galera = given.on_galera or on_galera
    own = (each for base in bases for each in metadatas_of(base))
    # Two bases may share their MetaData.
    metadatas = list(dict.fromkeys(own)) or list(dict.fromkeys(given.metadatas()))
    if context.is_offline_mode():
        _print_sql(given, metadatas, options)
        return
    with _connection(given) as connection:
        Run(given, connection).run(metadatas, options)


def _from_file() -> Given:
    """Return what the ini file says that Alembic was given."""
    config = context.config
    settings: Mapping[str, Any] = {}
    if config.config_file_name:
        try:
            settings = read_app_settings(config.config_file_name)
        except LookupError:
            # The file describes Alembic alone.
            settings = {}
    section = read_section(settings)
    if "sqlalchemy.url" not in settings and not section:
        url = config.get_main_option("sqlalchemy.url")
        settings = {**settings, **({"sqlalchemy.url": url} if url else {})}
    key = config.get_main_option(BIND_OPTION, DEFAULT_KEY)
    return Given(read_settings(settings, section), key)


@contextmanager
def _connection(given: Given) -> Iterator[Connection]:
    """Lend a connection that Alembic's Config has, or that psqa gives, or a new one.

    ``config.attributes["connection"]`` is where tests and pytest-alembic put one, or an engine.
    """
    found = context.config.attributes.get("connection") or given.connectable
    if isinstance(found, Connection):
        yield found
        return
    with ExitStack() as stack:
        if found is None:
            database = given.database
            options = given.settings.options_for(given.key)
            found = database.engine or migration_engine(database, options, given.patience)
            if database.engine is None:
                stack.callback(found.dispose)
        yield stack.enter_context(found.connect())


def _print_sql(given: Given, metadatas: Sequence[MetaData], options: dict[str, Any]) -> None:
    """Have Alembic print the statements; no connection is made."""
    product = product_of(given.database.url)
    context.configure(
        url=given.database.url,
        **{
            "target_metadata": target(metadatas),
            "version_table": version_table(given.key),
            "literal_binds": True,
            "transaction_per_migration": True,
            "transactional_ddl": product.TRANSACTIONAL_DDL,
            **options,
        },
    )
    with context.begin_transaction():
        context.run_migrations()


def reason_of(error: BaseException) -> str:
    """Return the driver's reason for *error*, with the statement and without its values."""
    if not isinstance(error, DBAPIError):
        return f"{type(error).__name__}: {error}"
    notes = " ".join(getattr(error, "__notes__", ()))
    statement = " ".join(str(error.statement).split())
    return " ".join(filter(None, (f"{error.orig}", notes, f"in: {statement}")))


def target(metadatas: Sequence[MetaData]) -> Any:
    """Return *metadatas* as Alembic takes them; only of one it takes the naming convention."""
    return metadatas[0] if len(metadatas) == 1 else list(metadatas) or None


class Run:
    """One run of Alembic on one connection."""

    def __init__(self, given: Given, connection: Connection) -> None:
        self.given = given
        self.connection = connection
        self.product = product_of(connection.dialect)
        self.key = given.key
        database = given.settings.databases.get(given.key)
        # The name of the application's database, if it has one.
        self.name = database.name if database is not None else None
        self.is_online = False
        self.check: Callable[[], None] = lambda: None
        # Whether the transactions are ours, and the revision that runs just now.
        self.is_prepared = False
        self.current: str | None = None
        # Where the database stood before it.
        self._before: tuple[str, ...] = ()
        self.journal: Journal | None = None

    def run(self, metadatas: Sequence[MetaData], options: Mapping[str, Any]) -> None:
        """Configure Alembic, and run what it was asked for."""
        if self.given.online and not self.product.ONLINE:
            msg = f"--online is for MySQL and MariaDB, not for {self.connection.dialect.name}."
            raise MigrationError(msg)
        with ExitStack() as stack:
            configured = {**self._options(metadatas), **options}
            context.configure(connection=self.connection, **configured)
            asked = context.get_context().opts
            # Set by the commands that move a database, not by those that look at one.
            if "destination_rev" not in asked:
                # Alembic would make the version table, which the account that serves may not.
                configured["dont_mutate"] = True
                context.configure(connection=self.connection, **configured)
            else:
                self._prepare(stack)
                steps = asked["fn"]
                configured["fn"] = lambda heads, made: self._steps(steps, heads, made)
                context.configure(connection=self.connection, **configured)
            try:
                with context.begin_transaction():
                    context.run_migrations()
            except BaseException as error:
                self._fail(error)
                raise

    def _prepare(self, stack: ExitStack) -> None:
        """Keep other runs out, and watch the statements, until the end of *stack*."""
        engine, given = self.connection.engine, self.given
        if self.connection.in_transaction():
            # Of the caller, who decides what becomes of it.
            return
        if not given.is_locked:
            name = self.name or str(engine.url.database)
            stack.enter_context(
                self.product.locked(engine, name, given.wait, on_galera=given.on_galera)
            )
        self.check = stack.enter_context(self.product.prepared(self.connection))
        statements = Statements(engine, given.patience, lambda: self.is_online)
        stack.enter_context(statements.sending())
        if self.product.TRANSACTIONAL_DDL is False:
            beside = stack.enter_context(engine.connect())
            beside.execution_options(isolation_level="AUTOCOMMIT")
            self.journal = Journal(
                self.connection, beside, version_table(self.key), journal_table(self.key)
            )
            stack.enter_context(self.journal.listening())
        self.is_prepared = self.product.TRANSACTIONAL_DDL is not None

    def _steps(self, steps: Any, heads: Any, made: Any) -> Iterator[Any]:
        """Yield Alembic's *steps*; each is noted before it begins and after it is done."""
        marks = [head for head in heads if head.startswith(MARK)]
        if marks:
            found = Standing(tuple(set(heads) - set(marks)), marks[0])
            raise half_way(found, read_journal(self.connection, journal_table(self.key)))
        for step in steps(heads, made):
            if self.given.stop():
                return
            info = step.info
            self._before = info.down_revision_ids if info.is_upgrade else info.up_revision_ids
            if not info.is_stamp:
                module = made.script.get_revision(info.up_revision_id).module
                self.is_online = self.given.online and getattr(module, "online", True)
                if self.journal is not None:
                    self.journal.begin(info.up_revision_id, is_upgrade=info.is_upgrade)
            self.current = str(info.up_revision_id)
            yield step
            self.current, self.is_online = None, False
            self.given.revisions.append(str(info.up_revision_id))

    def _fail(self, error: BaseException) -> None:
        """Note *error*; raise one in its place that says what is stored of the revision."""
        mark = self.journal.mark if self.journal is not None else None
        statements = self.journal.fail(error) if self.journal is not None else []
        if self.current is None or not self.is_prepared or not isinstance(error, Exception):
            return
        if statements:
            told = half_way(Standing(self._before, mark), statements)
            msg = f"{told}\nThe reason: {reason_of(error)}"
            raise MigrationError(msg, statements) from error
        msg = (
            f"The revision {self.current} has failed, and nothing of it is stored: "
            f"{reason_of(error)}"
        )
        raise MigrationError(msg) from error

    def _options(self, metadatas: Sequence[MetaData]) -> dict[str, Any]:
        """Return what Alembic is told of this database."""
        keys = self.given.settings.databases
        key = self.key if len(keys) > 1 else None
        schemas = (self.name, self.connection.dialect.default_schema_name)
        compared = compared_metadata(metadatas, key, schemas)
        others = other_schemas(compared)
        foreign = {
            table.name
            for metadata in metadatas
            for table in metadata.tables.values()
            if all(table.name not in each.tables for each in compared)
        }
        hidden = {name(each) for each in keys for name in (version_table, journal_table)}
        options = {
            "target_metadata": target(compared),
            "version_table": version_table(self.key),
            "include_schemas": bool(others),
            "include_name": name_filter(others, hidden | foreign),
            "render_as_batch": self.product.BATCH,
            "compare_type": True,
            "compare_server_default": differs_as_number,
            "transaction_per_migration": True,
            "on_version_apply": self._applied,
        }
        if self.product.TRANSACTIONAL_DDL is not None:
            options["transactional_ddl"] = self.product.TRANSACTIONAL_DDL
        return options

    def _applied(self, **about: Any) -> None:
        """Check what a revision has left, before its transaction is committed."""
        self.check()
        if self.journal is not None and self.journal.mark is not None:
            self.journal.end(**about)
