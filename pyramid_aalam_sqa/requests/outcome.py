"""Decides between commit and rollback, by the response's status or by the view's exception."""

import logging
from collections.abc import Callable
from typing import Any, cast

from pyramid.interfaces import IResponse
from pyramid.path import DottedNameResolver
from pyramid_retry import is_error_retryable
from pyramid_tm import is_tm_active, maybe_tag_retryable
from transaction.interfaces import NoTransaction

from ..interfaces import TransactionManager
from .lifetime import environs_of_thread
from .read_only import READING, forget_changes, refuse_changes
from .request import ENVIRON_SESSION

log = logging.getLogger(__name__)

# The header that overrules the status of a response.
OVERRIDE = "x-tm"
LENGTH = len(OVERRIDE)

# The first digits of the statuses that commit.
SUCCESS = "23"


def commit_veto(request: Any, response: Any) -> bool:
    """Return True if *response* rolls back: any status but 200 to 399 does.

    The header ``X-Tm`` overrules the status, as pyramid_tm documents it for its own veto:
    ``commit`` commits, any other value rolls back. This is the default of ``tm.commit_veto``.
    """
    # Without response.headers, which is made anew for each response.
    for name, value in reversed(response.headerlist):
        if len(name) == LENGTH and name.lower() == OVERRIDE:
            return bool(value != "commit")
    # As text: WebOb takes the number out of it each time.
    return response.status[0] not in SUCCESS


def veto_of(registry: Any) -> Callable[[Any, Any], Any] | None:
    """Return the function that pyramid_tm asks whether a response rolls back, or None."""
    settings = registry.settings
    named = settings.get("tm.commit_veto", settings.get("pyramid_tm.commit_veto"))
    return cast("Any", DottedNameResolver(None).maybe_resolve(named)) if named else None


def rollback_tween_factory(handler: Callable[[Any], Any], registry: object) -> Callable[[Any], Any]:
    """Roll back the work of a view that raised, before an exception view is called.

    The exception view then has a session that works, and what it writes follows the status of the
    page it renders. An exception that is a response is the view's answer, and its status decides:
    ``raise HTTPForbidden()`` rolls back even if a forbidden view then redirects to the login,
    ``raise HTTPFound(...)`` commits. This tween stands below Pyramid's exception view tween.

    A subrequest that shares the transaction of another request rolls nothing back: the view that
    made the subrequest decides what to do about the error.
    """
    veto = veto_of(registry)

    def commits(request: Any, error: Exception) -> bool:
        """Tell whether *error* is a response that commits."""
        return IResponse.providedBy(error) and veto is not None and not veto(request, error)

    def rollback_tween(request: Any) -> Any:
        try:
            response = handler(request)
            if READING in request.__dict__:
                refuse_changes(request)
        except Exception as error:
            if READING in request.__dict__:
                forget_changes(request)
            # A session in the environ is a test's, which looks at it after the request.
            ours = is_tm_active(request) and ENVIRON_SESSION not in request.environ
            if ours and not _shares_transaction(request) and not commits(request, error):
                _roll_back(request, error)
            raise
        return response

    return rollback_tween


def _shares_transaction(request: Any) -> bool:
    """Tell whether another request that this thread serves has the same transaction."""
    managers = [environ.get("tm.manager") for environ in environs_of_thread()]
    return managers.count(request.tm) > 1


def _roll_back(request: Any, error: Exception) -> None:
    """Roll the transaction back and begin another one, for the exception view."""
    tm: TransactionManager = request.tm
    try:
        old = tm.get()
    except NoTransaction:
        # The view has ended its transaction and begun no other: there is nothing to roll back.
        tm.begin()
        return
    # Now, because the abort forgets the data managers that know which errors are retryable. An
    # answer that was raised is not an error of theirs.
    if not IResponse.providedBy(error):
        maybe_tag_retryable(request, (type(error), error, error.__traceback__))
    doomed, user, description = old.isDoomed(), old.user, old.description
    try:
        tm.abort()
    except Exception:
        # The transaction is over. The client is to see the view's own error.
        log.exception("Rolling back after an error in a view failed too")
    new = tm.begin()
    new.user, new.description = user, description
    if doomed or is_error_retryable(request, error):
        # Another attempt follows, so what the exception view of this one writes is rolled back.
        tm.doom()
