"""What one application has: its settings, engines, session classes. Kept in its registry."""

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property
from secrets import token_bytes
from types import MappingProxyType
from typing import Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy.engine import Engine

from ..engines import make_engine
from ..exceptions import SettingError
from ..interfaces import HasRegistry, TransactionManager
from ..queries import SqaSession
from ..sessions import (
    BindSession,
    JoinedSession,
    MultiBindSession,
    Routes,
    ScopedSession,
    unknown_bind,
    with_class,
)
from ..settings import (
    DEFAULT,
    UNSET,
    Database,
    Settings,
    read_section,
    read_settings,
    sqa_options_of,
)

log = logging.getLogger(__name__)


REGISTRY_KEY = "pyramid_aalam_sqa"


_lock = threading.Lock()


class Sqa:
    """The engines and the sessions of one application; :func:`get_sqa` returns it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Made before a fork, so that the processes of one server understand each other.
        self._random_secret = token_bytes()
        self.database = settings.database
        # Every engine under its key, the default one as ``default``, in the order of COMMITs.
        self.engines: Mapping[str, Engine] = MappingProxyType(_make_engines(settings))
        self._engine = self.engines.get(DEFAULT)
        self.routes = Routes(self.engines) if settings.binds else None
        self._options = dict(settings.session)
        session_class = self._options.pop("class_")
        leading = MultiBindSession if self.routes else JoinedSession
        self._session_class = with_class(leading, session_class)
        self._following_class = with_class(BindSession, session_class)
        self._thread_sessions: dict[str | None, ScopedSession] = {}
        # Weak on both sides: a session holds its manager.
        self._sessions: WeakKeyDictionary[Any, weakref.ref[JoinedSession]] = WeakKeyDictionary()

    def thread_sessions(self, bind_key: str | None = None) -> ScopedSession:
        """Return what ``Session(db_name, bind_key=...)`` returns, the same at each call."""
        with _lock:
            found = self._thread_sessions.get(bind_key)
            if found is None:
                engine = self.engine if bind_key is None else self.engine_for(bind_key)
                routes = self.routes if bind_key is None else None
                found = ScopedSession(engine, dict(self.settings.session), routes)
                self._thread_sessions[bind_key] = found
        return found

    @cached_property
    def cursor_secret(self) -> bytes:
        """What the cursors of keyset pages are signed with."""
        given: str | None = self.settings.sqa_options["cursor_secret"]
        if given is not None:
            return given.encode()
        log.warning(
            "sqa.cursor_secret is not set, so that addresses of keyset pages lead nowhere in "
            "another process and after a restart: write a secret into the ini file."
        )
        return self._random_secret

    @property
    def engine(self) -> Engine:
        """The application's engine. :class:`SettingError` when no database is set."""
        if self._engine is None:
            raise SettingError(UNSET)
        return self._engine

    def engine_for(self, bind_key: str) -> Engine:
        """Return the engine called *bind_key*; ``default`` is the application's own.

        Raises :class:`BindError`, which names those there are, when there is none.
        """
        if bind_key == DEFAULT:
            return self.engine
        try:
            return self.engines[bind_key]
        except KeyError:
            raise unknown_bind(bind_key, self.engines) from None

    def session(self, tm: TransactionManager, *, bind_key: str | None = None) -> SqaSession:
        """Return the session that lives in the transactions of *tm*, for tests and scripts.

        There is one for each manager, made at the first call, and the caller's to close. In a
        request use ``request.sqa_session``, which is closed. With *bind_key* it is the one wholly
        on that database, which ends with the other.
        """
        session = self.find_session(tm) or self.make_session(tm)
        return session if bind_key is None else self.session_on(session, bind_key)

    def session_on(self, session: JoinedSession, bind_key: str) -> JoinedSession:
        """Return the session wholly on the database *bind_key* in the transaction of *session*.

        Raises :class:`BindError` when there is no such database.
        """
        if isinstance(session, MultiBindSession):
            return session.on(bind_key)
        self.engine_for(bind_key)
        return session

    def find_session(self, tm: TransactionManager) -> JoinedSession | None:
        """Return the session of *tm* if there is one that has not ended."""
        reference = self._sessions.get(_own(tm))
        session = reference() if reference else None
        return None if session is None or session.ended else session

    def make_session(
        self, tm: TransactionManager, window: Callable[[], bool] | None = None
    ) -> JoinedSession:
        """Make the session of *tm*, which can write while *window* says so."""
        tm = _own(tm)
        # No engine: the session of several databases asks its routes.
        own = {"routes": self.routes, "follow": self._follow} if self.routes else {}
        bind = None if self.routes else self.engine
        session = self._session_class(bind, tm=tm, window=window, **own, **self._options)
        self._sessions[tm] = weakref.ref(session)
        return session

    def _follow(self, leader: MultiBindSession, bind_key: str) -> BindSession:
        options = {**self._options, "tm": leader.tm, "window": leader.window}
        return self._following_class(leader=leader, bind_key=bind_key, **options)

    def dispose(self) -> None:
        """Close the connections made here; a ready Engine that was handed in keeps its own."""
        for key, database in self.settings.databases.items():
            if not database.engine:
                self.engines[key].dispose()


def get_sqa(thing: HasRegistry) -> Sqa:
    """Return the :class:`Sqa` of the application that *thing* belongs to.

    *thing* is a request, a Configurator whose actions were committed, or a WSGI application.
    Raises :class:`SettingError` when the application did not include this package.
    """
    try:
        return cast("Sqa", thing.registry[REGISTRY_KEY])
    except KeyError:
        msg = 'Call config.include("pyramid_aalam_sqa"), or list it in pyramid.includes, first.'
        raise SettingError(msg) from None


def engine_from_settings(settings: Mapping[str, object], *, bind_key: str | None = None) -> Engine:
    """Return an engine for the ``sqlalchemy.*`` and ``sqa.*`` keys in *settings*.

    It is made as an application's is, for Alembic's ``env.py`` and for scripts without an
    application, and is the caller's to dispose. With *bind_key* it is the engine of that bind. The
    section ``[sqlalchemy]`` is understood when *settings* come from ``get_appsettings()``. Raises
    :class:`SettingError` as start-up does.
    """
    sqa = Sqa(read_settings(settings, read_section(settings)))
    return sqa.engine if bind_key is None else sqa.engine_for(bind_key)


def _own(tm: TransactionManager) -> Any:
    """Return the manager of this thread behind a manager that all threads share."""
    return getattr(tm, "manager", tm)


def _make_engines(settings: Settings) -> dict[str, Engine]:
    """Return an engine for each key; two that are told the same share one.

    With two engines on one file of SQLite a request would wait for itself.
    """
    engines: dict[str, Engine] = {}
    made: list[tuple[Database, Engine]] = []
    for key, database in settings.databases.items():
        same = [
            engine
            for other, engine in made
            if (other.url, other.options, other.engine)
            == (database.url, database.options, database.engine)
        ]
        engines[key] = same[0] if same else make_engine(database, sqa_options_of(key, settings))
        made.append((database, engines[key]))
    return engines
