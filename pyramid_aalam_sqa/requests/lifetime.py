"""Ends a request's sessions and streams, whatever the request does.

The execution policy is the only place around everything that a request does: its tweens, callbacks
that raise, subscribers, and each attempt of a retry. The body of a response that is streamed ends
even later than the policy.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

from pyramid.response import FileResponse
from pyramid.threadlocal import manager
from sqlalchemy.engine import Engine

from ..engines import Attempt, Outcome, WatchedTransaction, current_attempt
from ..exceptions import SESSION_ENDED, OutsideTransactionError
from ..interfaces import TransactionManager
from ..sessions import JoinedSession, ReadOnlySession
from .addresses import path_of

log = logging.getLogger(__name__)

# The environ key of a request's Lifetime.
LIFETIME = "sqa.lifetime"

# The environ keys in which pyramid_retry counts. It deletes them at the end of the innermost
# application.
ATTEMPT, ATTEMPTS = "retry.attempt", "retry.attempts"

# The environ key with which pyramid_tm, or a test around the application, says that it ends the
# transaction.
ACTIVE = "tm.active"

# The environ key of the manager with a transaction for an exception view, None before it has one.
BEGUN = "sqa.begun"

# A response with this status or a higher one says that nothing is stored. It is compared as text:
# WebOb takes the number out of it each time.
FIRST_ERROR_STATUS = "400"

# Python 3.11 takes long to find a member in its Enum.
STORED = Outcome.STORED

# The types of a body that does not read from a session while it is sent.
COMPLETE = (list, tuple, type(None))

NEVER_ENDED = (
    "The transaction of this request was never ended, or a hook before its commit has failed, and "
    "what it has written is lost: use `with request.tm:` where pyramid_tm does not end it."
)

Policy = Callable[[dict[str, Any], Any], Any]


class Lifetime(Attempt):
    """The sessions and streams that end with one request, and what became of its transaction."""

    # The engines that it has written on, of those whose databases have replicas.
    written: frozenset[Engine] = frozenset()
    sessions: tuple[JoinedSession, ...] = ()
    streams: tuple[Generator[Any], ...] = ()

    def __init__(self, *, from_server: bool) -> None:
        # True for a request that a server has sent, and for its subrequests; false for a request
        # that a script has made.
        self.from_server = from_server
        self.attempt = 0
        self.ended = False
        # Whether the transaction that the status decides on was committed.
        self.is_stored = False

    @property
    def note(self) -> str:
        """The path of the request."""
        environs = environs_of_thread()
        return path_of(environs[-1]) if environs else super().note

    @property
    def has_another(self) -> bool:
        """Whether pyramid_retry makes another attempt when this one fails now."""
        for environ in reversed(environs_of_thread()):
            # A subrequest has no attempts of its own.
            if ATTEMPT in environ:
                return bool(environ[ATTEMPT] + 1 < environ[ATTEMPTS])
        return False

    def note_commit(self, transaction: WatchedTransaction) -> None:
        """Make this attempt the last one: another attempt would store something twice."""
        environs = environs_of_thread()
        for environ in environs:
            make_last_attempt(environ)
        if transaction.outcome is STORED and self.sessions:
            # pyramid_tm removes its mark before it commits.
            final = not environs or ACTIVE not in environs[-1]
            if final and transaction.session in self.sessions:
                self.is_stored = True
        super().note_commit(transaction)

    def end(self) -> None:
        """End all sessions and streams. If ending one raises, end the others too, then raise."""
        self.ended = True
        sessions, streams = self.sessions, self.streams
        self.sessions = self.streams = ()
        if len(sessions) == 1 and not streams:
            sessions[0].end()
        elif sessions or streams:
            with ExitStack() as ends:
                for session in reversed(sessions):
                    ends.callback(session.end)
                for stream in reversed(streams):
                    ends.callback(stream.close)

    def hand_over_shared(self, outer: "Lifetime | None") -> None:
        """Give the sessions in a shared transaction to *outer*, of the request around this one."""
        if outer is not None:
            outer.sessions += tuple(each for each in self.sessions if each.data_manager is not None)
            self.sessions = tuple(each for each in self.sessions if each.data_manager is None)

    def refuse_open_transaction(self, response: Any) -> None:
        """Raise if *response* is a success, and a session's transaction was never ended."""
        for session in self.sessions:
            never_ended = session.data_manager and session.transactions
            if never_ended and response.status < FIRST_ERROR_STATUS:
                raise OutsideTransactionError(NEVER_ENDED)

    def begin_attempt(self, number: int) -> None:
        """End the sessions of earlier attempts: one of them may still hold a connection."""
        if number > self.attempt:
            self.end()
            self.attempt, self.ended = number, False


class UnwatchedLifetime(Lifetime):
    """That of a request around which there is no execution policy, such as a subrequest.

    It ends when it is collected, at the latest: the body of a subrequest's response may use its
    session first after all callbacks.
    """

    def __del__(self) -> None:
        if not self.ended:
            self.end()


def _current_lifetime() -> Lifetime | None:
    """Return the Lifetime of the request that this thread serves, if there is one."""
    return _lifetime_among(current_attempt())


def _lifetime_among(attempt: Attempt | None) -> Lifetime | None:
    """Return the innermost Lifetime of *attempt* and those around it."""
    while attempt is not None and not isinstance(attempt, Lifetime):
        attempt = attempt.outer
    return attempt


