"""Marks an error for those who read it above: pyramid_retry, and the exception view of the 503."""

from pyramid_retry import IRetryableError, mark_error_retryable
from zope.interface import alsoProvides

from ..backends import ErrorKind
from ..interfaces import IDatabaseUnavailable


def mark(error: BaseException, kind: ErrorKind) -> None:
    """Mark *error* by its *kind*: worth another attempt, or a sign that there is no database."""
    if kind.retryable:
        mark_error_retryable(error)
    if kind.unavailable:
        alsoProvides(error, IDatabaseUnavailable)


def copy_marks(reason: BaseException | None, error: BaseException) -> None:
    """Mark *error* as its *reason* is marked."""
    if IRetryableError.providedBy(reason):
        mark_error_retryable(error)
    if IDatabaseUnavailable.providedBy(reason):
        alsoProvides(error, IDatabaseUnavailable)
