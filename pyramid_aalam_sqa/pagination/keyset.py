"""Rows after a place, or before it: the condition, and the rows with their own places."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Result, Select, and_, false, literal, literal_column, or_
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session

from ..backends import sorting_of
from . import statements as shapes
from .cursors import BadCursor, read_cursor, write_cursor
from .options import _instead, _Pages
from .ordering import Key, keys_of, labelled, name_of
from .pages import KeysetPage

Column = ColumnElement[Any]


Values = tuple[Any, ...]


# Before the first row, or after the last.
EDGE: Values = ()


@dataclass(frozen=True, slots=True)
class Bound:
    """A :class:`Key` as one database compares it."""

    key: Key
    exact: Column
    nulls_last: bool

    def beyond(self, value: Any) -> Column:
        """Return the condition for what comes after *value*."""
        if value is None:
            return false() if self.nulls_last else self.exact.is_not(None)
        own = literal(value, self.exact.type)
        return self._or_null(self.exact < own if self.key.descending else self.exact > own)

    def reached(self, value: Any) -> Column | None:
        """Return the condition for *value* and what comes after it, None where that is all."""
        if value is None:
            return self.exact.is_(None) if self.nulls_last else None
        own = literal(value, self.exact.type)
        return self._or_null(self.exact <= own if self.key.descending else self.exact >= own)

    def _or_null(self, condition: Column) -> Column:
        return or_(condition, self.exact.is_(None)) if self.nulls_last else condition


class Keyset:
    """A statement in its total order, for the database that *session* would send it to."""

    def __init__(self, session: Session, statement: Select[Any]) -> None:
        self.session = session
        self.statement = statement
        self.keys = keys_of(statement)
        self._dialect = session.get_bind(clause=statement).dialect
        self._outer = shapes.has_outer_join(statement)

    @cached_property
    def name(self) -> str:
        """What a cursor is signed for: a place in another order is no place in this one."""
        return name_of(self.keys)

    def fetch(self, place: Values, *, backwards: bool, limit: int) -> "Rows":
        """Return up to *limit* rows after *place*, or before it, nearest first."""
        keys = [key.reversed() for key in self.keys] if backwards else self.keys
        bounds = [self._bound(key) for key in keys]
        statement = self.statement.order_by(None).order_by(*(key.clause() for key in keys))
        columns = list(labelled(bound.exact for bound in bounds))
        if place and shapes.group_clauses(statement):
            if sorting_of(self._dialect).having_takes_labels:
                named = (literal_column(column.name, column.type) for column in columns)
                bounds = [replace(b, exact=name) for b, name in zip(bounds, named, strict=True)]
            statement = statement.having(_after(bounds, place))
        elif place:
            statement = statement.where(_after(bounds, place))
        statement = statement.add_columns(*columns).limit(limit)
        return fetch(self.session, statement, shapes.width_of(self.statement))

    def _bound(self, key: Key) -> Bound:
        return bind(
            key, self._dialect, nullable=self._outer or not shapes.is_never_null(key.column)
        )


@dataclass(frozen=True, slots=True)
class Rows:
    """What was selected, and the place of each."""

    items: list[Any]
    places: list[Values]


def bind(key: Key, dialect: Dialect, *, nullable: bool) -> Bound:
    """Return *key* as the database of *dialect* compares it."""
    sorting = sorting_of(dialect)
    nulls_last = sorting.nulls_are_largest != key.descending
    if key.nulls is not None:
        nulls_last = key.nulls == "last"
    return Bound(key, sorting.exactly(key.column, dialect), nullable and nulls_last)


def fetch(session: Session, statement: Select[Any], width: int) -> Rows:
    """Return the rows of *statement*; the columns after *width* are the place of each.

    A row of one column is what is in it. The rows that joined eager loads make of one are merged;
    to ask for that always would merge equal rows, which a statement may well select.
    """
    result = session.execute(statement)
    if result._unique_filter_state is not None:  # noqa: SLF001 - it has no public name
        result = result.unique()
    everything = shapes.width_of(statement)
    if everything == width:
        return Rows(list(_items(result, width)), [])
    # A result is read once; a frozen one by its own columns and by those that were added.
    frozen = result.freeze()
    places = frozen().columns(*range(width, everything))
    return Rows(list(_items(frozen(), width)), [tuple(place) for place in places])


def _items(result: Result[Any], width: int) -> Iterable[Any]:
    return result.scalars() if width == 1 else result.columns(*range(width))


def _after(bounds: Sequence[Bound], place: Values) -> Column:
    """Return the condition for what comes after *place*.

    In the form ``a >= 1 AND (a > 1 OR b > 2)``, the first part of which an index can serve, other
    than in ``a > 1 OR (a = 1 AND b > 2)``.
    """
    *others, last = zip(bounds, place, strict=True)
    condition = last[0].beyond(last[1])
    for bound, value in reversed(others):
        reached = bound.reached(value)
        condition = or_(bound.beyond(value), condition)
        condition = condition if reached is None else and_(reached, condition)
    return condition


@dataclass(frozen=True, slots=True)
class _Keyset(_Pages):
    """The pages after and before a place."""

    keyset: Keyset

    def asked(self) -> KeysetPage[Any]:
        """Return the page after the cursor that was given, or before it."""
        total = self.count() if self.wanted.count else None
        return self.fetch(total, *self._place())

    def fetch(self, total: int | None, place: Values, backwards: bool) -> KeysetPage[Any]:
        """Return the page after *place*, or *backwards* the one before it."""
        rows = self.keyset.fetch(place, backwards=backwards, limit=self.size + 1)
        more, known = len(rows.items) > self.size, place != EDGE
        items, places = rows.items[: self.size], rows.places[: self.size]
        if backwards:
            items.reverse()
            places.reverse()
        # From an empty page, the one way leads back, and the other stays.
        begin = places[0] if places else (place if backwards else EDGE)
        end = places[-1] if places else (EDGE if backwards else place)
        return KeysetPage(
            items,
            self.size,
            total,
            has_prev=more if backwards else known,
            has_next=known if backwards else more,
            turn=lambda back: self.fetch(total, begin if back else end, back),
            cursors=lambda to: self._cursor({"prev": begin, "next": end, "last": EDGE}[to]),
            address=self.wanted.address,
        )

    def _place(self) -> tuple[Values, bool]:
        after, before = self.wanted.after, self.wanted.before
        text = before if after is None else after
        if text is None:
            return EDGE, False
        if after is not None and before is not None:
            return _instead(self.wanted.error_out, (EDGE, False))
        try:
            place = read_cursor(text, self.keyset.name, self.wanted.secret())
        except BadCursor:
            return _instead(self.wanted.error_out, (EDGE, False))
        return place, after is None

    def _cursor(self, place: Values) -> str:
        return write_cursor(place, self.keyset.name, self.wanted.secret())
