"""An SQLite file under the name that the application's models have for their schema.

Each connection has an empty main database in memory, and the file attached beside it. So the
qualified name means the file, and so does the bare one, because nothing is ever made in main.
"""

import re
import sqlite3
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Dialect, Engine, ExceptionContext

from ..exceptions import SettingError

NOTE = (
    "The application's tables are in {0}: write CREATE TABLE {0}.<table>, "
    "CREATE INDEX {0}.<index> ON <table>, and so for views and triggers. "
    "No other file can be attached, and none detached."
)


CREATIONS = {
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_TRIGGER,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_CREATE_VTABLE,
}


# What SQLAlchemy asks of main when it reflects without a schema; at the head, where no value is.
REFLECTION = re.compile(
    r"(PRAGMA |SELECT \w+ FROM\s+(?:\(SELECT \* FROM )?)"
    r"(?:main\.(?=table_|index_|foreign_key_list)|(?=sqlite_master\b))"
)


class Attached:
    """Attaches the file of each connection of an engine as *name*, and keeps it the only one."""

    def __init__(self, name: str, dialect: Dialect) -> None:
        self.name = name
        self.dialect = dialect
        self.note = NOTE.format(name)
        self.prefix = f'"{name}".'

    def prepare(self, engine: Engine) -> None:
        """Add the listeners to *engine*, and put the models without a schema into the file."""
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "connect", self._guard)
        event.listen(engine, "before_cursor_execute", self._reflect, retval=True)
        event.listen(engine, "handle_error", self._explain)
        given = engine.get_execution_options().get("schema_translate_map", {})
        engine.update_execution_options(schema_translate_map={None: self.name, **given})

    def _connect(
        self, dialect: Dialect, _record: object, args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        connection: Any = dialect.connect(":memory:", *args[1:], **kwargs)
        try:
            connection.execute(f"ATTACH DATABASE ? AS {self.prefix[:-1]}", args[:1])
        except BaseException:
            connection.close()
            raise
        return connection

    def _guard(self, connection: sqlite3.Connection, _record: object) -> None:
        databases = [row[1] for row in connection.execute("PRAGMA database_list")]
        if self.name not in databases:
            connection.close()
            msg = (
                f"sqlalchemy.creator: the models' schema is {self.name}: "
                f"ATTACH the file AS {self.name} in each connection, or set sqlalchemy.url instead."
            )
            raise SettingError(msg)
        connection.set_authorizer(_authorize)
        # What SQLAlchemy says before it has asked, and it would not ask SQLite. Left alone when it
        # was changed since, as Alembic's users do.
        if self.dialect.default_schema_name == "main":
            self.dialect.default_schema_name = self.name

    def _reflect(
        self, _connection: object, _cursor: object, statement: str, parameters: Any, *_: object
    ) -> tuple[str, Any]:
        """Have what looks for tables without a schema look into the file."""
        found = REFLECTION.match(statement)
        if found:
            statement = found[1] + self.prefix + statement[found.end() :]
        return statement, parameters

    def _explain(self, context: ExceptionContext) -> None:
        error = context.original_exception
        refused = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH
        if refused or "no such table: main." in str(error):
            (context.sqlalchemy_exception or error).add_note(self.note)


def _authorize(
    action: int, name: str | None, _other: str | None, database: str | None, _by: str | None
) -> int:
    """Refuse what would be lost with the connection, and what would reach another file.

    SQLite's own tables may be made anywhere (by ANALYZE), and VACUUM attaches a nameless file.
    A file that is no plain text in the statement has no name here.
    """
    lost = action in CREATIONS and database == "main" and not (name or "").startswith("sqlite_")
    attaches = action == sqlite3.SQLITE_ATTACH and name != ""
    if lost or attaches or action == sqlite3.SQLITE_DETACH:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK
