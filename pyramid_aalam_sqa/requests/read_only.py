"""Read-only requests: the route predicate and the view option ``sqa_read_only``.

The option of a route holds for the whole request, also for what comes before the view: a root
factory, a security policy. The option of a view holds while the view and its renderer run.
"""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from pyramid_retry import mark_error_retryable
from sqlalchemy.engine import Engine

from ..applications import (
    APPLICATION_KEY,
    ReadingEngines,
    RegisteredApplication,
    application_of,
)
from ..backends import masked
from ..engines import ReadOnly
from ..exceptions import ReadOnlyRequestError, SettingError
from ..sessions import ReadOnlySession, refusing_writes
from .addresses import path_of
from .lifetime import end_with_request
from .positions import read_positions

log = logging.getLogger(__name__)

OPTION = "sqa_read_only"
SNAPSHOT = "snapshot"
# In the __dict__ of a request: the Reading that holds now.
READING = "sqa_reading"
# In the environ of a request that is made again because it writes, for all its attempts.
WRITES = "sqa.writes"
# The properties of a request that hold its sessions once they are made.
SESSIONS = ("sqa_session", "sqa_sessions")

TOO_LATE = (
    "{} asks for a snapshot, and the session of this request was used before: give the option "
    "sqa_read_only to the route instead."
)


class Reading:
    """What is read-only now, a request or a view: its session, and where it reads."""

    def __init__(self, application: RegisteredApplication, request: Any, refusal: ReadOnly) -> None:
        self.refusal = refusal
        self.session: ReadOnlySession | None = None
        self.sessions = application.sessions
        self._engines: ReadingEngines = self.sessions.reading
        # What the client has written last; it is read where there are replicas.
        self._replicated = bool(self._engines.replicated)
        self._positions = read_positions(application, request) if self._replicated else {}
        # Each database is read from one server, whatever happens to it.
        self._chosen: dict[Engine, Engine] = {}

    def engine_of(self, engine: Engine) -> Engine:
        """Return the engine that is read from in the place of *engine*, the same at each call."""
        found = self._chosen.get(engine)
        if found is None:
            found = self._chosen[engine] = self._engines.choose(engine, self._positions)
            if self._replicated:
                log.debug("%s reads from %s", self.refusal.who, masked(found.url))
        return found


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
        return _writing_view(view) if OPTION in info.options else view
    info.registry[APPLICATION_KEY].has_read_only = True
    original = info.original_view
    name = f"{original.__module__}.{getattr(original, '__qualname__', type(original).__name__)}"

    def read_only_view(context: Any, request: Any) -> Any:
        with _reading_in_view(request, f"the view {name}", value):
            return view(context, request)

    return read_only_view


def _writing_view(view: Any) -> Any:
    """Return *view*, which may write although the method of the request says otherwise."""

    def writing_view(context: Any, request: Any) -> Any:
        reading = request.__dict__.get(READING)
        if reading is None or (reading.refusal.by_method and reading.session is None):
            request.__dict__.pop(READING, None)
            request.environ[WRITES] = True
        return view(context, request)

    return writing_view


read_only_deriver.options = (OPTION,)  # type: ignore[attr-defined]  # Pyramid's way to say it


def reading_of(application: RegisteredApplication, request: Any) -> Reading | None:
    """Return what is read-only in *request* of *application* now; None if it may write."""
    found: Reading | None = request.__dict__.get(READING)
    if found is not None:
        return found
    route = getattr(request, "matched_route", None)
    value = _value_of(route)
    by_method = value is None and _is_read_by_method(application, request)
    if not (value or by_method):
        return None
    where = f"{route.pattern} (route {route.name})" if route else path_of(request.environ)
    who = f"{request.method} {where}"
    refusal = ReadOnly(who, snapshot=value == SNAPSHOT, by_method=by_method)
    reading = request.__dict__[READING] = Reading(application, request, refusal)
    return reading


