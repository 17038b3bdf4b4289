"""A transaction manager that knows its sessions, for managers that live no longer than a request.

For any other manager a weak dictionary knows its session, and a synchronizer tells the session of
the next transaction. Both cost more than the rest of what a request does with its manager.
"""

from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from .session import JoinedSession


class SessionKeeper:
    """The part of a transaction manager that knows the sessions of its transactions."""

    # Each with the factory that has made it; weakly, because the session holds its manager. There
    # is hardly ever more than one.
    kept: tuple[tuple[object, "ref[JoinedSession]"], ...] = ()

    def keep(self, factory: object, session: "JoinedSession") -> None:
        """Know *session* as that of *factory*, in the place of an earlier one."""
        others = (each for each in self.kept if each[0] is not factory) if self.kept else ()
        self.kept = (*others, (factory, ref(session)))

    def session_of(self, factory: object) -> "JoinedSession | None":
        """Return the session of *factory*, if there is one."""
        for owner, reference in self.kept:
            if owner is factory:
                return reference()
        return None

    def tell_sessions(self, transaction: Any) -> None:
        """Tell each session that waits for it that *transaction* has begun."""
        for _, reference in self.kept:
            session = reference()
            if session is not None and session.listens:
                session.transaction_begins(transaction)
