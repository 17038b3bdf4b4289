"""Looks for what is wrong on a MySQL or MariaDB: in tables, settings and other accounts."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ...backends import THIS_MACHINE, MySQLBackend
from ...exceptions import ProvisioningError
from ..server import Finding, execute, verbatim, words
from ..tenant import Tenant
from .accounts import RUNTIME, code, pattern, plain, read_grants, rows, too_much

CHARSET = text(
    "SELECT DEFAULT_CHARACTER_SET_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = :name"
)


FOREIGN_CHARSET = text(
    "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = :name "
    "AND TABLE_TYPE = 'BASE TABLE' AND TABLE_COLLATION NOT LIKE 'utf8mb4%' ORDER BY TABLE_NAME"
)


NO_TRANSACTIONS = text(
    "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = :name "
    "AND TABLE_TYPE = 'BASE TABLE' AND ENGINE NOT IN "
    "(SELECT ENGINE FROM information_schema.ENGINES WHERE TRANSACTIONS = 'YES') "
    "ORDER BY TABLE_NAME"
)


NO_KEY = text(
    "SELECT TABLE_NAME FROM information_schema.TABLES t WHERE TABLE_SCHEMA = :name "
    "AND TABLE_TYPE = 'BASE TABLE' AND NOT EXISTS "
    "(SELECT 1 FROM information_schema.TABLE_CONSTRAINTS c WHERE c.TABLE_SCHEMA = t.TABLE_SCHEMA "
    "AND c.TABLE_NAME = t.TABLE_NAME AND c.CONSTRAINT_TYPE = 'PRIMARY KEY') ORDER BY TABLE_NAME"
)


TABLES = (
    (FOREIGN_CHARSET, "These tables do not keep every character", "convert them to utf8mb4"),
    (
        NO_TRANSACTIONS,
        "These tables keep what a rollback should undo",
        "change their ENGINE to InnoDB",
    ),
    (NO_KEY, "These tables have no primary key", "add one"),
)


ANONYMOUS = text("SELECT Host FROM mysql.user WHERE User = '' ORDER BY Host")


FOR_EVERYBODY = text("SELECT DISTINCT Db FROM mysql.db WHERE User IN ('', 'PUBLIC') ORDER BY Db")


OTHERS = text(
    "SELECT User, Host, CONCAT('`', Db, '`.*') FROM mysql.db "
    "WHERE :name LIKE Db AND User NOT IN ('', 'PUBLIC', :user, :owner) "
    "UNION SELECT User, Host, CONCAT('tables of ', Db) FROM mysql.tables_priv "
    "WHERE Db = :name AND User NOT IN (:user, :owner) "
    # Whoever has a database of its own is an application's account, and no administrator's.
    "UNION SELECT User, Host, '*.*' FROM mysql.user u WHERE User NOT IN (:user, :owner) "
    "AND 'Y' IN (Select_priv, Insert_priv, Update_priv, Delete_priv, Create_priv, Drop_priv) "
    "AND EXISTS (SELECT 1 FROM mysql.db d WHERE d.User = u.User AND d.Host = u.Host) "
    "ORDER BY 1, 2, 3"
)


NEVER = -1


def other_accounts(connection: Connection, application: Tenant) -> Iterator[Finding]:
    """Yield which accounts that are not the application's are open, or open its database."""
    for host in connection.scalars(ANONYMOUS):
        yield Finding(
            f"Anybody on {host!r} may log in, and is taken for nobody",
            f"DROP USER ''@'{host}'.",
        )
    for name in connection.scalars(FOR_EVERYBODY):
        yield Finding(
            f"Every account may use the databases called `{name}`",
            f"REVOKE ALL PRIVILEGES ON `{name}`.* FROM PUBLIC, or delete the row from mysql.db.",
        )
    given = {
        "name": application.name,
        "user": application.user,
        "owner": application.owner,
    }
    for user, host, target in connection.execute(OTHERS, given).all():
        yield Finding(
            f"'{user}'@'{host}' can use {application.name} through its grant on {target}",
            f"REVOKE it, or grant on {pattern(application.name)} what is meant.",
        )


def own_account(connection: Connection, application: Tenant) -> Iterator[Finding]:
    """Yield what the application's account may do that it should not, as it sees it itself."""
    grants = read_grants(rows(connection, "SHOW GRANTS"))
    for words in too_much(grants, application.name, RUNTIME):
        yield Finding(f"The account {application.user!r} has {words}", "run psqa create.")


def server_and_tables(connection: Connection, application: Tenant) -> Iterator[Finding]:
    """Yield what is wrong with the tables and with the server's settings."""
    for statement, problem, advice in TABLES:
        found = connection.scalars(statement, {"name": application.name}).all()
        if found:
            yield Finding(f"{problem} ({', '.join(found)})", f"{advice}.")
    yield from _idle_connections(connection, application)
    yield from _encryption(application)


def _idle_connections(connection: Connection, application: Tenant) -> Iterator[Finding]:
    default = int(MySQLBackend.ENGINE_DEFAULTS["pool_recycle"])
    recycle = application.options.get("pool_recycle", default)
    wait = int(str(connection.scalar(text("SELECT @@GLOBAL.wait_timeout"))))
    if recycle == NEVER or recycle >= wait:
        yield Finding(
            f"The server closes connections after {wait} s, "
            f"and sqlalchemy.pool_recycle is {recycle}",
            "set it to fewer seconds than a connection may be idle.",
        )


def _encryption(application: Tenant) -> Iterator[Finding]:
    arguments = {**application.url.query, **application.options.get("connect_args", {})}
    host = arguments.get("host", application.url.host)
    if host in THIS_MACHINE or "unix_socket" in arguments:
        return
    with (
        application.login(application.user, application.password) as engine,
        engine.connect() as connection,
    ):
        cipher = connection.execute(text("SHOW SESSION STATUS LIKE 'Ssl_cipher'")).one()[1]
    if not cipher:
        yield Finding(
            f"The connection to {host} is not encrypted",
            "set sqa.mysql.tls_ca, which makes encryption a must, and give the server TLS.",
        )


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


def prove_usable_and_alone(application: Tenant, other: str) -> None:
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
