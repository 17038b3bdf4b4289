"""What decides between commit and rollback: the response's status, and an exception of a view."""

import logging
from collections.abc import Callable
from typing import Any

from pyramid.interfaces import IResponse
from pyramid_retry import is_error_retryable
from pyramid_tm import is_tm_active, maybe_tag_retryable
from transaction.interfaces import NoTransaction

from ..interfaces import TransactionManager
from .lifetime import environs_of_thread
from .request import ENVIRON_SESSION

log = logging.getLogger(__name__)


def commit_veto(request: Any, response: Any) -> bool:
    """Return whether *response* rolls back: any status but 200 to 399 does.

    The header ``X-Tm`` overrules the status, as pyramid_tm documents it for its own veto:
    ``commit`` commits, anything else rolls back. This is ``tm.commit_veto`` by default.
    """
    override = response.headers.get("X-Tm")
    if override is not None:
        return bool(override != "commit")
    return not 200 <= response.status_int < 400


def rollback_tween_factory(handler: Callable[[Any], Any], registry: object) -> Callable[[Any], Any]:
    """Roll back what a view that raised had done, before an exception view is called.

    The exception view then has a session that works, and what it writes follows the status of
    the page it renders. An exception that is a response (``raise HTTPFound(...)``) is the view's
    answer, not an accident, and is left to its status. This tween stands below pyramid's.

    A subrequest that shares the transaction of another request undoes nothing of it: the view that
    made the subrequest knows what to do with the error.
    """

    def rollback_tween(request: Any) -> Any:
        try:
            return handler(request)
        except Exception as error:
            # A session in the environ is a test's, which looks at it after the request.
            mine = is_tm_active(request) and ENVIRON_SESSION not in request.environ
            if mine and not _is_shared(request) and not IResponse.providedBy(error):
                _start_over(request, error)
            raise

    return rollback_tween


def _is_shared(request: Any) -> bool:
    """Tell whether another request that this thread is in has the same transaction."""
    managers = [environ.get("tm.manager") for environ in environs_of_thread()]
    return managers.count(request.tm) > 1


def _start_over(request: Any, error: Exception) -> None:
    tm: TransactionManager = request.tm
    try:
        old = tm.get()
    except NoTransaction:
        # The view ended its transaction and began no other: nothing of it is left to undo.
        tm.begin()
        return
    # The data managers that know which errors are worth a retry are forgotten by the abort.
    maybe_tag_retryable(request, (type(error), error, error.__traceback__))
    doomed, user, description = old.isDoomed(), old.user, old.description
    try:
        tm.abort()
    except Exception:
        # The transaction is over all the same, and the view's own error is the one to show.
        log.exception("Rolling back after an error in a view failed too")
    new = tm.begin()
    new.user, new.description = user, description
    if doomed or is_error_retryable(request, error):
        # What the exception view writes for an attempt that is thrown away goes with it.
        tm.doom()
