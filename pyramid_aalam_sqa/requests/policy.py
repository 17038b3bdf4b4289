"""Gives each attempt the request as it was sent, and answers 503 when no view could.

The execution policy is above all tweens. So it sees what a tween has changed in the request before
the next attempt begins, and an error that no exception view was called for.
"""

from collections.abc import Callable
from typing import Any

from .request_class import RequestContexts
from .service_unavailable import answer_unavailable

# The environ key of a copy of the environ, made when the first attempt began.
SENT = "sqa.sent"

# The environ keys that belong to the request itself. All others are left to those who set them: a
# subscriber of pyramid_retry's event, for example, may set one for the next attempt.
REQUEST_PREFIXES = ("wsgi.", "webob.")

Policy = Callable[[dict[str, Any], Any], Any]


def attempts_policy(policy: Policy) -> Policy:
    """Return an execution policy that calls *policy* with a router for its attempts.

    An error of a tween above the exception views, or of the security policy that pyramid_tm asks
    for the user's name, is answered 503 too when it says that the database is unavailable.
    """
    contexts = RequestContexts()

    def execution_policy(environ: dict[str, Any], router: Any) -> Any:
        # An application may call another one with its own environ.
        outer = environ.pop(SENT, None)
        try:
            return policy(environ, AttemptRouter(router, contexts))
        except Exception as error:
            response = answer_unavailable(error, environ, router)
            if response is None:
                raise
            return response
        finally:
            environ.pop(SENT, None)
            if outer is not None:
                environ[SENT] = outer

    return execution_policy


class AttemptRouter:
    """Pyramid's router for one request, which gives each attempt the request as it was sent."""

    __slots__ = ("_contexts", "_router")

    def __init__(self, router: Any, contexts: RequestContexts) -> None:
        self._router = router
        self._contexts = contexts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._router, name)

    def request_context(self, environ: dict[str, Any]) -> Any:
        """Return Pyramid's context for an attempt, which makes its request from *environ*."""
        if SENT in environ:
            restore_request(environ)
        return self._contexts(self._router, environ)

    def invoke_request(self, request: Any, **options: Any) -> Any:
        """Call the application with *request*, and return its response."""
        environ = request.environ
        if SENT not in environ:
            # Now, because pyramid_retry has made the body seekable.
            environ[SENT] = dict(environ)
        return self._router.invoke_request(request, **options)


def restore_request(environ: dict[str, Any]) -> None:
    """Undo what an attempt has changed in the path, the query string, the headers and the body."""
    sent = environ[SENT]
    for key in [key for key in environ if _is_of_request(key) and key not in sent]:
        del environ[key]
    environ.update({key: value for key, value in sent.items() if _is_of_request(key)})


def body_sent(environ: dict[str, Any]) -> Any:
    """Return the body of the request as it was sent, whatever an attempt has put in its place."""
    return environ.get(SENT, environ)["wsgi.input"]


def _is_of_request(key: str) -> bool:
    # The variables of CGI, such as PATH_INFO and HTTP_ACCEPT, have no point in their names.
    return "." not in key or key.startswith(REQUEST_PREFIXES)
