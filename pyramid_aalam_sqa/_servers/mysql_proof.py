"""Proves on MySQL and MariaDB that an application can use its own database and enter no other."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..exceptions import ProvisioningError
from .generic import Application, execute, verbatim, words
from .mysql_accounts import code, rows
from .mysql_grants import plain

SYSTEM_DATABASES = {"information_schema", "mysql", "performance_schema", "sys"}
DENIED = 1044
STATEMENTS = (
    "CREATE TEMPORARY TABLE sqa_proof (id INT PRIMARY KEY)",
    "INSERT INTO sqa_proof (id) VALUES (1)",
    "UPDATE sqa_proof SET id = 2",
    "SELECT id FROM sqa_proof",
    "DELETE FROM sqa_proof",
    "DROP TEMPORARY TABLE sqa_proof",
)


def prove_usable_and_alone(application: Application, other: str) -> None:
    """Log in as *application*, use its database, and try to enter the database *other*.

    Raises ProvisioningError when it cannot do the one, or can do the other.
    """
    try:
        with (
            application.login(application.user, application.password) as engine,
            engine.connect() as connection,
        ):
            for statement in STATEMENTS:
                connection.exec_driver_sql(statement)
            seen = rows(connection, "SHOW DATABASES")
            entered = _enters(connection, other)
    except DBAPIError as error:
        msg = f"The account {application.user!r} cannot use its database: {words(error)}"
        raise ProvisioningError(msg) from None
    opened = [name for name in seen if name != application.name and not _is_common(name)]
    if entered or opened:
        names = ", ".join(opened or [other])
        msg = f"The account {application.user!r} can enter {names}: psqa check says why."
        raise ProvisioningError(msg)


@contextmanager
def neighbour(connection: Connection, name: str) -> Iterator[str]:
    """Lend a database that the application which has *name* must not enter.

    Rather one that a grant would have opened in which _ was not escaped. Where there is no other
    database at all, one is made for the moment.
    """
    there = [
        other
        for other in rows(connection, "SHOW DATABASES")
        if other != name and not _is_common(other)
    ]
    if there:
        yield max(there, key=lambda other: _is_like(name, other))
        return
    made = name.replace("_", "x")
    execute(connection, plain(f"CREATE DATABASE `{made}`"))
    try:
        yield made
    finally:
        execute(connection, plain(f"DROP DATABASE `{made}`"))


def _is_common(database: str) -> bool:
    """Tell whether no application can have *database*.

    On a server as it is packaged everybody may use those called test: that is for psqa check.
    """
    name = database.lower()
    return name in SYSTEM_DATABASES or name == "test" or name.startswith("test_")


def _is_like(name: str, other: str) -> bool:
    """Tell whether a grant on *name* that was not escaped opens *other*."""
    return len(name) == len(other) and all(a in {"_", b} for a, b in zip(name, other, strict=True))


def _enters(connection: Connection, database: str) -> bool:
    quoted = database.replace("`", "``")
    try:
        verbatim(connection, f"USE `{quoted}`")
    except DBAPIError as error:
        return code(error) != DENIED
    return True
