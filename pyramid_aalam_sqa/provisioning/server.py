"""The steps that psqa runs, the findings that it reports, and what each kind of server can do."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sqlalchemy.engine import URL, Connection, CursorResult, Engine
from sqlalchemy.exc import DBAPIError

from ..backends import backend_of, masked
from ..exceptions import ProvisioningError
from .tenant import Tenant

# What stands in the place of a password where a statement is shown.
MASKED = "'***'"
NEEDS_URL = (
    "write the URL of an administrator into a file for --admin-url-file, or into SQA_ADMIN_URL."
)


@dataclass(frozen=True, slots=True)
class Step:
    """One statement that psqa runs.

    ``str(step)`` may be printed and logged: it is *shown* where the statement has a password,
    which is masked there.
    """

    statement: str = field(repr=False)
    shown: str = ""

    def __str__(self) -> str:
        return self.shown or self.statement


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong on the server, and what to do about it."""

    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.advice}"


class Server(ABC):
    """What an administrator does for one application on one kind of server.

    The connections of *admin* are in AUTOCOMMIT. *admin* is None on SQLite, which has no accounts,
    and where only the application's own account looks at the server. *wait* is how many seconds
    the server waits for another run of psqa, for a lock, and for connections to end.

    :class:`~pyramid_aalam_sqa.provisioning.Provisioning` holds :meth:`locked` around each call
    that changes something; :meth:`as_owner` takes no lock of its own.
    """

    # The longest name of an account that every server of this kind takes.
    LONGEST_ACCOUNT = 63
    # What the driver is told besides for an administrator's connection.
    ADMINISTRATOR_ARGUMENTS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, tenant: Tenant, admin: Engine | None, wait: float) -> None:
        self.tenant = tenant
        self.admin = admin
        self.wait = wait
        self._is_proved = False
        # What it is doing just now, as a person would say it.
        self.doing = "looking at what is there"

    @classmethod
    def administrator_url(cls, tenant: Tenant, given: URL | None) -> URL:
        """Return the administrator's URL, which names the application's database.

        It is the *given* one, or a login without a password where none was given.
        """
        url = given or URL.create(tenant.url.drivername)
        return url._replace(database=tenant.url.database)

    @abstractmethod
    def describe(self) -> str:
        """Return the product, the version and the address of the server, and who is logged in."""

    def prove_same_server(self, connection: Connection) -> None:  # noqa: B027 - SQLite has none
        """Raise ProvisioningError unless the administrator is on the server of the URL."""

    @abstractmethod
    def plan(self, owner_password: str | None = None) -> Sequence[Step]:
        """Return the steps that make everything as it should be; an empty list when it is."""

    def run(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Run *steps* one after the other and yield each that is done.

        Raises ProvisioningError at the first step that the server refuses.
        """
        with self.connection() as connection:
            for step in steps:
                self.doing = str(step)
                execute(connection, step)
                yield step

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection of the administrator, which leads to the application's own server.

        Raises ProvisioningError when there is no administrator, when it is on another server than
        the application, and in place of every error of the server that the block does not catch.
        """
        if self.admin is None:
            msg = "This needs an administrator's account."
            raise ProvisioningError(msg)
        try:
            with self.admin.connect() as connection:
                if not self._is_proved:
                    self._find_own_host(connection)
                    self._is_proved = True
                yield connection
        except DBAPIError as error:
            msg = f"{masked(self.admin.url)}: {error_text(error)}"
            raise ProvisioningError(msg) from None

    def _find_own_host(self, connection: Connection) -> None:
        """Prove that the administrator is on the application's server.

        If the application has several hosts, find out which of them it is, and from now on do
        everything there. Raises ProvisioningError if that host takes no writes.
        """
        several = self.tenant
        reasons = []
        for host in several.hosts:
            self.tenant = several.at(host)
            try:
                self.prove_same_server(connection)
            except ProvisioningError as error:
                reasons.append(str(error))
                continue
            if backend_of(connection).refuses_writes(connection.connection.dbapi_connection):
                msg = (
                    f"The administrator is on {host}, which takes no writes: {NEEDS_URL} "
                    "With a host of sqa.hosts in it, the host that takes writes is found."
                )
                raise ProvisioningError(msg)
            return
        self.tenant = several
        if reasons:
            raise ProvisioningError(" ".join(reasons))
        self.prove_same_server(connection)

    @abstractmethod
    def prove(self, owner_password: str | None = None) -> Sequence[str]:
        """Log in as the application and return a sentence for each thing that was proved.

        *owner_password* is for :meth:`as_owner`. Raises ProvisioningError when the application can
        do less or more than it should.
        """

    @abstractmethod
    def check(self, owner_password: str | None = None) -> Sequence[Finding]:
        """Return what is wrong on the server, the owner account having *owner_password* or none.

        Without an administrator it is what the application's own account can see of it.
        """

    @abstractmethod
    def password_steps(self, account: str, password: str) -> Sequence[Step]:
        """Return the steps that give *account* the new *password*."""

    @abstractmethod
    def plan_removal(self) -> Sequence[Step]:
        """Return the steps that remove the application; an empty list when nothing is left of it.

        They lock its accounts first, then end its connections, then remove the rest.
        """

    def remove(self) -> Iterator[Step]:
        """Remove the application and yield each step; connections are ended until none is left."""
        yield from self.run(self.plan_removal())

    @abstractmethod
    def locked(self) -> AbstractContextManager[None]:
        """Keep other runs of psqa for this application out until the block ends.

        Raises ProvisioningError when another run lasts longer than ``wait`` seconds.
        """

    def as_application(self) -> AbstractContextManager[Engine]:
        """Lend an engine of the application's own account."""
        return self.tenant.login(self.tenant.user, self.tenant.password)

    @abstractmethod
    def as_owner(self, password: str | None) -> AbstractContextManager[Engine]:
        """Lend an engine of the owner account.

        Where *password* is None the account has a random one in the block, and after it another
        one that is not kept anywhere.
        """


def execute(connection: Connection, step: Step) -> None:
    """Run *step* as it is written; ProvisioningError gives the reason when the server refuses."""
    try:
        if step.shown:
            # SQLAlchemy writes statements to its log, and this one has a password.
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute(step.statement)
        else:
            run_verbatim(connection, step.statement)
    except (DBAPIError, connection.dialect.loaded_dbapi.Error) as error:
        msg = f"{step}: {error_text(error)}"
        raise ProvisioningError(msg) from None


def run_verbatim(connection: Connection, statement: str) -> CursorResult[Any]:
    """Run *statement* without parameters: a percent sign or a colon in a name stays what it is."""
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def error_text(error: Exception) -> str:
    """Return the driver's reason for *error* in one line, without any part of a statement."""
    reason = error.orig if isinstance(error, DBAPIError) else error
    text = str(reason.args[-1]) if reason is not None and reason.args else str(reason)
    line = (text.strip().splitlines() or ["no reason given"])[0]
    # A syntax error quotes the statement, which may hold a password.
    line = " ".join(line.partition(" near ")[0].partition("; check the manual")[0].split())
    code = reason.args[0] if reason is not None and len(reason.args) > 1 else None
    return f"{line} ({code})" if code else line
