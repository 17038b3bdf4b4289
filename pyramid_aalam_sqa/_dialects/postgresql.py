"""PostgreSQL through psycopg: bounded waits, and otherwise what SQLAlchemy does."""

from collections.abc import Mapping
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

    def prepare(self, engine: Engine) -> None:
        event.listen(engine, "connect", self._set_up)

    def _set_up(self, connection: DBAPIConnection, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false)",
            [_milliseconds(self.switches[name]) for name in ("lock_timeout", "statement_timeout")],
        )
        cursor.close()
        connection.commit()


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"
