"""What refuses the writes of a read-only request, and the words for it."""

import re

from ..backends import READS, Pattern
from ..exceptions import ReadOnlyRequestError

# Statements that read, or that change only their own transaction or connection.
HARMLESS = Pattern(
    r"\s*\(*\s*(?:VALUES|TABLE|SAVEPOINT|RELEASE|ROLLBACK\s+(?:WORK\s+|TRANSACTION\s+)?TO|"
    r"DECLARE|FETCH|MOVE|CLOSE|SET(?!\s+STATEMENT)|PRAGMA)\b"
)
# A common table expression may write, and so may what follows these words.
MAY_HOLD_WRITE = Pattern(r"\s*\(*\s*(?:WITH|SET\s+STATEMENT|EXPLAIN\b[^'\"`]*\bANALY[SZ]E)\b")
WRITES = Pattern(r"\b(?:INSERT|UPDATE|DELETE|MERGE|REPLACE)\b")
QUOTED = r"'[^']*'|\"[^\"]*\"|`[^`]*`"
# Where a value may begin: a quote, a bracket, a comparison, or a number that is not part of a name.
VALUE = r"['\"(=<>$]|\b\d"
LONGEST_SHOWN = 80


class ReadOnly:
    """A request or a view that may not write.

    *who* is its name in messages. With *snapshot* it reads the database as it was at one moment.
    With *by_method* it is read-only only because of its method. ``refused`` is the first error.
    """

    __slots__ = ("by_method", "refused", "snapshot", "who")

    def __init__(self, who: str, *, snapshot: bool = False, by_method: bool = False) -> None:
        self.who, self.snapshot, self.by_method = who, snapshot, by_method
        self.refused: ReadOnlyRequestError | None = None

    def error(self, what: str) -> ReadOnlyRequestError:
        """Return the error for *what* was to be written."""
        error = ReadOnlyRequestError(
            f"{self.who} is read-only, so this write is refused: {what}. Remove the write, or the "
            "option sqa_read_only."
        )
        self.refused = self.refused or error
        return error

    def statement_error(self, statement: str | None) -> ReadOnlyRequestError:
        """Return the error for *statement*. It shows the beginning of the statement alone."""
        return self.error(beginning_of(statement or ""))

    def check(self, statement: str) -> None:
        """Raise if *statement* may write, as far as its text tells."""
        if may_write(statement):
            raise self.statement_error(statement)


def may_write(statement: str) -> bool:
    """Tell whether *statement* may write, as far as its text tells; a function in it may, too."""
    if MAY_HOLD_WRITE.match(statement):
        return WRITES.search(re.sub(QUOTED, "", statement)) is not None
    return not (READS.match(statement) or HARMLESS.match(statement))


def beginning_of(statement: str) -> str:
    """Return the beginning of *statement* as far as it cannot hold a value."""
    return re.split(VALUE, statement.strip(), maxsplit=1)[0][:LONGEST_SHOWN].strip()
