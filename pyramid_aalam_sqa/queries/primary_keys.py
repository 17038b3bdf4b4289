"""Converts the identity of a row, often a part of a URL, to the values of its primary key.

The conversion cannot be left to the databases: MariaDB reads ``"1abc"`` as 1, and PostgreSQL ends
the transaction for a number that is too large. So this module checks whether a row can have a value
before the value is sent.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

from sqlalchemy import Enum, Numeric, TypeDecorator, Uuid
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeEngine

from ..backends import backend_class

# Text is matched with these before Python converts it. Python would also accept signs, blanks,
# underscores and the digits of every script, and take seconds for a number of a million digits.
INTEGER = r"0|-?[1-9][0-9]{0,19}"
DECIMAL = r"-?[0-9]{1,1000}(\.[0-9]{1,1000})?"
FLOAT = r"-?[0-9]{1,400}(\.[0-9]{1,400})?(e[+-]?[0-9]{1,3})?"
BOOLEANS = {"True": True, "true": True, "False": False, "false": False}


# The sizes of integer types in bits, by SQLAlchemy's names for the types. All others have 64 bits.
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
    """Return *ident* as the values of the primary key; None if a row cannot have these values."""
    columns = mapper.primary_key
    given = _key_values(mapper, ident)
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
        # SQLAlchemy converts the value once more before it sends it. That may fail too.
        process = type_.bind_processor(dialect)
        if value is not None and process:
            process(value)
    except Exception:  # noqa: BLE001 - a type may raise any error for a wrong value
        return None
    return value


def _key_values(mapper: Mapper[Any], ident: object) -> Sequence[object]:
    """Return the values in *ident* in the order of the primary key.

    Returns no values if a name in *ident* is wrong, or a name is missing.
    """
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
        return _for_type_decorator(type_, value, dialect)
    if isinstance(type_, Enum):
        return _enum_member(type_, value, dialect)
    if isinstance(type_, Uuid):
        return _uuid(type_, value)
    if type_.__visit_name__ == "YEAR":
        return _integer(type_, value, dialect)
    return _by_python_type(type_, _python_type(type_), value, dialect)


def _python_type(type_: TypeEngine[Any]) -> type:
    """Return the Python class of the values of *type_*; ``object`` if the type does not say it."""
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
    # SQLAlchemy does not know the values of this type. The database decides about the value.
    return value if not isinstance(value, str) or _is_storable(value) else None


def _for_type_decorator(type_: TypeDecorator[Any], value: object, dialect: Dialect) -> object:
    """Return *value* converted for a type that the application defines; None if it does not fit.

    The type's ``process_bind_param`` may expect either a value of the column's type or the text
    from the URL. So both are tried. One is right if the column can hold what the method returns.
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
        except Exception:  # noqa: BLE001, S112 - as in convert(); the next one may be right
            continue
        held = convert(inner, bound, dialect)
        if held is not None and isinstance(bound, type(held)) and held == bound:
            return candidate
    return None


def _integer(type_: TypeEngine[Any], value: object, dialect: Dialect) -> int | None:
    if isinstance(value, str) and re.fullmatch(INTEGER, value):
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
    """Return whether every database can store *value*: no NUL, no half of a surrogate pair."""
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
    if isinstance(value, str) and not re.fullmatch(DECIMAL, value):
        return None
    number = Decimal(value)
    if not number.is_finite() or abs(number.adjusted()) > LARGEST_EXPONENT:
        return None
    if not isinstance(type_, Numeric) or type_.precision is None:
        return number
    numerator, denominator = number.as_integer_ratio()
    units, rest = divmod(numerator * 10 ** (type_.scale or 0), denominator)
    return number if rest == 0 and abs(units) < 10**type_.precision else None


def _float(_: Any, value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and not re.fullmatch(FLOAT, value):
        return None
    number = float(value)
    return number if isfinite(number) else None


def _date(_: Any, value: object) -> date | None:
    if isinstance(value, str):
        found = date.fromisoformat(value)
        # Python also reads "20260228" and "2026-W09-6". But a row has only one address.
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
        # Python also reads a UUID in braces or with a prefix.
        if value.lower() not in {str(found), found.hex}:
            return None
        value = found
    if not isinstance(value, UUID):
        return None
    return value if getattr(type_, "as_uuid", True) else str(value)


def _enum_member(type_: Enum, value: object, dialect: Dialect) -> object:
    if type_.enum_class is not None and isinstance(value, type_.enum_class):
        return value
    if not isinstance(value, str) or value not in type_.enums:
        return None
    load: Any = type_.result_processor(dialect, None)  # type: ignore[no-untyped-call]
    return load(value) if load else value


# The converter for each Python type. That for integers needs the dialect, see _by_python_type().
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
