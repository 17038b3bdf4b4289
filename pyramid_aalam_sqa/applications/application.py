"""The public object of one application: its settings, its engines, a session for scripts."""

from collections.abc import Mapping

from sqlalchemy import MetaData
from sqlalchemy.engine import Engine

from ..exceptions import SettingError
from ..interfaces import HasRegistry, TransactionManager
from ..queries import SqaSession
from ..settings import DEFAULT_KEY, Settings, read_section, read_settings
from .reading import ReadingEngines
from .session_factory import SessionFactory
from .stats import Counters, Stats

# The key of the Sqa in an application's registry.
REGISTRY_KEY = "pyramid_aalam_sqa"


class Sqa:
    """The engines and the sessions of one application; :func:`get_sqa` returns it.

    ``settings`` are the checked settings. ``engines`` has every engine by its bind key, in the
    order of COMMITs. The key of the application's own engine is ``default``. ``bases`` has each
    MetaData that ``init_engine()`` was called with.
    """

    def __init__(self, sessions: SessionFactory) -> None:
        self._sessions = sessions
        self.counters: Counters = sessions.counters
        self.settings: Settings = sessions.settings
        self.engines: Mapping[str, Engine] = sessions.engines
        self.reading: ReadingEngines = sessions.reading
        self.bases: list[MetaData] = []

    @property
    def engine(self) -> Engine:
        """The application's engine. Raises :class:`SettingError` when no database is set."""
        return self._sessions.engine_for()

    def engine_for(self, bind_key: str) -> Engine:
        """Return the engine with the key *bind_key*; ``default`` is the application's own.

        Raises :class:`BindError` for an unknown key. The message names the known keys.
        """
        return self._sessions.engine_for(bind_key)

    def session(self, tm: TransactionManager, *, bind_key: str | None = None) -> SqaSession:
        """Return the session that joins the transactions of *tm*, for tests and scripts.

        Each manager has one session. The first call makes it, and the caller closes it. In a
        request use ``request.sqa_session`` instead: this package closes it. With *bind_key*,
        return the session that uses only that database. It ends together with the session of
        *tm*.
        """
        session = self._sessions.find_session(tm) or self._sessions.make_session(tm)
        return session if bind_key is None else self._sessions.bind_session(session, bind_key)

    def stats(self) -> Stats:
        """Return the numbers of this application in this process: pools, commits, retries.

        The numbers that take work on each request are None unless ``sqa.stats`` is on.
        """
        return self.counters.read(self.engines, self.reading.by_name())

    def dispose(self) -> None:
        """Close the connections of this application's engines.

        A ready Engine that was given as a setting keeps its connections.
        """
        self._sessions.dispose()


def get_sqa(thing: HasRegistry) -> Sqa:
    """Return the :class:`Sqa` of the application that *thing* belongs to.

    *thing* is a request, a WSGI application, or a Configurator after ``config.commit()``. Raises
    :class:`SettingError` if the application did not include this package.
    """
    try:
        found: Sqa = thing.registry[REGISTRY_KEY]
    except KeyError:
        msg = (
            "This application has not included the package: call "
            'config.include("pyramid_aalam_sqa") first, or list it in pyramid.includes.'
        )
        raise SettingError(msg) from None
    return found


def engine_from_settings(settings: Mapping[str, object], *, bind_key: str | None = None) -> Engine:
    """Return an engine for the ``sqlalchemy.*`` and ``sqa.*`` keys in *settings*.

    It is configured as an application's engine is. Use it in Alembic's ``env.py`` and in scripts
    without an application. The caller disposes it. With *bind_key*, return the engine of that
    bind. If *settings* come from ``get_appsettings()``, the section ``[sqlalchemy]`` is read too.
    Raises :class:`SettingError` as an application does when it starts, and :class:`BindError` for
    an unknown *bind_key*.
    """
    sessions = SessionFactory(read_settings(settings, read_section(settings)))
    return sessions.engine_for(DEFAULT_KEY if bind_key is None else bind_key)
