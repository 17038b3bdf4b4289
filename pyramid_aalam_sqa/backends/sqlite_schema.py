"""An SQLite file under the schema name that the application's models use.

Each connection has an empty main database in memory, and the file is attached to it. So the
qualified name means the file. The bare name means it too, because nothing is ever created in main.
"""

import re
import sqlite3
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Dialect, Engine, ExceptionContext

from ..exceptions import SettingError

ADVICE = (
    "The application's tables are in {0}: write CREATE TABLE {0}.<table>, "
    "CREATE INDEX {0}.<index> ON <table>, and so for views and triggers. "
    "No other file can be attached, and none detached."
)


CREATE_ACTIONS = {
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_TRIGGER,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_CREATE_VTABLE,
}


# The beginning of the statements by which SQLAlchemy reflects main. Values come later in them.
REFLECTION = re.compile(
    r"(PRAGMA |SELECT \w+ FROM\s+(?:\(SELECT \* FROM )?)"
    r"(?:main\.(?=table_|index_|foreign_key_list)|(?=sqlite_master\b))"
)


class AttachedFile:
    """Attaches the file to each connection of an engine as *name*, and keeps it the only file."""

    def __init__(self, name: str, dialect: Dialect) -> None:
        self.name = name
        self.dialect = dialect
        self.advice = ADVICE.format(name)
        self.prefix = f'"{name}".'

    def prepare(self, engine: Engine) -> None:
        """Add the listeners to *engine*, and put models without a schema into the file too."""
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "connect", self._check_and_guard)
        event.listen(engine, "before_cursor_execute", self._reflect_file, retval=True)
        event.listen(engine, "handle_error", self._add_advice)
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

    def _check_and_guard(self, connection: sqlite3.Connection, _record: object) -> None:
        """Check that a creator of the application attached the file, and guard the connection."""
        databases = [row[1] for row in connection.execute("PRAGMA database_list")]
        if self.name not in databases:
            connection.close()
            msg = (
                f"sqlalchemy.creator: the models' schema is {self.name}: "
                f"ATTACH the file AS {self.name} in each connection, or set sqlalchemy.url instead."
            )
            raise SettingError(msg)
        connection.set_authorizer(_authorize)
        # SQLAlchemy assumes "main" and never asks SQLite. A value that the application has changed,
        # as Alembic's users do, is kept.
        if self.dialect.default_schema_name == "main":
            self.dialect.default_schema_name = self.name

    def _reflect_file(
        self, _connection: object, _cursor: object, statement: str, parameters: Any, *_: object
    ) -> tuple[str, Any]:
        """Make a statement that reflects tables without a schema look into the file."""
        found = REFLECTION.match(statement)
        if found:
            statement = found[1] + self.prefix + statement[found.end() :]
        return statement, parameters

    def _add_advice(self, context: ExceptionContext) -> None:
        error = context.original_exception
        refused = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH
        if refused or "no such table: main." in str(error):
            (context.sqlalchemy_exception or error).add_note(self.advice)


def _authorize(
    action: int, name: str | None, _other: str | None, database: str | None, _by: str | None
) -> int:
    """Refuse what would be lost with the connection, and what would reach another file.

    SQLite calls this for each action of a statement. Its own tables may be created anywhere, as
    ANALYZE does, and VACUUM attaches a file with an empty name. *name* is None for a file that the
    statement computes instead of writing it as plain text.
    """
    lost = (
        action in CREATE_ACTIONS and database == "main" and not (name or "").startswith("sqlite_")
    )
    attaches = action == sqlite3.SQLITE_ATTACH and name != ""
    if lost or attaches or action == sqlite3.SQLITE_DETACH:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK
