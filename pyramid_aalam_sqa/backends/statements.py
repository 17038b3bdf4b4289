"""Calls a function for each statement of an engine, at no cost for what else the engine does.

It stands around the methods of the engine's own dialect. An event of the dialect would take two
kilobytes of memory for each of them, in each of a thousand engines. Once an event of the engine has
a listener, such as ``before_cursor_execute``, SQLAlchemy gives each connection a dispatcher of its
own and asks at each step who listens: a request of one statement costs a fifth more.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy.engine import Engine, ExecutionContext


def listen_for_statements(
    engine: Engine, listener: Callable[[str, ExecutionContext | None], object]
) -> None:
    """Call *listener* with the text and the context of each statement, just before it is sent."""
    dialect: Any = engine.dialect
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(dialect, name, partial(_tell_and_execute, listener, getattr(dialect, name)))


def _tell_and_execute(
    listener: Callable[[str, ExecutionContext | None], object],
    execute: Callable[..., object],
    cursor: object,
    statement: str,
    *arguments: Any,
) -> None:
    # The last argument is the context.
    listener(statement, arguments[-1])
    execute(cursor, statement, *arguments)
