"""Knows the applications of this process, and decides which one code outside a request means.

Everything that belongs to one application is in its registry. Only this module has state for the
whole process. It needs that, because a caller gives the portal's functions only the name of a
database, or nothing.
"""

import logging
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from secrets import token_bytes
from typing import Any
from weakref import WeakKeyDictionary

from pyramid.threadlocal import get_current_registry, get_current_request
from sqlalchemy.engine import Engine

from ..exceptions import SettingError
from ..interfaces import HasRegistry
from ..sessions import refuse_bind_keys
from ..settings import (
    Settings,
    check_name,
    context_in_use,
    is_loading,
    read_name,
    read_section,
    read_settings,
)
from .application import REGISTRY_KEY, Sqa, get_sqa
from .session_factory import SessionFactory

log = logging.getLogger(__name__)

# The key of the RegisteredApplication in an application's registry.
APPLICATION_KEY = f"{REGISTRY_KEY}.application"

NO_NAME_YET = (
    "There is no application yet: import the models after config.include('pyramid_aalam_sqa'), "
    "or set SQA_PROVIDER and SQA_APP in the environment."
)
NO_APPLICATION_YET = (
    "There is no application yet: call this after config.include('pyramid_aalam_sqa'), or call "
    "init_engine(..., settings=settings) before it."
)
ONLY_ANOTHER = (
    "Only the application of the database {!r} is known here: call this after "
    "config.include('pyramid_aalam_sqa'), or call init_engine(..., settings=settings) before it."
)
AMBIGUOUS = (
    "Several applications are in this process, and the package of this module does not tell which "
    "one is meant: give the name of the database, or call this inside a request. Before the "
    "include call init_engine(..., settings=settings)."
)
OTHER_SETTINGS = (
    "This application's database already has an engine with another name or other settings: call "
    "init_engine() when the settings are final, after config.include() and "
    "config.add_sqa_database(), and always with the same settings. Before the include call "
    "init_engine(..., settings=settings)."
)
NO_ENGINE_YET = (
    "The application has no engine yet: call config.commit() or init_engine() before this."
)


def _refuse_bind_keys_of_reader(_name: str, made: Engine, _writer: Engine) -> None:
    refuse_bind_keys([made])


