"""The transaction of a request, which costs next to nothing until somebody uses it.

pyramid_tm begins a transaction for each request, and ends it. Most of what that costs is for data
managers, hooks and savepoints, and a request that uses no database has none of them. The manager
made here is one of the package transaction. Its transactions are made of that package too: their
constructor runs at the first use. pyramid_tm's own tween begins and ends them, as it does others.

This is the only module that uses private names of the package transaction.
"""

from typing import Any

import pyramid_tm
from transaction import Transaction, TransactionManager
from transaction._transaction import Status

from ..applications import get_sqa


class RequestTransaction(Transaction):  # type: ignore[misc]  # transaction has no types
    """A transaction whose constructor runs when something is used that it makes."""

    def __init__(self, synchronizers: Any, manager: "RequestManager") -> None:
        self._given = synchronizers, manager

    def __getattr__(self, name: str) -> Any:
        """Run the constructor, as *name* may be what it makes; Python asks for what is missing."""
        given = self.__dict__.pop("_given", None)
        if given is None:
            raise AttributeError(name)
        # What was set before stays.
        before = dict(self.__dict__)
        super().__init__(*given)
        self.__dict__.update(before)
        return getattr(self, name)

    def isDoomed(self) -> bool:  # noqa: N802 - the name in transaction's interface
        """Return whether the transaction can only be rolled back."""
        return "_given" not in self.__dict__ and bool(super().isDoomed())

    def commit(self) -> None:
        """Commit; there is nothing to do if nobody has used the transaction, or waits for it."""
        manager = self.unused_in()
        if manager is None:
            super().commit()
        else:
            # Who holds it still cannot join it.
            self.status = Status.COMMITTED
            manager.free(self)

    def abort(self) -> None:
        """Roll back; there is nothing to do if nobody has used the transaction, or waits for it."""
        manager = self.unused_in()
        if manager is None:
            super().abort()
        else:
            manager.free(self)

    def unused_in(self) -> "RequestManager | None":
        """Return the manager if nobody has used the transaction, or waits for its end."""
        synchronizers, manager = self.__dict__.get("_given", (None, None))
        return None if synchronizers else manager


class RequestManager(TransactionManager):  # type: ignore[misc]  # transaction has no types
    """An explicit transaction manager, whose transactions run their constructor when used."""

    # The package's own name: the current transaction.
    _txn: Any

    def begin(self) -> Any:
        """Begin a transaction. Those who wait for one to begin get it at once, as always."""
        if self._txn is not None or self._synchs:
            return super().begin()
        self._txn = begun = RequestTransaction(self._synchs, self)
        return begun


def request_manager(request: Any) -> TransactionManager:
    """Return a new, explicit transaction manager: the default of ``tm.manager_hook``.

    It is what ``pyramid_tm.explicit_manager`` returns, but for a request that uses no database it
    costs a tenth. With ``sqa.shortcuts = false`` it is that one.
    """
    if get_sqa(request).settings.sqa_options["shortcuts"]:
        return RequestManager(explicit=True)
    return pyramid_tm.explicit_manager(request)
