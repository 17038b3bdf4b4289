"""What is known of one transaction on one connection.

A transaction is *open*, then *stored*, *refused* or *rolled back*. From the moment before COMMIT is
sent until its answer is read it is *unknown*, and it stays so when the answer never comes.
"""

import weakref
from enum import Enum
from typing import Any

from sqlalchemy.orm import Session, SessionTransaction

from .refusals import ReadOnly

# Where a pooled connection keeps its transaction, in its ``info``.
TRANSACTION = "sqa.transaction"
# With so many noted, the cursors that are gone are removed from the list.
MANY_CURSORS = 100


class Outcome(Enum):
    """What became of a transaction."""

    OPEN = "it has begun"
    UNKNOWN = "COMMIT was sent, and not answered"
    STORED = "COMMIT was answered with success"
    REFUSED = "COMMIT was answered with an error, or was not sent"
    ROLLED_BACK = "ROLLBACK was sent"


# Python 3.11 takes as long to find a member in its Enum as to call three functions.
OPEN, UNKNOWN, STORED, REFUSED, ROLLED_BACK = Outcome


class WatchedTransaction:
    """One transaction on one connection, from its BEGIN on."""

    __slots__ = (
        "__weakref__",
        "autocommits",
        "broken_by",
        "cursors",
        "discard",
        "ended",
        "may_commit",
        "note",
        "outcome",
        "owner",
        "procedure",
        "quiet",
        "read_only",
        "refusal",
        "seen_open",
    )

    def __init__(self) -> None:
        self.outcome = OPEN
        # The transaction of a session that this one belongs to, weakly: it holds the connection.
        self.owner: weakref.ref[SessionTransaction] | None = None
        self.read_only = False
        # What refuses each write, in a read-only request.
        self.refusal: ReadOnly | None = None
        # Whether its owner allows a COMMIT now, and reports by itself what becomes of it.
        self.may_commit = True
        self.quiet = False
        # What the log calls it; without a note, that of the attempt.
        self.note = ""
        # Whether the driver has said that it is open, and whether it is over without us.
        self.seen_open = self.ended = False
        self.autocommits = False
        # The CALL after which our savepoint must still exist.
        self.procedure: str | None = None
        # The first error that has ended it in the server, or a part of it.
        self.broken_by: BaseException | None = None
        # Whether the connection cannot be trusted any more.
        self.discard = False
        # The cursors that may be open, where the driver needs to have them closed.
        self.cursors: list[weakref.ref[Any]] = []

    @property
    def session(self) -> Session | None:
        """The session that owns it, while that has its transaction."""
        owner = self.owner() if self.owner else None
        return owner.session if owner else None

    def note_cursor(self, cursor: Any) -> None:
        """Add *cursor* to ``cursors``; remove those that were collected when there are many."""
        self.cursors.append(weakref.ref(cursor))
        if len(self.cursors) > MANY_CURSORS:
            self.cursors = [each for each in self.cursors if each() is not None]

    @property
    def is_owned(self) -> bool:
        """Whether it belongs to a session that has not ended its transaction."""
        owner = self.owner() if self.owner else None
        return owner is not None and owner.session.get_transaction() is owner


def transaction_of(pooled: Any) -> WatchedTransaction | None:
    """Return the transaction on *pooled*, a connection of a pool, or the last one there."""
    try:
        found: WatchedTransaction | None = pooled.info.get(TRANSACTION)
    except NotImplementedError:
        # SQLAlchemy makes such a connection while it asks the server what it can do.
        return None
    return found
