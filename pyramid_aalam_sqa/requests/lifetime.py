"""The end of a session's life, which comes whatever a request does.

The execution policy is the only place around everything a request does: tweens, callbacks that
raise, subscribers, and each attempt of a retry. A body that is streamed outlives even that.
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

# What ends with a request, in its environ.
LIFETIME = "sqa.lifetime"


# pyramid_retry deletes these at the end of the application that was called last.
ATTEMPT, ATTEMPTS = "retry.attempt", "retry.attempts"


# pyramid_tm, or a test around the application, is going to end the transaction.
ACTIVE = "tm.active"


# Statuses from here on say that nothing is stored.
BAD = 400


OPEN = (
    "The transaction of this request was never ended, or a hook before its commit has failed, and "
    "what it has written is lost: use `with request.tm:` where pyramid_tm does not end it."
)


Policy = Callable[[dict[str, Any], Any], Any]


class Lifetime:
    """What ends with a request: its sessions, and the rows it streams."""

    def __init__(self, *, served: bool) -> None:
        # By a request that a server has sent, or a subrequest of it; a script makes others.
        self.served = served
        self.sessions: list[JoinedSession] = []
        self.streams: list[Generator[Any]] = []
        self.attempt = 0
        self.over = False

    def end(self) -> None:
        """End everything; when an end fails, the others come all the same, and it is raised."""
        self.over = True
        with ExitStack() as ends:
            while self.sessions:
                ends.callback(self.sessions.pop().end)
            while self.streams:
                ends.callback(self.streams.pop().close)

    def leave_shared(self, outer: "Lifetime | None") -> None:
        """Leave to *outer*, of the request around this one, the sessions in its transaction."""
        if outer is not None:
            outer.sessions += [each for each in self.sessions if each.data_manager is not None]
            self.sessions = [each for each in self.sessions if each.data_manager is None]

    def refuse_open_transaction(self) -> None:
        """Raise when a session is still in a transaction, of which nobody has decided."""
        if any(session.data_manager and session.works for session in self.sessions):
            raise OutsideTransactionError(OPEN)

    def begin_attempt(self, number: int) -> None:
        """End the sessions of the attempts before, of which one may still hold a connection."""
        if number > self.attempt:
            self.end()
            self.attempt, self.over = number, False

    def __del__(self) -> None:
        # Of a response that was never begun to be sent nobody closes the body.
        if not self.over:
            self.end()


# The one of the request that this thread is in, to which a subrequest leaves what they share.
_current: ContextVar[Lifetime | None] = ContextVar(LIFETIME, default=None)


def ending_policy(policy: Policy) -> Policy:
    """Return *policy*, an execution policy of Pyramid, followed by the end of its sessions."""

    def execution_policy(environ: dict[str, Any], router: Any) -> Any:
        outer = _current.get()
        # One application may call another with its own environ.
        keys = (LIFETIME, ATTEMPT, ATTEMPTS) if outer else ()
        before = {key: environ[key] for key in keys if key in environ}
        environ[LIFETIME] = lifetime = Lifetime(served=True)
        token = _current.set(lifetime)
        streamed = False
        try:
            response = policy(environ, router)
            if outer is None and ACTIVE not in environ and response.status_int < BAD:
                lifetime.refuse_open_transaction()
            streamed = _is_streamed(response)
            if streamed:
                _end_with_body(response, lifetime)
            return response
        finally:
            _current.reset(token)
            environ.update(before)
            lifetime.leave_shared(outer)
            if not streamed:
                lifetime.end()

    return execution_policy


def lifetime_of(request: Any) -> Lifetime:
    """Return what ends with *request*: by the policy, or by the closer of prepare().

    Raises :class:`OutsideTransactionError` when it has ended.
    """
    lifetime: Lifetime | None = request.environ.get(LIFETIME)
    if lifetime is None:
        lifetime = request.environ[LIFETIME] = Lifetime(served=_current.get() is not None)
        request.finished_callbacks.appendleft(partial(_finish, lifetime))
    if lifetime.over:
        raise OutsideTransactionError(SESSION_ENDED)
    return lifetime


def end_with_request(request: Any, session: JoinedSession) -> None:
    """Have *session* ended with *request*."""
    session.on_commit = _keep_what_is_stored
    lifetime = lifetime_of(request)
    lifetime.begin_attempt(request.environ.get(ATTEMPT, 0))
    lifetime.sessions.append(session)


def _finish(lifetime: Lifetime, request: Any) -> None:
    """Call the other finished callbacks, which may read and may raise, and end *lifetime*."""
    try:
        while request.finished_callbacks:
            request.finished_callbacks.popleft()(request)
    finally:
        lifetime.leave_shared(_current.get())
        lifetime.end()


def make_last_attempt(environ: dict[str, Any]) -> None:
    """Have pyramid_retry make no attempt after this one, whatever comes."""
    if ATTEMPT in environ:
        environ[ATTEMPTS] = environ[ATTEMPT] + 1


def _keep_what_is_stored() -> None:
    """Let no request that this thread is in be tried again: what it stored would be there twice.

    A subrequest with a transaction of its own commits inside another request.
    """
    for environ in environs_of_thread():
        make_last_attempt(environ)


def environs_of_thread() -> list[dict[str, Any]]:
    """Return the environ of each request that this thread is in: a subrequest is in another."""
    return [getattr(frame["request"], "environ", {}) for frame in manager.stack]


class EndingBody:
    """The body of a response, which ends what it reads from when the server closes it."""

    def __init__(self, body: Iterable[bytes], lifetime: Lifetime) -> None:
        self.body = body
        self.lifetime = lifetime

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def close(self) -> None:
        """End it; a WSGI server calls this also when the client has hung up."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.lifetime.end()


def _end_with_body(response: Any, lifetime: Lifetime) -> None:
    length = response.content_length
    response.app_iter = EndingBody(response.app_iter, lifetime)
    # WebOb takes the length for that of the body before.
    response.content_length = length


def _is_streamed(response: Any) -> bool:
    """Tell whether the body may read from a session while it is sent; a file does not."""
    body = getattr(response, "app_iter", None)
    return not isinstance(body, (list, tuple, type(None))) and not isinstance(
        response, FileResponse
    )
