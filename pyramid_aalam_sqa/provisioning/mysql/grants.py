"""Compares what an account of MySQL or MariaDB may do with what it should be able to do."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.engine import Connection

from ..server import Finding, Step
from ..tenant import Tenant, account_name
from .accounts import LONGEST_ACCOUNT, Account, find_accounts, first_column

# The account that serves changes no tables: with DROP on a database it could drop the database.
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
# In GRANTEE the server puts user and host between quotes as they are, and escapes nothing.
PRIVILEGES = text(
    "SELECT PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES "
    "WHERE TABLE_SCHEMA = :schema AND GRANTEE = :grantee"
)
NAME = r"(?:`(?:[^`]|``)*`|'(?:[^'\\]|''|\\.)*')"
ACCOUNT = rf"{NAME}@{NAME}"
GRANT_ON = re.compile(
    rf"GRANT (?P<what>.+?) ON (?P<target>(?:[A-Z ]+ )?(?:\*|{NAME})\.(?:\*|{NAME})|{ACCOUNT})"
    rf" TO {ACCOUNT}(?P<rest>.*)",
    re.DOTALL,
)
GRANT_ROLE = re.compile(rf"GRANT (?P<what>{NAME}.*) TO {ACCOUNT}(?: WITH ADMIN OPTION)?")
GRANT_OPTION = re.compile(r" WITH .*\bGRANT OPTION")


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of SHOW GRANTS: *what* may be done with *target*; without a target it is a role."""

    what: str
    target: str | None
    grant_option: bool = False

    @property
    def privileges(self) -> set[str]:
        """The privileges; the names of columns among them are not understood."""
        return set(self.what.split(", ")) - {"USAGE"}

    def revoke_steps(self, account: Account, privileges: str) -> Iterator[Step]:
        """Yield the steps that take *privileges* and the right to grant them from *account*."""
        if privileges:
            target = "" if self.target is None else f" ON {self.target}"
            yield Step(f"REVOKE {privileges}{target} FROM {account.sql}")
        if self.grant_option and self.what != "PROXY":
            yield Step(f"REVOKE GRANT OPTION ON {self.target} FROM {account.sql}")


@dataclass(frozen=True, slots=True)
class Repair:
    """Something that is not as it should be, and the steps that make it so."""

    problem: str
    steps: Sequence[Step]

    @property
    def finding(self) -> Finding:
        """The problem as ``psqa check`` reports it."""
        return Finding(self.problem, "psqa create repairs it.")


def escaped_pattern(name: str) -> str:
    r"""Return the database *name* as GRANT takes it.

    There it is a pattern in which an underscore stands for any character: it is written ``\_``.
    """
    return "`{}`.*".format(name.replace("_", r"\_"))


def read_grants(lines: Sequence[str]) -> list[Grant]:
    """Return the grants to an account in the *lines* of SHOW GRANTS.

    Lines about its default role, and about what a role of it may do, are left out: without the
    role they mean nothing.
    """
    grants = []
    for line in lines:
        if found := GRANT_ON.fullmatch(line):
            option = GRANT_OPTION.search(found["rest"]) is not None
            grants.append(Grant(found["what"], found["target"], option))
        elif found := GRANT_ROLE.fullmatch(line):
            grants.append(Grant(found["what"], None))
    return grants


def grants_of(connection: Connection, account: Account) -> list[Grant]:
    """Return the grants to *account*."""
    return read_grants(first_column(connection, f"SHOW GRANTS FOR {account.sql}"))


def other_use(connection: Connection, tenant: Tenant) -> str | None:
    """Return what the account that serves is used for, if that is not this application.

    It is this application's when it is called as the database, or has a grant on the database, or
    no grant at all. It is another application's, whatever it has here, when it has a grant on a
    database that has an owner account of psqa's.
    """
    if tenant.user == tenant.name:
        return None
    targets = {
        grant.target or "a role"
        for account in find_accounts(connection, tenant.user)
        for grant in grants_of(connection, account)
        if grant.what != "USAGE" or grant.grant_option
    }
    others = sorted(targets - {escaped_pattern(tenant.name), f"`{tenant.name}`.*"})
    for target in others:
        database = target.removesuffix(".*").strip("`").replace("\\_", "_")
        owner = account_name(f"{database}__own", LONGEST_ACCOUNT)
        if database != tenant.name and find_accounts(connection, owner):
            return f"the application of the database {database}"
    return others[0] if others and len(others) == len(targets) else None


def excess(grants: Sequence[Grant], name: str, wanted: Sequence[str]) -> Iterator[str]:
    """Yield a text for each of *grants* that gives more than *wanted* on the database *name*."""
    for grant in grants:
        own = grant.target == escaped_pattern(name)
        extra = grant.privileges - set(wanted) if own else {grant.what}
        extra -= {"USAGE"} if grant.target else set()
        if extra or grant.grant_option:
            what = ", ".join(sorted(extra) + ["GRANT OPTION"] * grant.grant_option)
            text = f"{what} on {grant.target}" if grant.target else f"the role {what}"
            unescaped = grant.target == f"`{name}`.*"
            yield text + ", in which _ stands for any character" * unescaped


def grant_step(account: Account, name: str, privileges: Sequence[str]) -> Step:
    """Return the step that gives *account* the *privileges* on the database *name*."""
    return Step(f"GRANT {', '.join(privileges)} ON {escaped_pattern(name)} TO {account.sql}")


def grant_repairs(
    connection: Connection, account: Account, name: str, wanted: Sequence[str]
) -> Iterator[Repair]:
    """Yield the repairs after which *account* has exactly *wanted*, on the database *name* alone.

    What is missing is granted before anything is revoked, so that a running application is denied
    nothing in between.
    """
    grants = grants_of(connection, account)
    own = escaped_pattern(name)
    held = {
        privilege
        for grant in grants
        if grant.target == own
        for privilege in _single_privileges(connection, account, name, grant)
    }
    missing = [privilege for privilege in wanted if privilege not in held]
    if missing:
        step = grant_step(account, name, missing)
        yield Repair(f"{account.sql} lacks {', '.join(missing)} on {own}", (step,))
    # Roles come last, because only an administrator who may grant a role may revoke it.
    for grant in sorted(grants, key=lambda grant: grant.target is None):
        for what in excess([grant], name, wanted):
            if grant.target == own:
                extra = ", ".join(sorted(held - set(wanted)))
            else:
                extra = "" if grant.what == "USAGE" else grant.what
            yield Repair(f"{account.sql} has {what}", tuple(grant.revoke_steps(account, extra)))


def _single_privileges(
    connection: Connection, account: Account, name: str, grant: Grant
) -> set[str]:
    """Return the privileges of *grant*; what ALL PRIVILEGES means differs between versions."""
    if grant.what != "ALL PRIVILEGES":
        return grant.privileges
    schema = name.replace("_", r"\_")
    grantee = f"'{account.user}'@'{account.host}'"
    given = connection.execute(PRIVILEGES, {"schema": schema, "grantee": grantee})
    return set(given.scalars())
