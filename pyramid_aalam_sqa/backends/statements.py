"""Calls a function for each statement of an engine, at no cost for what else the engine does.

It stands around the methods of the engine's own dialect. An event of the dialect would take two
kilobytes of memory for each of them, in each of a thousand engines. Once an event of the engine has
a listener, such as ``before_cursor_execute``, SQLAlchemy gives each connection a dispatcher of its
own and asks at each step who listens: a request of one statement costs a fifth more.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Engine, ExecutionContext


def listen_for_statements(
    engine: Engine, listener: Callable[[str, ExecutionContext | None], object]
) -> None:
    """Call *listener* with the text and the context of each statement, just before it is sent."""
    dialect: Any = engine.dialect
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(dialect, name, _after(listener, getattr(dialect, name)))


def _after(listener: Callable[..., object], execute: Callable[..., object]) -> Callable[..., None]:
    """Return *execute*, a method of the dialect, which calls *listener* first."""

    def heard(cursor: object, statement: str, *arguments: Any) -> None:
        # The last one is the context.
        listener(statement, arguments[-1])
        execute(cursor, statement, *arguments)

    return heard
