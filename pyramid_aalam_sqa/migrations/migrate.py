"""Migrates one database in a process of its own: under its lock, as its owner.

The environment and the models of an application are imported once in a process, and models may take
the name of their database as they are imported. So no process migrates two databases.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from alembic import command
from alembic.util import CommandError
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ..exceptions import MigrationError, SqaError
from ..provisioning import (
    Provisioning,
    Tenant,
    UsageError,
    error_text,
    read_ini,
)
from ..settings import DEFAULT_KEY
from .configure import Given
from .journal import half_way, read_journal
from .metadata import models_of
from .products import Product, product_of
from .repair import repair
from .scripts import GIVEN, Scripts, find_scripts, journal_table
from .standing import Standing, read_standing
from .waits import LIMITS, Patience, waited_too_long

CURRENT, DONE, STOPPED, FAILED, NOT_THERE = (
    "current",
    "done",
    "stopped",
    "failed",
    "not provisioned",
)
HEADS = "heads"


@dataclass(frozen=True)
class Order:
    """What to do with the databases: one for all that a command was given."""

    direction: str = "upgrade"
    to: str = HEADS
    admin_url: str | None = field(default=None, repr=False)
    owner_password: str | None = field(default=None, repr=False)
    bind: str | None = None
    wait: float = 30
    patience: Patience = field(default_factory=Patience)
    online: bool = False
    on_galera: bool = False
    repaired: str | None = None
    sql: str | None = None


@dataclass
class Outcome:
    """How it went with one database. ``state`` is one of the words of this module."""

    database: str
    ini: str
    bind: str = DEFAULT_KEY
    state: str = FAILED
    before: str | None = None
    after: str | None = None
    seconds: float = 0.0
    error: str | None = None
    revisions: list[str] = field(default_factory=list)
    statements: list[dict[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return what the report has of it."""
        found = asdict(self)
        found["from"], found["to"] = found.pop("before"), found.pop("after")
        found["seconds"] = round(self.seconds, 3)
        return found


class Target:
    """One database: the settings of its application, its account, and its revisions.

    Raises :class:`SettingError` or UsageError when the ini file at *where* is wrong.
    """

    def __init__(self, where: str, order: Order) -> None:
        self.where, self.order = where, order
        self.ini = read_ini(where)
        self.key = order.bind or DEFAULT_KEY
        self.scripts: Scripts = find_scripts(self.ini, self.key)
        self.provisioning = Provisioning(
            self.ini, order.admin_url, bind_key=order.bind, wait=order.wait
        )
        self.tenant = _patient(self.provisioning.tenant, order.patience)
        self.provisioning.tenant = self.tenant
        self.product: Product = product_of(self.tenant.url)

    @property
    def name(self) -> str:
        """What a report calls the database."""
        return self.tenant.name

    def is_there(self) -> bool:
        """Return whether an administrator sees the database; true where none can look."""
        creating = ("CREATE DATABASE", "CREATE SCHEMA", "touch", "mkdir")
        with suppress(SqaError):
            return not any(str(each).startswith(creating) for each in self.provisioning.plan())
        return True

    def standing(self) -> Standing | None:
        """Return where the database stands, as the application sees it; None if it is not there."""
        if not self.tenant.user and not self.is_there():
            # To connect would make the file.
            return None
        dialect = self.tenant.url.get_backend_name()
        try:
            with self.provisioning.as_application() as engine:
                # What SQLAlchemy asks a server at first takes longer than the query.
                asked: Any = engine.dialect
                asked.initialize = _ask_nothing
                with engine.connect() as connection:
                    return read_standing(connection, self.scripts.name)
        except DBAPIError as error:
            # The texts of the errors that a query gets may have the same words.
            connecting = error.statement is None
            if connecting and self.product.is_code(error, self.product.NOT_THERE, dialect):
                return None
            refused = self.product.is_code(error, self.product.LOGIN_REFUSED, dialect)
            if connecting and refused and not self.is_there():
                return None
            raise

    def statements(self) -> list[dict[str, str]]:
        """Return the statements of the revision that is half-way."""
        with self.provisioning.as_application() as engine, engine.connect() as connection:
            return read_journal(connection, journal_table(self.key))

    def given(self, **more: Any) -> Given:
        """Return what the env.py is told."""
        order, settings = self.order, self.provisioning.settings

        return Given(
            settings,
            self.key,
            **{
                # To upgrade, only the naming convention is needed.
                "metadatas": lambda: models_of(settings),
                "patience": order.patience,
                "online": order.online,
                "on_galera": order.on_galera,
                "is_locked": True,
                **more,
            },
        )

    @contextmanager
    def owned(self) -> Iterator[Engine]:
        """Lend the owner's engine, and keep other runs for this database out meanwhile."""
        order, provisioning = self.order, self.provisioning
        password = order.owner_password
        if not self.tenant.user:
            # The file is locked with the rights of its owner.
            with provisioning.as_owner() as engine, self._locked(engine):
                yield engine
            return
        with (
            provisioning.as_application() as own,
            self._locked(own),
            provisioning.as_owner(password) as engine,
        ):
            yield engine

    def _locked(self, engine: Engine) -> Any:
        order = self.order
        return self.product.locked(engine, self.name, order.wait, on_galera=order.on_galera)


