"""Says how far a revision has come, where the database does not undo one that fails.

On MySQL and MariaDB each statement that changes a table is stored at once. So before a revision
begins, its mark is put into the version table (see ``standing``), and before each statement the
statement is put into a table of its own. Both are written by a session of their own, and taken away
in the transaction that moves the version. So what a crash leaves behind is complete.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, Text, delete, event, insert, select
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..backends import READS, ErrorKind, backend_class
from ..exceptions import MigrationError
from .products import STAYS_OPEN, product_of
from .standing import MARK, Standing, mark_of

SAVEPOINT = "sqa_journal"
# The server's error for a savepoint that does not exist.
NO_SAVEPOINT = "1305"
DONE, FAILED, UNDONE, UNKNOWN = "done", "failed", "rolled back", "unknown"


def journal_of(name: str) -> Table:
    """Return the table called *name*, in which the statements of a revision are."""
    return Table(
        name,
        MetaData(),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("state", String(16), nullable=False),
        Column("statement", Text().with_variant(LONGTEXT(), "mysql", "mariadb"), nullable=False),
    )


class Journal:
    """Notes the statements that are sent on one connection of a migration.

    *beside* is another connection, on which each statement is stored at once. *versions* is
    Alembic's version table.
    """

    def __init__(
        self, connection: Connection, beside: Connection, versions: str, journal: str
    ) -> None:
        self.connection = connection
        self.beside = beside
        self.versions = Table(versions, MetaData(), Column("version_num", String(32)))
        self.table = journal_of(journal)
        self.number = 0
        self.mark: str | None = None
        # The statements of this revision that a rollback would undo.
        self._open: list[int] = []
        # Whether the last statement has a savepoint before it.
        self._is_guarded = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note what is sent in the block."""
        event.listen(self.connection, "before_cursor_execute", self._before)
        event.listen(self.connection, "after_cursor_execute", self._after)
        try:
            yield
        finally:
            event.remove(self.connection, "before_cursor_execute", self._before)
            event.remove(self.connection, "after_cursor_execute", self._after)

    def begin(self, revision: str, *, is_upgrade: bool) -> None:
        """Put the mark of *revision* into the version table."""
        self.table.create(self.beside, checkfirst=True)
        self.beside.execute(delete(self.table))
        self.number, self._open = 0, []
        mark = mark_of(revision, is_upgrade=is_upgrade)
        self.beside.execute(insert(self.versions).values(version_num=mark))
        self.mark = mark

    def end(self, **_: Any) -> None:
        """Take mark and statements away, in the transaction that moves the version."""
        mark, self.mark = self.mark, None
        self.connection.execute(delete(self.table))
        self.connection.execute(delete(self.versions).where(self.versions.c.version_num == mark))

    def fail(self, error: BaseException) -> Sequence[dict[str, str]]:
        """Note that *error* has ended the revision, and return what became of its statements.

        Where nothing of it is stored the mark is taken away, and the list is empty: the revision
        may be run again.
        """
        if self.mark is None:
            return []
        if self._was_committed():
            self._open = []
        self.connection.rollback()
        self._set(self._open, UNDONE)
        refused = self._is_refused(error)
        if refused:
            self._set([self.number], FAILED)
        statements = read_journal(self.beside, self.table.name)
        if refused and all(each["state"] in {UNDONE, FAILED} for each in statements):
            self.beside.execute(delete(self.table))
            where = self.versions.c.version_num == self.mark
            self.beside.execute(delete(self.versions).where(where))
            return []
        return statements

    def _is_refused(self, error: BaseException) -> bool:
        """Return whether the last statement has certainly changed nothing."""
        if not isinstance(error, DBAPIError) or error.orig is None:
            # The revision's own code has raised; its last statement is done.
            return not isinstance(error, DBAPIError)
        backend = backend_class(self.connection.dialect.name)
        kind = backend.ERROR_KINDS.get(backend.error_codes(error.orig)[0])
        return not error.connection_invalidated and kind is not ErrorKind.DISCONNECT

    def _before(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self._is_guarded = False
        if self.mark is None or READS.match(statement) or self._is_own(statement):
            return
        self.number += 1
        values = {"number": self.number, "state": UNKNOWN, "statement": statement.strip()}
        self.beside.execute(insert(self.table).values(values))
        self._is_guarded = bool(self._open) and not STAYS_OPEN.match(statement)
        if self._is_guarded:
            self._send(f"SAVEPOINT {SAVEPOINT}")

    def _after(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if self.mark is None or READS.match(statement) or self._is_own(statement):
            return
        options = self.connection.get_execution_options()
        if STAYS_OPEN.match(statement) and options.get("isolation_level") != "AUTOCOMMIT":
            self._open.append(self.number)
        else:
            self._open = []
        self._set([self.number], DONE)

    def _was_committed(self) -> bool:
        """Return whether the statement that failed has stored what came before it.

        A change of a table does so before it fails for most reasons. Then its savepoint is gone.
        """
        try:
            if self._is_guarded:
                self._send(f"RELEASE SAVEPOINT {SAVEPOINT}")
        except self.connection.dialect.loaded_dbapi.Error as error:
            return str(error.args[0]) == NO_SAVEPOINT
        return False

    def _send(self, statement: str) -> None:
        """Send *statement* by the driver, so that it is not noted itself."""
        with closing(self.connection.connection.cursor()) as cursor:
            cursor.execute(statement)

    def _is_own(self, statement: str) -> bool:
        """Return whether *statement* moves the version, at the end of the revision."""
        return self.versions.name in statement

    def _set(self, numbers: Sequence[int], state: str) -> None:
        """Note *state* of the statements with *numbers*; what is done does not fail afterwards."""
        update = self.table.update().where(self.table.c.number.in_(numbers))
        if state == FAILED:
            update = update.where(self.table.c.state == UNKNOWN)
        self.beside.execute(update.values(state=state))


def read_journal(connection: Connection, name: str) -> list[dict[str, str]]:
    """Return the statements in the journal called *name*, in their order, with their states."""
    table = journal_of(name)
    query = select(table.c.state, table.c.statement).order_by(table.c.number)
    try:
        return [dict(row) for row in connection.execute(query).mappings()]
    except DBAPIError as error:
        product = product_of(connection.dialect)
        if not product.is_code(error, product.NO_SUCH_TABLE, connection.dialect.name):
            raise
        return []


def half_way(standing: Standing, statements: Sequence[dict[str, str]]) -> MigrationError:
    """Return the error for a database in which a revision is half-way."""
    way = "downgrade of" if str(standing.mark).startswith("!-") else "revision"
    revision = str(standing.mark).lstrip(f"{MARK}-")
    lines = [f"The {way} {revision} is half-way, and the database stands at {standing}."]
    for number, each in enumerate(statements, 1):
        lines.append(f"{number}. {each['state']}: {' '.join(each['statement'].split())}")
    lines.append(
        "Send the rest by hand and say --repaired done, or undo what is done and say "
        "--repaired undone."
    )
    return MigrationError("\n".join(lines), statements)
