"""Turns what names a row, often a piece of a URL, into the values of its primary key.

A database is generous with what it compares: MariaDB takes ``"1abc"`` for 1, and PostgreSQL ends
the transaction over a number that is too long. What cannot be the key of a row is found out here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Enum, Numeric, TypeDecorator, Uuid
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeEngine

T = TypeVar("T")


INTEGER = re.compile(r"0|-?[1-9][0-9]{0,19}")


DECIMAL = re.compile(r"-?[0-9]{1,1000}(\.[0-9]{1,1000})?")


FLOAT = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?(e[+-]?[0-9]{1,3})?")


BOOLEANS = {"True": True, "true": True, "False": False, "false": False}


# By what SQLAlchemy calls the types.
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


Coercer = Callable[[Any, Any], object]


def identity_of(mapper: Mapper[Any], ident: object, dialect: Dialect) -> tuple[Any, ...] | None:
    """Return *ident* as the values of the primary key; None when no row can have it."""
    columns = mapper.primary_key
    given = _parts(mapper, ident)
    if len(given) != len(columns):
        return None
    values = tuple(
        coerce(column.type, value, dialect) for column, value in zip(columns, given, strict=True)
    )
    return None if None in values else values


def key_names(mapper: Mapper[Any]) -> list[str]:
    """Return the names of the attributes that hold the primary key."""
    return [mapper.get_property_by_column(column).key for column in mapper.primary_key]


def coerce(type_: TypeEngine[Any], value: object, dialect: Dialect) -> Any:
    """Return *value* as a column of *type_* holds it; None when it cannot."""
    type_ = type_.dialect_impl(dialect)
    try:
        value = _coerce(type_, value, dialect)
        # What SQLAlchemy would do to it: an error there is an answer, not a fault.
        process = type_.bind_processor(dialect)
        if value is not None and process:
            process(value)
    except Exception:  # noqa: BLE001 - as in coerce(); the other may do
        return None
    return value


def _parts(mapper: Mapper[Any], ident: object) -> Sequence[object]:
    if isinstance(ident, Mapping):
        synonyms = {synonym.key: synonym.name for synonym in mapper.synonyms}
        named = {synonyms.get(name, name): value for name, value in ident.items()}
        names = key_names(mapper)
        return [named[name] for name in names] if named.keys() == set(names) else ()
    if isinstance(ident, Sequence) and not isinstance(ident, (str, bytes, bytearray, memoryview)):
        return ident
    return (ident,)


def _coerce(type_: TypeEngine[Any], value: object, dialect: Dialect) -> object:
    if isinstance(type_, TypeDecorator):
        return _decorated(type_, value, dialect)
    if isinstance(type_, Enum):
        return _member(type_, value, dialect)
    if isinstance(type_, Uuid):
        return _by_python_type(type_, UUID, value, dialect)
    if type_.__visit_name__ == "YEAR":
        return _integer(type_, value, dialect)
    return _by_python_type(type_, type_.python_type, value, dialect)


def _by_python_type(type_: TypeEngine[Any], kind: type, value: object, dialect: Dialect) -> object:
    if kind is int:
        return _integer(type_, value, dialect)
    coercer = COERCERS.get(kind)
    if coercer:
        return coercer(type_, value)
    # A type that SQLAlchemy knows nothing of; the database will say.
    return value if not isinstance(value, str) or _is_storable(value) else None


def _decorated(type_: TypeDecorator[Any], value: object, dialect: Dialect) -> object:
    """Hand an application's own type what it may expect, if what it makes of it fits its column."""
    inner = type_.impl_instance
    if type_.python_type is not object:
        candidates = [_by_python_type(inner, type_.python_type, value, dialect)]
    else:
        candidates = [coerce(inner, value, dialect), value]
    if type(type_).process_bind_param is TypeDecorator.process_bind_param:
        return candidates[0]
    for candidate in candidates:
        if candidate is None:
            continue
        try:
            bound = type_.process_bind_param(candidate, dialect)
        except Exception:  # noqa: BLE001, S112 - as in coerce(); the other may do
            continue
        held = coerce(inner, bound, dialect)
        if held is not None and isinstance(bound, type(held)) and held == bound:
            return candidate
    return None


def _integer(type_: TypeEngine[Any], value: object, dialect: Dialect) -> int | None:
    if isinstance(value, str) and INTEGER.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    bits, lowest = BITS.get(type_.__visit_name__.lower(), MOST_BITS), 0
    if dialect.name == "sqlite":
        # It has but one INTEGER, and numbers rows beyond 32 bits by itself.
        bits = MOST_BITS
    if dialect.name == "sqlite" or not getattr(type_, "unsigned", False):
        lowest = -(2 ** (bits - 1))
    return int(value) if lowest <= value < lowest + 2**bits else None


def _text(type_: Any, value: object) -> str | None:
    if not isinstance(value, str) or not _is_storable(value):
        return None
    length = getattr(type_, "length", None)
    return value if length is None or len(value) <= length else None


def _is_storable(value: str) -> bool:
    """Tell whether *value* is text to every database: half a surrogate pair and NUL are not."""
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
    return BOOLEANS.get(value) if isinstance(value, str) else _instance(bool, value)


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
        # A week date names the day too, but is not what the page's address says.
        return found if found.isoformat() == value else None
    return None if isinstance(value, datetime) else _instance(date, value)


def _datetime(type_: Any, value: object) -> datetime | None:
    found = datetime.fromisoformat(value) if isinstance(value, str) else _instance(datetime, value)
    if found is not None and found.tzinfo is not None and not getattr(type_, "timezone", True):
        return None
    return found


def _time(_: Any, value: object) -> time | None:
    return time.fromisoformat(value) if isinstance(value, str) else _instance(time, value)


def _timedelta(_: Any, value: object) -> timedelta | None:
    return _instance(timedelta, value)


def _uuid(type_: Any, value: object) -> UUID | str | None:
    if isinstance(value, str):
        found = UUID(value)
        if value.lower() not in {str(found), found.hex}:
            return None
        value = found
    if not isinstance(value, UUID):
        return None
    return value if getattr(type_, "as_uuid", True) else str(value)


def _member(type_: Enum, value: object, dialect: Dialect) -> object:
    if type_.enum_class is None or not isinstance(value, type_.enum_class):
        if not isinstance(value, str) or value not in type_.enums:
            return None
        load: Any = type_.result_processor(dialect, None)  # type: ignore[no-untyped-call]
        return load(value) if load else value
    return value


def _instance(kind: type[T], value: object) -> T | None:
    return value if isinstance(value, kind) else None


COERCERS: dict[type, Coercer] = {
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
