"""Makes the sessions of one application: for requests, for jobs and for threads.

Callers of :class:`Sqa` do not need it, so it is not public. The application's
:class:`RegisteredApplication` has it as ``sessions``.
"""

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from types import MappingProxyType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy.engine import URL, Engine
from sqlalchemy.orm import Session

from ..engines import ReadOnly, known_listeners, make_engine
from ..exceptions import SettingError
from ..interfaces import TransactionManager
from ..sessions import (
    BindSession,
    JoinedSession,
    MultiBindSession,
    ReadOnlyMultiBindSession,
    ReadOnlySession,
    Routes,
    ScopedSession,
    SessionKeeper,
    unknown_bind,
    with_class,
)
from ..settings import DEFAULT_KEY, NO_DATABASE, Settings
from .reading import ReadingEngines
from .stats import Counters

S = TypeVar("S", bound=JoinedSession)
log = logging.getLogger(__name__)


class SessionFactory:
    """Makes the engines of one application, and the sessions that use them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Said here, because settings are also read to compare them with those of others.
        for key in settings.overruled:
            log.info(
                "sqlalchemy.%s in the application's section wins over [sqlalchemy] %s", key, key
            )
        self.counters = Counters()
        # Every engine by its bind key, in the order of COMMITs. The default one is ``default``.
        self.engines: Mapping[str, Engine] = MappingProxyType(make_engines(settings))
        self._routes = Routes(self.engines) if settings.binds else None
        self._session_options = dict(settings.session)
        # The application's own session class, from sqa.session.class_.
        session_class = self._session_options.pop("class_")
        if session_class is Session:
            # Each argument costs, so what SQLAlchemy does by itself is not asked for.
            usual = signature(Session).parameters
            self._session_options = {
                name: value
                for name, value in self._session_options.items()
                if value is not usual[name].default
            }
        self._class_of_sessions = session_class
        self._new_session = self._maker(MultiBindSession if self._routes else JoinedSession)
        self._new_bind_session = self._maker(BindSession)
        self.reading = ReadingEngines(settings, self.engines)
        if self._routes:
            add_reader = self._routes.add_reader
            self.reading.listeners.append(lambda _, reader, writer: add_reader(reader, writer))
        self._new_reading_session = self._maker(
            ReadOnlyMultiBindSession if self._routes else ReadOnlySession
        )
        self._lock = threading.Lock()
        self._scoped_sessions: dict[str | None, ScopedSession] = {}
        # Both sides are weak references, because a session keeps its transaction manager alive.
        self._sessions: WeakKeyDictionary[Any, weakref.ref[JoinedSession]] = WeakKeyDictionary()
        self.is_disposed = False
        # Called with the error before a job is tried again.
        self.retry_listeners: list[Callable[[Exception], object]] = []

    def engine_for(self, bind_key: str = DEFAULT_KEY) -> Engine:
        """Return the engine with the key *bind_key*.

        Raises :class:`BindError` for an unknown key; the message names the known keys. Raises
        :class:`SettingError` for ``default`` if no database is set.
        """
        engine = self.engines.get(bind_key)
        if engine is not None:
            return engine
        if bind_key == DEFAULT_KEY:
            raise SettingError(NO_DATABASE)
        raise unknown_bind(bind_key, self.engines)

    def find_session(self, tm: TransactionManager) -> JoinedSession | None:
        """Return the session of *tm*; None if there is none, or if it has ended."""
        if isinstance(tm, SessionKeeper):
            session = tm.session_of(self)
        else:
            reference = self._sessions.get(_manager_of_this_thread(tm))
            session = reference() if reference else None
        return None if session is None or session.ended else session

    def make_session(
        self, tm: TransactionManager, window: Callable[[], bool] | None = None
    ) -> JoinedSession:
        """Return a new session that joins the transactions of *tm*.

        It can write while *window* returns true. Without *window*, it can write while *tm* has a
        transaction.
        """
        if not isinstance(tm, SessionKeeper):
            tm = _manager_of_this_thread(tm)
        if self._routes is None:
            session = self._new_session(self.engine_for(), tm=tm, window=window)
        else:
            # This session is not bound to an engine: it asks the routes for each statement.
            session = self._new_session(
                tm=tm, window=window, routes=self._routes, follow=self._make_bind_session
            )
        if isinstance(tm, SessionKeeper):
            tm.keep(self, session)
        else:
            self._sessions[tm] = weakref.ref(session)
        return session

    def make_reading_session(
        self, tm: TransactionManager, refusal: ReadOnly, engine_of: Callable[[Engine], Engine]
    ) -> ReadOnlySession:
        """Return a new session for a read-only request, which joins no transaction of *tm*.

        A write is refused with what *refusal* says. *engine_of* returns the engine to read from in
        the place of one that writes.
        """
        options: dict[str, Any] = {"tm": tm, "refusal": refusal}
        if self._routes is None:
            return self._new_reading_session(engine_of(self.engine_for()), **options)
        options |= {"routes": self._routes, "follow": self._make_bind_session}
        return self._new_reading_session(reading=engine_of, **options)

    def bind_session(self, session: JoinedSession, bind_key: str) -> JoinedSession:
        """Return the session that uses only the database *bind_key*, in *session*'s transaction.

        Raises :class:`BindError` if there is no database with this key.
        """
        if isinstance(session, MultiBindSession):
            return session.on(bind_key)
        self.engine_for(bind_key)
        return session

    def scoped_session(self, bind_key: str | None = None) -> ScopedSession:
        """Return the object for ``Session(db_name, bind_key=...)``, the same one at each call."""
        with self._lock:
            found = self._scoped_sessions.get(bind_key)
            if found is None:
                engine = self.engine_for(DEFAULT_KEY if bind_key is None else bind_key)
                routes = self._routes if bind_key is None else None
                found = ScopedSession(engine, dict(self.settings.session), routes)
                self._scoped_sessions[bind_key] = found
        return found

    def dispose(self) -> None:
        """Close the connections of all engines that were made here. A ready Engine keeps its."""
        self.is_disposed = True
        for key, database in self.settings.databases.items():
            if not database.engine:
                self.engines[key].dispose()
        self.reading.dispose()

    def _make_bind_session(self, leader: MultiBindSession, bind_key: str) -> BindSession:
        return self._new_bind_session(
            leader=leader, bind_key=bind_key, tm=leader.tm, window=leader.window
        )

    def _maker(self, base: type[S]) -> Callable[..., S]:
        """Return what makes a session of *base* and of the application's own session class."""
        session_class = with_class(base, self._class_of_sessions)
        listeners = None
        if self.settings.sqa_options["shortcuts"]:
            listeners = known_listeners(session_class)
        return partial(session_class, listeners=listeners, **self._session_options)


def make_engines(settings: Settings) -> dict[str, Engine]:
    """Return an engine for each bind key. Databases with equal settings share one engine.

    Two engines on one SQLite file would have two connections in one request. Then the request
    would wait for a lock that it holds itself.
    """
    engines: dict[str, Engine] = {}
    # By URL: of a thousand databases, each is compared with those at the same URL alone.
    made: dict[URL, list[tuple[tuple[Any, ...], Engine]]] = {}
    for key, database in settings.databases.items():
        sqa_options = settings.options_for(key)
        others = made.setdefault(database.url, [])
        servers = sqa_options["hosts"], sqa_options["reader.url"]
        own = (database.options, database.engine, servers)
        same = [engine for other, engine in others if other == own]
        engines[key] = same[0] if same else make_engine(database, sqa_options)
        others.append((own, engines[key]))
    return engines


def _manager_of_this_thread(tm: TransactionManager) -> Any:
    """Return the current thread's manager if *tm* is a ThreadTransactionManager, else *tm*."""
    return getattr(tm, "manager", tm)
