"""The order of a statement's rows, and the columns that make the order the same each time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    FromClause,
    Label,
    Select,
    TextClause,
    UnaryExpression,
    select,
)
from sqlalchemy.orm import Query
from sqlalchemy.sql import operators
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.sql.util import ClauseAdapter

from .sort_keys import bound_values, check_sort_key, is_constant, refuse_constant
from .statements import (
    column_identity,
    is_joined,
    is_limited,
    order_clauses,
    referenced,
    unique_columns,
    unlabelled,
)

Column = ColumnElement[Any]


Nulls = Literal["first", "last"] | None


NOT_A_SELECT = "A {given} cannot have pages: write a select(), a union of selects, or a Query."


LIMITED = (
    "The statement has a LIMIT or an OFFSET, but each page sets its own: remove them, or make a "
    "subquery() of the statement and page a select() from that."
)


NOT_UNIQUE = (
    "Keyset pages need columns in which no two rows are equal, but {reason}. Select from tables "
    "with primary keys, use distinct() or group_by(), or use paginate()."
)


MODIFIERS: dict[object, dict[str, Any]] = {
    operators.asc_op: {"descending": False},
    operators.desc_op: {"descending": True},
    operators.nulls_first_op: {"nulls": "first"},
    operators.nulls_last_op: {"nulls": "last"},
}


@dataclass(frozen=True, slots=True)
class Key:
    """A column or an expression that rows are ordered by, and its direction."""

    column: Column
    descending: bool = False
    nulls: Nulls = None

    def reversed(self) -> "Key":
        """Return the key of the opposite order."""
        opposite: dict[Nulls, Nulls] = {"first": "last", "last": "first", None: None}
        return replace(self, descending=not self.descending, nulls=opposite[self.nulls])

    def clause(self) -> Column:
        """Return the key as a clause for ORDER BY."""
        clause = _modified(self.column, operators.desc_op if self.descending else operators.asc_op)
        if self.nulls is None:
            return clause
        nulls_op = operators.nulls_first_op if self.nulls == "first" else operators.nulls_last_op
        return _modified(clause, nulls_op)


def pageable(statement: object) -> Select[Any]:
    """Return *statement* as a select() that can be ordered and limited.

    Raises TypeError for a statement of another kind, and ValueError for one with a LIMIT.
    """
    if isinstance(statement, Query):
        statement = statement.statement
    if not isinstance(statement, (Select, CompoundSelect)):
        raise TypeError(NOT_A_SELECT.format(given=type(statement).__name__))
    if is_limited(statement):
        raise ValueError(LIMITED)
    return statement if isinstance(statement, Select) else _select_from_union(statement)


class TotalOrder:
    """The order of a statement, with its unique columns added at the end.

    Without unique columns, a database may return rows that are equal in ORDER BY in another order
    each time.
    """

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._unique_columns, self._why_not_unique = unique_columns(statement)
        self._given = [_read_key(clause, statement) for clause in order_clauses(statement)]
        self._added = self._missing_keys()

    def statement(self) -> Select[Any]:
        """Return the statement in this order.

        If the statement does not have unique columns, equal rows may still change places.

        If the statement has a joined eager load, SQLAlchemy merges equal rows. So if a join may
        repeat an object, the unique columns are selected too: then no two rows are equal.
        """
        ordered = self._statement.order_by(*(key.clause() for key in self._added))
        if self._why_not_unique or not is_joined(self._statement):
            return ordered
        return ordered.add_columns(*labelled(self._unique_columns))

    def keys(self) -> tuple[Key, ...]:
        """Return the keys of this order. Their columns can be used in WHERE.

        Raises ValueError if the statement does not have unique columns. Raises TypeError or
        ValueError if :func:`check_sort_key` does: the order would not be the same on each page.
        """
        if self._why_not_unique:
            raise ValueError(NOT_UNIQUE.format(reason=self._why_not_unique))
        given, added = (
            [replace(key, column=unlabelled(key.column)) for key in keys]
            for keys in (self._given, self._added)
        )
        for key in (*given, *added):
            check_sort_key(key.column)
        for key in given:
            refuse_constant(key.column)
        return (*given, *(key for key in added if not is_constant(key.column)))

    def _missing_keys(self) -> list[Key]:
        """Return keys for the unique columns that are not in ORDER BY.

        They get the direction of the last column in ORDER BY, because an index cannot serve an
        order with two directions.
        """
        descending = bool(self._given) and self._given[-1].descending
        given = {column_identity(key.column) for key in self._given}
        missing: dict[object, Key] = {}
        for column in self._unique_columns:
            key = _read_key(column, self._statement)
            missing[column_identity(key.column)] = replace(key, descending=descending)
        return [key for identity, key in missing.items() if identity not in given]


def order_signature(keys: Iterable[Key]) -> str:
    """Return a text for the order of *keys*: equal for equal orders, in every process.

    It contains the values in the expressions, because a cursor for the order by the distance from
    5 is wrong in the order by the distance from 6.
    """
    return ", ".join(
        f"{key.clause()} {type(key.column.type).__name__} {bound_values(key.column) or ''}"
        for key in keys
    )


def _modified(column: Column, modifier: OperatorType) -> Column:
    if isinstance(column, Label):
        # SQLAlchemy writes the label's name instead of its expression.
        ordered: Column = column.operate(modifier)
        return ordered
    # asc(), desc() and nulls_last() warn about, or refuse, the column types of some databases.
    return UnaryExpression(column, modifier=modifier)


def labelled(columns: Iterable[Any]) -> Iterator[Label[Any]]:
    """Yield *columns* with labels that an application does not use."""
    return (column.label(f"_sqa_{number}") for number, column in enumerate(columns))


def _read_key(clause: Any, statement: Select[Any] | CompoundSelect[Any]) -> Key:
    """Return a *clause* of ORDER BY as a :class:`Key`.

    If the clause is a name, it means the column of that name that *statement* selects.
    """
    modifiers: dict[str, Any] = {}
    while True:
        modifier = MODIFIERS.get(getattr(clause, "modifier", None))
        if modifier is not None:
            modifiers = modifier | modifiers
            clause = clause.element
        elif (column := referenced(clause, statement)) is not None:
            clause = column
        else:
            return Key(clause, **modifiers)


def _select_from_union(union: CompoundSelect[Any]) -> Select[Any]:
    """Return a select() of all rows of *union*, in the same order.

    SQL can order a union only by the names of its columns, but a select() by any expression.
    """
    rows = union.order_by(None).subquery()
    return select(*rows.c).order_by(
        *(_ordered_as(clause, union, rows) for clause in order_clauses(union))
    )


def _ordered_as(clause: Any, union: CompoundSelect[Any], rows: FromClause) -> Any:
    """Return a *clause* of the ORDER BY of *union* for a select() from its *rows*."""
    if isinstance(clause, TextClause):
        return clause
    key = _read_key(clause, union)
    if isinstance(key.column, Label) and key.column.name in rows.c:
        return replace(key, column=rows.c[key.column.name]).clause()
    return replace(key, column=ClauseAdapter(rows).traverse(key.column)).clause()
