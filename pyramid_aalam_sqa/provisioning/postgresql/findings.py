"""What is wrong on a PostgreSQL and not for ``create`` to repair: it may have been meant so."""
# ruff: noqa: S608 - the names are quoted, or made here

from collections.abc import Iterator

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ...exceptions import ProvisioningError
from ..server import Finding, words
from ..tenant import Tenant
from .drift import ask, quoted

# Who else was let in: on the schema, on what is in it, or on what will be.
STRANGERS = """
    SELECT DISTINCT what, quote_ident(pg_get_userbyid(grantee)) FROM (
        SELECT 'SCHEMA ' || quote_ident(nspname) AS what, nspacl AS acl FROM pg_namespace
        WHERE nspname = :name
        UNION ALL
        SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END
            || format('%I.%I', nspname, relname), relacl
        FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = :name
        UNION ALL
        SELECT format('TABLE %I.%I', nspname, relname), attacl
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        JOIN pg_attribute ON attrelid = c.oid WHERE nspname = :name
        UNION ALL
        SELECT 'ALL TABLES IN SCHEMA ' || quote_ident(:name), defaclacl FROM pg_default_acl
        WHERE pg_get_userbyid(defaclrole) = :owner
    ) thing CROSS JOIN LATERAL aclexplode(acl)
    WHERE grantee <> 0 AND pg_get_userbyid(grantee) NOT IN (:user, :owner)
    ORDER BY 1, 2
"""


MEMBERS = """
    SELECT DISTINCT quote_ident(m.rolname), quote_ident(g.rolname) FROM pg_auth_members
    JOIN pg_roles m ON m.oid = member JOIN pg_roles g ON g.oid = roleid
    WHERE g.rolname IN (:user, :owner) AND NOT m.rolsuper AND NOT m.rolcreaterole
    ORDER BY 1, 2
"""


# In this database, and in the others.
OWNS = """
    SELECT quote_ident(rolname), type || ' ' || identity
    FROM pg_shdepend s JOIN pg_roles ON pg_roles.oid = refobjid
    CROSS JOIN LATERAL pg_identify_object(s.classid, s.objid, 0)
    WHERE refclassid = 'pg_authid'::regclass AND rolname IN (:user, :owner) AND deptype = 'o'
      AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
      AND s.classid <> 'pg_default_acl'::regclass AND schema IS DISTINCT FROM :name
      AND (type, identity) NOT IN (('schema', quote_ident(:name)),
                                   ('database', quote_ident(current_database())))
    ORDER BY 1, 2
"""


REACHES = """
    SELECT DISTINCT quote_ident(rolname), quote_ident(datname)
    FROM pg_shdepend JOIN pg_roles ON pg_roles.oid = refobjid JOIN pg_database d ON d.oid = dbid
    WHERE refclassid = 'pg_authid'::regclass AND rolname IN (:user, :owner)
      AND datname <> current_database() ORDER BY 1, 2
"""


OPEN_DATABASES = """
    SELECT quote_ident(datname) FROM pg_database
    CROSS JOIN LATERAL aclexplode(coalesce(datacl, acldefault('d', datdba)))
    WHERE grantee = 0 AND privilege_type = 'CONNECT' AND datallowconn AND NOT datistemplate
      AND datname NOT IN ('postgres', current_database()) ORDER BY 1
"""


OPEN_TABLES = """
    SELECT DISTINCT format('%I.%I', nspname, relname)
    FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace CROSS JOIN LATERAL aclexplode(relacl)
    WHERE grantee = 0 AND nspname NOT IN ('pg_catalog', 'information_schema', :name)
      AND has_schema_privilege(:user, n.oid, 'USAGE') ORDER BY 1
"""


TABLES = """
    SELECT format('%I.%I', nspname, relname) AS table, relpersistence = 'u' AS unlogged,
        EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p') AS keyed
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname = :name AND relkind IN ('r', 'p') ORDER BY 1
"""


def seen_by_everybody(connection: Connection, application: Tenant) -> Iterator[Finding]:
    """Return what everybody can see in the catalogs."""
    for what, grantee in ask(connection, STRANGERS, application):
        revoke = f"REVOKE ALL ON {what} FROM {grantee}, unless it is meant to"
        yield Finding(f"{grantee} has privileges on {what}", revoke)
    for member, role in ask(connection, MEMBERS, application):
        yield Finding(f"{member} can become {role}", f"REVOKE {role} FROM {member}")
    for account, thing in ask(connection, OWNS, application):
        yield Finding(f"{account} owns the {thing}", "give it to another role, or drop it")
    for account, database in ask(connection, REACHES, application):
        problem = f"{account} owns or may do something in the database {database}"
        yield Finding(problem, f"there, DROP OWNED BY {account}, if nothing of it is needed")
    for (database,) in ask(connection, OPEN_DATABASES, application):
        problem = f"everybody may connect to the database {database}"
        yield Finding(problem, f"REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC")
    yield from _of_tables(connection, application)
    [[encoding]] = ask(connection, "SHOW server_encoding", application)
    if encoding != "UTF8":
        problem = f"the database's encoding is {encoding}"
        yield Finding(problem, "make a new one with ENCODING 'UTF8' TEMPLATE template0")


