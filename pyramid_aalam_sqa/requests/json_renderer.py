"""How Pyramid's JSON renderers write rows, models and the values in them."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import inspect
from sqlalchemy.engine import Row, RowMapping
from sqlalchemy.orm import InstanceState, Mapper

R = TypeVar("R")

# The words in the names of columns that are not for everybody, each between underscores.
HIDDEN_WORDS = (
    r"(?:^|_)(?:passwords?|passwd|pwd|passphrase|secrets?|tokens?|credentials?|salt|otp|api_?key"
    r"|private_?key)(?:_|$)"
)


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
    return _object(row._fields, row)


def _row_mapping(mapping: RowMapping) -> dict[str, Any]:
    return _object(tuple(map(str, mapping.keys())), mapping.values())


def _object(names: Sequence[str], values: Iterable[Any]) -> dict[str, Any]:
    """Return *values* by their *names*. Raise ValueError if two have the same name."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        msg = (
            f"The row has two columns called {twice!r}: "
            "give one of them another name, by label() or AS."
        )
        raise ValueError(msg)
    return dict(zip(names, values, strict=True))


def _model_or_collection(thing: object) -> object:
    """Return the columns of a model, or the items of a collection. Raise TypeError for the rest.

    It is the adapter for ``object``, because models have no other class in common. An association
    proxy is a collection that is neither a list, nor a dictionary, nor a set.
    """
    state: InstanceState[Any] | None = inspect(thing, raiseerr=False)
    if isinstance(state, InstanceState):
        return _model(thing, state)
    if isinstance(thing, Mapping):
        return dict(thing)
    if isinstance(thing, AbstractSet):
        return _in_order(thing)
    if isinstance(thing, Sequence):
        return list(thing)
    # Pyramid's own text for an object without an adapter.
    msg = f"{thing!r} is not JSON serializable"
    raise TypeError(msg)


def _in_order(items: Iterable[Any]) -> list[Any]:
    """Return the items of a set, sorted where they can be compared; models cannot."""
    try:
        return sorted(items)
    except TypeError:
        return list(items)


def _model(thing: object, state: InstanceState[Any]) -> dict[str, Any]:
    names = getattr(thing, "__json_columns__", None)
    if isinstance(names, str):
        msg = f"{type(thing).__name__}.__json_columns__ is text: write ({names!r},)."
        raise TypeError(msg)
    return {name: getattr(thing, name) for name in (_columns(state) if names is None else names)}


def _columns(state: InstanceState[Any]) -> list[str]:
    """Return the names of the columns that are shown, the same ones before and after a commit.

    A deferred column is left out, because to load it costs a statement for each object. So is a
    column that the query has left out. A column that was never set on a new object is not loaded
    either, but it is NULL and costs nothing. Raises TypeError if one of them looks like a secret.
    """
    unloaded = state.unloaded - state.expired_attributes if state.has_identity else set()
    left_out = unloaded & state.callables.keys()
    return [name for name in _public_columns(state.mapper) if name not in left_out]


# A mapper lives as long as its class.
_columns_of_mapper: WeakKeyDictionary[Mapper[Any], list[str]] = WeakKeyDictionary()


def _public_columns(mapper: Mapper[Any]) -> list[str]:
    """Return the names of the columns of *mapper*: no private one, no deferred one, no secret."""
    names = _columns_of_mapper.get(mapper)
    if names is None:
        shown = [each for each in mapper.column_attrs if each.key[0] != "_" and not each.deferred]
        for each in shown:
            if _looks_secret(each.key) or _looks_secret(str(getattr(each.columns[0], "name", ""))):
                name = mapper.class_.__name__
                msg = (
                    f"{name} has the column {each.key}, which looks like a secret. List the "
                    f"attributes that may be shown in {name}.__json_columns__."
                )
                raise TypeError(msg)
        names = _columns_of_mapper[mapper] = [each.key for each in shown]
    return names


def _looks_secret(name: str) -> bool:
    """Tell whether *name* has a word for a secret: password_hash, apiKey, access_token."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return re.search(HIDDEN_WORDS, snake) is not None


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


ADAPTERS: dict[type, Callable[[Any], object]] = {
    object: _model_or_collection,
    Row: _row,
    RowMapping: _row_mapping,
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
    set: _in_order,
}
