"""Calls a function for each statement of an engine, at no cost for what else the engine does.

It stands around the methods of the engine's own dialect. An event of the dialect would take two
kilobytes of memory for each of them, in each of a thousand engines. Once an event of the engine has
a listener, such as ``before_cursor_execute``, SQLAlchemy gives each connection a dispatcher of its
own and asks at each step who listens: a request of one statement costs a fifth more.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy.engine import Dialect, Engine, ExecutionContext

Listener = Callable[[str, ExecutionContext | None], object]

# Each dialect is wrapped once: many applications may be made on one ready engine.
_listeners: WeakKeyDictionary[Dialect, list[Listener]] = WeakKeyDictionary()


def listen_for_statements(engine: Engine, listener: Listener) -> None:
    """Call *listener* with the text and the context of each statement, just before it is sent."""
    dialect: Any = engine.dialect
    listeners = _listeners.get(dialect)
    if listeners is None:
        listeners = _listeners[dialect] = []
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            setattr(dialect, name, partial(_tell_and_execute, listeners, getattr(dialect, name)))
    listeners.append(listener)


def _tell_and_execute(
    listeners: list[Listener],
    execute: Callable[..., object],
    cursor: object,
    statement: str,
    *arguments: Any,
) -> None:
    for listener in listeners:
        # The last argument is the context.
        listener(statement, arguments[-1])
    execute(cursor, statement, *arguments)
