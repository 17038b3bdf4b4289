"""The text of a place between two rows, which a client keeps and cannot make or change."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

DIGEST = hashlib.sha256


DIGEST_SIZE = DIGEST().digest_size


# A datetime is a date too, and a bool an int: the first type that fits is taken.
TYPES: Mapping[str, tuple[type[Any], Callable[[Any], str], Callable[[str], Any]]] = {
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "decimal": (Decimal, str, Decimal),
    # Not as JSON's number: "nan" and "inf" are none, and every bit counts.
    "float": (float, float.hex, float.fromhex),
    "uuid": (UUID, str, UUID),
    "timedelta": (
        timedelta,
        lambda value: f"{value.days} {value.seconds} {value.microseconds}",
        lambda text: timedelta(*map(int, text.split())),
    ),
}


class BadCursor(ValueError):  # noqa: N818 - named for what it is about
    """A cursor that was not made here, for this order of rows, with this secret."""


def write_cursor(values: Sequence[object], order: str, secret: bytes) -> str:
    """Return the signed text for *values*, those of the columns that *order* names.

    TypeError when a value has no form in which it could be kept.
    """
    body = json.dumps(list(map(_pack, values)), separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_sign(body, order, secret) + body).rstrip(b"=").decode()


def read_cursor(text: str, order: str, secret: bytes) -> tuple[Any, ...]:
    """Return the values that :func:`write_cursor` was given. :class:`BadCursor` for other text."""
    try:
        signed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise BadCursor from error
    signature, body = signed[:DIGEST_SIZE], signed[DIGEST_SIZE:]
    if not hmac.compare_digest(signature, _sign(body, order, secret)):
        raise BadCursor
    # What bears our signature was written here.
    return tuple(map(_unpack, json.loads(body)))


def _sign(body: bytes, order: str, secret: bytes) -> bytes:
    # The length keeps the end of the one from being read as the beginning of the other.
    return hmac.digest(secret, b"%d:%b%b" % (len(order), order.encode(), body), DIGEST)


def _pack(value: object) -> object:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    for name, (kind, write, _) in TYPES.items():
        if isinstance(value, kind):
            return [name, write(value)]
    msg = f"Rows cannot be paged by a column of {type(value).__name__}: order by another, or text."
    raise TypeError(msg)


def _unpack(packed: Any) -> Any:
    if not isinstance(packed, list):
        return packed
    name, text = packed
    return TYPES[name][2](text)
