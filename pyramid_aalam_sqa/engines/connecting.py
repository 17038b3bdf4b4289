"""Lets a listener that opens connections hand the work on to the listeners after it."""

from collections.abc import Callable
from itertools import dropwhile
from typing import Any

from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection


def connect_through(
    listener: Callable[..., object],
    dialect: Dialect,
    record: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> DBAPIConnection:
    """Connect as SQLAlchemy would without *listener* and the "do_connect" listeners before it.

    The listeners after it are asked, then the driver.
    """
    listeners: Any = dialect.dispatch
    following = dropwhile(lambda each: each is not listener, listeners.do_connect)
    next(following)
    for each in following:
        connection: DBAPIConnection | None = each(dialect, record, args, kwargs)
        if connection is not None:
            return connection
    return dialect.connect(*args, **kwargs)
