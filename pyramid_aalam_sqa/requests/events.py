"""Events for those who have to know: an attempt that failed, and outcomes that are not whole.

They are Pyramid events: an application hears them with ``config.add_subscriber()``.
"""

import logging
from dataclasses import dataclass
from typing import Any

from ..applications import get_sqa
from ..exceptions import OutcomeUnknownError, PartialCommitError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt of *request* lost against another transaction, and is going to be made again.

    *attempt* is its number from 1, of *attempts* in all. *error* is the conflict.
    """

    request: Any
    error: Exception
    attempt: int
    attempts: int


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """COMMIT was sent for *request* and never answered; *error* is OutcomeUnknownError."""

    request: Any
    error: OutcomeUnknownError


@dataclass(frozen=True, slots=True)
class PartialCommit:
    """*request* is stored in some of its databases only; *error* is PartialCommitError.

    ``error.stored``, ``error.not_stored`` and ``error.unknown`` have the keys of the databases.
    """

    request: Any
    error: PartialCommitError


def tell_failed_attempt(request: Any, error: Exception, attempt: int, attempts: int) -> None:
    """Count a retry, and notify of it."""
    get_sqa(request).counters.add("", "retries")
    _notify(request, AttemptFailed(request, error, attempt, attempts))


def tell_outcome(request: Any, error: BaseException | None) -> None:
    """Count and notify when *error* says that the outcome is unknown, or that a part is stored."""
    if error is not None:
        get_sqa(request).counters.add_outcome(error)
    if isinstance(error, OutcomeUnknownError):
        _notify(request, OutcomeUnknown(request, error))
    elif isinstance(error, PartialCommitError):
        _notify(request, PartialCommit(request, error))


def _notify(request: Any, event: object) -> None:
    """Notify of *event*. A subscriber that fails must not take the place of what has happened."""
    try:
        request.registry.notify(event)
    except Exception:
        log.exception("A subscriber of %s failed", type(event).__name__)
