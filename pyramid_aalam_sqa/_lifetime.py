"""The end of a session's life, which comes whatever a request does.

The execution policy is the only place around everything a request does: tweens, callbacks that
raise, subscribers, and each attempt of a retry. A body that is streamed outlives even that.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pyramid.threadlocal import manager

from ._session import JoinedSession

# The sessions that were made for a request, in its environ.
SESSIONS = "sqa.sessions"

Policy = Callable[[dict[str, Any], Any], Any]


def ending_policy(policy: Policy) -> Policy:
    """Return *policy*, an execution policy of Pyramid, followed by the end of its sessions."""

    def execution_policy(environ: dict[str, Any], router: Any) -> Any:
        # One application may call another with its own environ.
        outer = environ.get(SESSIONS)
        sessions: list[JoinedSession] = []
        environ[SESSIONS] = sessions
        try:
            response = policy(environ, router)
            if sessions and _is_streamed(response):
                response.app_iter = EndingBody(response.app_iter, sessions.copy())
                sessions.clear()
            return response
        finally:
            environ.pop(SESSIONS)
            if outer is not None:
                environ[SESSIONS] = outer
            end_all(sessions)

    return execution_policy


def end_with_request(request: Any, session: JoinedSession) -> None:
    """Have *session* ended with *request*: by the policy, or by the closer of prepare()."""
    session.on_commit = _keep_what_is_stored
    if SESSIONS in request.environ:
        request.environ[SESSIONS].append(session)
    else:
        request.add_finished_callback(_EndingCallback(session))


def make_last_attempt(environ: dict[str, Any]) -> None:
    """Have pyramid_retry make no attempt after this one, whatever comes."""
    if "retry.attempt" in environ:
        environ["retry.attempts"] = environ["retry.attempt"] + 1


def _keep_what_is_stored() -> None:
    """Let no request that this thread is in be tried again: what it stored would be there twice.

    A subrequest with a transaction of its own commits inside another request.
    """
    for threadlocals in manager.stack:
        make_last_attempt(getattr(threadlocals["request"], "environ", {}))


def end_all(sessions: Iterable[JoinedSession]) -> None:
    """End each of *sessions*; raise the first error of any when all have ended."""
    errors = []
    for session in sessions:
        try:
            session.end()
        except Exception as error:  # noqa: BLE001 - raised below, when the others have ended
            errors.append(error)
    if errors:
        raise errors[0]


class EndingBody:
    """The body of a response, which ends the sessions it reads from when the server closes it."""

    def __init__(self, body: Iterable[bytes], sessions: list[JoinedSession]) -> None:
        self.body = body
        self.sessions = sessions

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def close(self) -> None:
        """End the sessions; a WSGI server calls this also when the client has hung up."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            end_all(self.sessions)


class _EndingCallback:
    """Holds the session but not the request, which holds the callback."""

    def __init__(self, session: JoinedSession) -> None:
        self.session = session

    def __call__(self, request: Any) -> None:
        self.session.end()


def _is_streamed(response: Any) -> bool:
    return not isinstance(getattr(response, "app_iter", None), (list, tuple, type(None)))
