"""Calls a function for each statement of an engine, at no cost for what else the engine does.

These are events of the dialect. Once an event of the engine has a listener, such as
``before_cursor_execute``, SQLAlchemy gives each connection a dispatcher of its own and asks at each
step who listens: a request of one statement costs a fifth more.
"""

from collections.abc import Callable

from sqlalchemy import event
from sqlalchemy.engine import Engine, ExecutionContext


def listen_for_statements(
    engine: Engine, listener: Callable[[str, ExecutionContext | None], object]
) -> None:
    """Call *listener* with the text and the context of each statement, just before it is sent."""

    def with_parameters(
        _cursor: object, statement: str, _parameters: object, context: ExecutionContext | None
    ) -> None:
        # What it returns would tell SQLAlchemy not to send the statement.
        listener(statement, context)

    def without_parameters(
        _cursor: object, statement: str, context: ExecutionContext | None
    ) -> None:
        listener(statement, context)

    event.listen(engine, "do_execute", with_parameters)
    event.listen(engine, "do_executemany", with_parameters)
    event.listen(engine, "do_execute_no_params", without_parameters)
