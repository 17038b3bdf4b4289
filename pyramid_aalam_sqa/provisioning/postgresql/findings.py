"""Looks for what is wrong on a PostgreSQL and may be meant so: ``create`` leaves it alone."""

from collections.abc import Iterator

from sqlalchemy.engine import Connection

from ..server import Finding
from ..tenant import Tenant
from .catalog import rows_about

# Other roles with privileges on the schema, on an object in it, or on those made later.
STRANGERS = """
    SELECT DISTINCT what, quote_ident(pg_get_userbyid(grantee)) FROM (
        SELECT 'SCHEMA ' || quote_ident(nspname) AS what, nspacl AS acl FROM pg_catalog.pg_namespace
        WHERE nspname = :name
        UNION ALL
        SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END
            || format('%I.%I', nspname, relname), relacl
        FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
        WHERE nspname = :name
        UNION ALL
        SELECT format('TABLE %I.%I', nspname, relname), attacl
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
        JOIN pg_catalog.pg_attribute ON attrelid = c.oid WHERE nspname = :name
        UNION ALL
        SELECT 'ALL TABLES IN SCHEMA ' || quote_ident(:name), defaclacl
        FROM pg_catalog.pg_default_acl
        WHERE pg_get_userbyid(defaclrole) = :owner
    ) thing CROSS JOIN LATERAL aclexplode(acl)
    WHERE grantee <> 0 AND pg_get_userbyid(grantee) NOT IN (:user, :owner)
    ORDER BY 1, 2
"""
MEMBERS = """
    SELECT DISTINCT quote_ident(m.rolname), quote_ident(g.rolname) FROM pg_catalog.pg_auth_members
    JOIN pg_catalog.pg_roles m ON m.oid = member JOIN pg_catalog.pg_roles g ON g.oid = roleid
    WHERE g.rolname IN (:user, :owner) AND NOT m.rolsuper AND NOT m.rolcreaterole
    ORDER BY 1, 2
"""
# What the accounts own in this database, then the other databases in which they have something.
OWNS = """
    SELECT quote_ident(rolname), type || ' ' || identity
    FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_roles ON pg_roles.oid = refobjid
    CROSS JOIN LATERAL pg_catalog.pg_identify_object(s.classid, s.objid, 0)
    WHERE refclassid = 'pg_authid'::regclass AND rolname IN (:user, :owner) AND deptype = 'o'
      AND dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
      AND s.classid <> 'pg_default_acl'::regclass AND schema IS DISTINCT FROM :name
      AND (type, identity) NOT IN (('schema', quote_ident(:name)),
                                   ('database', quote_ident(current_database())))
    ORDER BY 1, 2
"""
REACHES = """
    SELECT DISTINCT quote_ident(rolname), quote_ident(datname)
    FROM pg_catalog.pg_shdepend JOIN pg_catalog.pg_roles ON pg_roles.oid = refobjid
    JOIN pg_catalog.pg_database d ON d.oid = dbid
    WHERE refclassid = 'pg_authid'::regclass AND rolname IN (:user, :owner)
      AND datname <> current_database() ORDER BY 1, 2
"""
OPEN_DATABASES = """
    SELECT quote_ident(datname) FROM pg_catalog.pg_database
    CROSS JOIN LATERAL aclexplode(coalesce(datacl, acldefault('d', datdba)))
    WHERE grantee = 0 AND privilege_type = 'CONNECT' AND datallowconn AND NOT datistemplate
      AND datname NOT IN ('postgres', current_database()) ORDER BY 1
"""
OPEN_TABLES = """
    SELECT DISTINCT format('%I.%I', nspname, relname)
    FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    CROSS JOIN LATERAL aclexplode(relacl)
    WHERE grantee = 0 AND nspname NOT IN ('pg_catalog', 'information_schema', :name)
      AND has_schema_privilege(:user, n.oid, 'USAGE') ORDER BY 1
"""
TABLES = """
    SELECT format('%I.%I', nspname, relname) AS table, relpersistence = 'u' AS unlogged,
        EXISTS (SELECT FROM pg_catalog.pg_constraint
        WHERE conrelid = c.oid AND contype = 'p') AS keyed
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    WHERE nspname = :name AND relkind IN ('r', 'p') ORDER BY 1
"""


