"""Makes the SELECT for the rows after a place. It compares each column as the database sorts it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, false, or_
from sqlalchemy.engine import Dialect

from ..backends import Comparable, sorting_of
from .fetching import Place
from .ordering import Key, TotalOrder, labelled, order_signature
from .statements import group_clauses, has_outer_join, is_never_null

Column = ColumnElement[Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares a :class:`Key` with the values in a cursor, in the way of one database.

    ``nulls_last`` is true if the column may be NULL and NULL comes last.
    """

    key: Key
    comparable: Comparable
    nulls_last: bool

    def after(self, kept: Any) -> Column:
        """Return the condition for rows that come after *kept*, the value in the cursor."""
        column = self.comparable.compared
        if kept is None:
            return false() if self.nulls_last else column.is_not(None)
        value = self.comparable.value(kept)
        return self._or_null(column < value if self.key.descending else column > value)

    def at_or_after(self, kept: Any) -> Column | None:
        """Return the condition for rows with *kept* or after it; None if this is every row."""
        column = self.comparable.compared
        if kept is None:
            return column.is_(None) if self.nulls_last else None
        value = self.comparable.value(kept)
        return self._or_null(column <= value if self.key.descending else column >= value)

    def _or_null(self, condition: Column) -> Column:
        return or_(condition, self.comparable.compared.is_(None)) if self.nulls_last else condition


class Keyset:
    """A statement in its total order, for the database with *dialect*."""

    def __init__(self, statement: Select[Any], dialect: Dialect) -> None:
        self._statement = statement
        self._keys = TotalOrder(statement).keys()
        self._sorting = sorting_of(dialect)
        self._dialect = dialect
        self._has_outer_join = has_outer_join(statement)

    @cached_property
    def order_signature(self) -> str:
        """The text for this order. A cursor is signed with it, and is refused in another order."""
        return order_signature(self._keys)

    def select(self, place: Place, *, backwards: bool) -> Select[Any]:
        """Return the statement for the rows after *place*, or before it if *backwards*.

        The rows nearest to *place* come first. After its own columns, the statement selects the
        place of each row.
        """
        keys = [key.reversed() for key in self._keys] if backwards else self._keys
        comparisons = [self._comparison(key) for key in keys]
        columns = list(labelled(comparison.comparable.kept for comparison in comparisons))
        ordered = self._statement.order_by(None).order_by(*(key.clause() for key in keys))
        statement = ordered.add_columns(*columns)
        if not place:
            return statement
        if not group_clauses(statement):
            return statement.where(_after_place(comparisons, place))
        if self._sorting.having_takes_labels:
            comparisons = [
                replace(comparison, comparable=comparison.comparable.of_label(label))
                for comparison, label in zip(comparisons, columns, strict=True)
            ]
        return statement.having(_after_place(comparisons, place))

    def _comparison(self, key: Key) -> Comparison:
        nulls_last = self._sorting.nulls_are_largest != key.descending
        if key.nulls is not None:
            nulls_last = key.nulls == "last"
        may_be_null = self._has_outer_join or not is_never_null(key.column)
        comparable = self._sorting.exactly(key.column, self._dialect)
        return Comparison(key, comparable, nulls_last and may_be_null)


def _after_place(comparisons: Sequence[Comparison], place: Place) -> Column:
    """Return the condition for the rows after *place*.

    It has the form ``a >= 1 AND (a > 1 OR b > 2)``, because an index can serve ``a >= 1``. It
    cannot serve the equivalent ``a > 1 OR (a = 1 AND b > 2)``.
    """
    *others, (last, value) = zip(comparisons, place, strict=True)
    condition = last.after(value)
    for comparison, value in reversed(others):
        at_or_after = comparison.at_or_after(value)
        condition = or_(comparison.after(value), condition)
        condition = condition if at_or_after is None else and_(at_or_after, condition)
    return condition
