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

from ...backends import LOCAL_HOSTS
from ...exceptions import ProvisioningError
from ..passwords import new_password
from ..server import NEEDS_URL, Finding, Server, Step, error_text, execute, run_verbatim
from ..tenant import Tenant
from .accounts import (
    LONGEST_ACCOUNT,
    Account,
    error_number,
    find_accounts,
    login_fails,
    new_account,
    password_step,
)
from .findings import other_accounts, own_grants, rights_of_others, tables_and_settings
from .grants import OWNER, RUNTIME, Repair, grant_repairs, grant_step, other_use
from .identity import address_of, prove_same_server
from .proof import other_database, prove_usable_and_alone

# Both servers have this collation; each lacks the default one of the other.
CHARACTER_SET = "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"
CHARSET_OF_DATABASE = text(
    "SELECT DEFAULT_CHARACTER_SET_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = :name"
)
CONNECTIONS = text("SELECT ID FROM information_schema.PROCESSLIST WHERE USER IN (:user, :owner)")
NO_SUCH_CONNECTION = 1094
# How often in a row no connection is to be seen.
QUIET_LOOKS = 3
LOCK_WAIT_TIMEOUT = 1205
# An option of the server decides whether it quotes names where it needs no quotes; what SHOW GRANTS
# prints depends on it.
QUOTE_NAMES = text("SET SESSION sql_quote_show_create = 1")
READ_GRANTS = text("SET SESSION sql_mode = 'TRADITIONAL', sql_quote_show_create = 1")
TAKE_LOCK = text("SELECT GET_LOCK(:name, 0)")
# The connection that holds the lock, where its account may make no accounts.
FOREIGN_HOLDER = text(
    "SELECT ID FROM information_schema.PROCESSLIST p WHERE ID = IS_USED_LOCK(:name) "
    "AND NOT EXISTS (SELECT 1 FROM mysql.user u WHERE u.User = p.USER AND Create_user_priv = 'Y')"
)
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

    LONGEST_ACCOUNT = LONGEST_ACCOUNT
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
        if not address.unix_socket and address.host not in LOCAL_HOSTS:
            msg = f"{tenant.url_key} leads to {address.host}, which is another machine: {NEEDS_URL}"
            raise ProvisioningError(msg)
        own = address.unix_socket or os.environ.get("MYSQL_UNIX_PORT")
        places = [own] if own else cls.SOCKETS
        socket = next((path for path in places if Path(path).exists()), None)
        if socket is None:
            msg = f"There is no socket of a server here ({', '.join(places)}): {NEEDS_URL}"
            raise ProvisioningError(msg)
        return URL.create("mysql+pymysql", getuser(), query={"unix_socket": socket})

    def describe(self) -> str:
        """Return for example ``MariaDB 10.11.6 at 127.0.0.1:3306, as root@localhost``."""
        with self.connection() as connection:
            dialect: Any = connection.dialect
            product = "MariaDB" if dialect.is_mariadb else "MySQL"
            version, user = connection.execute(text("SELECT VERSION(), CURRENT_USER()")).one()
            number = str(version).partition("-")[0]
            return f"{product} {number} at {address_of(self.tenant)}, as {user}"

    def prove_same_server(self, connection: Connection) -> None:
        """Find in the server's list a connection that was made at the application's address."""
        prove_same_server(connection, self.tenant)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection of the administrator, on which the server quotes names as psqa reads.

        Raises ProvisioningError as :meth:`Server.connection` does.
        """
        with super().connection() as connection:
            connection.execute(QUOTE_NAMES)
            yield connection

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs for this application out with GET_LOCK.

        Every account may take such a lock. One that is not an administrator's is ended, and with
        it the lock that it holds.
        """
        name = {"name": f"psqa {self.tenant.owner}"}
        deadline = monotonic() + self.wait
        with self.connection() as connection:
            self.doing = "waiting for another psqa"
            while not connection.scalar(TAKE_LOCK, name):
                for number in connection.scalars(FOREIGN_HOLDER, name).all():
                    _kill(connection, Step(f"KILL CONNECTION {number:d}"))
                if monotonic() > deadline:
                    msg = f"Another psqa is at work for {self.tenant.name}: try again later."
                    raise ProvisioningError(msg)
                sleep(0.05)
            # The server releases the lock when the connection is closed.
            yield

    def plan(self, owner_password: str | None = None) -> Sequence[Step]:
        """Return the steps that make database, accounts and grants as they should be."""
        return [step for repair in self._repairs(owner_password) for step in repair.steps]

    def check(self, owner_password: str | None = None) -> Sequence[Finding]:
        """Return what is wrong, as the administrator sees it or else as the application does."""
        tenant = self.tenant
        if self.admin is None:
            with (
                tenant.login(tenant.user, tenant.password) as engine,
                engine.connect() as connection,
            ):
                connection.execute(READ_GRANTS)
                return [
                    *own_grants(connection, tenant),
                    *tables_and_settings(connection, tenant),
                ]
        found = [repair.finding for repair in self._repairs(owner_password)]
        with self.connection() as connection:
            found += other_accounts(connection, tenant)
            found += rights_of_others(connection, tenant)
            found += tables_and_settings(connection, tenant)
        return found

    def _repairs(self, owner_password: str | None) -> list[Repair]:
        tenant = self.tenant
        with self.connection() as connection:
            self._refuse_accounts_of_others(connection)
            repairs = list(self._database_repairs(connection))
            user, owner = tenant.user, tenant.owner
            repairs += self._user_repairs(connection, find_accounts(connection, user))
            accounts = find_accounts(connection, owner)
            repairs += self._owner_repairs(connection, accounts, owner_password)
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

    def _refuse_accounts_of_others(self, connection: Connection) -> None:
        """Raise when the ini file names an account that belongs to an administrator or a neighbour.

        psqa would change its password, take its grants away, and drop it.
        """
        self._refuse_administrators(connection)
        other = other_use(connection, self.tenant)
        if other:
            msg = (
                f"{self.tenant.url_key}: {self.tenant.user!r} is used for {other}; "
                "give the application an account of its own."
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

    def _user_repairs(
        self, connection: Connection, accounts: Sequence[Account]
    ) -> Iterator[Repair]:
        """Yield what makes the account that serves, its password and its grants."""
        name, password = self.tenant.name, self.tenant.password
        if not accounts:
            account = new_account(connection, self.tenant.user)
            first = password_step("CREATE USER", connection, account, password or new_password())
            steps = (first, grant_step(account, name, RUNTIME))
            yield Repair(f"There is no account {account.sql}", steps)
        for account in accounts:
            if account.locked:
                step = Step(f"ALTER USER {account.sql} ACCOUNT UNLOCK")
                yield Repair(f"{account.sql} is locked", (step,))
            if password is not None and login_fails(self.tenant, account, password):
                step = password_step("ALTER USER", connection, account, password)
                problem = f"{account.sql} does not log in with the password that is set"
                yield Repair(problem, (step,))
            yield from grant_repairs(connection, account, name, RUNTIME)

    def _owner_repairs(
        self, connection: Connection, accounts: Sequence[Account], password: str | None
    ) -> Iterator[Repair]:
        """Yield what makes the owner account and its grants; without a *password* it is locked."""
        name = self.tenant.name
        lock = "" if password else "ACCOUNT LOCK"
        once = password or new_password()
        if not accounts:
            account = new_account(connection, self.tenant.owner)
            first = password_step("CREATE USER", connection, account, once, lock)
            steps = (first, grant_step(account, name, OWNER))
            yield Repair(f"There is no account {account.sql}", steps)
        for account in accounts:
            step = password_step("ALTER USER", connection, account, once, lock or "ACCOUNT UNLOCK")
            if not password and not account.locked:
                problem = f"{account.sql} can log in, and its password may be known"
                yield Repair(problem, (step,))
            if password and (account.locked or login_fails(self.tenant, account, password)):
                problem = f"{account.sql} does not log in with the password in the file"
                yield Repair(problem, (step,))
            yield from grant_repairs(connection, account, name, OWNER)

    def prove(self, owner_password: str | None = None) -> Sequence[str]:
        """Log in as the application, use its database, and be denied another one."""
        tenant = self.tenant
        with self.connection() as connection, other_database(connection, tenant.name) as other:
            prove_usable_and_alone(tenant, other)
        return [
            f"{tenant.user} logs in, reads and writes in {tenant.name}.",
            f"{tenant.user} is denied {other}, and sees no other database.",
        ]

    def password_steps(self, account: str, password: str, option: str = "") -> Sequence[Step]:
        """Return the steps that give *account* a new password for each host it may come from."""
        with self.connection() as connection:
            self._refuse_accounts_of_others(connection)
            found = find_accounts(connection, account)
            steps = [
                password_step("ALTER USER", connection, each, password, option) for each in found
            ]
        if not steps:
            msg = f"There is no account {account!r}: run psqa create first."
            raise ProvisioningError(msg)
        return steps

    @contextmanager
    def as_owner(self, password: str | None) -> Iterator[Engine]:
        """Lend an engine of the owner; without a *password* it is unlocked for the block alone."""
        owner = self.tenant.owner
        once = password or new_password()
        if password is None:
            self._set_owner(once, "ACCOUNT UNLOCK")
        try:
            with self.tenant.login(owner, once) as engine:
                yield engine
        finally:
            if password is None:
                self._set_owner(new_password(), "ACCOUNT LOCK")

    def _set_owner(self, password: str, option: str) -> None:
        steps = self.password_steps(self.tenant.owner, password, option)
        list(self.run(steps))

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
            yield from self._run(connection, _lock_steps(accounts))
            yield from self._end_connections(connection)
            steps = self._drop_steps(connection, accounts)
            try:
                yield from self._run(connection, steps)
            except ProvisioningError as error:
                if f"({LOCK_WAIT_TIMEOUT})" not in str(error):
                    raise
                # It keeps its locks without a connection, and the server does not say whose it is.
                msg = f"{error}: XA RECOVER lists prepared transactions; end this application's."
                raise ProvisioningError(msg) from None

    def _end_connections(self, connection: Connection) -> Iterator[Step]:
        """End the connections of the locked accounts and yield each step, until none is left.

        A login that had begun before is listed a moment later, so that psqa looks once more.
        """
        deadline = monotonic() + self.wait
        self.doing = "waiting for the application's connections to end"
        quiet = 0
        while quiet < QUIET_LOOKS:
            kills = self._kill_steps(connection)
            for step in kills:
                _kill(connection, step)
                yield step
            quiet = 0 if kills else quiet + 1
            if kills and monotonic() > deadline:
                msg = f"The connections of {self.tenant.user!r} do not end: try again."
                raise ProvisioningError(msg)
            # The server takes a moment to end a statement that is running.
            sleep(0.02)

    def _run(self, connection: Connection, steps: Sequence[Step]) -> Iterator[Step]:
        for step in steps:
            self.doing = str(step)
            execute(connection, step)
            yield step

    def _own_accounts(self, connection: Connection) -> list[Account]:
        self._refuse_accounts_of_others(connection)
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


def _kill(connection: Connection, step: Step) -> None:
    """Run *step*; a connection that has ended by itself meanwhile is not an error."""
    try:
        run_verbatim(connection, step.statement)
    except DBAPIError as error:
        if error_number(error) != NO_SUCH_CONNECTION:
            msg = f"{step}: {error_text(error)}"
            raise ProvisioningError(msg) from None
