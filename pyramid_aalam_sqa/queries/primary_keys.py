"""Converts what names a row, often a part of a URL, to the values of its primary key.

A database accepts too much: MariaDB takes ``"1abc"`` for 1. PostgreSQL accepts too little: a number
that is too long ends the transaction. A value that no row can have is therefore found out here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from typing import Any
from uuid import UUID

from sqlalchemy import Enum, Numeric, TypeDecorator, Uuid
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeEngine

from ..backends import backend_class

# Text is matched before it is converted: Python would also accept signs, blanks, underscores and
# the digits of every script, and would spend seconds on a number of a million digits.
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,19}")
DECIMAL = re.compile(r"-?[0-9]{1,1000}(\.[0-9]{1,1000})?")
FLOAT = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?(e[+-]?[0-9]{1,3})?")
BOOLEANS = {"True": True, "true": True, "False": False, "false": False}


# The sizes of integers, by the names that SQLAlchemy gives to their types. All others have 64 bits.
BITS = {
    "tinyint": 8,
    "smallint": 16,
    "small_integer": 16,
    "year": 16,
    "mediumint": 24,
    "integer": 32,
}
MOST_BITS = 64


LARGEST_EXPONENT = 1000


def identity_of(mapper: Mapper[Any], ident: object, dialect: Dialect) -> tuple[Any, ...] | None:
    """Return *ident* as the values of the primary key; None if no row can have them."""
    columns = mapper.primary_key
    given = _values(mapper, ident)
    if len(given) != len(columns):
        return None
    values = tuple(
        convert(column.type, value, dialect) for column, value in zip(columns, given, strict=True)
    )
    return None if None in values else values


def key_names(mapper: Mapper[Any]) -> list[str]:
    """Return the names of the attributes that hold the primary key, in its order."""
    return [mapper.get_property_by_column(column).key for column in mapper.primary_key]


def convert(type_: TypeEngine[Any], value: object, dialect: Dialect) -> Any:
    """Return *value* as a column of *type_* holds it; None if it cannot hold it."""
    type_ = type_.dialect_impl(dialect)
    try:
        value = _convert(type_, value, dialect)
        # SQLAlchemy converts the value again before it sends it, which may fail as well.
        process = type_.bind_processor(dialect)
        if value is not None and process:
            process(value)
    except Exception:  # noqa: BLE001 - a type may raise anything for a value that it cannot take
        return None
    return value


def _values(mapper: Mapper[Any], ident: object) -> Sequence[object]:
    """Return the values in *ident* in the order of the key; none if names are wrong or missing."""
    if isinstance(ident, Mapping):
        synonyms = {synonym.key: synonym.name for synonym in mapper.synonyms}
        named = {synonyms.get(name, name): value for name, value in ident.items()}
        names = key_names(mapper)
        return [named[name] for name in names] if named.keys() == set(names) else ()
    if isinstance(ident, Sequence) and not isinstance(ident, (str, bytes, bytearray, memoryview)):
        return ident
    return (ident,)


def _convert(type_: TypeEngine[Any], value: object, dialect: Dialect) -> object:
    if isinstance(type_, TypeDecorator):
        return _decorated(type_, value, dialect)
    if isinstance(type_, Enum):
        return _member(type_, value, dialect)
    if isinstance(type_, Uuid):
        return _uuid(type_, value)
    if type_.__visit_name__ == "YEAR":
        return _integer(type_, value, dialect)
    return _by_python_type(type_, _python_type(type_), value, dialect)


def _python_type(type_: TypeEngine[Any]) -> type:
    """Return the class of the values of *type_*; ``object`` if the type does not know it."""
    try:
        return type_.python_type
    except NotImplementedError:
        # SQLAlchemy 2.0 raises this where 2.1 returns object.
        return object


def _by_python_type(type_: TypeEngine[Any], kind: type, value: object, dialect: Dialect) -> object:
    if kind is int:
        return _integer(type_, value, dialect)
    converter = CONVERTERS.get(kind)
    if converter:
        return converter(type_, value)
    # SQLAlchemy knows nothing of such a type. The database will say whether it takes the value.
    return value if not isinstance(value, str) or _is_storable(value) else None


def _decorated(type_: TypeDecorator[Any], value: object, dialect: Dialect) -> object:
    """Convert *value* for a type of an application's own.

    Its ``process_bind_param`` may expect the value of the column, or the text from the URL. Each is
    tried; what it returns must fit the column.
    """
    inner = type_.impl_instance
    python_type = _python_type(type_)
    if python_type is not object:
        candidates = [_by_python_type(inner, python_type, value, dialect)]
    else:
        candidates = [convert(inner, value, dialect), value]
    if type(type_).process_bind_param is TypeDecorator.process_bind_param:
        return candidates[0]
    for candidate in candidates:
        if candidate is None:
            continue
        try:
            bound = type_.process_bind_param(candidate, dialect)
        except Exception:  # noqa: BLE001, S112 - as in convert(); the next candidate may be right
            continue
        held = convert(inner, bound, dialect)
        if held is not None and isinstance(bound, type(held)) and held == bound:
            return candidate
    return None


def _integer(type_: TypeEngine[Any], value: object, dialect: Dialect) -> int | None:
    if isinstance(value, str) and INTEGER.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    bits, signed = backend_class(dialect.name).INTEGER_BITS, True
    if bits is None:
        bits = BITS.get(type_.__visit_name__.lower(), MOST_BITS)
        signed = not getattr(type_, "unsigned", False)
    lowest = -(2 ** (bits - 1)) if signed else 0
    return int(value) if lowest <= value < lowest + 2**bits else None


def _text(type_: Any, value: object) -> str | None:
    if not isinstance(value, str) or not _is_storable(value):
        return None
    length = getattr(type_, "length", None)
    return value if length is None or len(value) <= length else None


def _is_storable(value: str) -> bool:
    """Return whether every database takes *value*: half a surrogate pair and NUL are refused."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _bytes(type_: Any, value: object) -> bytes | None:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        return None
    value = bytes(value)
    length = getattr(type_, "length", None)
    return value if length is None or len(value) <= length else None


