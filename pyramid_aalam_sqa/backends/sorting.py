"""How a database product sorts and compares: where NULL stands, and how a value is found again.

Keyset pages need it: they keep the values of the last row and ask for the rows after them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    REAL,
    Boolean,
    ColumnElement,
    Double,
    Enum,
    Float,
    Integer,
    Label,
    LargeBinary,
    Numeric,
    String,
    Text,
    Time,
    TypeDecorator,
    Uuid,
    cast,
    literal,
    literal_column,
    type_coerce,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import NullType, TypeEngine

Column = ColumnElement[Any]


# SQL's FLOAT(p) with p up to 24 is kept in single precision.
SINGLE_PRECISION_BITS = 24


UNSORTABLE = (
    "Keyset pages cannot be ordered by {column}, of type {type}: {reason}. Order by a part of it "
    "as text or as a number, for example {column}[...].as_string()."
)


class Comparable(NamedTuple):
    """A column as a value of it is kept, and compared with later.

    ``kept`` selects the value. ``compared`` is the expression to compare, which sorts as the
    column does. The value is sent as ``value_type``. If ``cast_to`` is not None, it is text, and
    the database casts it to that type.
    """

    kept: Column
    compared: Column
    value_type: TypeEngine[Any]
    cast_to: TypeEngine[Any] | None = None

    def value(self, kept: Any) -> Column:
        """Return the expression for a value that was *kept*."""
        value = literal(kept, self.value_type)
        return value if self.cast_to is None else cast(value, self.cast_to)

    def of_label(self, label: Label[Any]) -> "Comparable":
        """Return the same, comparing by the *label* under which ``kept`` is selected."""
        column: Column = literal_column(label.name, self.value_type)
        return self._replace(
            compared=column if self.cast_to is None else cast(column, self.cast_to)
        )


class Sorting(NamedTuple):
    """How one product sorts and compares.

    - ``comparable``: see :meth:`exactly`, which calls it with a column, its type and the dialect.
    - ``nulls_are_largest``: whether NULL sorts after all values.
    - ``having_takes_labels``: whether HAVING needs a label to repeat an expression of GROUP BY.
    """

    comparable: Callable[[Column, TypeEngine[Any], Dialect], Comparable]
    nulls_are_largest: bool = False
    having_takes_labels: bool = False

    def exactly(self, column: Column, dialect: Dialect) -> Comparable:
        """Return how values of *column* can be kept, and compared with it later, without any loss.

        The column itself is not always enough. Its Python type may round a value, may make an
        object that has no order, or may have no object for the value. Some databases compare a
        value in another way than they sort it. Raises TypeError for a type that has no order.
        """
        type_ = column.type
        while isinstance(type_, TypeDecorator):
            own = type_.dialect_impl(dialect)
            # Interval is a decorator only where the product has no intervals.
            is_native = not isinstance(own, TypeDecorator)
            type_ = own if is_native else type_.load_dialect_impl(dialect)
        return self.comparable(column, type_, dialect)


def _plain(column: Column, type_: TypeEngine[Any]) -> Comparable:
    """Return *column* with values of *type_*, which are kept and compared as they are."""
    column = type_coerce(column, type_)
    return Comparable(column, column, type_)


def _by_plain_type(column: Column, type_: TypeEngine[Any], dialect: Dialect) -> Comparable:
    """Return *column* with the plainest type that loses nothing."""
    if isinstance(type_, Float):
        type_ = Double()
    elif isinstance(type_, Numeric):
        type_ = Numeric()
    elif isinstance(type_, Enum):
        type_ = String()
    return _plain(column, type_)


def _as_stored(column: Column, type_: TypeEngine[Any], dialect: Dialect) -> Comparable:
    """Return *column* without a type: SQLite compares a value as it is stored."""
    return _plain(column, NullType())


def _by_mysql(column: Column, type_: TypeEngine[Any], dialect: Dialect) -> Comparable:
    """Return *column* as MySQL or MariaDB sort it, which is not always as they show it.

    They sort ENUM, SET and BIT by a number and show a text or bytes. They show fewer digits of a
    FLOAT than they store. A TIME may be negative or longer than a day, which the drivers write in
    different ways.
    """
    from sqlalchemy.dialects import mysql  # noqa: PLC0415 - slow, and seldom needed

    if isinstance(type_, (mysql.SET, mysql.BIT)) or (isinstance(type_, Enum) and type_.native_enum):
        number = cast(type_coerce(column, NullType()), mysql.BIGINT(unsigned=True))
        return _plain(number, NullType())
    if isinstance(type_, Time):
        bare = type_coerce(column, NullType())
        return Comparable(cast(bare, String()), bare, String(), mysql.TIME(fsp=6))
    if isinstance(type_, JSON) and not getattr(dialect, "is_mariadb", False):
        raise _unsortable(column, "MySQL does not sort its objects and arrays")
    if isinstance(type_, Float) and not isinstance(type_, Double):
        column = _doubled(column)
    return _plain(column, NullType())


# The types of which PostgreSQL's drivers have a Python object for each value.
KEPT_AS_OBJECT = (Boolean, Integer, LargeBinary, Numeric, String, Uuid)


def _by_postgresql(column: Column, type_: TypeEngine[Any], dialect: Dialect) -> Comparable:
    """Return *column* for PostgreSQL, which compares values of one type only.

    Of most types, Python has no object for each value, for example no date before Christ, no time
    24:00 and no infinite timestamp. Every type has a text that PostgreSQL itself reads again.
    """
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - as above

    if isinstance(type_, JSON) and not isinstance(type_, postgresql.JSONB):
        raise _unsortable(column, "PostgreSQL does not sort it, but JSONB")
    if isinstance(type_, postgresql.HSTORE):
        raise _unsortable(column, "PostgreSQL has no operator < for it")
    if isinstance(type_, REAL) or (isinstance(type_, Float) and _is_single(type_)):
        return _plain(_doubled(column), Double())
    is_native_enum = isinstance(type_, Enum) and type_.native_enum
    if isinstance(type_, KEPT_AS_OBJECT) and not is_native_enum:
        return _by_plain_type(column, type_, dialect)
    bare = type_coerce(column, NullType())
    if isinstance(type_, NullType):
        # The type is not known here. PostgreSQL takes the text for a value of the column's type.
        return Comparable(cast(bare, Text()), bare, NullType())
    return Comparable(cast(bare, Text()), bare, Text(), type_)


def _unsortable(column: Column, reason: str) -> TypeError:
    name = type(column.type).__name__
    return TypeError(UNSORTABLE.format(column=column, type=name, reason=reason))


def _doubled(column: Column) -> Column:
    """Return *column* in double precision, which shows every digit that is stored."""
    return type_coerce(column, Double()) + literal_column("0e0", Double())


def _is_single(type_: Float[Any]) -> bool:
    return type_.precision is not None and type_.precision <= SINGLE_PRECISION_BITS


GENERIC_SORTING = Sorting(_by_plain_type)
MYSQL_SORTING = Sorting(_by_mysql, having_takes_labels=True)
POSTGRESQL_SORTING = Sorting(_by_postgresql, nulls_are_largest=True)
SQLITE_SORTING = Sorting(_as_stored)
