"""What a look-up has to know about a statement and its result.

The private names of SQLAlchemy that this takes are in this module alone.
"""

from typing import Any, cast

from sqlalchemy import Executable, GenerativeSelect, inspect
from sqlalchemy.engine import Result
from sqlalchemy.orm import Query


def statement_of(statement: Executable) -> Executable:
    """Return *statement*; of a legacy Query, its select()."""
    # Session.execute() takes a Query too, but ignores its eager loads.
    return statement.statement if isinstance(statement, Query) else statement


def limited_to_one(statement: Executable) -> Executable:
    """Return *statement* with LIMIT 1, unless it is not a SELECT or its own limit may be 0."""
    if not isinstance(statement, GenerativeSelect):
        return statement
    # The public limit() and fetch() only replace them.
    limit, fetch = statement._limit_clause, statement._fetch_clause  # noqa: SLF001 - as said above
    if fetch is not None or (limit is not None and getattr(limit, "value", None) in {None, 0}):
        return statement
    return statement.limit(1)


def merge_eager_loads(result: Result[Any]) -> Result[Any]:
    """Return *result* with the rows merged that a joined eager load has made of one object.

    SQLAlchemy demands unique() for a result with such rows. Where it does not, unique() would
    merge rows that are equal, which a statement may well select.
    """
    # Whether SQLAlchemy demands it has no public name.
    demanded = result._unique_filter_state is not None  # noqa: SLF001 - as said above
    return result.unique() if demanded else result


def merge_objects(result: Result[Any], statement: Executable) -> Result[Any]:
    """Return *result* with an object in one row only, however often a join has repeated it.

    A result without objects stays as it is, and one with values that cannot be compared.
    """
    selected = selected_by(statement)
    objects = [each for each in selected if each["expr"] is each.get("entity")]
    hashable = all(getattr(each["type"], "hashable", True) for each in selected)
    return result.unique() if objects and hashable else result


def selected_by(statement: Executable) -> list[dict[str, Any]]:
    """Return SQLAlchemy's descriptions of what *statement* selects; none for text()."""
    return cast("list[dict[str, Any]]", getattr(statement, "column_descriptions", []))


def entity_names(statement: Executable) -> list[str]:
    """Return the names of the classes that *statement* selects from.

    A log may show them, unlike the statement, which has values in it.
    """
    entities = [each.get("entity") for each in selected_by(statement)]
    names = [inspect(entity).mapper.class_.__name__ for entity in entities if entity is not None]
    return list(dict.fromkeys(names))
