"""Sends the COMMITs of one transaction over several databases, and reports what became of them.

This is the only module that uses SQLAlchemy's private names of a ``SessionTransaction``.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from sqlalchemy.engine import Connection, Engine, Transaction
from sqlalchemy.orm import SessionTransaction

from ..backends import masked
from ..engines import CONNECTION_ROLLED_BACK, Outcome, check_before_commit, transaction_on
from ..exceptions import BrokenTransactionError, OutcomeUnknownError, PartialCommitError
from ..settings import DEFAULT_KEY

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


class CommitOrder(Protocol):
    """Knows the order in which several databases are committed, and their names."""

    def in_order(self, engines: Iterable[Engine]) -> list[Engine]:
        """Return *engines* in the order of their COMMITs."""
        ...

    def names_of(self, engines: Sequence[Engine]) -> list[str]:
        """Return a name for each of *engines*."""
        ...


class FirstUseOrder:
    """The order for a session without binds: its own database last, the others as first used."""

    def __init__(self, own: Engine | Connection | None) -> None:
        self._own = own.engine if own is not None else None

    def in_order(self, engines: Iterable[Engine]) -> list[Engine]:
        """Return *engines*, the session's own last."""
        return sorted(engines, key=lambda engine: engine is self._own)

    def names_of(self, engines: Sequence[Engine]) -> list[str]:
        """Return the masked URL of each, ``default`` for the session's own."""
        return [DEFAULT_KEY if each is self._own else masked(each.url) for each in engines]


def commit_in_order(transaction: SessionTransaction, order: CommitOrder, note: str) -> None:
    """Commit *transaction*, which is prepared, on each of its connections in the fixed *order*.

    Before the first COMMIT, each connection is checked. When the first COMMIT fails, nothing is
    stored, and its error is raised as it is. When a later COMMIT fails,
    :class:`PartialCommitError` is raised. *note* says in the log which transaction it was.
    """
    pending = _own_transactions(transaction)
    if len(pending) > 1:
        engines = order.in_order(pending)
        for engine in engines:
            connection, root = pending[engine]
            if not root.is_active:
                raise BrokenTransactionError(CONNECTION_ROLLED_BACK)
            check_before_commit(connection, is_first=engine is engines[0])
        names = order.names_of(engines)
        for place, engine in enumerate(engines):
            connection, root = pending[engine]
            watched = transaction_on(connection)
            if watched is not None:
                watched.quiet = True
            try:
                root.commit()
            except BaseException as error:
                outcome = Outcome.REFUSED if watched is None else watched.outcome
                stored = place + (outcome is Outcome.STORED)
                unknown = outcome is Outcome.UNKNOWN
                _report_failure(error, names[:stored], names[stored:], note, unknown=unknown)
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
    *,
    unknown: bool,
) -> None:
    """Log and raise what a failed COMMIT left behind; do nothing when nothing is stored.

    *stored* names the databases that have committed, *rest* the others. When *unknown*, the first
    one of *rest* was sent the COMMIT that failed with *error*, and its outcome is not known.
    """
    in_doubt = rest[:1] if unknown else []
    not_stored = rest[len(in_doubt) :]
    if not stored and not in_doubt:
        return
    if stored:
        state = _part(stored, "stored") + _part(not_stored, "not stored")
        state += _part(in_doubt, "unknown")
        log.critical("A request is stored in part:%s: %s", state, note)
    else:
        state = _part(in_doubt, "unknown") + _part(not_stored, "not stored")
        log.error("COMMIT was sent and not answered, its outcome is unknown:%s: %s", state, note)
    # SystemExit, KeyboardInterrupt and GreenletExit stay what they are.
    if isinstance(error, Exception):
        reason = getattr(error, "reason", None) or error
        if not stored:
            msg = f"It cannot be known whether the database has committed:{state}: {note}"
            unknown_error = OutcomeUnknownError(msg)
            unknown_error.reason = reason
            raise unknown_error from error
        msg = f"A COMMIT failed after another one was stored:{state}: {note}"
        partial = PartialCommitError(msg, stored=stored, not_stored=not_stored, unknown=in_doubt)
        partial.reason = reason
        raise partial from error


def _part(names: list[str], state: str) -> str:
    return f" [{state}: {', '.join(names)}]" if names else ""
