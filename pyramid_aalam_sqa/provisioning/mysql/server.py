"""MySQL and MariaDB: a database, two accounts and escaped grants for each application.

The statements are those that MariaDB from 10.4 on and MySQL 8 both understand.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from time import monotonic, sleep
from typing import Any, ClassVar

from sqlalchemy import text
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from ...backends import THIS_MACHINE
from ...exceptions import ProvisioningError
from ..passwords import new_password
from ..server import NEEDS_URL, Finding, Server, Step, error_text, execute, run_verbatim
from ..tenant import Tenant
from .accounts import (
    Account,
    error_number,
    find_accounts,
    login_fails,
    new_account,
    password_step,
)
from .findings import other_accounts, own_grants, tables_and_settings
from .grants import OWNER, RUNTIME, Repair, grant_repairs, grant_step
from .identity import address_of, prove_same_server
from .proof import other_database, prove_usable_and_alone

# Both servers have this collation; each lacks the default one of the other.
CHARACTER_SET = "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"
CHARSET_OF_DATABASE = text(
    "SELECT DEFAULT_CHARACTER_SET_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = :name"
)
CONNECTIONS = text("SELECT ID FROM information_schema.PROCESSLIST WHERE USER IN (:user, :owner)")
NO_SUCH_CONNECTION = 1094
SYSTEM_ACCOUNTS = {
    "debian-sys-maint",
    "mariadb.sys",
    "mysql",
    "mysql.infoschema",
    "mysql.session",
    "mysql.sys",
    "root",
}


class MySQLServer(Server):
    """What an administrator of MySQL or MariaDB does for one application."""

    # MySQL's limit; MariaDB takes 128 characters.
    LONGEST_ACCOUNT = 32
    # Where packages of MySQL and MariaDB put the server's socket.
    SOCKETS: ClassVar[Sequence[str]] = (
        "/run/mysqld/mysqld.sock",
        "/var/lib/mysql/mysql.sock",
        "/tmp/mysql.sock",  # noqa: S108 - the server's choice
    )

    @classmethod
    def administrator_url(cls, tenant: Tenant, given: URL | None) -> URL:
        """Return the *given* URL, or a login on a socket of this machine as the system's user.

        The socket is the application's own, that of MYSQL_UNIX_PORT in the environment, or one of
        :attr:`SOCKETS`. Raises ProvisioningError when the URL leads to another machine.
        """
        if given is not None:
            return given.set(drivername="mysql+pymysql")._replace(database=None)
        address = address_of(tenant)
        if not address.unix_socket and address.host not in THIS_MACHINE:
            msg = f"{tenant.url_key} leads to {address.host}, which is another machine: {NEEDS_URL}"
            raise ProvisioningError(msg)
        own = address.unix_socket or os.environ.get("MYSQL_UNIX_PORT")
        places = [own] if own else cls.SOCKETS
        socket = next((path for path in places if Path(path).exists()), None)
        if socket is None:
            msg = f"There is no socket of a server here ({', '.join(places)}): {NEEDS_URL}"
            raise ProvisioningError(msg)
        return URL.create("mysql+pymysql", getuser(), query={"unix_socket": socket})

    def description(self, connection: Connection) -> str:
        """Return for example ``MariaDB 10.11.6 at 127.0.0.1:3306, as root@localhost``."""
        dialect: Any = connection.dialect
        product = "MariaDB" if dialect.is_mariadb else "MySQL"
        version, user = connection.execute(text("SELECT VERSION(), CURRENT_USER()")).one()
        number = str(version).partition("-")[0]
        return f"{product} {number} at {address_of(self.tenant)}, as {user}"

    def prove_same_server(self, connection: Connection) -> None:
        """Find in the server's list a connection that was made at the application's address."""
        prove_same_server(connection, self.tenant)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs for this application out with GET_LOCK."""
        name = f"psqa {self.tenant.owner}"
        with self.connection() as connection:
            take = text("SELECT GET_LOCK(:name, :wait)")
            if not connection.scalar(take, {"name": name, "wait": self.wait}):
                msg = f"Another psqa is at work for {self.tenant.name}: try again later."
                raise ProvisioningError(msg)
            # The server releases the lock when the connection is closed.
            yield

    def plan(self, owner_password: str | None = None) -> Sequence[Step]:
        """Return the steps that make database, accounts and grants as they should be."""
        return [step for repair in self._repairs(owner_password) for step in repair.steps]

    def check(self) -> Sequence[Finding]:
        """Return what is wrong, as the administrator sees it or else as the application does."""
        tenant = self.tenant
        if self.admin is None:
            with (
                tenant.login(tenant.user, tenant.password) as engine,
                engine.connect() as connection,
            ):
                return [
                    *own_grants(connection, tenant),
                    *tables_and_settings(connection, tenant),
                ]
        found = [repair.finding for repair in self._repairs(None)]
        with self.connection() as connection:
            found += other_accounts(connection, tenant)
            found += tables_and_settings(connection, tenant)
        return found

    def _repairs(self, owner_password: str | None) -> list[Repair]:
        tenant = self.tenant
        with self.connection() as connection:
            self._refuse_administrators(connection)
            repairs = list(self._database_repairs(connection))
            for user, password, wanted in (
                (tenant.user, tenant.password, RUNTIME),
                (tenant.owner, owner_password, OWNER),
            ):
                repairs += self._account_repairs(connection, user, password, wanted)
        return repairs

    def _refuse_administrators(self, connection: Connection) -> None:
        """Raise when the ini file names an administrator: psqa would take its grants away."""
        current = str(connection.scalar(text("SELECT CURRENT_USER()"))).rpartition("@")[0]
        for user in (self.tenant.user, self.tenant.owner):
            if user.lower() in SYSTEM_ACCOUNTS or user == current:
                msg = (
                    f"{self.tenant.url_key}: {user!r} is an administrator's account; "
                    "give the application one of its own."
                )
                raise ProvisioningError(msg)

    def _database_repairs(self, connection: Connection) -> Iterator[Repair]:
        name = self.tenant.name
        charset = connection.scalar(CHARSET_OF_DATABASE, {"name": name})
        if charset is None:
            step = Step(f"CREATE DATABASE `{name}` {CHARACTER_SET}")
            yield Repair(f"There is no database {name}", (step,))
        elif charset != "utf8mb4":
            step = Step(f"ALTER DATABASE `{name}` {CHARACTER_SET}")
            yield Repair(f"New tables of {name} are in {charset}, not in utf8mb4", (step,))

    def _account_repairs(
        self, connection: Connection, user: str, password: str | None, wanted: Sequence[str]
    ) -> Iterator[Repair]:
        """Yield what makes *user*, its *password* and its grants; a password of None is kept."""
        name = self.tenant.name
        accounts = find_accounts(connection, user)
        if not accounts:
            account = new_account(connection, user)
            first = password or new_password()
            steps = (
                password_step("CREATE USER", connection, account, first),
                grant_step(account, name, wanted),
            )
            yield Repair(f"There is no account {account.sql}", steps)
        for account in accounts:
            if account.locked:
                step = Step(f"ALTER USER {account.sql} ACCOUNT UNLOCK")
                yield Repair(f"{account.sql} is locked", (step,))
            if password is not None and login_fails(self.tenant, account, password):
                step = password_step("ALTER USER", connection, account, password)
                problem = f"{account.sql} does not log in with the password that is set"
                yield Repair(problem, (step,))
            yield from grant_repairs(connection, account, name, wanted)

    def prove(self, owner_password: str | None = None) -> Sequence[str]:
        """Log in as the application, use its database, and be denied another one."""
        tenant = self.tenant
        with self.connection() as connection, other_database(connection, tenant.name) as other:
            prove_usable_and_alone(tenant, other)
        return [
            f"{tenant.user} logs in, reads and writes in {tenant.name}.",
            f"{tenant.user} is denied {other}, and sees no other database.",
        ]

    def password_steps(self, account: str, password: str) -> Sequence[Step]:
        """Return the steps that give *account* a new password for each host it may come from."""
        with self.connection() as connection:
            found = find_accounts(connection, account)
            steps = [password_step("ALTER USER", connection, each, password) for each in found]
        if not steps:
            msg = f"There is no account {account!r}: run psqa create first."
            raise ProvisioningError(msg)
        return steps

    @contextmanager
    def as_owner(self, password: str | None) -> Iterator[Engine]:
        """Lend an engine of the owner; where none is given, its password is for the block alone."""
        owner = self.tenant.owner
        once = password or new_password()
        if password is None:
            list(self.run(self.password_steps(owner, once)))
        try:
            with self.tenant.login(owner, once) as engine:
                yield engine
        finally:
            if password is None:
                list(self.run(self.password_steps(owner, new_password())))

    def plan_removal(self) -> Sequence[Step]:
        """Return the steps that remove the accounts and the database."""
        with self.connection() as connection:
            accounts = self._own_accounts(connection)
            kills = self._kill_steps(connection)
            return [*_lock_steps(accounts), *kills, *self._drop_steps(connection, accounts)]

    def remove(self) -> Iterator[Step]:
        """Lock the accounts, end connections until none is left, then drop everything."""
        with self.connection() as connection:
            accounts = self._own_accounts(connection)
            yield from _run(connection, _lock_steps(accounts))
            deadline = monotonic() + self.wait
            while kills := self._kill_steps(connection):
                for step in kills:
                    _kill(connection, step)
                    yield step
                # The server takes a moment to end a statement that is running.
                sleep(0.01)
                if monotonic() > deadline:
                    msg = f"The connections of {self.tenant.user!r} do not end: try again."
                    raise ProvisioningError(msg)
            yield from _run(connection, self._drop_steps(connection, accounts))

    def _own_accounts(self, connection: Connection) -> list[Account]:
        self._refuse_administrators(connection)
        users = (self.tenant.user, self.tenant.owner)
        return [account for user in users for account in find_accounts(connection, user)]

    def _kill_steps(self, connection: Connection) -> list[Step]:
        users = {"user": self.tenant.user, "owner": self.tenant.owner}
        found = connection.execute(CONNECTIONS, users)
        return [Step(f"KILL CONNECTION {number:d}") for number in found.scalars()]

    def _drop_steps(self, connection: Connection, accounts: Sequence[Account]) -> list[Step]:
        name = self.tenant.name
        steps = [Step(f"DROP USER {account.sql}") for account in accounts]
        if connection.scalar(CHARSET_OF_DATABASE, {"name": name}) is not None:
            steps.append(Step(f"DROP DATABASE `{name}`"))
        return steps


def _lock_steps(accounts: Sequence[Account]) -> list[Step]:
    return [Step(f"ALTER USER {account.sql} ACCOUNT LOCK") for account in accounts]


def _run(connection: Connection, steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        execute(connection, step)
        yield step


def _kill(connection: Connection, step: Step) -> None:
    """Run *step*; a connection that has ended by itself meanwhile is not an error."""
    try:
        run_verbatim(connection, step.statement)
    except DBAPIError as error:
        if error_number(error) != NO_SUCH_CONNECTION:
            msg = f"{step}: {error_text(error)}"
            raise ProvisioningError(msg) from None
