"""Takes the mark of a revision away that was half-way, after a person has repaired it."""

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection

from ..exceptions import MigrationError
from .scripts import Scripts, journal_table
from .standing import DOWN, MARK, read_standing

DONE, UNDONE = "done", "undone"


def repair(connection: Connection, scripts: Scripts, key: str, side: str) -> None:
    """Note on which *side* of its half-way revision the database is: ``done`` or ``undone``.

    Raises :class:`MigrationError` when no revision is half-way there.
    """
    standing = read_standing(connection, scripts.name)
    connection.rollback()
    if standing.mark is None:
        raise MigrationError("No revision is half-way here: leave --repaired out.")
    is_down = standing.mark.startswith(DOWN)
    revision = _full_id(scripts.directory, standing.mark.removeprefix(DOWN).removeprefix(MARK))
    with connection.begin():
        where = {"mark": standing.mark}
        connection.execute(text(f"DELETE FROM {scripts.name} WHERE version_num = :mark"), where)  # noqa: S608 - our own name
        connection.execute(text(f"DELETE FROM {journal_table(key)}"))  # noqa: S608 - our own name
        if side == DONE:
            context = MigrationContext.configure(connection, opts={"version_table": scripts.name})
            script = scripts.directory.get_revision(revision)
            below = script.down_revision if script is not None else None
            context.stamp(scripts.directory, (below or "base") if is_down else revision)  # type: ignore[arg-type]  # takes several


def _full_id(directory: ScriptDirectory, begin: str) -> str:
    """Return the revision that begins with *begin*: a mark may be cut."""
    script = directory.get_revision(begin)
    return str(script.revision) if script is not None else begin