def _of_tables(connection: Connection, application: Tenant) -> Iterator[Finding]:
    for row in ask(connection, TABLES, application):
        if row.unlogged:
            problem = f"{row.table} is UNLOGGED: a crash empties it"
            yield Finding(problem, f"ALTER TABLE {row.table} SET LOGGED")
        if not row.keyed:
            yield Finding(f"{row.table} has no primary key", "replication cannot find its rows")
    query = "SELECT FROM pg_roles WHERE rolname = :user"
    if ask(connection, query, application):
        for (table,) in ask(connection, OPEN_TABLES, application):
            yield Finding(f"{table} is open to everybody", f"REVOKE ALL ON {table} FROM PUBLIC")


def seen_by_application(connection: Connection, application: Tenant) -> Iterator[Finding]:
    """Return what shows on a connection of the application alone."""
    query = """
        SELECT inet_client_addr() IS DISTINCT FROM inet_server_addr() AND NOT ssl
        FROM pg_stat_ssl WHERE pid = pg_backend_pid()"""
    [[readable]] = ask(connection, query, application)
    if readable:
        advice = "set sqlalchemy.connect_args.sslmode = verify-full"
        yield Finding("the connection leaves the machine without TLS", advice)
    query = "SELECT setting::int / 1000 FROM pg_settings WHERE name = 'idle_session_timeout'"
    recycle = application.options.get("pool_recycle", 1800)
    for (limit,) in ask(connection, query, application):
        if limit and not 0 < recycle < limit:
            problem = f"the server ends idle connections after {limit} seconds"
            yield Finding(problem, f"set sqlalchemy.pool_recycle to less than {limit}")


DENIED = "42501"


# The schemas of other applications. Those of extensions, say, may well be meant for everybody.
PYRAMID_OPTIONS = """
    SELECT n.oid FROM pg_namespace n
    JOIN pg_db_role_setting ON setrole = nspowner
        AND setconfig @> ARRAY['search_path=' || quote_ident(nspname)]
    JOIN pg_database d ON d.oid = setdatabase AND datname = current_database()
    WHERE nspname <> :name
"""


OPEN = f"""
    SELECT 'the schema ' || quote_ident(nspname) FROM pg_namespace WHERE oid IN ({PYRAMID_OPTIONS})
      AND (has_schema_privilege(oid, 'USAGE') OR has_schema_privilege(oid, 'CREATE'))
    UNION ALL
    SELECT format('the columns of %I.%I', table_schema, table_name) FROM information_schema.tables
    WHERE CAST(quote_ident(table_schema) AS regnamespace) IN ({PYRAMID_OPTIONS})
    ORDER BY 1
"""


def prove_usable(own: Engine, owner: Engine, application: Tenant, token: str) -> Iterator[str]:
    """Write and read rows as *own* in a table that *owner* makes and drops, and change no table."""
    table = f"sqa_proof_{token}"
    qualified = f"{quoted(application.name)}.{table}"
    _run(owner, f"CREATE TABLE {qualified} (id SERIAL PRIMARY KEY, body TEXT)")
    try:
        # Without the schema: the search_path leads there.
        _run(own, f"INSERT INTO {table} (body) VALUES ('written')")
        _run(own, f"UPDATE {qualified} SET body = 'read' WHERE body = 'written'")
        _run(own, f"DELETE FROM {qualified}")
        yield f"{application.user} reads and writes rows in {application.name}"
        _run(own, "CREATE TEMPORARY TABLE sqa_proof (body TEXT)")
        yield f"{application.user} makes temporary tables"
        _denied(own, f"DROP TABLE {qualified}")
        _denied(own, f"TRUNCATE {qualified}")
        _denied(own, f"CREATE TABLE {quoted(application.name)}.{table}_2 (id INTEGER)")
        _denied(own, f"CREATE SCHEMA {table}")
        yield f"{application.user} makes, changes and drops nothing else"
    finally:
        _run(owner, f"DROP TABLE {qualified}")


def prove_denied(own: Engine, admin: Connection, application: Tenant, token: str) -> Iterator[str]:
    """Try as *own* a schema that *admin* makes and drops, then look at those that are there."""
    schema = f"sqa_proof_{token}"
    admin.exec_driver_sql(f"CREATE SCHEMA {schema} CREATE TABLE {schema}.secret (body TEXT)")
    try:
        _denied(own, f"SELECT body FROM {schema}.secret")
        _denied(own, f"INSERT INTO {schema}.secret VALUES ('written')")
        _denied(own, f"CREATE TABLE {schema}.more (body TEXT)")
        with own.connect() as connection:
            found = ask(connection, OPEN, application)
    finally:
        admin.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
    if found:
        msg = f"{application.user} can see {found[0][0]}, which is not its own."
        raise ProvisioningError(msg)
    yield f"{application.user} is denied in every other schema"


def _run(engine: Engine, statement: str) -> None:
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        msg = f"This should have worked as {engine.url.username}: {statement}: {words(error)}"
        raise ProvisioningError(msg) from None


def _denied(engine: Engine, statement: str) -> None:
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == DENIED:
            return
        msg = f"This should have been denied: {statement}: {words(error)}"
        raise ProvisioningError(msg) from None
    msg = f"{engine.url.username} should have been denied this: {statement}"
    raise ProvisioningError(msg)
