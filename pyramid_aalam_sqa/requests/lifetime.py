"""Ends a request's sessions and streams, whatever the request does.

The execution policy is the only place around everything that a request does: its tweens, callbacks
that raise, subscribers, and each attempt of a retry. The body of a response that is streamed ends
even later than the policy.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from contextvars import ContextVar
from functools import partial
from typing import Any

from pyramid.response import FileResponse
from pyramid.threadlocal import manager

from ..exceptions import SESSION_ENDED, OutsideTransactionError
from ..sessions import JoinedSession

# The environ key of a request's Lifetime.
LIFETIME = "sqa.lifetime"

# The environ keys in which pyramid_retry counts. It deletes them at the end of the innermost
# application.
ATTEMPT, ATTEMPTS = "retry.attempt", "retry.attempts"

# The environ key with which pyramid_tm, or a test around the application, says that it ends the
# transaction.
ACTIVE = "tm.active"

# A response with this status or a higher one says that nothing is stored.
FIRST_ERROR_STATUS = 400

NEVER_ENDED = (
    "The transaction of this request was never ended, or a hook before its commit has failed, and "
    "what it has written is lost: use `with request.tm:` where pyramid_tm does not end it."
)

Policy = Callable[[dict[str, Any], Any], Any]


class Lifetime:
    """The sessions and streams that end with one request."""

    def __init__(self, *, from_server: bool) -> None:
        # True for a request that a server has sent, and for its subrequests; false for a request
        # that a script has made.
        self.from_server = from_server
        self.sessions: list[JoinedSession] = []
        self.streams: list[Generator[Any]] = []
        self.attempt = 0
        self.ended = False

    def end(self) -> None:
        """End all sessions and streams. If ending one raises, end the others too, then raise."""
        self.ended = True
        with ExitStack() as ends:
            while self.sessions:
                ends.callback(self.sessions.pop().end)
            while self.streams:
                ends.callback(self.streams.pop().close)

    def hand_over_shared(self, outer: "Lifetime | None") -> None:
        """Give the sessions in a shared transaction to *outer*, of the request around this one."""
        if outer is not None:
            outer.sessions += [each for each in self.sessions if each.data_manager is not None]
            self.sessions = [each for each in self.sessions if each.data_manager is None]

    def refuse_open_transaction(self) -> None:
        """Raise if a session has worked in a transaction that was neither committed nor aborted."""
        if any(session.data_manager and session.works for session in self.sessions):
            raise OutsideTransactionError(NEVER_ENDED)

    def begin_attempt(self, number: int) -> None:
        """End the sessions of earlier attempts: one of them may still hold a connection."""
        if number > self.attempt:
            self.end()
            self.attempt, self.ended = number, False

    def __del__(self) -> None:
        # The server closes the body only of a response that it has begun to send.
        if not self.ended:
            self.end()


# The Lifetime of the request that this thread serves. A subrequest gives it its shared sessions.
_current: ContextVar[Lifetime | None] = ContextVar(LIFETIME, default=None)


def ending_policy(policy: Policy) -> Policy:
    """Return an execution policy that calls *policy*, and then ends the request's sessions."""

    def execution_policy(environ: dict[str, Any], router: Any) -> Any:
        outer = _current.get()
        # An application may call another one with its own environ.
        keys = (LIFETIME, ATTEMPT, ATTEMPTS) if outer else ()
        before = {key: environ[key] for key in keys if key in environ}
        environ[LIFETIME] = lifetime = Lifetime(from_server=True)
        token = _current.set(lifetime)
        streamed = False
        try:
            response = policy(environ, router)
            if outer is None and ACTIVE not in environ and response.status_int < FIRST_ERROR_STATUS:
                lifetime.refuse_open_transaction()
            streamed = _is_streamed(response)
            if streamed:
                _end_with_body(response, lifetime)
            return response
        finally:
            _current.reset(token)
            environ.update(before)
            lifetime.hand_over_shared(outer)
            if not streamed:
                lifetime.end()

    return execution_policy


def lifetime_of(request: Any) -> Lifetime:
    """Return the Lifetime of *request*.

    The execution policy ends it; for a request from ``pyramid.scripting.prepare()``, its closer
    does. Raises :class:`OutsideTransactionError` when it has ended.
    """
    lifetime: Lifetime | None = request.environ.get(LIFETIME)
    if lifetime is None:
        lifetime = Lifetime(from_server=_current.get() is not None)
        request.environ[LIFETIME] = lifetime
        request.finished_callbacks.appendleft(partial(_end_after_callbacks, lifetime))
    if lifetime.ended:
        raise OutsideTransactionError(SESSION_ENDED)
    return lifetime


def end_with_request(request: Any, session: JoinedSession) -> None:
    """Add *session* to the sessions that end with *request*."""
    session.on_commit = _make_last_attempt_of_all
    lifetime = lifetime_of(request)
    lifetime.begin_attempt(request.environ.get(ATTEMPT, 0))
    lifetime.sessions.append(session)


def _end_after_callbacks(lifetime: Lifetime, request: Any) -> None:
    """Call the other finished callbacks, which may read and may raise, then end *lifetime*."""
    try:
        while request.finished_callbacks:
            request.finished_callbacks.popleft()(request)
    finally:
        lifetime.hand_over_shared(_current.get())
        lifetime.end()


def make_last_attempt(environ: dict[str, Any]) -> None:
    """Make this attempt the last one, whatever error comes."""
    if ATTEMPT in environ:
        environ[ATTEMPTS] = environ[ATTEMPT] + 1


def _make_last_attempt_of_all() -> None:
    """Make this attempt the last one of each request that this thread serves.

    Something is stored now, and another attempt would store it twice. A subrequest with a
    transaction of its own commits inside another request.
    """
    for environ in environs_of_thread():
        make_last_attempt(environ)


def environs_of_thread() -> list[dict[str, Any]]:
    """Return the environ of each request that this thread serves; a subrequest is in another."""
    return [getattr(frame["request"], "environ", {}) for frame in manager.stack]


class EndingBody:
    """The body of a response. When the server closes it, the request's sessions and streams end."""

    def __init__(self, body: Iterable[bytes], lifetime: Lifetime) -> None:
        self.body = body
        self.lifetime = lifetime

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def close(self) -> None:
        """Close the body, then end the Lifetime. A WSGI server calls this after a hang-up too."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.lifetime.end()


def _end_with_body(response: Any, lifetime: Lifetime) -> None:
    length = response.content_length
    response.app_iter = EndingBody(response.app_iter, lifetime)
    # WebOb removes the length when app_iter is set.
    response.content_length = length


def _is_streamed(response: Any) -> bool:
    """Tell whether the body may read from a session while it is sent; a file does not."""
    body = getattr(response, "app_iter", None)
    return not isinstance(body, (list, tuple, type(None))) and not isinstance(
        response, FileResponse
    )
