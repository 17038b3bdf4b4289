"""Sends the COMMITs of one transaction over several databases, and reports what became of them.

This is the only module that uses SQLAlchemy's private names of a ``SessionTransaction``.
"""

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection, Engine, Transaction
from sqlalchemy.orm import SessionTransaction

from ..engines import CONNECTION_ROLLED_BACK, check_before_commit
from ..exceptions import BrokenTransactionError, OutcomeUnknownError, PartialCommitError
from ..interfaces import IOutcomeUnknown
from .routing import Routes

log = logging.getLogger(__name__)


def prepare_commit(transaction: SessionTransaction) -> None:
    """Flush the session of *transaction* and call its "before_commit" listeners."""
    # The public prepare() is for two-phase commits alone.
    transaction._prepare_impl()  # noqa: SLF001


def detach_connections(transaction: SessionTransaction | None) -> None:
    """Detach the connections from *transaction* and its parents.

    Ending *transaction* then sends no COMMIT or ROLLBACK.
    """
    while transaction is not None:
        transaction._connections.clear()  # noqa: SLF001 - it has no public name
        transaction = transaction.parent


def disable_own_commit(transaction: SessionTransaction, roll_back_instead: Any = None) -> None:
    """Make *transaction* send no COMMIT; its connections are committed by another object.

    When *transaction* rolls back, it calls ``rollback()`` of *roll_back_instead*, by default that
    of its own transactions on the connections.
    """
    entries: Any = transaction._connections  # noqa: SLF001 - as above
    for bind, (connection, root, _, closes) in list(entries.items()):
        entries[bind] = (connection, roll_back_instead or root, False, closes)


def commit_in_order(
    transaction: SessionTransaction, routes: Routes, note: str, on_stored: Callable[[], object]
) -> None:
    """Commit *transaction*, which is prepared, on each of its connections in the fixed order.

    Before the first COMMIT, each connection is checked. When the first COMMIT fails, nothing is
    stored, and its error is raised as it is. When a later COMMIT fails, *on_stored* is called and
    :class:`PartialCommitError` is raised. *note* says in the log which transaction it was.
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
                _report_failure(error, names[:place], names[place:], note, on_stored)
                raise
        disable_own_commit(transaction)
    transaction.commit()


def _own_transactions(
    transaction: SessionTransaction,
) -> dict[Engine, tuple[Connection, Transaction]]:
    """Return the connections that *transaction* itself must commit, with their transactions."""
    # The third item tells whether SQLAlchemy would commit it: a connection that was handed in
    # with a transaction of its own is not committed.
    entries = transaction._connections.values()  # noqa: SLF001 - it has no public name
    return {entry[0].engine: entry[:2] for entry in entries if entry[2]}


def _report_failure(
    error: BaseException,
    stored: list[str],
    rest: list[str],
    note: str,
    on_stored: Callable[[], object],
) -> None:
    """Log and raise what a failed COMMIT left behind; do nothing when nothing is stored.

    *stored* names the databases that have committed before, *rest* the others; its first one is
    the database whose COMMIT failed with *error*.
    """
    unknown = rest[:1] if IOutcomeUnknown.providedBy(error) else []
    not_stored = rest[len(unknown) :]
    if not stored and not unknown:
        return
    on_stored()
    if stored:
        state = _part(stored, "stored") + _part(not_stored, "not stored")
        state += _part(unknown, "unknown")
        log.critical("A request is stored in part:%s: %s", state, note)
    else:
        state = _part(unknown, "unknown") + _part(not_stored, "not stored")
        log.error("COMMIT was sent and not answered, its outcome is unknown:%s: %s", state, note)
    # SystemExit, KeyboardInterrupt and GreenletExit stay what they are.
    if isinstance(error, Exception):
        if not stored:
            msg = f"It cannot be known whether the database has committed:{state}: {note}"
            raise OutcomeUnknownError(msg) from error
        msg = f"A COMMIT failed after another one was stored:{state}: {note}"
        partial = PartialCommitError(msg, stored=stored, not_stored=not_stored, unknown=unknown)
        partial.reason = error
        raise partial from error


def _part(names: list[str], state: str) -> str:
    return f" [{state}: {', '.join(names)}]" if names else ""
