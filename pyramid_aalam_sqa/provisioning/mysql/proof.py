"""Proves on a MySQL or MariaDB that an application can use its own database and enter no other."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ...exceptions import ProvisioningError
from ..server import Step, error_text, execute, run_verbatim
from ..tenant import Tenant
from .accounts import error_number, first_column

SYSTEM_DATABASES = {"information_schema", "mysql", "performance_schema", "sys"}
DATABASE_DENIED = 1044
# What the application is to do in its own database.
STATEMENTS = (
    "CREATE TEMPORARY TABLE sqa_proof (id INT PRIMARY KEY)",
    "INSERT INTO sqa_proof (id) VALUES (1)",
    "UPDATE sqa_proof SET id = 2",
    "SELECT id FROM sqa_proof",
    "DELETE FROM sqa_proof",
    "DROP TEMPORARY TABLE sqa_proof",
)


@contextmanager
def other_database(connection: Connection, name: str) -> Iterator[str]:
    """Lend the name of a database that the application whose database is *name* must not enter.

    It is the one that a grant with an unescaped underscore would open, if there is one. Where the
    server has no other database at all, one is made for the block.
    """
    others = [
        other
        for other in first_column(connection, "SHOW DATABASES")
        if other != name and not _is_shared(other)
    ]
    if others:
        yield max(others, key=lambda other: _matches(name, other))
        return
    made = name.replace("_", "x") if "_" in name else f"{name}x"
    execute(connection, Step(f"CREATE DATABASE `{made}`"))
    try:
        yield made
    finally:
        execute(connection, Step(f"DROP DATABASE `{made}`"))


def prove_usable_and_alone(tenant: Tenant, other: str) -> None:
    """Log in as *tenant*, use its database, and try to enter the database *other*.

    Raises ProvisioningError when it cannot use its own, or can enter another one.
    """
    try:
        with tenant.login(tenant.user, tenant.password) as engine, engine.connect() as connection:
            for statement in STATEMENTS:
                connection.exec_driver_sql(statement)
            seen = first_column(connection, "SHOW DATABASES")
            entered = _enters(connection, other)
    except DBAPIError as error:
        msg = f"The account {tenant.user!r} cannot use its database: {error_text(error)}"
        raise ProvisioningError(msg) from None
    opened = [name for name in seen if name != tenant.name and not _is_shared(name)]
    if entered or opened:
        names = ", ".join(opened or [other])
        msg = f"The account {tenant.user!r} can enter {names}: psqa check says why."
        raise ProvisioningError(msg)


def _is_shared(database: str) -> bool:
    """Tell whether *database* is the server's own, or one that a packaged server opens to all.

    No application can have such a name, and psqa check reports what is open.
    """
    name = database.lower()
    return name in SYSTEM_DATABASES or name == "test" or name.startswith("test_")


def _matches(name: str, other: str) -> bool:
    """Tell whether a grant on *name* in which _ is not escaped opens the database *other*."""
    return len(name) == len(other) and all(a in {"_", b} for a, b in zip(name, other, strict=True))


def _enters(connection: Connection, database: str) -> bool:
    quoted = database.replace("`", "``")
    try:
        run_verbatim(connection, f"USE `{quoted}`")
    except DBAPIError as error:
        return error_number(error) != DATABASE_DENIED
    return True
