"""What is particular to each database; the core asks :func:`backend_for` and never names one."""

from collections.abc import Mapping
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy.engine import URL, Dialect, Engine
from sqlalchemy.exc import DBAPIError

from .backend import Backend
from .mysql import MySQLBackend
from .postgresql import PostgreSQLBackend
from .sqlite import SQLiteBackend

BACKENDS: Mapping[str, type[Backend]] = {
    "mariadb": MySQLBackend,
    "mysql": MySQLBackend,
    "postgresql": PostgreSQLBackend,
    "sqlite": SQLiteBackend,
}


def backend_for(url: URL, sqa_options: Mapping[str, Any], schema: str | None = None) -> Backend:
    """Return what is known of the database at *url*, under the ``sqa.`` *sqa_options*.

    *schema* is the name that the application's models have for it, if they have one.
    """
    return BACKENDS.get(url.get_backend_name(), Backend)(url, sqa_options, schema)


def says_no_such_value(name: str, error: DBAPIError) -> bool:
    """Tell whether *error*, of a SELECT on the database *name*, means that no row can match."""
    own = error.orig
    found = {str(getattr(own, "sqlstate", "")), *map(str, getattr(own, "args", ())[:1])}
    codes = BACKENDS.get(name, Backend).NO_VALUE
    # What a flush before it has sent is the application's own mistake.
    return bool(codes & found) and str(error.statement).startswith("SELECT")


class HasDialect(Protocol):
    """An engine, a connection or the context of an error."""

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's dialect."""


_attached: WeakKeyDictionary[Dialect, Backend] = WeakKeyDictionary()


def attach_backend(engine: Engine, backend: Backend) -> None:
    """Make *backend* the one that :func:`backend_of` returns for *engine*."""
    _attached[engine.dialect] = backend


def find_backend(thing: HasDialect) -> Backend | None:
    """Return the backend that was attached to the engine of *thing*; None if there is none."""
    return _attached.get(thing.dialect)


def backend_of(thing: HasDialect) -> Backend:
    """Return the backend that was attached to the engine of *thing*: an engine or a connection."""
    return _attached[thing.dialect]
