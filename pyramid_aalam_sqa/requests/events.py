"""Pyramid events that tell of a failed attempt, an unknown outcome and a partial commit.

An application subscribes to them by ``config.add_subscriber()``.
"""

import logging
from typing import Any, NamedTuple

from ..applications import get_sqa
from ..exceptions import OutcomeUnknownError, PartialCommitError

log = logging.getLogger(__name__)


class AttemptFailed(NamedTuple):
    """An attempt of *request* failed by a conflict with another transaction, and is retried.

    *attempt* is its number from 1, of *attempts* in all. *error* is the conflict.
    """

    request: Any
    error: Exception
    attempt: int
    attempts: int


class OutcomeUnknown(NamedTuple):
    """COMMIT was sent for *request* and never answered; *error* is OutcomeUnknownError."""

    request: Any
    error: OutcomeUnknownError


class PartialCommit(NamedTuple):
    """*request* is stored in some of its databases only; *error* is PartialCommitError.

    ``error.stored``, ``error.not_stored`` and ``error.unknown`` have the keys of the databases.
    """

    request: Any
    error: PartialCommitError


def tell_failed_attempt(request: Any, error: Exception, attempt: int, attempts: int) -> None:
    """Count a retry, and send its event."""
    get_sqa(request).counters.add("", "retries")
    _notify(request, AttemptFailed(request, error, attempt, attempts))


def tell_outcome(request: Any, error: BaseException) -> None:
    """Count *error* and send its event, if the outcome is unknown or only a part is stored."""
    get_sqa(request).counters.add_outcome(error)
    if isinstance(error, OutcomeUnknownError):
        _notify(request, OutcomeUnknown(request, error))
    elif isinstance(error, PartialCommitError):
        _notify(request, PartialCommit(request, error))


def _notify(request: Any, event: object) -> None:
    """Send *event*, and log an error of a subscriber: the answer must stay what it is."""
    try:
        request.registry.notify(event)
    except Exception:
        log.exception("A subscriber of %s failed", type(event).__name__)