def _ask_nothing(_connection: Connection) -> None:
    """Take the place of a dialect's questions, whose answers a plain SELECT does not need."""


def _patient(tenant: Tenant, patience: Patience) -> Tenant:
    """Return *tenant* with the limits of a migration in the place of those of requests."""
    options = dict(tenant.options)
    arguments = options.get("connect_args", {})
    options["connect_args"] = {name: arguments[name] for name in arguments.keys() - LIMITS}
    limits = {"lock_timeout": patience.seconds, "statement_timeout": 0.0, "max_connections": None}
    return replace(tenant, options=options, sqa_options={**tenant.sqa_options, **limits})


def migrate(where: str, order: Order, stop: Callable[[], bool] = bool) -> Outcome:
    """Migrate the database of the ini file at *where* as *order* says, and return how it went.

    *stop* is asked before each revision. Raises nothing that is about this one database.
    """
    outcome = Outcome(where, where, order.bind or DEFAULT_KEY)
    begin = monotonic()
    try:
        target = Target(where, order)
        outcome.database = target.name
        with _named(target.provisioning.settings.name), target.provisioning:
            if order.sql:
                _write_sql(target, Path(order.sql), outcome)
            else:
                _migrate(target, outcome, stop)
    except Exception as error:  # noqa: BLE001 - revisions run code, which may raise anything
        outcome.state = FAILED
        outcome.error = reason_of(error)
        outcome.statements = [dict(each) for each in getattr(error, "statements", ())]
    outcome.seconds = monotonic() - begin
    return outcome


def reason_of(error: BaseException) -> str:
    """Return what a report says of *error*: no values, no traceback."""
    if isinstance(error, DBAPIError):
        return error_text(error)
    if isinstance(error, (SqaError, UsageError, CommandError)):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _migrate(target: Target, outcome: Outcome, stop: Callable[[], bool]) -> None:
    with target.owned() as engine, engine.connect() as connection:
        order = target.order
        if order.repaired:
            repair(connection, target.scripts, target.key, order.repaired)
        before = _standing(connection, target)
        outcome.before = outcome.after = str(before)
        if before.mark:
            raise half_way(before, read_journal(connection, journal_table(target.key)))
        if order.to == HEADS and before.is_at(target.scripts.heads()):
            outcome.state = CURRENT
            return
        given = target.given(connectable=engine, stop=stop)
        target.scripts.config.attributes[GIVEN] = given
        try:
            _run(target, engine, order)
        finally:
            outcome.revisions = given.revisions
            # Where the server is lost, the reason is not that it cannot be asked.
            with suppress(DBAPIError):
                outcome.after = str(_standing(connection, target))
        outcome.state = STOPPED if stop() else DONE


@contextmanager
def _named(name: str | None) -> Iterator[None]:
    """Have the environment name the database: models may ask for it as they are imported."""
    before = dict(os.environ)
    if name:
        os.environ["SQA_PROVIDER"], _, os.environ["SQA_APP"] = name.partition("_")
    try:
        yield
    finally:
        for key in ("SQA_PROVIDER", "SQA_APP"):
            os.environ.pop(key, None)
            if key in before:
                os.environ[key] = before[key]


def _standing(connection: Connection, target: Target) -> Standing:
    try:
        return read_standing(connection, target.scripts.name)
    finally:
        # A transaction that stays open would keep the revisions from changing a table.
        connection.rollback()


def _run(target: Target, engine: Engine, order: Order) -> None:
    """Have Alembic run the revisions; again, where a lock was not had in time."""
    function = command.upgrade if order.direction == "upgrade" else command.downgrade
    rest = 0 if target.product.RETRIES_STATEMENTS else order.patience.retries
    while True:
        try:
            function(target.scripts.config, order.to)
        except MigrationError as error:
            cause = error.__cause__
            if not rest or cause is None or not waited_too_long(cause, engine):
                raise
            rest -= 1
            sleep(order.patience.seconds)
        else:
            return


def look_at(target: Target, outcome: Outcome) -> Standing | None:
    """Return where the database stands, and note it in *outcome*; None if it is not there."""
    standing = target.standing()
    if standing is None:
        outcome.state = NOT_THERE
    else:
        outcome.before = outcome.after = str(standing)
    return standing


def _write_sql(target: Target, folder: Path, outcome: Outcome) -> None:
    """Write what would be done into a file in *folder*; the database is only read."""
    standing = look_at(target, outcome)
    if standing is None:
        return
    if standing.mark:
        raise half_way(standing, target.statements())
    order, config = target.order, target.scripts.config
    config.attributes[GIVEN] = target.given()
    path = folder / f"{Path(target.name).name}.sql"
    span = f"{','.join(standing.revisions) or 'base'}:{order.to}"
    function = command.upgrade if order.direction == "upgrade" else command.downgrade
    with path.open("w") as file:
        file.write(f"-- {target.name}: {span}\n{target.product.preamble(target.tenant.schema)}")
        config.output_buffer = file
        function(config, span, sql=True)
    outcome.state = DONE
