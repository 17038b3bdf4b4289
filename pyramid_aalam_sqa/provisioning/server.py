"""What an administrator does for one application on one server, and the shape of each answer.

The caller (``provisioning``) holds :meth:`Server.locked` around everything that changes something;
:meth:`Server.as_owner` need not lock by itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import URL, Connection, CursorResult, Engine
from sqlalchemy.exc import DBAPIError

from ..backends import masked
from ..exceptions import ProvisioningError
from .tenant import Tenant

MASKED = "'***'"


@dataclass(frozen=True, slots=True)
class Step:
    """One statement to run; as text, its secrets are masked."""

    statement: str = field(repr=False)
    shown: str

    def __str__(self) -> str:
        return self.shown


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong on the server, and what to do about it."""

    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.advice}"


class Server(ABC):
    """One kind of server, seen by the administrator whose *admin* engine is in AUTOCOMMIT.

    *admin* is None where there is none: on SQLite, and for what the application's own account sees.
    """

    # The longest name of an account that every server of this kind takes.
    LONGEST_ACCOUNT = 63

    def __init__(self, application: Tenant, admin: Engine | None) -> None:
        self.application = application
        self.admin = admin

    @classmethod
    def administrator_url(cls, application: Tenant, given: URL | None) -> URL:
        """Return the URL of the administrator: as *given*, else a login without a password.

        It leads to the application's database.
        """
        url = given or URL.create(application.url.drivername)
        return url._replace(database=application.url.database)

    @abstractmethod
    def differences(self, owner_password: str | None = None) -> Sequence[Step]:
        """Return the steps that make everything as it should be; none when it is."""

    def run(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Run *steps* one after the other, yielding each that is done.

        Raises ProvisioningError at the first that the server refuses.
        """
        with self.connection() as connection:
            for step in steps:
                execute(connection, step)
                yield step

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection of the administrator; ProvisioningError when there is none.

        So is every error of the server that is not caught before.
        """
        if self.admin is None:
            msg = "This needs an administrator's account."
            raise ProvisioningError(msg)
        try:
            with self.admin.connect() as connection:
                yield connection
        except DBAPIError as error:
            msg = f"{masked(self.admin.url)}: {words(error)}"
            raise ProvisioningError(msg) from None

    @abstractmethod
    def prove(self) -> Sequence[str]:
        """Log in as the application and return a sentence for each thing that was proved.

        Raises ProvisioningError when it can do less or more than it should.
        """

    @abstractmethod
    def findings(self) -> Sequence[Finding]:
        """Return what is wrong on the server, or what of it the application's account can see."""

    @abstractmethod
    def password_steps(self, account: str, password: str) -> Sequence[Step]:
        """Return the steps that give *account* a new password."""

    @abstractmethod
    def removal(self) -> Sequence[Step]:
        """Return the steps that remove the application; none when nothing of it is there.

        Its accounts are locked first, then its connections are ended, then the rest goes.
        """

    def remove(self) -> Iterator[Step]:
        """Remove the application, yielding each step; connections are ended until none is left."""
        yield from self.run(self.removal())

    @abstractmethod
    def locked(self) -> AbstractContextManager[None]:
        """Keep other administrators' runs for this application out meanwhile.

        Raises ProvisioningError when another run goes on for too long.
        """

    @abstractmethod
    def as_owner(self, password: str | None) -> AbstractContextManager[Engine]:
        """Lend an engine of the owner account, whose *password* is a new random one when None.

        Then it has another random one afterwards, that nobody knows.
        """


def execute(connection: Connection, step: Step) -> None:
    """Run *step* as it is written; ProvisioningError says what the server has against it."""
    try:
        if step.statement == step.shown:
            verbatim(connection, step.statement)
        else:
            # SQLAlchemy writes statements to its log, and this one has a password.
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute(step.statement)
    except (DBAPIError, connection.dialect.loaded_dbapi.Error) as error:
        msg = f"{step}: {words(error)}"
        raise ProvisioningError(msg) from None


def verbatim(connection: Connection, statement: str) -> CursorResult[Any]:
    """Run *statement* as it is written: a percent sign or a colon in a name is no parameter's."""
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def words(error: Exception) -> str:
    """Return what the driver says of *error*, in one line without any part of a statement."""
    reason = error.orig if isinstance(error, DBAPIError) else error
    text = str(reason.args[-1]) if reason is not None and reason.args else str(reason)
    line = (text.strip().splitlines() or ["no reason given"])[0]
    # A syntax error quotes the statement, which may hold a password.
    line = line.partition(" near ")[0].partition("; check the manual")[0]
    code = reason.args[0] if reason is not None and len(reason.args) > 1 else None
    return f"{line} ({code})" if code else line
