"""The answer when the database cannot be used: 503, and after how many seconds to try again.

It is 500 once something may be stored: to send the request again could store it twice.
"""

import logging
from typing import Any

from pyramid.httpexceptions import (
    HTTPError,
    HTTPInternalServerError,
    HTTPNotFound,
    HTTPServiceUnavailable,
)
from pyramid_retry import is_error_retryable
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..applications import get_sqa
from ..engines import may_have_stored
from ..interfaces import IDatabaseUnavailable
from .addresses import path_of

log = logging.getLogger(__name__)

# The errors that are answered 503. In the second case all connections were in use for pool_timeout
# seconds.
UNAVAILABLE = (IDatabaseUnavailable, PoolTimeout)

MAY_BE_DONE = "What was asked for may be done already, in part or as a whole."


def service_unavailable(error: Exception, request: Any) -> HTTPError:
    """Return 503 with Retry-After, as HTML, JSON or text, as Pyramid's own errors are.

    It is 500 without Retry-After if the request has sent a COMMIT before. The page shows nothing of
    *error*, whose text has the address of the server and the statement.
    """
    if not is_error_retryable(request, error):
        # The driver's own error: its text never holds the statement, its values or a password.
        reason = getattr(error, "orig", None) or error
        get_sqa(request).counters.add("", "unavailable")
        log.error("%s %s: no database: %s", request.method, path_of(request.environ), reason)
    if may_have_stored():
        return HTTPInternalServerError(MAY_BE_DONE)
    seconds = get_sqa(request).settings.sqa_options["retry_after"]
    return HTTPServiceUnavailable(headers=[("Retry-After", str(seconds))])


def answer_unavailable(error: Exception, environ: dict[str, Any], router: Any) -> Any:
    """Return the response of the exception view for an *error* that has left all tweens.

    None if the database is not the cause, or if the view is missing or fails.
    """
    if not (IDatabaseUnavailable.providedBy(error) or isinstance(error, PoolTimeout)):
        return None
    context = router.request_context(environ)
    request = context.begin()
    try:
        return request.invoke_exception_view((type(error), error, error.__traceback__))
    except Exception as failure:
        if not isinstance(failure, HTTPNotFound):
            log.exception("The exception view for %s failed", type(error).__name__)
        return None
    finally:
        context.end()