def ending_policy(policy: Policy) -> Policy:
    """Return an execution policy that calls *policy*, and then ends the request's sessions."""

    def execution_policy(environ: dict[str, Any], router: Any) -> Any:
        with Lifetime(from_server=True) as lifetime:
            outer = None if lifetime.outer is None else _lifetime_among(lifetime.outer)
            # An application may call another one with its own environ.
            keys = (LIFETIME, ATTEMPT, ATTEMPTS) if outer else ()
            before = [(key, environ[key]) for key in keys if key in environ] if outer else ()
            environ[LIFETIME] = lifetime
            streamed = False
            try:
                response = policy(environ, router)
                if lifetime.is_stored:
                    _watch_answer(response, environ)
                if lifetime.sessions and outer is None and ACTIVE not in environ:
                    lifetime.refuse_open_transaction(response)
                if _is_streamed(response):
                    _end_with_body(response, lifetime)
                    streamed = True
            except BaseException as error:
                if lifetime.is_stored:
                    _log_stored(environ, type(error).__name__)
                raise
            else:
                return response
            finally:
                if outer:
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
        lifetime = UnwatchedLifetime(from_server=_current_lifetime() is not None)
        request.environ[LIFETIME] = lifetime
        request.finished_callbacks.appendleft(partial(_end_after_callbacks, lifetime))
    if lifetime.ended:
        raise OutsideTransactionError(SESSION_ENDED)
    return lifetime


def end_with_request(request: Any, session: JoinedSession) -> None:
    """Add *session* to the sessions that end with *request*."""
    lifetime = lifetime_of(request)
    session.begin_transaction = begin_for_exception_view
    lifetime.begin_attempt(request.environ.get(ATTEMPT, 0))
    lifetime.sessions += (session,)


def begin_for_exception_view(tm: TransactionManager) -> bool:
    """Begin a transaction of *tm* for an exception view; return whether that was possible.

    It is for the view of an error that came out of COMMIT. pyramid_tm has ended the request's
    transaction then, and begins no other one. Our tween above it ends this one.
    """
    environs = environs_of_thread()
    environ: dict[str, Any] = environs[-1] if environs else {}
    # Absent outside our tween, and a manager when it has begun one before.
    if ACTIVE in environ or environ.get(BEGUN, tm) is not None:
        return False
    failed = tm.get()
    user, description = failed.user, failed.description
    tm.abort()
    new = tm.begin()
    new.user, new.description = user, description
    environ[BEGUN] = tm
    return True


def _end_after_callbacks(lifetime: Lifetime, request: Any) -> None:
    """Call the other finished callbacks, which may read and may raise, then end *lifetime*."""
    try:
        while request.finished_callbacks:
            request.finished_callbacks.popleft()(request)
    finally:
        lifetime.hand_over_shared(_current_lifetime())
        lifetime.end()


def make_last_attempt(environ: dict[str, Any]) -> None:
    """Make this attempt the last one, whatever error comes."""
    if ATTEMPT in environ:
        environ[ATTEMPTS] = environ[ATTEMPT] + 1


def _watch_answer(response: Any, environ: dict[str, Any]) -> None:
    """Log an error if *response* denies what is stored, and remove its Retry-After."""
    if response.status >= FIRST_ERROR_STATUS:
        response.headers.pop("Retry-After", None)
        _log_stored(environ, response.status)
    elif getattr(response, "conditional_response", False):
        # WebOb answers 416 when the Range of the request is outside the body.
        response.__class__ = _watched_class(response.__class__)


@cache
def _watched_class(response_class: type) -> type:
    """Return *response_class*, with a look at the status that is sent in the end."""

    class WatchedResponse(response_class):  # type: ignore[misc]  # WebOb has no types
        def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
            def start(status: str, *arguments: Any) -> Any:
                if status >= FIRST_ERROR_STATUS:
                    _log_stored(environ, status)
                return start_response(status, *arguments)

            return super().__call__(environ, start)

    return WatchedResponse


def _log_stored(environ: dict[str, Any], answer: str) -> None:
    log.error(
        "%s %s: the transaction is stored, but something after its commit has changed the answer: "
        "%s",
        environ["REQUEST_METHOD"],
        path_of(environ),
        answer,
    )


def environs_of_thread() -> list[dict[str, Any]]:
    """Return the environ of each request that this thread serves; a subrequest is in another."""
    return [getattr(frame["request"], "environ", {}) for frame in manager.stack]


class EndingBody:
    """The body of a response. When the server closes it, the request's sessions and streams end.

    They end when it is collected, too: the server closes the body only of a response that it has
    begun to send.
    """

    def __init__(self, body: Iterable[bytes], lifetime: Lifetime) -> None:
        self.body = body
        self.lifetime = lifetime

    def __iter__(self) -> Iterator[bytes]:
        # The iterator holds this object: middleware may keep nothing else of it.
        yield from self.body

    def close(self) -> None:
        """Close the body, then end the Lifetime. A WSGI server calls this after a hang-up too."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.lifetime.end()

    def __del__(self) -> None:
        if not self.lifetime.ended:
            self.lifetime.end()


def _end_with_body(response: Any, lifetime: Lifetime) -> None:
    for session in lifetime.sessions:
        if isinstance(session, ReadOnlySession):
            # As a COMMIT gives back those of other requests.
            session.give_back()
    length = response.content_length
    response.app_iter = EndingBody(response.app_iter, lifetime)
    # WebOb removes the length when app_iter is set.
    response.content_length = length


def _is_streamed(response: Any) -> bool:
    """Tell whether the body may read from a session while it is sent; a file does not."""
    body = getattr(response, "app_iter", None)
    return not (isinstance(body, COMPLETE) or isinstance(response, FileResponse))
