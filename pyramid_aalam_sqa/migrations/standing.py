"""Where one database stands, read with one query.

A row of the version table that begins with ``!`` is the mark of a revision that has begun and has
not ended: ``!<revision>`` on the way up, ``!-<revision>`` on the way down. It is not the number of
a revision, so every tool that uses Alembic refuses to go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from .products import product_of

MARK, DOWN = "!", "!-"
# The length of the column in Alembic's version table.
LONGEST = 32


@dataclass(frozen=True, slots=True)
class Standing:
    """The revisions in a database's version table, and the mark there, if there is one."""

    revisions: tuple[str, ...] = ()
    mark: str | None = None

    def is_at(self, heads: Sequence[str]) -> bool:
        """Return whether all *heads* are there, and nothing is half-way."""
        return self.mark is None and set(self.revisions) == set(heads)

    def __str__(self) -> str:
        return shown(self.revisions)


def shown(revisions: Sequence[str]) -> str:
    """Return *revisions* as a person reads them."""
    return ", ".join(sorted(revisions)) or "base"


def mark_of(revision: str, *, is_upgrade: bool) -> str:
    """Return the mark of *revision*, as long as the column allows."""
    return f"{MARK if is_upgrade else DOWN}{revision}"[:LONGEST]


def read_standing(connection: Connection, table: str) -> Standing:
    """Return what the version *table* holds; nothing if there is no such table yet."""
    try:
        rows = connection.execute(text(f"SELECT version_num FROM {table}")).scalars().all()  # noqa: S608 - the name is ours
    except DBAPIError as error:
        product = product_of(connection.dialect)
        if not product.is_code(error, product.NO_SUCH_TABLE, connection.dialect.name):
            raise
        return Standing()
    return standing_of(rows)


def standing_of(rows: Sequence[str]) -> Standing:
    """Return what the *rows* of a version table say."""
    marks = [row for row in rows if row.startswith(MARK)]
    found = tuple(row for row in rows if row not in marks)
    return Standing(found, marks[0] if marks else None)
