"""What stands between two attempts of a request: a line in the log, a pause, and a whole body."""

import logging
import time
from collections.abc import Callable
from typing import Any

from pyramid_retry import is_error_retryable

from ..applications import get_sqa
from ..engines import error_name, pause_after
from .lifetime import make_last_attempt
from .paths import path_of

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
        squashed = request.exception
        if squashed is not None and is_error_retryable(request, squashed):
            _prepare(request, squashed)
        else:
            # What fails from here on, in a callback or a tween above, comes after the commit.
            make_last_attempt(request.environ)
        return response

    return retry_tween


def retry_deriver(view: Any, info: Any) -> Any:
    """Give views the option ``sqa_retry=False``: an error of this view is never tried again."""
    if info.options.get("sqa_retry", True):
        return view

    def last_attempt_view(context: Any, request: Any) -> Any:
        make_last_attempt(request.environ)
        return view(context, request)

    return last_attempt_view


retry_deriver.options = ("sqa_retry",)  # type: ignore[attr-defined]  # Pyramid's way to say it


def _prepare(request: Any, error: Exception) -> None:
    environ = request.environ
    number, attempts = environ["retry.attempt"] + 1, environ["retry.attempts"]
    failed = (request.method, path_of(request.environ), number, attempts, error_name(error))
    if not _rewind(environ):
        make_last_attempt(environ)
        log.warning("%s %s: attempt %d of %d failed (%s), the last: its body is closed", *failed)
        return
    pause = pause_after(number, get_sqa(request).settings.sqa_options["retry_pause"])
    log.warning("%s %s: attempt %d of %d failed (%s), the next in %.0f ms", *failed, pause * 1000)
    time.sleep(pause)


def _rewind(environ: dict[str, Any]) -> bool:
    """Let the next attempt read the body from its beginning; false when it cannot.

    WebOb keeps the parsed form in the environ, with files that this attempt has read to the end:
    the next one would store empty files.
    """
    environ.pop("webob._parsed_post_vars", None)
    try:
        # pyramid_retry has made it seekable before the first attempt.
        environ["wsgi.input"].seek(0)
    except ValueError:
        # Closed, as an io.TextIOWrapper around it does when it is collected.
        return False
    return True
