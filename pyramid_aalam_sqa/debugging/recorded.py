"""The block that records: ``with recorded(app) as statements:``."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, scoped_session

from ..applications import Sqa, get_sqa
from ..interfaces import HasRegistry
from .lazy_loads import mark_lazy_loads
from .recording import Recorder
from .statements import Statements
from .tap import Tap, add_tap, tap_of, taps_of

Recordable = HasRegistry | Session | scoped_session[Any] | Engine | Sqa


@contextmanager
def recorded(thing: Recordable, *, n_plus_one: str = "off") -> Generator[Statements, None, None]:
    """Record what is asked of the databases of *thing* inside a ``with`` block.

    *thing* is an application (a WSGI application, a request, a Configurator, what
    :func:`get_sqa` returns), an engine or a session. Of an application and of an engine the
    statements of all threads are recorded; of a session those of this thread on the session's
    databases. The block gets :class:`Statements`, which can be read in the block and after it.
    *n_plus_one* is ``off``, ``log`` or ``raise``, as the setting ``sqa.n_plus_one``.

    A rollback in a request says "rolled back" here, not which status the response had:
    ``request.sqa_statements`` knows that.
    """
    databases, thread = _databases_of(thing)
    recorder = Recorder(databases, thread=thread, mode=n_plus_one)
    mark_lazy_loads()

    def listen(tap: Tap) -> None:
        tap.recorders = (*tap.recorders, recorder)

    def listen_to_new(name: str, engine: Engine, _writer: Engine) -> None:
        listen(add_tap(databases, name, engine))

    for tap in databases:
        listen(tap)
    # An engine for read-only requests may be made in the block.
    made = _listeners_of(thing)
    made.append(listen_to_new)
    try:
        yield recorder.statements
    finally:
        made.remove(listen_to_new)
        for tap in list(databases):
            tap.recorders = tuple(each for each in tap.recorders if each is not recorder)
        recorder.finish("")


def _databases_of(thing: Any) -> tuple[dict[Tap, str], int | None]:
    """Return the taps of the databases of *thing*, and the thread if only one is meant."""
    if isinstance(thing, (Session, scoped_session)):
        routes = getattr(thing, "routes", None)
        engines = dict(routes.engines) if routes else {"default": thing.get_bind().engine}
        found: dict[Tap, str] = {}
        for key, engine in engines.items():
            found.setdefault(tap_of(engine), key)
        return found, threading.get_ident()
    if isinstance(thing, Engine):
        return {tap_of(thing): "default"}, None
    return taps_of(_sqa_of(thing)), None


def _listeners_of(thing: Any) -> list[Any]:
    """Return the list of those who are told of new engines; of one engine there are none."""
    if isinstance(thing, (Session, scoped_session, Engine)):
        return []
    return _sqa_of(thing).reading.listeners


def _sqa_of(thing: Any) -> Sqa:
    return thing if isinstance(thing, Sqa) else get_sqa(thing)
