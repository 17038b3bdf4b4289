"""Lets a new session or connection know who listens to its events, as each one of its class does.

SQLAlchemy finds that out when an event is first called, by way of an AttributeError. A request
makes a session and calls some fifteen events of it, so this takes a twentieth of what a request
does that reads one row. But for nearly each session the answer is that of its class. So a subclass
of SQLAlchemy's dispatch object has the answers as attributes of the class. A listener of one
session alone is kept on the instance, as always, and wins there.
"""

from typing import Any

from sqlalchemy.engine import Connection, Engine

# By the class of the sessions. SQLAlchemy too keeps each class whose sessions have called an event.
_known: dict[type[Any], type[Any] | None] = {}


def known_listeners(target_class: type[Any]) -> type[Any] | None:
    """Return the class of the dispatch objects for instances of *target_class*.

    None if SQLAlchemy's own dispatch object is not made as the versions known here make it. Then
    each instance is to keep that one.
    """
    if target_class not in _known:
        _known[target_class] = _make(target_class)
    return _known[target_class]


def _make(target_class: type[Any]) -> type[Any] | None:
    usual = object.__new__(target_class).dispatch
    own = type(usual)
    # Those of the events, and those that SQLAlchemy sets when it makes the object. All of them are
    # the same for each instance of the class.
    slots = {name for base in own.__mro__ for name in vars(base).get("__slots__", ())}
    slots.discard("__dict__")
    if not {"_parent", "_instance_cls", "_empty_listeners"} < slots:
        return None
    values = {name: getattr(usual, name) for name in slots}
    # SQLAlchemy looks for this one in the class itself.
    values["_joined_dispatch_cls"] = getattr(own, "_joined_dispatch_cls", None)
    return type(own.__name__, (own,), {"__slots__": (), "__init__": object.__init__, **values})


class _KnownDispatch:
    """The attribute ``dispatch`` of a connection: an object that is made at once."""

    def __init__(self) -> None:
        self.of_class = Connection.dispatch
        self.listeners = known_listeners(Connection)

    def __get__(self, connection: Connection | None, _: object) -> Any:
        return self.of_class if connection is None or not self.listeners else self.listeners()


class KnownConnection(Connection):
    """A connection of SQLAlchemy, which has a dispatch object at once."""

    # What a connection gets from it is of the type of its parent.
    dispatch = _KnownDispatch()  # pyright: ignore[reportAssignmentType]  # as said above


def know_listeners(engine: Engine) -> None:
    """Let each connection of *engine* know who listens to its events."""
    if known_listeners(Connection) is not None and hasattr(engine, "_connection_cls"):
        engine._connection_cls = KnownConnection  # noqa: SLF001 - it has no public name