def _boolean(_: Any, value: object) -> bool | None:
    if isinstance(value, str):
        return BOOLEANS.get(value)
    return value if isinstance(value, bool) else None


def _decimal(type_: Any, value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
        return None
    if isinstance(value, str) and not DECIMAL.fullmatch(value):
        return None
    number = Decimal(value)
    if not number.is_finite() or abs(number.adjusted()) > LARGEST_EXPONENT:
        return None
    if not isinstance(type_, Numeric) or type_.precision is None:
        return number
    units = Fraction(number) * 10 ** (type_.scale or 0)
    return number if units.denominator == 1 and abs(units) < 10**type_.precision else None


def _float(_: Any, value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and not FLOAT.fullmatch(value):
        return None
    number = float(value)
    return number if isfinite(number) else None


def _date(_: Any, value: object) -> date | None:
    if isinstance(value, str):
        found = date.fromisoformat(value)
        # Python also reads "20260228" and "2026-W09-6". One row has one address only.
        return found if found.isoformat() == value else None
    return value if isinstance(value, date) and not isinstance(value, datetime) else None


def _datetime(type_: Any, value: object) -> datetime | None:
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(found, datetime):
        return None
    return found if found.tzinfo is None or getattr(type_, "timezone", True) else None


def _time(_: Any, value: object) -> time | None:
    found = time.fromisoformat(value) if isinstance(value, str) else value
    return found if isinstance(found, time) else None


def _timedelta(_: Any, value: object) -> timedelta | None:
    return value if isinstance(value, timedelta) else None


def _uuid(type_: Any, value: object) -> UUID | str | None:
    if isinstance(value, str):
        found = UUID(value)
        # Python also reads braces and prefixes.
        if value.lower() not in {str(found), found.hex}:
            return None
        value = found
    if not isinstance(value, UUID):
        return None
    return value if getattr(type_, "as_uuid", True) else str(value)


def _member(type_: Enum, value: object, dialect: Dialect) -> object:
    if type_.enum_class is not None and isinstance(value, type_.enum_class):
        return value
    if not isinstance(value, str) or value not in type_.enums:
        return None
    load: Any = type_.result_processor(dialect, None)  # type: ignore[no-untyped-call]
    return load(value) if load else value


# By the Python type of a column's values. Integers need the dialect too, see _by_python_type().
CONVERTERS: dict[type, Callable[[Any, Any], object]] = {
    bool: _boolean,
    bytes: _bytes,
    date: _date,
    datetime: _datetime,
    Decimal: _decimal,
    float: _float,
    str: _text,
    time: _time,
    timedelta: _timedelta,
    UUID: _uuid,
}
