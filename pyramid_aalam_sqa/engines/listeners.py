"""Lets a new session or connection know who listens to its events, as each one of its class does.

SQLAlchemy finds that out when an event is first called, by way of an AttributeError. A request
makes a session and calls some fifteen events of it, so this takes a twentieth of what a request
does that reads one row. But for nearly each session the answer is that of its class. So a subclass
of SQLAlchemy's dispatch object has the answers as attributes of the class. A listener of one
session alone is kept on the instance, as always, and wins there.
"""

from typing import Any

from sqlalchemy.engine import Connection, Engine

# Where a class keeps what is known for its instances. Not here, where it would outlive the class.
KNOWN = "_sqa_listeners"


def known_listeners(session_class: type[Any]) -> type[Any] | None:
    """Return the class of the dispatch objects for sessions of *session_class*.

    None if SQLAlchemy's own dispatch object is not made as the versions known here make it. Then
    each session is to keep that one.
    """
    if KNOWN not in vars(session_class):
        setattr(session_class, KNOWN, _make(session_class))
    known: type[Any] | None = vars(session_class)[KNOWN]
    return known


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


# For all connections: SQLAlchemy's class is not changed.
OF_CONNECTIONS = _make(Connection)


class _KnownDispatch:
    """The attribute ``dispatch`` of a connection: an object that is made at once."""

    of_class = Connection.dispatch

    def __get__(self, connection: Connection | None, _: object) -> Any:
        if connection is None or OF_CONNECTIONS is None:
            return self.of_class
        connection.__dict__["dispatch"] = made = OF_CONNECTIONS()
        return made


class KnownConnection(Connection):
    """A connection of SQLAlchemy, which has a dispatch object at once."""

    # The object that a connection gets is an instance of a subclass of SQLAlchemy's.
    dispatch = _KnownDispatch()  # pyright: ignore[reportAssignmentType]  # it says what it returns


def know_listeners(engine: Engine) -> None:
    """Let each connection of *engine* know who listens to its events."""
    if OF_CONNECTIONS is not None and hasattr(engine, "_connection_cls"):
        engine._connection_cls = KnownConnection  # noqa: SLF001 - it has no public name
