"""Read-only requests: the route predicate and the view option ``sqa_read_only``.

The option of a route holds for the whole request, also for what comes before the view: a root
factory, a security policy. The option of a view holds while the view and its renderer run.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..applications import APPLICATION_KEY, application_of
from ..engines import ReadOnly
from ..exceptions import ReadOnlyRequestError, SettingError
from ..sessions import ReadOnlySession, refusing_writes
from .lifetime import end_with_request

OPTION = "sqa_read_only"
SNAPSHOT = "snapshot"
# In the __dict__ of a request: the Reading that holds now.
READING = "sqa_reading"
# The properties of a request that hold its sessions once they are made.
SESSIONS = ("sqa_session", "sqa_sessions")

TOO_LATE = (
    "{} asks for a snapshot, and the session of this request was used before: give the option "
    "sqa_read_only to the route instead."
)


@dataclass(slots=True)
class Reading:
    """What is read-only now, a request or a view, and its session once it is made."""

    refusal: ReadOnly
    session: ReadOnlySession | None = None


class ReadOnlyPredicate:
    """The predicate of a route, which always fits: ``add_route(..., sqa_read_only=True)``."""

    def __init__(self, value: object, info: Any) -> None:
        self.value = _checked(value)
        if value:
            info.registry[APPLICATION_KEY].has_read_only = True

    def text(self) -> str:
        """Return how the predicate is shown."""
        return f"{OPTION} = {self.value!r}"

    phash = text

    def __call__(self, _info: object, _request: object) -> bool:
        """Fit each request."""
        return True


def read_only_deriver(view: Any, info: Any) -> Any:
    """Give views the option ``sqa_read_only``: True, or ``snapshot``."""
    value = _checked(info.options.get(OPTION, False))
    if not value:
        return view
    info.registry[APPLICATION_KEY].has_read_only = True
    original = info.original_view
    name = f"{original.__module__}.{getattr(original, '__qualname__', type(original).__name__)}"

    def read_only_view(context: Any, request: Any) -> Any:
        with _reading_in_view(request, f"the view {name}", value):
            return view(context, request)

    return read_only_view


read_only_deriver.options = (OPTION,)  # type: ignore[attr-defined]  # Pyramid's way to say it


def reading_of(request: Any) -> Reading | None:
    """Return what is read-only in *request* now; None if it may write."""
    found: Reading | None = request.__dict__.get(READING)
    route = getattr(request, "matched_route", None)
    if found is not None or route is None:
        return found
    for predicate in route.predicates:
        if isinstance(predicate, ReadOnlyPredicate) and predicate.value:
            who = f"{request.method} {route.pattern} (route {route.name})"
            found = request.__dict__[READING] = Reading(_refusal(who, predicate.value))
    return found


def reading_session(request: Any, reading: Reading) -> ReadOnlySession:
    """Return the session of *reading*, made at the first call."""
    if reading.session is None:
        sessions = application_of(request).sessions
        reading.session = sessions.make_reading_session(request.tm, reading.refusal)
        end_with_request(request, reading.session)
    return reading.session


def refuse_changes(request: Any) -> None:
    """Raise :class:`ReadOnlyRequestError` if objects of the read-only session were changed."""
    session = request.__dict__[READING].session
    if session is not None and session.has_lost_write:
        error = session.late_write()
        # Told once: the end of the session would raise it again.
        session.rollback()
        raise error


def forget_changes(request: Any) -> None:
    """Undo what a view that has failed did to the objects of the read-only session."""
    session = request.__dict__[READING].session
    if session is not None:
        session.rollback()


@contextmanager
def _reading_in_view(request: Any, who: str, value: object) -> Generator[None, None, None]:
    """Let *request* be read-only within the block, unless its route says so already."""
    if reading_of(request) is not None:
        yield
        return
    refusal = _refusal(who, value)
    used = application_of(request).sessions.find_session(request.tm)
    if used is not None:
        if refusal.snapshot:
            raise ReadOnlyRequestError(TOO_LATE.format(who))
        with refusing_writes(used, refusal):
            yield
        return
    reading = request.__dict__[READING] = Reading(refusal)
    try:
        yield
        refuse_changes(request)
    except BaseException:
        forget_changes(request)
        raise
    finally:
        del request.__dict__[READING]
        for name in SESSIONS:
            request.__dict__.pop(name, None)
        if reading.session is not None:
            reading.session.give_back()


def _refusal(who: str, value: object) -> ReadOnly:
    return ReadOnly(who, snapshot=value == SNAPSHOT)


def _checked(value: object) -> object:
    if value not in {True, False, SNAPSHOT}:
        msg = f"{OPTION} = {value!r}: write True, False or {SNAPSHOT!r}."
        raise SettingError(msg)
    return value
