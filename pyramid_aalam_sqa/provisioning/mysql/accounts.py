"""Reads the accounts of a MySQL or MariaDB, and gives them passwords."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..server import MASKED, Step, run_verbatim
from ..tenant import Tenant

# MySQL's limit; MariaDB takes 128 characters.
LONGEST_ACCOUNT = 32
NATIVE = "mysql_native_password"
ACCOUNTS = text(
    "SELECT Host, plugin, authentication_string FROM mysql.user WHERE User = :user ORDER BY Host"
)
# A wrong password, a wrong plugin, and a password that has expired: interactive and not.
LOGIN_REFUSED = {1045, 1698, 1820, 1862}


@dataclass(frozen=True, slots=True)
class Account:
    """One account of the server, which is a user and a host; *sql* is how a statement writes it."""

    user: str
    host: str
    sql: str
    plugin: str
    digest: str = field(repr=False)
    locked: bool


def find_accounts(connection: Connection, user: str) -> list[Account]:
    """Return the accounts of *user*, one for each host that it may come from."""
    accounts = []
    for host, plugin, digest in connection.execute(ACCOUNTS, {"user": user}).all():
        sql = quote(connection, "%s@%s", user, host)
        [created] = first_column(connection, f"SHOW CREATE USER {sql}")[:1]
        locked = " ACCOUNT LOCK" in created
        accounts.append(Account(user, host, sql, plugin, digest or "", locked))
    return accounts


def new_account(connection: Connection, user: str) -> Account:
    """Return the account of *user* for every host, which does not exist yet."""
    return Account(user, "%", quote(connection, "%s@%s", user, "%"), NATIVE, "", locked=False)


def password_step(
    verb: str, connection: Connection, account: Account, password: str, option: str = ""
) -> Step:
    """Return the step, CREATE USER or ALTER USER by its *verb*, that gives *account* *password*.

    MariaDB is told the hash, so that none of its logs has the password. MySQL, which has another
    kind of hash, writes the statement into its logs without the password by itself. *option* is
    for example ``ACCOUNT LOCK``.
    """
    dialect: Any = connection.dialect
    if dialect.is_mariadb:
        secret = f"VIA {NATIVE} USING '{_native_digest(password)}'"
    else:
        secret = "BY " + quote(connection, "%s", password)
    start = f"{verb} {account.sql} IDENTIFIED "
    end = f" {option}" if option else ""
    return Step(f"{start}{secret}{end}", f"{start}BY {MASKED}{end}")


def login_fails(tenant: Tenant, account: Account, password: str) -> bool:
    """Tell whether *account* cannot log in with *password*.

    A digest that anybody can work out is compared, because an account may be for other hosts than
    this one. Where only the server can work it out, the account logs in.
    """
    if account.plugin == NATIVE:
        return account.digest.upper() != _native_digest(password)
    try:
        with tenant.login(account.user, password, database=None) as engine, engine.connect():
            return False
    except DBAPIError as error:
        if error_number(error) not in LOGIN_REFUSED:
            raise
        return True


def _native_digest(password: str) -> str:
    inner = sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + sha1(inner, usedforsecurity=False).hexdigest().upper()


def quote(connection: Connection, template: str, *values: str) -> str:
    """Return *template* with *values* in its %s, as the driver quotes them in a statement."""
    cursor: Any = connection.connection.cursor()
    try:
        return str(cursor.mogrify(template, values))
    finally:
        cursor.close()


def first_column(connection: Connection, statement: str) -> Sequence[str]:
    """Return the first column of the rows that *statement* returns."""
    return [str(row[0]) for row in run_verbatim(connection, statement)]


def error_number(error: DBAPIError) -> int:
    """Return the server's number for *error*; 0 when it has none."""
    return int(error.orig.args[0]) if error.orig and error.orig.args else 0
