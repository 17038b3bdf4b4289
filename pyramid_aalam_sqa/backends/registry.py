"""Finds the Backend of a product and the Backend of an engine.

The rest of the package asks here, and never compares the name of a product.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy.engine import URL, Dialect, Engine
from sqlalchemy.exc import DBAPIError

from .backend import Backend
from .sorting import Sorting

# ruff: noqa: PLC0415 - most processes use one product, so each is imported when a URL names it

# First words of database names that one of the products uses for itself.
RESERVED_NAMES = frozenset({"information", "mysql", "performance", "pg", "sqlite", "sys", "test"})


@cache
def backend_class(name: str) -> type[Backend]:
    """Return the Backend class of the product that SQLAlchemy calls *name*, such as ``mysql``.

    An unknown product has Backend itself.
    """
    match name:
        case "mysql" | "mariadb":
            from .mysql import MySQLBackend

            return MySQLBackend
        case "postgresql":
            from .postgresql import PostgreSQLBackend

            return PostgreSQLBackend
        case "sqlite":
            from .sqlite import SQLiteBackend

            return SQLiteBackend
    return Backend


def backend_classes() -> Iterator[type[Backend]]:
    """Yield the Backend class of each known product."""
    yield from map(backend_class, ("mysql", "postgresql", "sqlite"))


def backend_for(
    url: URL,
    sqa_options: Mapping[str, Any],
    schema: str | None = None,
    prefix: str = "sqlalchemy.",
) -> Backend:
    """Return a new Backend for the database at *url*, under the ``sqa.`` options *sqa_options*.

    *schema* is the schema that the application's models name, if they name one. *prefix* is how
    the keys of this database's settings begin.
    """
    return backend_class(url.get_backend_name())(url, sqa_options, schema, prefix)


class HasDialect(Protocol):
    """An engine, a connection, or the context of an error event."""

    # SQLAlchemy's, which an engine shares with all its connections.
    dialect: Dialect


# By dialect, because events give a connection or a context, and each of these knows its dialect.
_attached: WeakKeyDictionary[Dialect, Backend] = WeakKeyDictionary()


def attach_backend(engine: Engine, backend: Backend) -> None:
    """Make *backend* the one that :func:`backend_of` returns for *engine*."""
    _attached[engine.dialect] = backend


def has_backend(thing: HasDialect) -> bool:
    """Return whether a backend was attached to the engine of *thing*.

    An engine that another library made has none.
    """
    return thing.dialect in _attached


def backend_of(thing: HasDialect) -> Backend:
    """Return the backend that was attached to the engine of *thing*.

    *thing* is an engine, a connection or the context of an error. Raises KeyError if none was.
    """
    return _attached[thing.dialect]


def sorting_of(dialect: Dialect) -> Sorting:
    """Return how the product of *dialect* sorts and compares."""
    return backend_class(dialect.name).SORTING


def is_impossible_value(dialect: Dialect, error: DBAPIError) -> bool:
    """Return whether a SELECT raised *error* because no row can have the value it asks for."""
    return backend_class(dialect.name).is_impossible_value(error)
