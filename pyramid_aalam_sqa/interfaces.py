"""Types for the objects of Pyramid and ``transaction``: these packages have no type hints."""

from types import TracebackType
from typing import Any, Protocol

from pyramid.interfaces import IException


class IDatabaseUnavailable(IException):  # type: ignore[misc]  # pyramid has no types
    """Marks an error that means: the database cannot be used now (unreachable, full, silent)."""


class HasRegistry(Protocol):
    """A request, a Configurator, a WSGI application: any object with Pyramid's ``registry``."""

    @property
    def registry(self) -> Any:
        """The application registry."""


class TransactionManager(Protocol):
    """A transaction manager, such as ``request.tm`` or ``transaction.manager``."""

    def begin(self) -> Any:
        """Begin a transaction and return it."""

    def get(self) -> Any:
        """Return the current transaction."""

    def commit(self) -> None:
        """Commit the current transaction."""

    def abort(self) -> None:
        """Roll the current transaction back."""

    def doom(self) -> None:
        """Mark the current transaction, so that it can only be rolled back."""

    def isDoomed(self) -> bool:  # noqa: N802 - the name in transaction's interface
        """Return whether ``doom()`` was called for the current transaction."""
        ...

    def registerSynch(self, synch: Any) -> None:  # noqa: N802 - as above
        """Call *synch* when a transaction begins or ends. The manager keeps a weak reference."""

    def unregisterSynch(self, synch: Any) -> None:  # noqa: N802 - as above
        """Stop calling *synch*."""

    def __enter__(self) -> Any:
        """Begin a transaction."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Commit, or roll back when the block raised."""
