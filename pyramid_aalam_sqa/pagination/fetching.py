"""Fetches the rows of one page, and counts the rows of all pages."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Result, Select
from sqlalchemy.orm import Session

from ..queries import merge_eager_loads
from .statements import column_count, count_statement

# The place of a row: its values in the columns that the rows are ordered by.
Place = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that were fetched, and the place of each row if places were selected."""

    items: list[Any]
    places: list[Place]


def fetch_rows(session: Session, statement: Select[Any], width: int) -> Rows:
    """Return the rows of *statement* and their places.

    A row has the first *width* columns; if that is one column, the row is its value. The columns
    after these are the row's place.
    """
    result = merge_eager_loads(session.execute(statement))
    everything = column_count(statement)
    if everything == width:
        return Rows(list(_items(result, width)), [])
    # A result can be read only once. A frozen result can be read twice: for rows and for places.
    frozen = result.freeze()
    places = frozen().columns(*range(width, everything))
    return Rows(list(_items(frozen(), width)), [tuple(place) for place in places])


def count_rows(session: Session, statement: Select[Any]) -> int:
    """Let the database count the rows of *statement*, and return their number."""
    total: int = session.execute(count_statement(statement)).scalar_one()
    return total


def _items(result: Result[Any], width: int) -> Iterable[Any]:
    return result.scalars() if width == 1 else result.columns(*range(width))