class RegisteredApplication:
    """One application of this process. It exists as soon as its settings are known."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.name = read_name(settings)
        # The package of the application's code. It is None before the include, and stays None for
        # a script, which has no include.
        self.package: str | None = None
        self.sqa: Sqa | None = None
        # Whether a route or a view has sqa_read_only.
        self.has_read_only = False
        # Settings from add_sqa_bind().
        self.bind_settings: dict[str, object] = {}
        self._settings = settings
        self._section: Mapping[str, object] | None = None
        self._sessions: SessionFactory | None = None
        # True if init_engine(settings=...) made this object.
        self.is_from_init_engine = False
        # True after init_engine() has returned the engine: then another engine may not replace it.
        self._pinned = False
        # Made before the server forks, so that all its processes accept each other's cursors.
        self._random_secret = token_bytes()

    def use_settings(self, settings: Mapping[str, object]) -> None:
        """Use *settings* from now on, instead of the settings before."""
        self._settings = settings
        self.name = read_name(settings) or self.name
        self._section = None

    def read_settings(self, name: str | None) -> Settings:
        """Return the checked settings, for a database called *name*."""
        if self._section is None:
            self._section = read_section(self._settings)
        return read_settings({**self._settings, **self.bind_settings}, self._section, name)

    def build_sqa(self, settings: Settings | None = None) -> Sqa:
        """Return this application's :class:`Sqa`, built from *settings* or from its own settings.

        If there is an Sqa from other settings, it is replaced. But raises :class:`SettingError` if
        ``init_engine()`` has already returned the engine of that Sqa.
        """
        settings = settings or self.read_settings(self.name)
        if self.sqa is None:
            self._use_engines_of(directory.by_name.get(settings.name or ""))
        if self.sqa is None or (self.sqa.settings != settings and not self._pinned):
            self._sessions = SessionFactory(settings)
            self.sqa = Sqa(self._sessions)
            if not settings.binds:
                refuse_bind_keys(self._sessions.engines.values())
                # Those of read-only requests are made at their first use.
                self._sessions.reading.listeners.append(_refuse_bind_keys_of_reader)
        if self.sqa.settings != settings:
            raise SettingError(OTHER_SETTINGS)
        if settings.name:
            directory.by_name[settings.name] = self
        return self.sqa

    def pin_sqa(self, settings: Settings) -> Sqa:
        """Return this application's :class:`Sqa`, built from *settings*, and never replace it.

        Raises :class:`SettingError` if it was built from other settings.
        """
        # If there is an Sqa already, requests may use it, so it must not be replaced.
        self._pinned = self.sqa is not None
        sqa = self.build_sqa(settings)
        self.name, self._pinned = settings.name, True
        return sqa

    def _use_engines_of(self, other: "RegisteredApplication | None") -> None:
        """Use the engines of *other* if init_engine() made it before this application's include."""
        if other is not None and other is not self and other.package is None:
            self.sqa, self._sessions, self._pinned = other.sqa, other.sessions, True

    def has_database_of(self, other: "RegisteredApplication") -> bool:
        """Return whether this application and *other* have the same databases."""
        if self.sqa is None or other.sqa is None:
            return self.name == other.name
        return self.sqa.settings.databases == other.sqa.settings.databases

    @property
    def sessions(self) -> SessionFactory:
        """The factory of its sessions. Raises :class:`SettingError` if there is no engine yet."""
        if self._sessions is None:
            raise SettingError(NO_ENGINE_YET)
        return self._sessions

    @property
    def is_disposed(self) -> bool:
        """Whether ``get_sqa(app).dispose()`` was called, as tests do at their end."""
        return self._sessions is not None and self._sessions.is_disposed

    @property
    def reader_secret(self) -> str:
        """The secret that signs the positions of clients: ``sqa.reader.secret``, or the other."""
        options = self.sessions.settings.sqa_options
        return str(options["reader.secret"] or options["cursor_secret"])

    @cached_property
    def cursor_secret(self) -> bytes:
        """The secret that signs the cursors of keyset pages: the setting, or a random one."""
        given: str | None = self.sessions.settings.sqa_options["cursor_secret"]
        if given is not None:
            return given.encode()
        log.warning(
            "sqa.cursor_secret is not set, so the addresses of keyset pages are not found in "
            "another process or after a restart: write a secret into the ini file."
        )
        return self._random_secret


class ApplicationDirectory:
    """The applications of this process, by their registries and by the names of their databases."""

    def __init__(self) -> None:
        self.forget_all()

    def forget_all(self) -> None:
        """Forget every application, for tests that make many in one process."""
        # The key is the id of the registry, because a registry is not hashable.
        self._by_registry: dict[int, RegisteredApplication] = {}
        self.by_name: dict[str, RegisteredApplication] = {}
        # The applications that PasteDeploy is loading, by its context. An application may call
        # init_engine() before the include, when it has no registry yet.
        self._loading: WeakKeyDictionary[Any, RegisteredApplication] = WeakKeyDictionary()

    def register(self, registry: Any, package: str) -> None:
        """Add the application of *registry*, whose code is in *package*."""
        context = context_in_use()
        application = registry.get(APPLICATION_KEY)
        if application is None and context is not None:
            application = self._loading.get(context)
        if application is None or application.package is not None:
            application = self._find_or_make(registry.settings)
        application.use_settings(registry.settings)
        application.package = package.partition(".")[0]
        if context is not None:
            self._loading[context] = application
        registry[APPLICATION_KEY] = application
        self._by_registry[id(registry)] = application
        weakref.finalize(registry, self._forget, id(registry))

    def _find_or_make(self, settings: Mapping[str, object]) -> RegisteredApplication:
        """Return the application that init_engine() made from *settings*, or else a new one."""
        for name, known in self.by_name.items():
            if known.package is None and known.sqa is not None:
                with suppress(SettingError):
                    given = RegisteredApplication(settings)
                    if given.read_settings(name) == known.sqa.settings:
                        return known
        return RegisteredApplication(settings)

    def find(self, module: str, *, for_name: bool = False) -> RegisteredApplication | None:
        """Return the application that code in *module* means if it does not name a database.

        This is the first that exists of: the application of the current request or configuration;
        the application that PasteDeploy is loading; the application whose package contains
        *module*; any application. Returns None if no application is known yet. Raises
        :class:`SettingError` if several applications fit and have different databases; with
        *for_name*, if they have different names.
        """
        registry = get_current_registry()
        current: RegisteredApplication | None = registry.get(APPLICATION_KEY)
        if current is None and _is_being_configured(registry):
            # The caller is inside `with Configurator(settings=...)`, before the include.
            current = registry[APPLICATION_KEY] = self._find_or_make(registry.settings)
        if current is not None:
            return current
        context = context_in_use()
        if context is not None:
            if context not in self._loading:
                self._loading[context] = RegisteredApplication(context.local_conf)
            return self._loading[context]
        outside = [each for each in self.by_name.values() if each.package is None]
        known = [*outside, *self._by_registry.values()]
        own = [each for each in known if each.package == module.partition(".")[0]]
        if not own and is_loading():
            # The module belongs to an application that is not known yet.
            return None
        # Leave disposed applications out: tests make one application after another.
        own = [each for each in own or known if not each.is_disposed] or own or known
        if not own:
            return None
        if any(
            each.name != own[-1].name if for_name else not each.has_database_of(own[-1])
            for each in own
        ):
            raise SettingError(AMBIGUOUS)
        return own[-1]

    def _forget(self, registry_id: int) -> None:
        """Forget the application whose registry Python has removed from memory."""
        application = self._by_registry.pop(registry_id, None)
        if application is not None and application.is_from_init_engine:
            # A script made it before the registry, and goes on using it.
            application.package = None
            return
        for name in [name for name, known in self.by_name.items() if known is application]:
            del self.by_name[name]


