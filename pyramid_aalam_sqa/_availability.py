"""The answer when the database cannot be used: 503, and when to come back."""

import logging
from typing import Any

from pyramid.httpexceptions import HTTPServiceUnavailable

from ._retry import name_of
from ._sqa import get_sqa

log = logging.getLogger(__name__)


def unavailable(error: Exception, request: Any) -> HTTPServiceUnavailable:
    """Answer 503 with Retry-After, as HTML, JSON or text like Pyramid's own errors.

    Nothing of *error* is in it: its text has the address of the server, and the statement.
    """
    log.error("%s %s: no database: %s", request.method, request.path_info, name_of(error))
    seconds = get_sqa(request).settings.switches["retry_after"]
    return HTTPServiceUnavailable(headers=[("Retry-After", str(seconds))])
