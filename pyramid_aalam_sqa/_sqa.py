"""What one application has: its settings, its engine, its session class. Kept in its registry."""

import logging
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property
from secrets import token_bytes
from typing import Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from ._engines import make_engine
from ._ini import read_section
from ._protocols import HasRegistry, TransactionManager
from ._session import JoinedSession
from ._settings import UNSET, Settings, read_settings
from ._threads import ThreadSessions
from .exceptions import SettingError
from .queries import LookUpSession

log = logging.getLogger(__name__)

KEY = "pyramid_aalam_sqa"


class Sqa:
    """The engine and the sessions of one application; :func:`get_sqa` returns it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Made before a fork, so that the processes of one server understand each other.
        self._random_secret = token_bytes()
        self.database = database = settings.database
        self._engine = make_engine(database, settings.switches) if database else None
        self._options = dict(settings.session)
        self._session_class = _joined(self._options.pop("class_"))
        # Weak on both sides: a session holds its manager.
        self._sessions: WeakKeyDictionary[Any, weakref.ref[JoinedSession]] = WeakKeyDictionary()

    @cached_property
    def thread_sessions(self) -> ThreadSessions:
        """The sessions that ``Session(db_name)`` returns."""
        return ThreadSessions(self.engine, dict(self.settings.session))

    @cached_property
    def cursor_secret(self) -> bytes:
        """What the cursors of keyset pages are signed with."""
        given: str | None = self.settings.switches["cursor_secret"]
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

    def session(self, tm: TransactionManager) -> LookUpSession:
        """Return the session that lives in the transactions of *tm*, for tests and scripts.

        There is one for each manager, made at the first call, and the caller's to close. In a
        request use ``request.sqa_session``, which is closed.
        """
        return self.find_session(tm) or self.make_session(tm)

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
        session = self._session_class(self.engine, tm=tm, window=window, **self._options)
        self._sessions[tm] = weakref.ref(session)
        return session

    def dispose(self) -> None:
        """Close the connections made here; a ready Engine that was handed in keeps its own."""
        if self._engine is not None and self.database and not self.database.engine:
            self._engine.dispose()


def get_sqa(thing: HasRegistry) -> Sqa:
    """Return the :class:`Sqa` of the application that *thing* belongs to.

    *thing* is a request, a Configurator whose actions were committed, or a WSGI application.
    Raises :class:`SettingError` when the application did not include this package.
    """
    try:
        return cast("Sqa", thing.registry[KEY])
    except KeyError:
        msg = 'Call config.include("pyramid_aalam_sqa"), or list it in pyramid.includes, first.'
        raise SettingError(msg) from None


def engine_from_settings(settings: Mapping[str, object]) -> Engine:
    """Return an engine for the ``sqlalchemy.*`` and ``sqa.*`` keys in *settings*.

    It is made as an application's is, for Alembic's ``env.py`` and for scripts without an
    application, and is the caller's to dispose. The section ``[sqlalchemy]`` is understood when
    *settings* come from ``get_appsettings()``. Raises :class:`SettingError` as start-up does.
    """
    return Sqa(read_settings(settings, read_section(settings))).engine


def _own(tm: TransactionManager) -> Any:
    """Return the manager of this thread behind a manager that all threads share."""
    return getattr(tm, "manager", tm)


def _joined(session_class: type[Session]) -> type[JoinedSession]:
    if session_class is Session:
        return JoinedSession
    bases = (JoinedSession, session_class)
    return cast("type[JoinedSession]", type(session_class.__name__, bases, {}))
