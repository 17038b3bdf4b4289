"""MySQL and MariaDB: a database, two accounts and escaped grants for each application.

Written for MariaDB from 10.4 on and for MySQL 8, in the statements that both understand.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from time import monotonic, sleep

from sqlalchemy import text
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from ...exceptions import ProvisioningError
from ..passwords import new_password
from ..server import Finding, Server, Step, execute, verbatim, words
from ..tenant import Tenant
from .accounts import (
    OWNER,
    RUNTIME,
    Account,
    Repair,
    accounts_of,
    code,
    grant_repairs,
    granting,
    identified,
    is_wrong,
    new_account,
    plain,
)
from .findings import (
    CHARSET,
    neighbour,
    other_accounts,
    own_account,
    prove_usable_and_alone,
    server_and_tables,
)

# Of the collations of utf8mb4, MariaDB or MySQL 8 lacks the default one of the other.
CHARACTER_SET = "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"


SYSTEM_ACCOUNTS = {
    "debian-sys-maint",
    "mariadb.sys",
    "mysql",
    "mysql.infoschema",
    "mysql.session",
    "mysql.sys",
    "root",
}


NO_SUCH_CONNECTION = 1094


LOCK_WAIT = 30


KILL_WAIT = 30


SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock")  # noqa: S108 - the server's


CONNECTIONS = text("SELECT ID FROM information_schema.PROCESSLIST WHERE USER IN (:user, :owner)")


class MySQLServer(Server):
    """What an administrator of MySQL or MariaDB does for one application."""

    # MariaDB takes 128.
    LONGEST_ACCOUNT = 32

    def differences(self, owner_password: str | None = None) -> Sequence[Step]:
        """Return the steps that make database, accounts and grants as they should be."""
        return [step for repair in self._repairs(owner_password) for step in repair.steps]

    def prove(self) -> Sequence[str]:
        """Log in as the application; it may use its database, and not enter another."""
        app = self.application
        with self.connection() as connection, neighbour(connection, app.name) as other:
            prove_usable_and_alone(app, other)
        return [
            f"{app.user} logs in, reads and writes in {app.name}.",
            f"{app.user} is denied {other}, and sees no other database.",
        ]

    def findings(self) -> Sequence[Finding]:
        """Return what is wrong, as the administrator sees it or else as the application does."""
        app = self.application
        if self.admin is None:
            with app.login(app.user, app.password) as engine, engine.connect() as connection:
                found = [*own_account(connection, app), *server_and_tables(connection, app)]
        else:
            found = [repair.finding for repair in self._repairs(None)]
            with self.connection() as connection:
                found += other_accounts(connection, app)
                found += server_and_tables(connection, app)
        return found

    def password_steps(self, account: str, password: str) -> Sequence[Step]:
        """Return the steps that give *account* a new password on each of its hosts."""
        with self.connection() as connection:
            found = accounts_of(connection, account)
            steps = [identified("ALTER USER", connection, each, password) for each in found]
        if not steps:
            msg = f"There is no account {account!r}: run psqa create first."
            raise ProvisioningError(msg)
        return steps

    def removal(self) -> Sequence[Step]:
        """Return the steps that remove the accounts and the database."""
        with self.connection() as connection:
            accounts = self._all_accounts(connection)
            return [*_locks(accounts), *self._kills(connection), *self._drops(connection, accounts)]

    def remove(self) -> Iterator[Step]:
        """Remove them; an application that connects meanwhile is locked out, and then ended."""
        with self.connection() as connection:
            accounts = self._all_accounts(connection)
            yield from _run(connection, _locks(accounts))
            deadline = monotonic() + KILL_WAIT
            while kills := self._kills(connection):
                for kill in kills:
                    _end(connection, kill)
                    yield kill
                # It takes the server a moment to end a statement that is running.
                sleep(0.01)
                if monotonic() > deadline:
                    msg = f"The connections of {self.application.user!r} do not end: try again."
                    raise ProvisioningError(msg)
            yield from _run(connection, self._drops(connection, accounts))

    @classmethod
    def administrator_url(cls, application: Tenant, given: URL | None) -> URL:
        """Return the URL that was *given*, else the login on the server's own socket."""
        if given is not None:
            return given.set(drivername="mysql+pymysql")._replace(database=None)
        arguments = {**application.url.query, **application.options.get("connect_args", {})}
        places = [str(arguments["unix_socket"])] if "unix_socket" in arguments else SOCKETS
        socket = next((path for path in places if Path(path).exists()), None)
        if socket is None:
            msg = (
                f"There is no socket of a server here ({', '.join(places)}): write the URL of an "
                "administrator into a file for --admin-url-file, or into SQA_ADMIN_URL."
            )
            raise ProvisioningError(msg)
        return URL.create("mysql+pymysql", getuser(), query={"unix_socket": socket})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs for this application out with GET_LOCK."""
        name = f"psqa {self.application.owner}"
        with self.connection() as connection:
            take = text("SELECT GET_LOCK(:name, :wait)")
            if not connection.scalar(take, {"name": name, "wait": LOCK_WAIT}):
                msg = f"Another psqa is at work for {self.application.name}: try again later."
                raise ProvisioningError(msg)
            # Released with its connection.
            yield

    @contextmanager
    def as_owner(self, password: str | None) -> Iterator[Engine]:
        """Lend an engine of the owner, with a password for this run alone where none is given."""
        app = self.application
        once = password or new_password()
        if password is None:
            list(self.run(self.password_steps(app.owner, once)))
        try:
            with app.login(app.owner, once) as engine:
                yield engine
        finally:
            if password is None:
                list(self.run(self.password_steps(app.owner, new_password())))

    def _repairs(self, owner_password: str | None) -> list[Repair]:
        app = self.application
        with self.connection() as connection:
            self._refuse_administrators(connection)
            repairs = list(self._database_repairs(connection))
            for user, password, wanted in (
                (app.user, app.password, RUNTIME),
                (app.owner, owner_password, OWNER),
            ):
                accounts = accounts_of(connection, user)
                if not accounts:
                    created = new_account(connection, user)
                    first = password or new_password()
                    steps = (
                        identified("CREATE USER", connection, created, first),
                        granting(created, app.name, wanted),
                    )
                    repairs.append(Repair(f"There is no account {created.sql}", steps))
                for account in accounts:
                    repairs += self._login_repairs(connection, account, password)
                    repairs += grant_repairs(connection, account, app.name, wanted)
        return repairs

    def _refuse_administrators(self, connection: Connection) -> None:
        """Refuse to take an administrator's grants away because an ini file names one."""
        app = self.application
        current = str(connection.scalar(text("SELECT CURRENT_USER()"))).rpartition("@")[0]
        for user in (app.user, app.owner):
            if user.lower() in SYSTEM_ACCOUNTS or user == current:
                msg = (
                    f"sqlalchemy.url: {user!r} is an administrator's account; "
                    "give the application one of its own."
                )
                raise ProvisioningError(msg)

    def _database_repairs(self, connection: Connection) -> Iterator[Repair]:
        name = self.application.name
        charset = connection.scalar(CHARSET, {"name": name})
        if charset is None:
            step = plain(f"CREATE DATABASE `{name}` {CHARACTER_SET}")
            yield Repair(f"There is no database {name}", (step,))
        elif charset != "utf8mb4":
            step = plain(f"ALTER DATABASE `{name}` {CHARACTER_SET}")
            yield Repair(f"New tables of {name} are in {charset}, not in utf8mb4", (step,))

    def _login_repairs(
        self, connection: Connection, account: Account, password: str | None
    ) -> Iterator[Repair]:
        if account.locked:
            step = plain(f"ALTER USER {account.sql} ACCOUNT UNLOCK")
            yield Repair(f"{account.sql} is locked", (step,))
        if password is not None and is_wrong(self.application, account, password):
            step = identified("ALTER USER", connection, account, password)
            yield Repair(f"{account.sql} does not log in with the password that is set", (step,))

    def _all_accounts(self, connection: Connection) -> list[Account]:
        self._refuse_administrators(connection)
        names = (self.application.user, self.application.owner)
        return [account for name in names for account in accounts_of(connection, name)]

    def _kills(self, connection: Connection) -> list[Step]:
        app = self.application
        found = connection.execute(CONNECTIONS, {"user": app.user, "owner": app.owner})
        return [plain(f"KILL CONNECTION {number:d}") for number in found.scalars()]

    def _drops(self, connection: Connection, accounts: Sequence[Account]) -> list[Step]:
        name = self.application.name
        steps = [plain(f"DROP USER {account.sql}") for account in accounts]
        if connection.scalar(CHARSET, {"name": name}) is not None:
            steps.append(plain(f"DROP DATABASE `{name}`"))
        return steps


def _locks(accounts: Sequence[Account]) -> list[Step]:
    return [plain(f"ALTER USER {account.sql} ACCOUNT LOCK") for account in accounts]


def _run(connection: Connection, steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        execute(connection, step)
        yield step


def _end(connection: Connection, kill: Step) -> None:
    try:
        verbatim(connection, kill.statement)
    except DBAPIError as error:
        if code(error) != NO_SUCH_CONNECTION:
            msg = f"{kill}: {words(error)}"
            raise ProvisioningError(msg) from None
