"""The answer when the database cannot be used: 503, and after how many seconds to try again."""

import logging
from typing import Any

from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid_retry import is_error_retryable

from ..applications import get_sqa
from .addresses import path_of

log = logging.getLogger(__name__)


def service_unavailable(error: Exception, request: Any) -> HTTPServiceUnavailable:
    """Return 503 with Retry-After, as HTML, JSON or text, as Pyramid's own errors are.

    The page shows nothing of *error*, whose text has the address of the server and the statement.
    """
    if not is_error_retryable(request, error):
        # The driver's own error: its text never holds the statement, its values or a password.
        reason = getattr(error, "orig", None) or error
        get_sqa(request).counters.add("", "unavailable")
        log.error("%s %s: no database: %s", request.method, path_of(request.environ), reason)
    seconds = get_sqa(request).settings.sqa_options["retry_after"]
    return HTTPServiceUnavailable(headers=[("Retry-After", str(seconds))])
