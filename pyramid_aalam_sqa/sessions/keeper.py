"""A transaction manager that knows its sessions, for managers that live no longer than a request.

For any other manager a weak dictionary knows its session, and a synchronizer tells the session of
the next transaction. Both cost more than the rest of what a request does with its manager.
"""

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from .session import JoinedSession


class SessionKeeper:
    """The part of a transaction manager that knows the sessions of its transactions."""

    # By the factory that has made it; weakly, because the session holds its manager.
    kept: MutableMapping[object, "ref[JoinedSession]"]

    def tell_sessions(self, transaction: Any) -> None:
        """Tell each session that waits for it that *transaction* has begun."""
        for reference in list(self.kept.values()):
            session = reference()
            if session is not None and session.listens:
                session.transaction_begins(transaction)
