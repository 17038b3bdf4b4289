"""Proves on a PostgreSQL that an application can use its own schema and no other one."""
# ruff: noqa: S608 - every name in a statement is quoted, or made here

from collections.abc import Iterator

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ...exceptions import ProvisioningError
from ..server import error_text
from ..tenant import Tenant
from .catalog import quote_name, rows_about

DENIED = "42501"
# The schemas of other applications. A schema of an extension may well be meant for everybody.
OTHER_SCHEMAS = """
    SELECT n.oid FROM pg_catalog.pg_namespace n
    JOIN pg_catalog.pg_db_role_setting ON setrole = nspowner
        AND setconfig @> ARRAY['search_path=' || quote_ident(nspname)]
    JOIN pg_catalog.pg_database d ON d.oid = setdatabase AND datname = current_database()
    WHERE nspname <> :name
"""
OPEN = f"""
    SELECT 'the schema ' || quote_ident(nspname) FROM pg_catalog.pg_namespace
    WHERE oid IN ({OTHER_SCHEMAS})
      AND (has_schema_privilege(oid, 'USAGE') OR has_schema_privilege(oid, 'CREATE'))
    UNION ALL
    SELECT format('the columns of %I.%I', table_schema, table_name) FROM information_schema.tables
    WHERE CAST(quote_ident(table_schema) AS regnamespace) IN ({OTHER_SCHEMAS})
    ORDER BY 1
"""


def prove_usable(own: Engine, owner: Engine, tenant: Tenant, token: str) -> Iterator[str]:
    """Write and read rows as *own* in a table that *owner* makes; be denied everything else there.

    Yields a sentence for each thing that was proved, and drops the table.
    """
    table = f"sqa_proof_{token}"
    qualified = f"{quote_name(tenant.name)}.{table}"
    _run(owner, f"CREATE TABLE {qualified} (id SERIAL PRIMARY KEY, body TEXT)")
    try:
        # Without the schema, because the search_path leads there.
        _run(own, f"INSERT INTO {table} (body) VALUES ('written')")
        _run(own, f"UPDATE {qualified} SET body = 'read' WHERE body = 'written'")
        _run(own, f"DELETE FROM {qualified}")
        yield f"{tenant.user} reads and writes rows in {tenant.name}"
        _run(own, "CREATE TEMPORARY TABLE sqa_proof (body TEXT)")
        yield f"{tenant.user} makes temporary tables"
        _denied(own, f"DROP TABLE {qualified}")
        _denied(own, f"TRUNCATE {qualified}")
        _denied(own, f"CREATE TABLE {quote_name(tenant.name)}.{table}_2 (id INTEGER)")
        _denied(own, f"CREATE SCHEMA {table}")
        yield f"{tenant.user} makes, changes and drops nothing else"
    finally:
        _run(owner, f"DROP TABLE {qualified}")


def prove_denied(own: Engine, admin: Connection, tenant: Tenant, token: str) -> Iterator[str]:
    """Be denied as *own* in a schema that *admin* makes and drops, and in those of others.

    Yields a sentence for each thing that was proved.
    """
    schema = f"sqa_proof_{token}"
    admin.exec_driver_sql(f"CREATE SCHEMA {schema} CREATE TABLE {schema}.secret (body TEXT)")
    try:
        _denied(own, f"SELECT body FROM {schema}.secret")
        _denied(own, f"INSERT INTO {schema}.secret VALUES ('written')")
        _denied(own, f"CREATE TABLE {schema}.more (body TEXT)")
        with own.connect() as connection:
            found = rows_about(connection, OPEN, tenant)
    finally:
        admin.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
    if found:
        msg = f"{tenant.user} can see {found[0][0]}, which is not its own."
        raise ProvisioningError(msg)
    yield f"{tenant.user} is denied in every other schema"


def _run(engine: Engine, statement: str) -> None:
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        msg = f"This should have worked as {engine.url.username}: {statement}: {error_text(error)}"
        raise ProvisioningError(msg) from None


def _denied(engine: Engine, statement: str) -> None:
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == DENIED:
            return
        msg = f"This should have been denied: {statement}: {error_text(error)}"
        raise ProvisioningError(msg) from None
    msg = f"{engine.url.username} should have been denied this: {statement}"
    raise ProvisioningError(msg)