directory = ApplicationDirectory()

_lock = threading.Lock()


def sqa_for_init_engine(name: str, settings: Mapping[str, object] | None, module: str) -> Sqa:
    """Return the :class:`Sqa` of the database *name*. It is made here if it does not exist yet.

    With *settings* it is made from these. Without, it is the Sqa of the application that code in
    *module* means. Raises :class:`SettingError` if there is an Sqa with other settings.
    """
    check_name(name)
    if settings is None:
        application = _find_or_raise(module)
        is_own = application.sqa is None or application.package == module.partition(".")[0]
        if not is_own and application.name not in {None, name}:
            raise SettingError(ONLY_ANOTHER.format(application.name))
        return application.pin_sqa(application.read_settings(name))
    with _lock:
        given = RegisteredApplication(settings)
        given.is_from_init_engine = True
        known = directory.by_name.get(name, given)
        return known.pin_sqa(given.read_settings(name))


def application_of(thing: HasRegistry) -> RegisteredApplication:
    """Return the application of *thing*, which is a request or a WSGI application.

    Raises :class:`SettingError` if the application did not include this package.
    """
    try:
        found: RegisteredApplication = thing.registry[APPLICATION_KEY]
    except KeyError:
        # This says what to do.
        get_sqa(thing)
        raise
    return found


def sessions_of(which: str | HasRegistry | None, module: str) -> SessionFactory:
    """Return the session factory of an application.

    *which* is the name of its database, the application itself or a request. If it is None, the
    application is the one that code in *module* means. Raises :class:`SettingError` if there is no
    such application, or if it has no engine yet.
    """
    if which is None:
        return _find_or_raise(module).sessions
    if not isinstance(which, str):
        return application_of(which).sessions
    application = directory.by_name.get(check_name(which))
    if application is None:
        known = ", ".join(sorted(directory.by_name)) or "none"
        msg = (
            f"The database {which!r} is not known in this process: call init_engine() first. "
            f"Known databases: {known}."
        )
        raise SettingError(msg)
    return application.sessions


def module_of_caller() -> str:
    """Return the name of the module that has called the caller of this function."""
    name: str = sys._getframe(2).f_globals.get("__name__", "")  # noqa: SLF001 - no other way
    return name


def _find_or_raise(module: str) -> RegisteredApplication:
    application = directory.find(module)
    if application is None:
        raise SettingError(NO_APPLICATION_YET)
    return application


def _is_being_configured(registry: Any) -> bool:
    """Return whether *registry* has settings of this package, and there is no current request."""
    settings = getattr(registry, "settings", None) or {}
    ours = any(str(key).startswith(("sqlalchemy.", "sqa.")) for key in settings)
    return ours and get_current_request() is None
