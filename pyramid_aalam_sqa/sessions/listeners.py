"""Lets a new session know who listens to its events, as each session of its class does.

SQLAlchemy finds that out when a session calls an event for the first time, by way of an
AttributeError. A request makes a session and calls some fifteen events of it, so this takes a
twentieth of what a request does that reads one row. But for nearly each session the answer is that
of its class. So a subclass of SQLAlchemy's dispatch object has the answers as attributes of the
class. A listener of one session alone is kept on the instance, as always, and wins there.
"""

from typing import Any

from sqlalchemy.orm import Session

# By the class of the sessions. SQLAlchemy too keeps each class whose sessions have called an event.
_known: dict[type[Session], type[Any] | None] = {}


def known_listeners(session_class: type[Session]) -> type[Any] | None:
    """Return the class of the dispatch objects for sessions of *session_class*.

    None if SQLAlchemy's own dispatch object is not made as the versions known here make it. Then
    each session is to keep that one.
    """
    if session_class not in _known:
        _known[session_class] = _make(session_class)
    return _known[session_class]


def _make(session_class: type[Session]) -> type[Any] | None:
    usual = object.__new__(session_class).dispatch
    own = type(usual)
    # Those of the events, and those that SQLAlchemy sets when it makes the object. All of them are
    # the same for each session of the class.
    slots = {name for base in own.__mro__ for name in vars(base).get("__slots__", ())}
    slots.discard("__dict__")
    if not ({"after_begin", "_parent", "_instance_cls", "_empty_listeners"} <= slots):
        return None
    values = {name: getattr(usual, name) for name in slots}
    return type(own.__name__, (own,), {"__slots__": (), "__init__": object.__init__, **values})
