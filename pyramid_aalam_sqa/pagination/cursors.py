"""Writes and reads cursors. A cursor is the place of a row as text.

It is signed, so that a client cannot make or change one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from webob.cookies import SignedSerializer

# For each type that JSON does not have: its class, and how a value is written as text and read.
# The first class that fits is used, because each datetime is also a date.
TYPES: Mapping[str, tuple[type[Any], Callable[[Any], str], Callable[[str], Any]]] = {
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "decimal": (Decimal, str, Decimal),
    # JSON does not have "nan" and "inf". Hexadecimal text keeps every bit of a float.
    "float": (float, float.hex, float.fromhex),
    "uuid": (UUID, str, UUID),
    "timedelta": (
        timedelta,
        lambda value: f"{value.days} {value.seconds} {value.microseconds}",
        lambda text: timedelta(*map(int, text.split())),
    ),
}


UNKNOWN_TYPE = (
    "Keyset pages cannot be ordered by values of type {type}, because a cursor cannot hold them: "
    "order by another column, or by cast(column, String)."
)


def write_cursor(values: Sequence[object], order_signature: str, secret: bytes) -> str:
    """Return the cursor for *values*, one value for each column of the order.

    Raises TypeError for a value of a type that a cursor cannot hold.
    """
    text: bytes = _signer(order_signature, secret).dumps(values)
    return text.decode()


def check_place(values: Sequence[object]) -> None:
    """Raise TypeError if a cursor cannot hold one of *values*."""
    PlaceSerializer().dumps(values)


def read_cursor(text: str, order_signature: str, secret: bytes) -> tuple[Any, ...]:
    """Return the values that :func:`write_cursor` wrote into the cursor *text*.

    Raises ValueError if *text* is not a cursor for this order, or was signed with another secret.
    """
    values: tuple[Any, ...] = _signer(order_signature, secret).loads(text)
    return values


class PlaceSerializer:
    """Writes the values of a place as JSON and reads them, types that JSON lacks included."""

    def dumps(self, values: Sequence[object]) -> bytes:
        """Return *values* as JSON."""
        return json.dumps(list(map(_pack, values)), separators=(",", ":")).encode()

    def loads(self, text: bytes) -> tuple[Any, ...]:
        """Return the values in the JSON *text*. Its signature has been checked before."""
        return tuple(map(_unpack, json.loads(text)))


def _signer(order_signature: str, secret: bytes) -> Any:
    # The order is the salt, so a cursor of another order has a wrong signature here.
    return SignedSerializer(secret, order_signature, "sha256", PlaceSerializer())


def _pack(value: object) -> object:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    for name, (kind, write, _) in TYPES.items():
        if isinstance(value, kind):
            return [name, write(value)]
    raise TypeError(UNKNOWN_TYPE.format(type=type(value).__name__))


def _unpack(packed: Any) -> Any:
    if not isinstance(packed, list):
        return packed
    name, text = packed
    return TYPES[name][2](text)
