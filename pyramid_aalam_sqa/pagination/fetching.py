"""Fetches the rows of a page, and counts those of all pages."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Result, Select
from sqlalchemy.orm import Session

from ..queries import merge_eager_loads
from .statements import column_count, count_statement

# The values of the columns that the rows are ordered by, in one row.
Place = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that were fetched, and the place of each if it was selected."""

    items: list[Any]
    places: list[Place]


def fetch_rows(session: Session, statement: Select[Any], width: int) -> Rows:
    """Return the rows of *statement*, each of its first *width* columns.

    A row of one column is returned as its value. The columns after *width* are the row's place.
    """
    result = merge_eager_loads(session.execute(statement))
    everything = column_count(statement)
    if everything == width:
        return Rows(list(_items(result, width)), [])
    # A result can be read only once. A frozen one is read twice: the row's own columns, the place.
    frozen = result.freeze()
    places = frozen().columns(*range(width, everything))
    return Rows(list(_items(frozen(), width)), [tuple(place) for place in places])


def count_rows(session: Session, statement: Select[Any]) -> int:
    """Return how many rows *statement* has; the database counts them."""
    total: int = session.execute(count_statement(statement)).scalar_one()
    return total


def _items(result: Result[Any], width: int) -> Iterable[Any]:
    return result.scalars() if width == 1 else result.columns(*range(width))
