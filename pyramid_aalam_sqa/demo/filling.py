"""Rows that are made once, even if several processes or requests find them missing at once."""

from typing import Any

from sqlalchemy import Engine, Insert, Select
from sqlalchemy.exc import DBAPIError


def fill_once(engine: Engine, found: Select[Any], *inserts: Insert) -> None:
    """Send *inserts* in one transaction, unless *found* finds a row."""
    try:
        with engine.begin() as connection:
            if connection.execute(found.limit(1)).first() is None:
                for statement in inserts:
                    connection.execute(statement)
    except DBAPIError:
        # Another one has made the rows at the same time.
        return
