"""The error pages. They do not use the database, because it may be the cause of the error."""

import logging

from pyramid.config import Configurator
from pyramid.exceptions import URLDecodeError
from pyramid.httpexceptions import HTTPBadRequest
from pyramid_retry import is_error_retryable

from pyramid_aalam_sqa import SqaRequest

PAGE = "templates/notice.jinja2"
log = logging.getLogger(__name__)


def includeme(config: Configurator) -> None:
    """Add a page for each error status."""
    config.add_notfound_view(not_found, renderer=PAGE)
    config.add_exception_view(not_found, context=URLDecodeError, renderer=PAGE)
    config.add_exception_view(bad_request, context=HTTPBadRequest, renderer=PAGE)
    config.add_exception_view(server_error, context=Exception, renderer=PAGE)


def not_found(request: SqaRequest) -> dict[str, object]:
    """Answer 404, also if the percent codes of the address cannot be decoded."""
    request.response.status_int = 404
    return {
        "status": "404 Not Found",
        "title": "This page is blank",
        "text": "There is nothing at this address. Perhaps it was mistyped, or has been removed.",
    }


def bad_request(request: SqaRequest) -> dict[str, object]:
    """Answer 400, also to a form without its CSRF token."""
    request.response.status_int = 400
    return {
        "status": "400 Bad Request",
        "title": "This form cannot be read",
        "text": "Nothing was stored. Open its page again and send it from there; "
        "your browser has to allow cookies.",
    }


def server_error(error: Exception, request: SqaRequest) -> dict[str, object]:
    """Answer 500, and log the error with its traceback, unless the request is tried again."""
    if not is_error_retryable(request, error):
        log.error("%s %s failed", request.method, request.path, exc_info=error)
    request.response.status_int = 500
    return {
        "status": "500 Internal Server Error",
        "title": "A blot of ink",
        "text": "Something went wrong here, and nothing of this request was stored. "
        "Please try again in a moment.",
    }
