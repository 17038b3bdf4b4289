"""The accounts of MySQL and MariaDB: how they are found, written in statements, and opened."""

from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from .generic import MASKED, Application, Step, verbatim

NATIVE = "mysql_native_password"
# A wrong password, a wrong way to prove it; one that has expired, for a person and for a program.
REFUSED = {1045, 1698, 1820, 1862}
ACCOUNTS = text(
    "SELECT Host, plugin, authentication_string FROM mysql.user WHERE User = :user ORDER BY Host"
)


@dataclass(frozen=True, slots=True)
class Account:
    """One account of the server, *sql* being how it is written in a statement."""

    user: str
    host: str
    sql: str
    plugin: str
    digest: str = field(repr=False)
    locked: bool


def accounts_of(connection: Connection, user: str) -> list[Account]:
    """Return the accounts of *user*, one for each host that it may come from."""
    accounts = []
    for host, plugin, digest in connection.execute(ACCOUNTS, {"user": user}).all():
        sql = quoted(connection, "%s@%s", user, host)
        [created] = rows(connection, f"SHOW CREATE USER {sql}")[:1]
        locked = " ACCOUNT LOCK" in created
        accounts.append(Account(user, host, sql, plugin, digest or "", locked))
    return accounts


def new_account(connection: Connection, user: str) -> Account:
    """Return the account of *user* that is to be made, for every host."""
    return Account(user, "%", quoted(connection, "%s@%s", user, "%"), NATIVE, "", locked=False)


def identified(verb: str, connection: Connection, account: Account, password: str) -> Step:
    """Return the step that gives *account* its *password*."""
    start = f"{verb} {account.sql} IDENTIFIED BY "
    return Step(start + quoted(connection, "%s", password), start + MASKED)


def is_wrong(application: Application, account: Account, password: str) -> bool:
    """Tell whether *account* does not log in with *password*.

    Where the server keeps a digest that anybody can work out, it is compared: it is there for
    hosts too that this is none of.
    """
    if account.plugin == NATIVE:
        return account.digest.upper() != _native(password)
    try:
        with (
            application.login(account.user, password, database=None) as engine,
            engine.connect(),
        ):
            return False
    except DBAPIError as error:
        if code(error) not in REFUSED:
            raise
        return True


def quoted(connection: Connection, template: str, *values: str) -> str:
    """Return *template* with *values* as the driver writes them in a statement."""
    cursor: Any = connection.connection.cursor()
    try:
        return str(cursor.mogrify(template, values))
    finally:
        cursor.close()


def rows(connection: Connection, statement: str) -> list[str]:
    """Return the first column of what *statement* answers."""
    return [str(row[0]) for row in verbatim(connection, statement)]


def code(error: DBAPIError) -> int:
    """Return the server's number of *error*."""
    return int(error.orig.args[0]) if error.orig and error.orig.args else 0


def _native(password: str) -> str:
    # What the server itself does; nothing is kept.
    inner = sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + sha1(inner, usedforsecurity=False).hexdigest().upper()
