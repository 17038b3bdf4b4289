"""Gives each attempt the request as it was sent, and answers 503 when no view could.

The execution policy is above all tweens. So it sees what a tween has changed in the request before
the next attempt begins, and an error that no exception view was called for.
"""

from collections.abc import Callable
from typing import Any

from ..applications import get_sqa
from .empty_body import mark_empty_body
from .request_class import with_one_class
from .service_unavailable import answer_unavailable

# The environ key of the names and the values in the environ when the first attempt began.
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
    attempts: AttemptRouter | None = None

    def execution_policy(environ: dict[str, Any], router: Any) -> Any:
        nonlocal attempts
        if attempts is None or attempts.router is not router:
            attempts = AttemptRouter(router)
        # An application may call another one with its own environ.
        outer = environ.pop(SENT, None)
        try:
            return policy(environ, attempts)
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
    """Pyramid's router, which gives each attempt the request as it was sent."""

    def __init__(self, router: Any) -> None:
        self.router = router
        # The router that makes the requests, with what their class was made from.
        self._copy: Any = None
        self._made_from: tuple[Any, Any] = (None, None)
        self._marks_bodies = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.router, name)

    def request_context(self, environ: dict[str, Any]) -> Any:
        """Return Pyramid's context for an attempt, which makes its request from *environ*."""
        if SENT in environ:
            restore_request(environ)
        router = self.router
        if self._made_from != (router.request_factory, router.request_extensions.descriptors):
            # For the first request, and after a test has added a property.
            self._make_class()
        if self._marks_bodies:
            mark_empty_body(environ)
        return self._copy.request_context(environ)

    def _make_class(self) -> None:
        router = self.router
        shortcuts = get_sqa(router).settings.sqa_options["shortcuts"]
        self._copy = with_one_class(router) if shortcuts else router
        # With one attempt, pyramid_retry leaves the body alone.
        self._marks_bodies = shortcuts and router.registry.settings.get("retry.attempts") != 1
        self._made_from = router.request_factory, dict(router.request_extensions.descriptors)

    def invoke_request(self, request: Any, **options: Any) -> Any:
        """Call the application with *request*, and return its response."""
        environ = request.environ
        if SENT not in environ:
            # Now, because pyramid_retry has made the body seekable.
            # Two tuples take half the memory of a copy.
            environ[SENT] = tuple(environ), tuple(environ.values())
        return self.router.invoke_request(request, **options)


def restore_request(environ: dict[str, Any]) -> None:
    """Undo what an attempt has changed in the path, the query string, the headers and the body."""
    sent = _sent(environ)
    for key in [key for key in environ if _is_of_request(key) and key not in sent]:
        del environ[key]
    environ.update({key: value for key, value in sent.items() if _is_of_request(key)})


def body_sent(environ: dict[str, Any]) -> Any:
    """Return the body of the request as it was sent, whatever an attempt has put in its place."""
    return (_sent(environ) if SENT in environ else environ)["wsgi.input"]


def _sent(environ: dict[str, Any]) -> dict[str, Any]:
    names, values = environ[SENT]
    return dict(zip(names, values, strict=True))


def _is_of_request(key: str) -> bool:
    # The variables of CGI, such as PATH_INFO and HTTP_ACCEPT, have no point in their names.
    return "." not in key or key.startswith(REQUEST_PREFIXES)
