"""What happens between two attempts of a request: a log line, a pause, and a rewound body."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pyramid_retry import is_error_retryable
from transaction.interfaces import NoTransaction

from ..applications import get_sqa
from ..engines import error_name, pause_after
from ..interfaces import TransactionManager
from .addresses import path_of
from .events import tell_failed_attempt, tell_outcome
from .lifetime import ATTEMPT, ATTEMPTS, BEGUN, make_last_attempt
from .outcome import veto_of
from .policy import body_sent

log = logging.getLogger(__name__)


def retry_tween_factory(handler: Callable[[Any], Any], registry: object) -> Callable[[Any], Any]:
    """Prepare the next attempt when pyramid_retry is going to make one.

    This tween stands above pyramid_tm's. So it sees the errors that pyramid_retry sees: those that
    were raised, and those for which an exception view has rendered a page.
    """
    veto = veto_of(registry)

    def retry_tween(request: Any) -> Any:
        environ = request.environ
        # Another application may be called with the environ of this one.
        outer = (environ[BEGUN],) if BEGUN in environ else ()
        environ[BEGUN] = None
        try:
            response = handler(request)
            if environ[BEGUN] is not None:
                _end_for_exception_view(environ[BEGUN], request, response, veto)
        except Exception as error:
            if environ[BEGUN] is not None:
                # When the exception view itself has failed, pyramid_tm has rolled back.
                with suppress(NoTransaction):
                    environ[BEGUN].abort()
            if is_error_retryable(request, error):
                _prepare_next_attempt(request, error)
            tell_outcome(request, error)
            raise
        finally:
            del environ[BEGUN]
            if outer:
                [environ[BEGUN]] = outer
        rendered = request.exception
        if rendered is not None and is_error_retryable(request, rendered):
            _prepare_next_attempt(request, rendered)
        else:
            if rendered is not None:
                tell_outcome(request, rendered)
            # An error from here on, in a callback or a tween above, comes after the commit.
            make_last_attempt(environ)
        return response

    return retry_tween


def _end_for_exception_view(
    tm: TransactionManager, request: Any, response: Any, veto: Callable[[Any, Any], Any] | None
) -> None:
    """End the transaction of *tm*, which an exception view for a failed COMMIT has got.

    The page decides, unless another attempt follows.
    """
    rendered = request.exception
    fails = veto is None or veto(request, response)
    if fails or tm.isDoomed() or (rendered is not None and is_error_retryable(request, rendered)):
        tm.abort()
    else:
        tm.commit()


def retry_deriver(view: Any, info: Any) -> Any:
    """Give views the option ``sqa_retry``: with False, an error of the view is never retried."""
    if info.options.get("sqa_retry", True):
        return view

    def last_attempt_view(context: Any, request: Any) -> Any:
        make_last_attempt(request.environ)
        return view(context, request)

    return last_attempt_view


retry_deriver.options = ("sqa_retry",)  # type: ignore[attr-defined]  # Pyramid's way to say it


def _prepare_next_attempt(request: Any, error: Exception) -> None:
    """Log that this attempt failed, and wait before the next one."""
    environ = request.environ
    number, attempts = environ[ATTEMPT] + 1, environ[ATTEMPTS]
    failed = (request.method, path_of(environ), number, attempts, error_name(error))
    if not _rewind_body(environ):
        make_last_attempt(environ)
        log.warning("%s %s: attempt %d of %d failed (%s), the last: its body is closed", *failed)
        return
    tell_failed_attempt(request, error, number, attempts)
    pause = pause_after(number, get_sqa(request).settings.sqa_options["retry_pause"])
    log.warning("%s %s: attempt %d of %d failed (%s), the next in %.0f ms", *failed, pause * 1000)
    time.sleep(pause)


def _rewind_body(environ: dict[str, Any]) -> bool:
    """Set the body back to its beginning; return False if it is closed.

    WebOb keeps the parsed form in the environ. This attempt has read the files in it to their end,
    so the next attempt would store empty files.
    """
    environ.pop("webob._parsed_post_vars", None)
    try:
        # pyramid_retry has made it seekable before the first attempt.
        body_sent(environ).seek(0)
    except ValueError:
        # An io.TextIOWrapper around the body closes it when it is collected.
        return False
    return True
