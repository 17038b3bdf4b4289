"""Sessions that only read: that of a read-only request, and one that a read-only view found in use.

The session of a read-only request joins no transaction. It reads on connections that the server
keeps from writing, and nothing is committed. A view may be read-only in a request that has used its
session before, for its user for example. The view goes on with that session, in its transaction,
and its writes are refused here.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import SessionTransaction

from ..engines import ReadOnly, begin_reading
from .multibind import MultiBindSession
from .session import JoinedSession


class ReadOnlySession(JoinedSession):
    """A session that reads, and refuses each write with what *refusal* says."""

    def __init__(self, *args: Any, refusal: ReadOnly, **options: Any) -> None:
        super().__init__(*args, **options)
        self.refusal = refusal
        self.reads_only = True

    def join(self, transaction: SessionTransaction) -> None:
        """Do nothing: there is no transaction to take part in."""

    def give_back(self) -> None:
        """Give the connections back to their pools. The objects stay as they are."""
        transaction = self.get_transaction()
        if transaction is not None:
            transaction.close()


class ReadOnlyMultiBindSession(ReadOnlySession, MultiBindSession):
    """The same on several databases; *reading* returns the engine to read from, for an engine."""

    def __init__(self, *args: Any, reading: Callable[[Engine], Engine], **options: Any) -> None:
        super().__init__(*args, **options)
        self._reading = reading

    def _check_bulk_insert(self, statement: Any, params: Any, engine: Engine) -> None:
        """Do nothing: the write is refused, wherever it would go."""

    def connection(
        self,
        bind_arguments: dict[str, Any] | None = None,
        execution_options: Mapping[str, Any] | None = None,
    ) -> Connection:
        """Return the connection of this session to the engine that is read from."""
        arguments = dict(bind_arguments or {})
        if isinstance(arguments.get("bind"), Engine):
            # SQLAlchemy does not call get_bind() for it.
            arguments["bind"] = self._reading(arguments["bind"])
        return super().connection(arguments, execution_options)

    def get_bind(self, mapper: Any = None, **arguments: Any) -> Engine | Connection:
        """Return the reading engine for the tables of the statement or the mapper."""
        found = super().get_bind(mapper, **arguments)
        return self._reading(found) if isinstance(found, Engine) else found


@event.listens_for(ReadOnlySession, "after_begin", propagate=True)
def _begin_reading(
    session: ReadOnlySession, transaction: SessionTransaction, connection: Connection
) -> None:
    # Not for a savepoint.
    if transaction.parent is None:
        begin_reading(connection, cast("ReadOnly", session.refusal))


@contextmanager
def refusing_writes(session: JoinedSession, refusal: ReadOnly) -> Generator[None, None, None]:
    """Let *session*, which is in use, refuse each write within the block.

    What was changed before is written first. Raises :class:`ReadOnlyRequestError` at the end of the
    block for objects that were changed in it.
    """
    for each in (session, *getattr(session, "followers", {}).values()):
        each.flush()
    _refuse(session, refusal)
    try:
        yield
        if next(session.changes(), None) is not None:
            raise session.late_write()
    finally:
        _refuse(session, None)


def _refuse(session: JoinedSession, refusal: ReadOnly | None) -> None:
    session.refusal = refusal
    for transaction in session.transactions:
        transaction.refusal = refusal
