"""Reads and changes the statement and the result of a look-up.

This is the only module of look-ups that uses private names of SQLAlchemy.
"""

from typing import Any, cast

from sqlalchemy import Executable, GenerativeSelect, inspect
from sqlalchemy.engine import Result
from sqlalchemy.orm import Query


def statement_of(statement: Executable) -> Executable:
    """Return *statement* as it is; for a legacy Query, return its select()."""
    # Session.execute() accepts a Query too, but ignores its eager loads.
    return statement.statement if isinstance(statement, Query) else statement


def limited_to_one(statement: Executable) -> Executable:
    """Return *statement* with LIMIT 1.

    Returns it unchanged if it is not a SELECT, has a FETCH, or has a limit that is or may be 0.
    """
    if not isinstance(statement, GenerativeSelect):
        return statement
    # The public limit() and fetch() can only set these clauses.
    limit, fetch = statement._limit_clause, statement._fetch_clause  # noqa: SLF001 - as said above
    if fetch is not None or (limit is not None and getattr(limit, "value", None) in {None, 0}):
        return statement
    return statement.limit(1)


def merge_eager_loads(result: Result[Any]) -> Result[Any]:
    """Return *result* with one row for each object that a joined eager load has repeated.

    SQLAlchemy demands unique() for a result with such rows. For any other result, unique() would
    be wrong: it would remove equal rows, and a statement may select equal rows on purpose.
    """
    # SQLAlchemy has no public name that tells whether it demands unique().
    demanded = result._unique_filter_state is not None  # noqa: SLF001 - as said above
    return result.unique() if demanded else result


def merge_objects(result: Result[Any], statement: Executable) -> Result[Any]:
    """Return *result* with one row for each object, even if a join has repeated the object.

    A result without objects is returned as it is, and so is a result with values that cannot be
    hashed.
    """
    selected = selected_by(statement)
    objects = [each for each in selected if each["expr"] is each.get("entity")]
    hashable = all(getattr(each["type"], "hashable", True) for each in selected)
    return result.unique() if objects and hashable else result


def selected_by(statement: Executable) -> list[dict[str, Any]]:
    """Return SQLAlchemy's ``column_descriptions`` of *statement*; an empty list for text()."""
    return cast("list[dict[str, Any]]", getattr(statement, "column_descriptions", []))


def entity_names(statement: Executable) -> list[str]:
    """Return the names of the classes that *statement* selects from.

    The log shows these names and not the statement, because a statement contains values.
    """
    entities = [each.get("entity") for each in selected_by(statement)]
    names = [inspect(entity).mapper.class_.__name__ for entity in entities if entity is not None]
    return list(dict.fromkeys(names))
