"""Rows that are made once, even if several processes or requests find them missing at once."""

from typing import Any

from sqlalchemy import Engine, Insert, Select
from sqlalchemy.exc import DBAPIError


def fill_once(engine: Engine, found: Select[Any], *inserts: Insert) -> None:
    """Send *inserts* in one transaction, unless *found* finds a row.

    The look is a transaction of its own. On SQLite a transaction that has read cannot write any
    more as soon as any other connection has written.
    """
    with engine.connect() as connection:
        if connection.execute(found.limit(1)).first() is not None:
            return
    try:
        with engine.begin() as connection:
            for statement in inserts:
                connection.execute(statement)
    except DBAPIError:
        # Another one has made the rows at the same time.
        return
