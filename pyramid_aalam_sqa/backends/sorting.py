"""How each database sorts: where NULL stands, and what it takes to compare a value exactly."""

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


# Half of the bits of a double; what has no more is kept in single precision.
SINGLE = 24


@dataclass(frozen=True, slots=True)
class Sorting:
    """What a database does: how it compares *exactly*, and whether NULL is its largest value.

    Where *having_takes_labels*, HAVING does not know the expressions of GROUP BY again.
    """

    compared: Callable[[Column, TypeEngine[Any]], Column]
    nulls_are_largest: bool = False
    having_takes_labels: bool = False

    def exactly(self, column: Column, dialect: Dialect) -> Column:
        """Return *column* with values that can be kept, and compared with it again.

        It sorts as *column* does. The Python side of a type may round a value, or make something
        of it that has no order; a database may compare a value in another way than it sorts it.
        """
        kind = column.type
        while isinstance(kind, TypeDecorator):
            kind = kind.load_dialect_impl(dialect)
        return self.compared(column, kind)


def sorting_of(dialect: Dialect) -> Sorting:
    """Return how the database of *dialect* sorts."""
    return SORTINGS.get(dialect.name, OTHER)


def _as_typed(column: Column, kind: TypeEngine[Any]) -> Column:
    if isinstance(kind, Float):
        kind = Double()
    elif isinstance(kind, Numeric):
        kind = Numeric()
    elif isinstance(kind, Enum):
        kind = String()
    return type_coerce(column, kind)


def _as_stored(column: Column, kind: TypeEngine[Any]) -> Column:
    """SQLite has no types: what it stores is what it compares."""
    return type_coerce(column, NullType())


def _by_number(column: Column, kind: TypeEngine[Any]) -> Column:
    """MySQL sorts an ENUM by its number and compares it as text; a FLOAT is not what it shows."""
    if isinstance(kind, Enum) and kind.native_enum:
        column = type_coerce(column, Integer()) + literal_column("0", Integer())
    elif isinstance(kind, Float) and not isinstance(kind, Double):
        column = _doubled(column)
    return type_coerce(column, NullType())


def _with_casts(column: Column, kind: TypeEngine[Any]) -> Column:
    """PostgreSQL compares values of one type alone, and so is told of what type each is."""
    if isinstance(kind, Enum) and kind.native_enum:
        return type_coerce(column, Enum(*kind.enums, name=kind.name, schema=kind.schema))
    if isinstance(kind, REAL) or (isinstance(kind, Float) and _is_single(kind)):
        return type_coerce(_doubled(column), Double())
    return _as_typed(column, kind)


def _doubled(column: Column) -> Column:
    return type_coerce(column, Double()) + literal_column("0e0", Double())


def _is_single(kind: Float[Any]) -> bool:
    return kind.precision is not None and kind.precision <= SINGLE


OTHER = Sorting(_as_typed)


MYSQL = Sorting(_by_number, having_takes_labels=True)


SORTINGS = {
    "mariadb": MYSQL,
    "mysql": MYSQL,
    "oracle": Sorting(_as_typed, nulls_are_largest=True),
    "postgresql": Sorting(_with_casts, nulls_are_largest=True),
    "sqlite": Sorting(_as_stored),
}
