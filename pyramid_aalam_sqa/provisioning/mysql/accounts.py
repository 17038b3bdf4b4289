"""Compares what an account of MySQL or MariaDB may do with what it should be able to do."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..server import MASKED, Finding, Step, verbatim
from ..tenant import Tenant

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


def is_wrong(application: Tenant, account: Account, password: str) -> bool:
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


# An application that serves changes no tables: DROP on a database is DROP DATABASE too.
RUNTIME = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE TEMPORARY TABLES", "EXECUTE")


OWNER = (
    *RUNTIME,
    "CREATE",
    "ALTER",
    "DROP",
    "INDEX",
    "REFERENCES",
    "CREATE VIEW",
    "SHOW VIEW",
    "TRIGGER",
    "LOCK TABLES",
)


REPAIR = "psqa create repairs it."


# The server quotes nothing in the name of a grantee.
PRIVILEGES = text(
    "SELECT PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES "
    "WHERE TABLE_SCHEMA = :schema AND GRANTEE = :grantee"
)


NAME = r"(?:`(?:[^`]|``)*`|'(?:[^'\\]|''|\\.)*')"


ACCOUNT = rf"{NAME}@{NAME}"


ON = re.compile(
    rf"GRANT (?P<what>.+?) ON (?P<target>(?:[A-Z ]+ )?(?:\*|{NAME})\.(?:\*|{NAME})|{ACCOUNT})"
    rf" TO {ACCOUNT}(?P<rest>.*)",
    re.DOTALL,
)


ROLE = re.compile(rf"GRANT (?P<what>{NAME}.*) TO {ACCOUNT}(?: WITH ADMIN OPTION)?")


GRANT_OPTION = re.compile(r" WITH .*\bGRANT OPTION")


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of SHOW GRANTS: *what* may be done with *target*, or the role *what*."""

    what: str
    target: str | None
    grant_option: bool = False

    @property
    def privileges(self) -> set[str]:
        """What may be done; only right where no columns are named."""
        return set(self.what.split(", ")) - {"USAGE"}

    def revoking(self, account: Account, privileges: str) -> Iterator[Step]:
        """Yield the steps that take *privileges* of this line away, and the right to hand on."""
        if privileges:
            target = "" if self.target is None else f" ON {self.target}"
            yield plain(f"REVOKE {privileges}{target} FROM {account.sql}")
        if self.grant_option and self.what != "PROXY":
            yield plain(f"REVOKE GRANT OPTION ON {self.target} FROM {account.sql}")


@dataclass(frozen=True, slots=True)
class Repair:
    """Something that is not as it should be, and the steps that make it so."""

    problem: str
    steps: Sequence[Step]

    @property
    def finding(self) -> Finding:
        """The same, told and not done."""
        return Finding(self.problem, REPAIR)


def plain(statement: str) -> Step:
    """Return the step of a statement without a secret."""
    return Step(statement, statement)


def pattern(name: str) -> str:
    """Return the database *name* as GRANT takes it: there it is a pattern, in which _ is any."""
    return "`{}`.*".format(name.replace("_", r"\_"))


def read_grants(lines: Sequence[str]) -> list[Grant]:
    """Return what the *lines* of SHOW GRANTS give an account.

    The others say which role it begins with, or hold for a role: with the role they are gone.
    """
    grants = []
    for line in lines:
        if found := ON.fullmatch(line):
            option = GRANT_OPTION.search(found["rest"]) is not None
            grants.append(Grant(found["what"], found["target"], option))
        elif found := ROLE.fullmatch(line):
            grants.append(Grant(found["what"], None))
    return grants


def grants_of(connection: Connection, account: Account) -> list[Grant]:
    """Ask the server what *account* was granted."""
    return read_grants(rows(connection, f"SHOW GRANTS FOR {account.sql}"))


def too_much(grants: Sequence[Grant], name: str, wanted: Sequence[str]) -> Iterator[str]:
    """Yield in words each of *grants* that goes beyond *wanted* on the database *name*."""
    for grant in grants:
        extra = grant.privileges - set(wanted) if grant.target == pattern(name) else {grant.what}
        extra -= {"USAGE"} if grant.target else set()
        if extra or grant.grant_option:
            words = ", ".join(sorted(extra) + ["GRANT OPTION"] * grant.grant_option)
            what = f"{words} on {grant.target}" if grant.target else f"the role {words}"
            unescaped = f"`{name}`.*"
            pitfall = ", in which _ stands for any character" * (grant.target == unescaped)
            yield f"{what}{pitfall}"


def granting(account: Account, name: str, privileges: Sequence[str]) -> Step:
    """Return the step that gives *account* the *privileges* on the database *name*."""
    return plain(f"GRANT {', '.join(privileges)} ON {pattern(name)} TO {account.sql}")


def grant_repairs(
    connection: Connection, account: Account, name: str, wanted: Sequence[str]
) -> Iterator[Repair]:
    """Yield what gives *account* exactly what is *wanted* on the database *name*.

    What is missing comes first, so that an application that is running is denied nothing.
    """
    grants = grants_of(connection, account)
    own = pattern(name)
    has = {
        privilege
        for grant in grants
        if grant.target == own
        for privilege in _each(connection, account, name, grant)
    }
    missing = [privilege for privilege in wanted if privilege not in has]
    if missing:
        step = granting(account, name, missing)
        yield Repair(f"{account.sql} lacks {', '.join(missing)} on {own}", (step,))
    # Roles last: only who may grant one may take it away.
    for grant in sorted(grants, key=lambda grant: grant.target is None):
        for words in too_much([grant], name, wanted):
            if grant.target == own:
                extra = ", ".join(sorted(has - set(wanted)))
            else:
                extra = "" if grant.what == "USAGE" else grant.what
            yield Repair(f"{account.sql} has {words}", tuple(grant.revoking(account, extra)))


def _each(connection: Connection, account: Account, name: str, grant: Grant) -> set[str]:
    """Return the privileges of *grant* one by one: which ALL PRIVILEGES are differs by version."""
    if grant.what != "ALL PRIVILEGES":
        return grant.privileges
    given = connection.execute(
        PRIVILEGES,
        {
            "schema": name.replace("_", r"\_"),
            "grantee": f"'{account.user}'@'{account.host}'",
        },
    )
    return set(given.scalars())


NATIVE = "mysql_native_password"
