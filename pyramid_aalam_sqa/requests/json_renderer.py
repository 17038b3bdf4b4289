"""What Pyramid's JSON renderers make of rows, models and the values in them."""

from base64 import b64encode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import inspect
from sqlalchemy.engine import Row, RowMapping
from sqlalchemy.orm import InstanceState

R = TypeVar("R")


def add_json_adapters(renderer: R) -> R:
    """Teach a JSON renderer of your own what the one named ``"json"`` knows, and return it.

    *renderer* is a ``pyramid.renderers.JSON``. Rows and models become objects; dates and times
    their ISO form, timedelta its seconds, Decimal and UUID text, an Enum its value, bytes Base64,
    a set a sorted list. What you add to it afterwards takes the place of these.
    """
    adapt: Any = renderer
    for kind, function in FORMS.items():
        adapt.add_adapter(kind, _without_request(function))
    return renderer


def _without_request(function: Callable[[Any], object]) -> Callable[[Any, object], object]:
    return lambda value, _request: function(value)


def _row(row: Row[Any]) -> dict[str, Any]:
    return dict(zip(row._fields, row, strict=True))


def _model(thing: object) -> dict[str, Any]:
    """Return the columns of a model; asked for any object, for models have no class in common."""
    state: InstanceState[Any] | None = inspect(thing, raiseerr=False)
    if not isinstance(state, InstanceState):
        # The words of Pyramid, which would have said so.
        msg = f"{thing!r} is not JSON serializable"
        raise TypeError(msg)
    names = getattr(thing, "__json_columns__", None)
    if isinstance(names, str):
        msg = f"{type(thing).__name__}.__json_columns__ is text: write ({names!r},)."
        raise TypeError(msg)
    return {name: getattr(thing, name) for name in (_columns(state) if names is None else names)}


def _columns(state: InstanceState[Any]) -> list[str]:
    """Return the public columns, but those whose loading was deferred: each costs a statement."""
    names = [attribute.key for attribute in state.mapper.column_attrs if attribute.key[0] != "_"]
    deferred = state.unloaded - state.expired_attributes if state.has_identity else set()
    return [name for name in names if name not in deferred]


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


FORMS: dict[type, Callable[[Any], object]] = {
    object: _model,
    Row: _row,
    RowMapping: dict,
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: timedelta.total_seconds,
    Decimal: "{:f}".format,
    UUID: str,
    Enum: attrgetter("value"),
    bytes: _base64,
    bytearray: _base64,
    memoryview: _base64,
    set: sorted,
}
