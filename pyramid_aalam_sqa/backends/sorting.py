"""How a database product sorts and compares: where NULL stands, and how a value is found again.

Keyset pages need it: they keep the values of the last row and ask for the rows after them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    REAL,
    ColumnElement,
    Double,
    Enum,
    Float,
    Integer,
    Numeric,
    String,
    TypeDecorator,
    literal_column,
    type_coerce,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import NullType, TypeEngine

Column = ColumnElement[Any]


# SQL's FLOAT(p) with p up to 24 is kept in single precision.
SINGLE_PRECISION_BITS = 24


@dataclass(frozen=True, slots=True)
class Sorting:
    """How one product sorts and compares.

    ``comparable``: see :meth:`exactly`, which calls it with a column and its type.
    ``nulls_are_largest``: whether NULL sorts after all values.
    ``having_takes_labels``: whether HAVING needs a label for an expression of GROUP BY.
    """

    comparable: Callable[[Column, TypeEngine[Any]], Column]
    nulls_are_largest: bool = False
    having_takes_labels: bool = False

    def exactly(self, column: Column, dialect: Dialect) -> Column:
        """Return *column* as an expression whose values can be kept and compared with it later.

        The expression sorts as *column* does. *column* itself may not do: the Python side of its
        type may round a value, or make an object of it that has no order, and some databases
        compare a value in another way than they sort it.
        """
        type_ = column.type
        while isinstance(type_, TypeDecorator):
            type_ = type_.load_dialect_impl(dialect)
        return self.comparable(column, type_)


def _by_plain_type(column: Column, type_: TypeEngine[Any]) -> Column:
    """Return *column* with the plainest type that loses nothing."""
    if isinstance(type_, Float):
        type_ = Double()
    elif isinstance(type_, Numeric):
        type_ = Numeric()
    elif isinstance(type_, Enum):
        type_ = String()
    return type_coerce(column, type_)


def _as_stored(column: Column, type_: TypeEngine[Any]) -> Column:
    """Return *column* without a type: SQLite compares a value as it is stored."""
    return type_coerce(column, NullType())


def _by_number(column: Column, type_: TypeEngine[Any]) -> Column:
    """Return *column* as a number where MySQL sorts it by a number that it does not show.

    MySQL sorts an ENUM by its number and compares it as text. It shows fewer digits of a FLOAT
    than it stores.
    """
    if isinstance(type_, Enum) and type_.native_enum:
        column = type_coerce(column, Integer()) + literal_column("0", Integer())
    elif isinstance(type_, Float) and not isinstance(type_, Double):
        column = _doubled(column)
    return type_coerce(column, NullType())


def _by_same_type(column: Column, type_: TypeEngine[Any]) -> Column:
    """Return *column* with its type named, because PostgreSQL compares values of one type only."""
    if isinstance(type_, Enum) and type_.native_enum:
        return type_coerce(column, Enum(*type_.enums, name=type_.name, schema=type_.schema))
    if isinstance(type_, REAL) or (isinstance(type_, Float) and _is_single(type_)):
        return type_coerce(_doubled(column), Double())
    return _by_plain_type(column, type_)


def _doubled(column: Column) -> Column:
    """Return *column* in double precision, which shows every digit that is stored."""
    return type_coerce(column, Double()) + literal_column("0e0", Double())


def _is_single(type_: Float[Any]) -> bool:
    return type_.precision is not None and type_.precision <= SINGLE_PRECISION_BITS


GENERIC_SORTING = Sorting(_by_plain_type)
MYSQL_SORTING = Sorting(_by_number, having_takes_labels=True)
POSTGRESQL_SORTING = Sorting(_by_same_type, nulls_are_largest=True)
SQLITE_SORTING = Sorting(_as_stored)
