"""What callers see of one application: its settings and engines, and a session for scripts."""

from collections.abc import Mapping
from typing import cast

from sqlalchemy import MetaData
from sqlalchemy.engine import Engine

from ..exceptions import SettingError
from ..interfaces import HasRegistry, TransactionManager
from ..queries import SqaSession
from ..settings import DEFAULT_KEY, Settings, read_section, read_settings
from .session_factory import SessionFactory
from .stats import Counters, Stats

# Where an application's registry keeps its Sqa.
REGISTRY_KEY = "pyramid_aalam_sqa"


class Sqa:
    """The engines and the sessions of one application; :func:`get_sqa` returns it.

    ``settings`` are the settings as they were read. ``engines`` has every engine by its bind key,
    the application's own as ``default``, in the order of their COMMITs. ``bases`` has each MetaData
    that ``init_engine()`` was called with.
    """

    def __init__(self, sessions: SessionFactory) -> None:
        self._sessions = sessions
        self.counters: Counters = sessions.counters
        self.settings: Settings = sessions.settings
        self.engines: Mapping[str, Engine] = sessions.engines
        self.bases: list[MetaData] = []

    @property
    def engine(self) -> Engine:
        """The application's engine. Raises :class:`SettingError` when no database is set."""
        return self._sessions.engine_for()

    def engine_for(self, bind_key: str) -> Engine:
        """Return the engine called *bind_key*; ``default`` is the application's own.

        Raises :class:`BindError`, which names the known keys, for an unknown key.
        """
        return self._sessions.engine_for(bind_key)

    def session(self, tm: TransactionManager, *, bind_key: str | None = None) -> SqaSession:
        """Return the session that lives in the transactions of *tm*, for tests and scripts.

        Each manager has one session. It is made at the first call, and the caller closes it. In a
        request use ``request.sqa_session``, which is closed for you. With *bind_key* it is the
        session that uses only that database; it ends together with the other one.
        """
        session = self._sessions.find_session(tm) or self._sessions.make_session(tm)
        return session if bind_key is None else self._sessions.bind_session(session, bind_key)

    def stats(self) -> Stats:
        """Return the numbers of this application in this process: its pools, ends and retries.

        What has to be counted on each request is there when ``sqa.stats`` is on.
        """
        return self.counters.read(self.engines)

    def dispose(self) -> None:
        """Close the connections of this application's engines.

        A ready Engine that was handed in as a setting keeps its connections.
        """
        self._sessions.dispose()


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

    It is made as an application's engine is, for Alembic's ``env.py`` and for scripts without an
    application. The caller disposes it. With *bind_key* it is the engine of that bind. The section
    ``[sqlalchemy]`` is read too when *settings* come from ``get_appsettings()``. Raises
    :class:`SettingError` as start-up does, and :class:`BindError` for an unknown *bind_key*.
    """
    sessions = SessionFactory(read_settings(settings, read_section(settings)))
    return sessions.engine_for(DEFAULT_KEY if bind_key is None else bind_key)