# A function that runs with the rights of its owner, which is another role. Those of the server and
# of extensions are left out.
DEFINERS = """
    SELECT format('%I.%I', nspname, proname), quote_ident(pg_get_userbyid(proowner))
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = pronamespace
    WHERE prosecdef AND pg_get_userbyid(proowner) NOT IN (:user, :owner)
      AND nspname NOT IN ('pg_catalog', 'information_schema')
      AND has_function_privilege(:user, p.oid, 'EXECUTE')
      AND has_schema_privilege(:user, n.oid, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
        WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
    ORDER BY 1
"""


def seen_by_everybody(connection: Connection, tenant: Tenant) -> Iterator[Finding]:
    """Yield what the catalogs show to every account."""
    for what, grantee in rows_about(connection, STRANGERS, tenant):
        revoke = f"REVOKE ALL ON {what} FROM {grantee}, unless it is meant to"
        yield Finding(f"{grantee} has privileges on {what}", revoke)
    for member, role in rows_about(connection, MEMBERS, tenant):
        yield Finding(f"{member} can become {role}", f"REVOKE {role} FROM {member}")
    for account, thing in rows_about(connection, OWNS, tenant):
        yield Finding(f"{account} owns the {thing}", "give it to another role, or drop it")
    for account, database in rows_about(connection, REACHES, tenant):
        problem = f"{account} owns or may do something in the database {database}"
        yield Finding(problem, f"there, DROP OWNED BY {account}, if nothing of it is needed")
    for (database,) in rows_about(connection, OPEN_DATABASES, tenant):
        problem = f"everybody may connect to the database {database}"
        yield Finding(problem, f"REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC")
    yield from _of_tables(connection, tenant)
    [[encoding]] = rows_about(connection, "SHOW server_encoding", tenant)
    if encoding != "UTF8":
        problem = f"the database's encoding is {encoding}"
        yield Finding(problem, "make a new one with ENCODING 'UTF8' TEMPLATE template0")


def _of_tables(connection: Connection, tenant: Tenant) -> Iterator[Finding]:
    for row in rows_about(connection, TABLES, tenant):
        if row.unlogged:
            problem = f"a crash empties {row.table}, which is UNLOGGED"
            yield Finding(problem, f"ALTER TABLE {row.table} SET LOGGED")
        if not row.keyed:
            yield Finding(f"{row.table} has no primary key", "replication cannot find its rows")
    query = "SELECT FROM pg_catalog.pg_roles WHERE rolname = :user"
    if rows_about(connection, query, tenant):
        for (table,) in rows_about(connection, OPEN_TABLES, tenant):
            yield Finding(f"{table} is open to everybody", f"REVOKE ALL ON {table} FROM PUBLIC")
        for function, role in rows_about(connection, DEFINERS, tenant):
            problem = f"the function {function} runs with the rights of {role}"
            yield Finding(problem, "drop it, or ALTER FUNCTION ... SECURITY INVOKER")


def seen_by_application(connection: Connection, tenant: Tenant) -> Iterator[Finding]:
    """Yield what only a connection of the application itself shows."""
    query = """
        SELECT inet_client_addr() IS DISTINCT FROM inet_server_addr() AND NOT ssl
        FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()"""
    [[readable]] = rows_about(connection, query, tenant)
    if readable:
        advice = "set sqlalchemy.connect_args.sslmode = verify-full"
        yield Finding("the connection leaves the machine without TLS", advice)
    query = (
        "SELECT setting::int / 1000 FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout'"
    )
    recycle = tenant.options.get("pool_recycle", 1800)
    for (limit,) in rows_about(connection, query, tenant):
        if limit and not 0 < recycle < limit:
            problem = f"the server ends idle connections after {limit} seconds"
            yield Finding(problem, f"set sqlalchemy.pool_recycle to less than {limit}")
