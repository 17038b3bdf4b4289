"""What is particular to each database; the core asks :func:`dialect_for` and never names one."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import URL

from .generic import Fault, GenericDialect
from .mysql import MySQLDialect
from .postgresql import PostgreSQLDialect
from .sqlite import SQLiteDialect

__all__ = ["DIALECTS", "Fault", "GenericDialect", "dialect_for"]

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
