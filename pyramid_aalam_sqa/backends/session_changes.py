"""Recognises statements that leave something behind on their connection.

Temporary tables, session variables, locks and the like outlive the transaction. On a pooled
connection they would change what the next request reads and writes. So such a connection is closed
when it comes back to the pool, and the pool makes a new one.

A pattern cannot see what a function or a trigger does, nor what the application sends on a cursor
of the driver. What a procedure does cannot be seen either, so every CALL counts as a change.
"""

from .pattern import Pattern

# How many different statements are remembered for each product, and how long they may be.
REMEMBERED = 2048
LONGEST_REMEMBERED = 10_000


# Blanks, brackets and comments that may stand before the first word. MySQL runs what stands in
# /*! ... */ and /*M! ... */.
BEFORE = r"(?:[\s(]+|--[^\n]*(?:\n|\Z)|#[^\n]*(?:\n|\Z)|/\*(?!M?!).*?\*/|/\*M?!\d*)*"


# SQLite's pragmas that take an argument and change nothing on the connection.
READING_PRAGMAS = (
    "foreign_key_check|foreign_key_list|incremental_vacuum|index_info|index_list|index_xinfo|"
    "integrity_check|optimize|quick_check|table_info|table_list|table_xinfo|wal_checkpoint"
)


class SessionChanges(dict[str, bool]):
    """Tells whether a statement leaves something on its connection, for one product.

    ``changes[statement]`` is the answer. It is remembered: most statements come again and again.
    *first_words* are patterns for how such a statement begins, also after a semicolon, *anywhere*
    for what it contains. A text in quotes may look like one; that costs a new connection, no more.
    """

    def __init__(self, first_words: str, anywhere: str) -> None:
        self._patterns = first_words, anywhere
        self._pattern = Pattern(rf"(?:\A|;){BEFORE}(?:{first_words})|{anywhere}")

    def __missing__(self, statement: str) -> bool:
        found = self._pattern.search(statement) is not None
        if len(statement) <= LONGEST_REMEMBERED:
            if len(self) >= REMEMBERED:
                self.clear()
            self[statement] = found
        return found

    def or_begins(self, first_words: str) -> "SessionChanges":
        """Return one that finds statements which begin with *first_words* too."""
        own, anywhere = self._patterns
        return SessionChanges(f"{own}|{first_words}", anywhere)


MYSQL = SessionChanges(
    r"SET\s+(?!TRANSACTION\b|STATEMENT\b)|"
    r"CREATE\s+(?:OR\s+REPLACE\s+)?TEMPORARY\b|BEGIN\s+NOT\s+ATOMIC\b|"
    r"(?:USE|LOCK|FLUSH|BACKUP|PREPARE|EXECUTE|HANDLER|CALL|DO|XA|RESET)\b",
    r"\bGET_LOCK\s*\(|:=|\bINTO\s+@",
)


POSTGRESQL = SessionChanges(
    r"SET\s+(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b)|PREPARE\s+(?!TRANSACTION\b)|"
    r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:LOCAL\s+|GLOBAL\s+)?TEMP(?:ORARY)?\b|"
    r"(?:RESET|DISCARD|DEALLOCATE|LISTEN|DECLARE|LOAD|CALL|DO)\b",
    r"\bset_config\s*\(|advisory_lock(?:_shared)?\s*\(|\bsetseed\s*\(|\bdblink_connect|"
    r"\bINTO\s+TEMP(?:ORARY)?\b|\bpg_temp\s*\.",
)


SQLITE = SessionChanges(
    r"PRAGMA\s+(?:[\w$]+\s*\.\s*|\"[^\"]*\"\s*\.\s*)?"
    rf"(?:\w+\s*=|(?!(?:{READING_PRAGMAS})\b)\w+\s*\()|"
    r"CREATE\s+TEMP(?:ORARY)?\b|(?:ATTACH|DETACH)\b|"
    r"CREATE\s+\w+\s+(?:IF\s+NOT\s+EXISTS\s+)?\"?temp\"?\s*\.",
    r"\bload_extension\s*\(",
)


# On a connection that is kept from writing, each of these may begin a transaction that writes. SET
# TRANSACTION holds for the next statement there, which may be another request's.
MYSQL_READING = MYSQL.or_begins(r"(?:BEGIN|START|SET\s+TRANSACTION)\b")
POSTGRESQL_READING = POSTGRESQL.or_begins(r"(?:BEGIN|START)\b")
SQLITE_READING = SQLITE.or_begins(r"(?:BEGIN|SAVEPOINT)\b")