def _is_read_by_method(application: RegisteredApplication, request: Any) -> bool:
    """Tell whether ``sqa.reader.methods`` makes *request* read-only, unless it has written."""
    methods = application.sessions.settings.sqa_options["reader.methods"] or ()
    return request.method in methods and WRITES not in request.environ


def _value_of(route: Any) -> object:
    """Return the option of *route*; None if it has none."""
    for predicate in route.predicates if route is not None else ():
        if isinstance(predicate, ReadOnlyPredicate):
            return predicate.value
    return None


def reading_session(request: Any, reading: Reading) -> ReadOnlySession:
    """Return the session of *reading*, made at the first call."""
    if reading.session is None:
        make, refusal = reading.sessions.make_reading_session, reading.refusal
        reading.session = make(request.tm, refusal, reading.engine_of)
        end_with_request(request, reading.session)
    return reading.session


def refuse_changes(request: Any) -> None:
    """Raise :class:`ReadOnlyRequestError` if objects of the read-only session were changed.

    Where only the method says that the request reads, raise it for any write, also for one whose
    error the view has caught: the request is made again.
    """
    reading = request.__dict__[READING]
    session, refusal = reading.session, reading.refusal
    if session is not None and session.has_lost_write:
        error = session.late_write()
        # Told once: the end of the session would raise it again.
        session.rollback()
        if not refusal.by_method:
            raise error
    if refusal.by_method and refusal.refused is not None:
        raise _made_again(request, refusal)


def forget_changes(request: Any) -> None:
    """Undo what a view that has failed did to the objects of the read-only session.

    Raises as :func:`refuse_changes` does where only the method says that the request reads.
    """
    reading = request.__dict__[READING]
    if reading.session is not None:
        reading.session.rollback()
    if reading.refusal.by_method and reading.refusal.refused is not None:
        raise _made_again(request, reading.refusal)


def _made_again(request: Any, refusal: ReadOnly) -> Exception:
    """Return the error of *refusal*, after which the request is made again, and may write."""
    error = cast("Exception", refusal.refused)
    if WRITES not in request.environ:
        request.environ[WRITES] = True
        mark_error_retryable(error)
        log.warning("sqa.reader.methods: it is made again, because it writes: %s", error)
    return error


@contextmanager
def _reading_in_view(request: Any, who: str, value: object) -> Generator[None, None, None]:
    """Let *request* be read-only within the block, as the view *who* says, unless it is so already.

    Raises :class:`ReadOnlyRequestError` if it is to have a snapshot, and has read without one.
    """
    refusal = ReadOnly(who, snapshot=value == SNAPSHOT)
    application = application_of(request)
    found = reading_of(application, request)
    too_late = ReadOnlyRequestError(TOO_LATE.format(who))
    if found is not None:
        needs_snapshot = refusal.snapshot and not found.refusal.snapshot
        if found.session is not None and needs_snapshot:
            raise too_late
        if found.session is not None or not (needs_snapshot or found.refusal.by_method):
            yield
            return
    # A request that is read-only already has not used any other session.
    used = application.sessions.find_session(request.tm) if found is None else None
    if used is not None:
        if refusal.snapshot:
            raise too_late
        with refusing_writes(used, refusal):
            yield
        return
    reading = request.__dict__[READING] = Reading(application, request, refusal)
    try:
        yield
        refuse_changes(request)
    except BaseException:
        forget_changes(request)
        raise
    finally:
        del request.__dict__[READING]
        if found is not None:
            request.__dict__[READING] = found
        for name in SESSIONS:
            request.__dict__.pop(name, None)
        if reading.session is not None:
            reading.session.give_back()


def _checked(value: object) -> object:
    if value not in (True, False, SNAPSHOT):
        msg = f"{OPTION} = {value!r}: write True, False or {SNAPSHOT!r}."
        raise SettingError(msg)
    return value
