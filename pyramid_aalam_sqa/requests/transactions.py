"""The transaction of a request, made without what nearly all requests have no use for.

pyramid_tm begins a transaction for each request, and ends it. Most of what that costs is for hooks,
savepoints, synchronizers and several data managers. A request that uses no database has none of
them, and any other has one data manager: that of its session. The manager made here is one of the
package transaction, and so are its transactions: their constructor sets what the package's own one
sets, and a commit with more than one data manager is the package's own. pyramid_tm's own tween
begins and ends them, as it does others.

This is the only module that uses private names of the package transaction. If that package sets
other attributes than the version that is known here, its own manager is used.
"""

import logging
import threading
from typing import Any

import pyramid_tm
from transaction import Transaction, TransactionManager
from transaction._transaction import Status, _makeLogger
from transaction.weakset import WeakSet

from ..applications import get_sqa
from ..sessions import SessionKeeper

# The parent of the loggers of transactions. There is one for each thread.
LOG = logging.getLogger("txn")


class _OfThread(threading.local):
    """What is made once for each thread."""

    def __init__(self) -> None:
        self.log = _makeLogger()


class _NoOne(tuple[()]):
    """Stands for those who wait for transactions to begin and to end, until one comes."""

    __slots__ = ()

    def map(self, f: Any) -> None:
        """Call *f* with each of them: there is none."""

    def clear(self) -> None:
        """Remove all of them: there is none."""

    def remove(self, synchronizer: object) -> None:
        """Raise KeyError, as a set does that does not have *synchronizer*."""
        raise KeyError(synchronizer)


NO_ONE = _NoOne()


class RequestTransaction(Transaction):  # type: ignore[misc]  # transaction has no types
    """A transaction of the package, which is committed at once if one session alone joins it."""

    of_thread = _OfThread()

    def __init__(self, synchronizers: Any, manager: "RequestManager") -> None:
        """Set what the parent sets. It would ask for a logger each time, and write to it."""
        self.status = Status.ACTIVE
        self.log = self.of_thread.log
        self.extension: Any = {}
        self._manager = manager
        self._synchronizers = synchronizers
        self._resources: list[Any] = []
        self._adapters: Any = {}
        self._voted: Any = {}
        self._failure_traceback = None
        self._before_commit: list[Any] = []
        self._after_commit: list[Any] = []
        self._before_abort: list[Any] = []
        self._after_abort: list[Any] = []

    def commit(self) -> None:
        """Commit. If nothing waits for it but one session, its data manager does that alone."""
        resources = self._resources
        if (
            self.status is not Status.ACTIVE
            or len(resources) > 1
            or self._before_commit
            or self._synchronizers
            or self._savepoint2index
        ):
            super().commit()
            return
        if resources:
            commit_alone = getattr(resources[0], "commit_alone", None)
            if commit_alone is None:
                super().commit()
                return
            self.status = Status.COMMITTING
            try:
                commit_alone(self)
                self.status = Status.COMMITTED
            except BaseException as error:  # noqa: BLE001 - the parent raises it again
                self._fail(error)
        # Who holds it still cannot join it.
        self.status = Status.COMMITTED
        if self._synchronizers:
            self._synchronizers.map(lambda each: each.afterCompletion(self))
        if self._after_commit:
            self._callAfterCommitHooks(status=True)
        self._manager.free(self)
        resources.clear()

    def _fail(self, error: BaseException) -> None:
        """Let the parent do what it does after *error*, which the data manager has raised."""
        self.status = Status.ACTIVE
        self._resources[0] = _Failed(self._resources[0], error)
        # Its traceback has this frame.
        del error
        # The parent would have called these before the error.
        self._before_commit.clear()
        super().commit()

    def abort(self) -> None:
        """Roll back. If nothing waits for it but one session, its data manager does that alone."""
        resources = self._resources
        if (
            len(resources) > 1
            or self._before_abort
            or self._after_abort
            or self._synchronizers
            or self._savepoint2index
            or (resources and not hasattr(resources[0], "commit_alone"))
        ):
            super().abort()
            return
        if resources:
            try:
                resources[0].abort(self)
            except BaseException:
                # An interrupt. The data manager has forgotten its session, and does nothing now.
                super().abort()
                raise
        if len(resources) > 1 or self._after_abort or self._synchronizers:
            # They have come in between, from a listener of the session for example. The first data
            # manager does nothing now.
            super().abort()
            return
        self._manager.free(self)
        resources.clear()


class _Failed:
    """A data manager that has raised an error in the commit, and raises it once more."""

    def __init__(self, manager: Any, error: BaseException) -> None:
        self._manager = manager
        self._error = error

    def tpc_begin(self, _transaction: object) -> None:
        try:
            raise self._error
        finally:
            # Its traceback has a frame with this object.
            del self._error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)


class RequestManager(SessionKeeper, TransactionManager):  # type: ignore[misc]  # has no types
    """An explicit transaction manager, which knows the sessions of its transactions."""

    # The package's own names: the current transaction, and those who wait for one to begin or end.
    _txn: Any
    _synchs: Any

    def __init__(self, *, explicit: bool = True) -> None:
        """Set what the parent sets."""
        self.explicit = explicit
        self._txn = None
        self._synchs = NO_ONE

    def begin(self) -> Any:
        """Begin a transaction. Those who wait for one to begin are told of it at once, as always.

        With a log for transactions it is the package's own, which writes there.
        """
        if self._txn is not None or self._synchs or LOG.isEnabledFor(logging.DEBUG):
            begun = super().begin()
        else:
            self._txn = begun = RequestTransaction(self._synchs, self)
        if self.kept:
            self.tell_sessions(begun)
        return begun

    def registerSynch(self, synch: Any) -> None:  # noqa: N802 - the name in transaction's interface
        """Tell *synch* of each transaction from now on, the current one among them."""
        if self._synchs is NO_ONE:
            self._synchs = WeakSet()
            if self._txn is not None:
                self._txn._synchronizers = self._synchs  # noqa: SLF001 - as the parent sets it
        super().registerSynch(synch)


def _has_known_attributes() -> bool:
    """Return whether the package sets the attributes that are set here, to values of these types.

    Then its methods find what they use.
    """

    def types(thing: object) -> dict[str, type]:
        return {name: type(value) for name, value in vars(thing).items()}

    own, theirs = RequestManager(), TransactionManager(explicit=True)
    of_manager = {**types(theirs), "_synchs": _NoOne}
    transactions = RequestTransaction(own._synchs, own), Transaction(own._synchs, own)  # noqa: SLF001
    [ours, package] = map(types, transactions)
    return types(own) == of_manager and ours == package


IS_KNOWN = _has_known_attributes()


def request_manager(request: Any) -> TransactionManager:
    """Return a new, explicit transaction manager: the default of ``tm.manager_hook``.

    It does what that of ``pyramid_tm.explicit_manager`` does, with fewer steps. With
    ``sqa.shortcuts = false`` it is that one.
    """
    if IS_KNOWN and get_sqa(request).settings.sqa_options["shortcuts"]:
        return RequestManager()
    return pyramid_tm.explicit_manager(request)
