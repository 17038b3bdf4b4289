"""Sends the COMMITs of one transaction over several databases, and says what became of them."""

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection, Engine, Transaction
from sqlalchemy.orm import SessionTransaction

from ..engines import check_before_commit
from ..exceptions import (
    CONNECTION_ROLLED_BACK,
    BrokenTransactionError,
    OutcomeUnknownError,
    PartialCommitError,
)
from ..interfaces import IOutcomeUnknown
from .routing import Routes

log = logging.getLogger(__name__)


def prepare(transaction: SessionTransaction) -> None:
    """Do what has to be done before *transaction* can be committed: flush, and all that listens."""
    # prepare() itself is for two-phase commits alone.
    transaction._prepare_impl()  # noqa: SLF001


def detach_connections(transaction: SessionTransaction | None) -> None:
    """Have *transaction*, and those around it, end without a word to their connections."""
    while transaction is not None:
        transaction._connections.clear()  # noqa: SLF001 - it has no public name
        transaction = transaction.parent


def disable_own_commit(transaction: SessionTransaction, instead: Any = None) -> None:
    """Have *transaction* send no COMMIT of its own; *instead* is what it is to roll back."""
    entries: Any = transaction._connections  # noqa: SLF001 - as above
    for bind, (connection, root, _, closes) in list(entries.items()):
        entries[bind] = (connection, instead or root, False, closes)


def commit_in_order(
    transaction: SessionTransaction, routes: Routes, note: str, on_stored: Callable[[], object]
) -> None:
    """Commit *transaction*, which is prepared, on each of its connections in the fixed order.

    Before the first COMMIT each connection is asked whether it can. When the first COMMIT fails,
    nothing is stored, and its error is raised as it is. When a later one does,
    :class:`PartialCommitError` is raised, and *on_stored* called before.
    """
    pending = _own_transactions(transaction)
    if len(pending) > 1:
        for connection, root in pending.values():
            if not root.is_active:
                raise BrokenTransactionError(CONNECTION_ROLLED_BACK)
            check_before_commit(connection)
        order = routes.in_order(pending)
        names = routes.names_of(order)
        for place, engine in enumerate(order):
            try:
                pending[engine][1].commit()
            except BaseException as error:
                _tell(error, names[:place], names[place:], note, on_stored)
                raise
        disable_own_commit(transaction)
    transaction.commit()


def _own_transactions(
    transaction: SessionTransaction,
) -> dict[Engine, tuple[Connection, Transaction]]:
    """Return the connections that *transaction* itself has to commit, and how."""
    entries = transaction._connections.values()  # noqa: SLF001 - only this knows which are its own
    return {entry[0].engine: entry[:2] for entry in entries if entry[2]}


def _tell(
    error: BaseException,
    stored: list[str],
    rest: list[str],
    note: str,
    on_stored: Callable[[], object],
) -> None:
    """Raise what has to be known of a COMMIT that failed; nothing when nothing is stored."""
    unknown = rest[:1] if IOutcomeUnknown.providedBy(error) else []
    not_stored = rest[len(unknown) :]
    if not stored and not unknown:
        return
    on_stored()
    if stored:
        state = _sentence(stored, "stored") + _sentence(not_stored, "not stored")
        state += _sentence(unknown, "unknown")
        log.critical("A request is stored in part:%s: %s", state, note)
    else:
        state = _sentence(unknown, "unknown") + _sentence(not_stored, "not stored")
        log.error("COMMIT was sent and not answered, its outcome is unknown:%s: %s", state, note)
    # The end of the process, or of a greenlet's time, stays what it is.
    if isinstance(error, Exception):
        if not stored:
            msg = f"Nobody knows whether the database has committed:{state}: {note}"
            raise OutcomeUnknownError(msg) from error
        msg = f"A COMMIT failed after another one was stored:{state}: {note}"
        partial = PartialCommitError(msg, stored=stored, not_stored=not_stored, unknown=unknown)
        partial.reason = error
        raise partial from error


def _sentence(names: list[str], state: str) -> str:
    return f" [{state}: {', '.join(names)}]" if names else ""
