"""PostgreSQL through psycopg: bounded waits, and otherwise what SQLAlchemy does."""

from collections.abc import Mapping
from math import ceil
from typing import Any, ClassVar

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from .generic import GenericDialect


class PostgreSQLDialect(GenericDialect):
    """PostgreSQL with a bound on each wait."""

    ENGINE_DEFAULTS: ClassVar[Mapping[str, str]] = {
        **GenericDialect.ENGINE_DEFAULTS,
        "pool_recycle": "1800",
        "connect_args.connect_timeout": "5",
    }
    DRIVERS = frozenset({"psycopg", "psycopg2", "psycopg2cffi"})

    def prepare(self, engine: Engine) -> None:
        event.listen(engine, "connect", self._set_up)

    def _set_up(self, connection: DBAPIConnection, _record: Any) -> None:
        # PostgreSQL takes 0 for no limit, also where not to wait at all was meant.
        lock = max(1, ceil(self.switches["lock_timeout"] * 1000))
        statement = ceil(self.switches["statement_timeout"] * 1000)
        cursor = connection.cursor()
        cursor.execute(
            f"SELECT set_config('lock_timeout', '{lock}', false), "
            f"set_config('statement_timeout', '{statement}', false)"
        )
        cursor.close()
        connection.commit()
