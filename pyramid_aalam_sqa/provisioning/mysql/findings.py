"""Looks for what is wrong on a MySQL or MariaDB: other accounts, tables, settings of the server."""

from collections.abc import Iterator

from sqlalchemy import text
from sqlalchemy.engine import Connection

from ...backends import LOCAL_HOSTS, backend_class
from ..server import Finding
from ..tenant import Tenant
from .accounts import first_column
from .grants import RUNTIME, escaped_pattern, excess, read_grants

ANONYMOUS = text("SELECT Host FROM mysql.user WHERE User = '' ORDER BY Host")
FOR_EVERYBODY = text("SELECT DISTINCT Db FROM mysql.db WHERE User IN ('', 'PUBLIC') ORDER BY Db")
FOR_EVERYBODY_TOO = text(
    "SELECT 'all databases', '*.*' FROM mysql.user WHERE User IN ('', 'PUBLIC') AND 'Y' IN ("
    "Select_priv, Insert_priv, Update_priv, Delete_priv, Create_priv, Drop_priv, Alter_priv, "
    "Execute_priv, File_priv, Process_priv, Super_priv, Create_user_priv) "
    "UNION SELECT CONCAT('the table ', Db, '.', Table_name), CONCAT(Db, '.', Table_name) "
    "FROM mysql.tables_priv WHERE User IN ('', 'PUBLIC') "
    "UNION SELECT CONCAT('the ', LOWER(Routine_type), ' ', Db, '.', Routine_name), "
    "CONCAT(Routine_type, ' ', Db, '.', Routine_name) "
    "FROM mysql.procs_priv WHERE User IN ('', 'PUBLIC') ORDER BY 1"
)
# What runs with the rights of its definer: in this database with those of others, and elsewhere
# with those of this application's accounts.
DEFINED = text("""
    SELECT kind, place, name, definer FROM (
        SELECT LOWER(ROUTINE_TYPE) kind, ROUTINE_SCHEMA place, ROUTINE_NAME name, DEFINER definer
        FROM information_schema.ROUTINES WHERE SECURITY_TYPE = 'DEFINER'
        UNION ALL
        SELECT 'view', TABLE_SCHEMA, TABLE_NAME, DEFINER
        FROM information_schema.VIEWS WHERE SECURITY_TYPE = 'DEFINER'
        UNION ALL
        SELECT 'trigger', TRIGGER_SCHEMA, TRIGGER_NAME, DEFINER FROM information_schema.TRIGGERS
        UNION ALL
        SELECT 'event', EVENT_SCHEMA, EVENT_NAME, DEFINER FROM information_schema.EVENTS
    ) defined
    WHERE (place = :name) <> (
        LEFT(definer, CHAR_LENGTH(definer) - CHAR_LENGTH(SUBSTRING_INDEX(definer, '@', -1)) - 1)
        IN (:user, :owner))
    ORDER BY place, kind, name
""")
OTHERS = text(
    "SELECT User, Host, CONCAT('`', Db, '`.*') FROM mysql.db "
    "WHERE :name LIKE Db AND User NOT IN ('', 'PUBLIC', :user, :owner) "
    "UNION SELECT User, Host, CONCAT('tables of ', Db) FROM mysql.tables_priv "
    "WHERE Db = :name AND User NOT IN (:user, :owner) "
    # An account with a database of its own is an application's. Others with privileges on all
    # databases are administrators and backups.
    "UNION SELECT User, Host, '*.*' FROM mysql.user u WHERE User NOT IN (:user, :owner) "
    "AND 'Y' IN (Select_priv, Insert_priv, Update_priv, Delete_priv, Create_priv, Drop_priv) "
    "AND EXISTS (SELECT 1 FROM mysql.db d WHERE d.User = u.User AND d.Host = u.Host) "
    "ORDER BY 1, 2, 3"
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
# Each query finds tables; the problem they have, and the advice.
TABLES = (
    (FOREIGN_CHARSET, "These tables do not keep every character", "convert them to utf8mb4."),
    (NO_TRANSACTIONS, "These tables ignore a rollback", "change their ENGINE to InnoDB."),
    (NO_KEY, "These tables have no primary key", "add one."),
)
# What pool_recycle is when connections are kept for ever.
NEVER = -1


def other_accounts(connection: Connection, tenant: Tenant) -> Iterator[Finding]:
    """Yield the accounts of others that are open to everybody, or that open this database."""
    for host in connection.scalars(ANONYMOUS):
        problem = f"Everybody on {host!r} may log in without a name and a password"
        yield Finding(problem, f"DROP USER ''@'{host}'.")
    for name in connection.scalars(FOR_EVERYBODY):
        yield Finding(
            f"Every account may use the databases called `{name}`",
            f"REVOKE ALL PRIVILEGES ON `{name}`.* FROM PUBLIC, or delete the row from mysql.db.",
        )
    for what, target in connection.execute(FOR_EVERYBODY_TOO).all():
        yield Finding(f"Every account may use {what}", f"REVOKE ALL ON {target} FROM PUBLIC.")
    names = {"name": tenant.name, "user": tenant.user, "owner": tenant.owner}
    for user, host, target in connection.execute(OTHERS, names).all():
        yield Finding(
            f"'{user}'@'{host}' can use {tenant.name} through its grant on {target}",
            f"REVOKE it, or grant on {escaped_pattern(tenant.name)} what is meant.",
        )


def rights_of_others(connection: Connection, tenant: Tenant) -> Iterator[Finding]:
    """Yield what runs with rights that its caller does not have: it may read rows of others."""
    names = {"name": tenant.name, "user": tenant.user, "owner": tenant.owner}
    for kind, place, name, definer in connection.execute(DEFINED, names).all():
        yield Finding(
            f"The {kind} {name} in {place} runs with the rights of {definer}",
            "drop it, or make it again with SQL SECURITY INVOKER or another DEFINER.",
        )


def own_grants(connection: Connection, tenant: Tenant) -> Iterator[Finding]:
    """Yield what the account that *connection* has logged in as may do and should not."""
    grants = read_grants(first_column(connection, "SHOW GRANTS"))
    for what in excess(grants, tenant.name, RUNTIME):
        yield Finding(f"The account {tenant.user!r} has {what}", "run psqa create.")


def tables_and_settings(connection: Connection, tenant: Tenant) -> Iterator[Finding]:
    """Yield what is wrong with the tables and with the settings of the server."""
    for statement, problem, advice in TABLES:
        found = connection.scalars(statement, {"name": tenant.name}).all()
        if found:
            yield Finding(f"{problem} ({', '.join(found)})", advice)
    yield from _idle_connections(connection, tenant)
    yield from _encryption(tenant)


def _idle_connections(connection: Connection, tenant: Tenant) -> Iterator[Finding]:
    default = int(backend_class("mysql").ENGINE_DEFAULTS["pool_recycle"])
    recycle = tenant.options.get("pool_recycle", default)
    limit = int(str(connection.scalar(text("SELECT @@GLOBAL.wait_timeout"))))
    if recycle == NEVER or recycle >= limit:
        yield Finding(
            f"The server closes connections after {limit} s, "
            f"and sqlalchemy.pool_recycle is {recycle}",
            "set it to fewer seconds than a connection may be idle.",
        )


def _encryption(tenant: Tenant) -> Iterator[Finding]:
    arguments = {**tenant.url.query, **tenant.options.get("connect_args", {})}
    host = arguments.get("host", tenant.url.host)
    if host in LOCAL_HOSTS or "unix_socket" in arguments:
        return
    with tenant.login(tenant.user, tenant.password) as engine, engine.connect() as connection:
        cipher = connection.execute(text("SHOW SESSION STATUS LIKE 'Ssl_cipher'")).one()[1]
    if not cipher:
        yield Finding(
            f"The connection to {host} is not encrypted",
            "set sqa.mysql.tls_ca, which makes encryption a must, and give the server TLS.",
        )
