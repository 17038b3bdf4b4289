"""What stands between two attempts of a request: a line in the log, a pause, and a whole body."""

import logging
import random
import time
from collections.abc import Callable
from typing import Any

from pyramid_retry import is_error_retryable

from ._sqa import get_sqa

log = logging.getLogger(__name__)


def retry_tween_factory(handler: Callable[[Any], Any], registry: object) -> Callable[[Any], Any]:
    """Prepare the next attempt when pyramid_retry is going to make one.

    This tween stands above pyramid_tm's, and so sees what pyramid_retry will see: an error that
    was raised, or one that an exception view has made a page of.
    """

    def retry_tween(request: Any) -> Any:
        try:
            response = handler(request)
        except Exception as error:
            if is_error_retryable(request, error):
                _prepare(request, error)
            raise
        error = request.exception
        if error is not None and is_error_retryable(request, error):
            _prepare(request, error)
        return response

    return retry_tween


def retry_deriver(view: Any, info: Any) -> Any:
    """Give views the option ``sqa_retry=False``: an error of this view is never tried again."""
    if info.options.get("sqa_retry", True):
        return view

    def last_attempt_view(context: Any, request: Any) -> Any:
        if "retry.attempt" in request.environ:
            # What pyramid_retry goes by: this attempt is the last.
            request.environ["retry.attempts"] = request.environ["retry.attempt"] + 1
        return view(context, request)

    return last_attempt_view


retry_deriver.options = ("sqa_retry",)  # type: ignore[attr-defined]  # Pyramid's way to say it


def _prepare(request: Any, error: Exception) -> None:
    environ = request.environ
    number, attempts = environ["retry.attempt"] + 1, environ["retry.attempts"]
    # Half of it at random, so that two that met do not meet again; doubled with each attempt.
    pause = get_sqa(request).settings.switches["retry_pause"]
    pause *= 2 ** (number - 1) * random.uniform(0.5, 1)  # noqa: S311 - no secret depends on it
    log.warning(
        "%s %s: attempt %d of %d failed (%s), the next in %.0f ms",
        *(request.method, request.path_info, number, attempts, name_of(error), pause * 1000),
    )
    _rewind(environ)
    time.sleep(pause)


def name_of(error: BaseException) -> str:
    """Return what kind of error it is, without the statement and the values of its text."""
    cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    code = getattr(cause, "sqlstate", None) or (cause.args[0] if cause.args else "")
    return f"{type(cause).__name__} {code}" if cause is not error else type(error).__name__


def _rewind(environ: dict[str, Any]) -> None:
    """Let the next attempt read the body from its beginning.

    WebOb keeps the parsed form in the environ, with files that this attempt has read to the end:
    the next one would store empty files.
    """
    environ.pop("webob._parsed_post_vars", None)
    if environ.get("webob.is_body_seekable"):
        environ["wsgi.input"].seek(0)
