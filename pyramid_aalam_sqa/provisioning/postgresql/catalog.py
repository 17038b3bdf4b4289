"""Asks PostgreSQL's catalogs about one application, and writes names and texts into statements."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.engine import Connection

from ..tenant import Tenant

# Attributes of a role that reach further than any schema, by the column of pg_roles.
POWERS = {
    "rolsuper": "SUPERUSER",
    "rolcreatedb": "CREATEDB",
    "rolcreaterole": "CREATEROLE",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
}


def quote_name(name: str) -> str:
    """Return *name* as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(value: str) -> str:
    """Return *value* as a string constant, under each setting of standard_conforming_strings."""
    escaped = value.replace("'", "''")
    return " E'" + escaped.replace("\\", "\\\\") + "'" if "\\" in value else f"'{escaped}'"


def rows_about(connection: Connection, query: str, tenant: Tenant) -> list[Any]:
    """Return the rows of *query*, whose parameters are the names of *tenant*."""
    names = {"name": tenant.name, "user": tenant.user, "owner": tenant.owner}
    return list(connection.execute(text(query), names))


def roles_by_name(connection: Connection) -> Mapping[str, Row[Any]]:
    """Return every role of the server: whether it may log in, its powers, whether it expired."""
    columns = ", ".join(["rolcanlogin", *POWERS])
    query = f"SELECT rolname, {columns}, rolvaliduntil < now() AS expired FROM pg_catalog.pg_roles"  # noqa: S608 - constants
    return {row.rolname: row for row in connection.execute(text(query))}
