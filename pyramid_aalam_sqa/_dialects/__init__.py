"""What is particular to each database; the core asks :func:`dialect_for` and never names one."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from .generic import Fault, GenericDialect
from .mysql import MySQLDialect
from .postgresql import PostgreSQLDialect
from .sqlite import SQLiteDialect

__all__ = ["DIALECTS", "Fault", "GenericDialect", "dialect_for", "says_no_such_value"]

DIALECTS: Mapping[str, type[GenericDialect]] = {
    "mariadb": MySQLDialect,
    "mysql": MySQLDialect,
    "postgresql": PostgreSQLDialect,
    "sqlite": SQLiteDialect,
}


def dialect_for(url: URL, switches: Mapping[str, Any], schema: str | None = None) -> GenericDialect:
    """Return what is known of the database at *url*, under the ``sqa.`` *switches*.

    *schema* is the name that the application's models have for it, if they have one.
    """
    return DIALECTS.get(url.get_backend_name(), GenericDialect)(url, switches, schema)


def says_no_such_value(name: str, error: DBAPIError) -> bool:
    """Tell whether *error*, of a SELECT on the database *name*, means that no row can match."""
    own = error.orig
    found = {str(getattr(own, "sqlstate", "")), *map(str, getattr(own, "args", ())[:1])}
    codes = DIALECTS.get(name, GenericDialect).NO_VALUE
    # What a flush before it has sent is the application's own mistake.
    return bool(codes & found) and str(error.statement).startswith("SELECT")
