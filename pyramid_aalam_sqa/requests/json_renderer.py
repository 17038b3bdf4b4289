"""How Pyramid's JSON renderers write rows, models and the values in them."""

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
    """Add to a JSON renderer of your own what the renderer named ``"json"`` knows, and return it.

    *renderer* is a ``pyramid.renderers.JSON``. Rows and models become objects. Dates and times are
    written in their ISO form, timedelta in seconds, Decimal and UUID as text, an Enum as its value,
    bytes as Base64, a set as a sorted list. An adapter that you add afterwards replaces ours.
    """
    adapt: Any = renderer
    for kind, function in ADAPTERS.items():
        adapt.add_adapter(kind, _without_request(function))
    return renderer


def _without_request(function: Callable[[Any], object]) -> Callable[[Any, object], object]:
    return lambda value, _request: function(value)


def _row(row: Row[Any]) -> dict[str, Any]:
    return dict(zip(row._fields, row, strict=True))


def _model(thing: object) -> dict[str, Any]:
    """Return the columns of a model. Raise TypeError for any other object.

    It is the adapter for ``object``, because models have no other class in common.
    """
    state: InstanceState[Any] | None = inspect(thing, raiseerr=False)
    if not isinstance(state, InstanceState):
        # Pyramid's own text for an object without an adapter.
        msg = f"{thing!r} is not JSON serializable"
        raise TypeError(msg)
    names = getattr(thing, "__json_columns__", None)
    if isinstance(names, str):
        msg = f"{type(thing).__name__}.__json_columns__ is text: write ({names!r},)."
        raise TypeError(msg)
    return {name: getattr(thing, name) for name in (_columns(state) if names is None else names)}


def _columns(state: InstanceState[Any]) -> list[str]:
    """Return the names of the public columns, without those whose loading was deferred.

    To load a deferred column costs a statement for each object.
    """
    names = [attribute.key for attribute in state.mapper.column_attrs if attribute.key[0] != "_"]
    deferred = state.unloaded - state.expired_attributes if state.has_identity else set()
    return [name for name in names if name not in deferred]


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


ADAPTERS: dict[type, Callable[[Any], object]] = {
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
