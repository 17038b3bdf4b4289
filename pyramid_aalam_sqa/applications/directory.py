"""Knows the applications of this process, and which of them a caller without a request means.

Everything of an application is kept in its registry. This alone is process-wide: the portal's
functions are told a name, or nothing at all.
"""

import sys
import threading
import weakref
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from pyramid.threadlocal import get_current_registry

from ..exceptions import SettingError
from ..interfaces import HasRegistry
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

APPLICATION_KEY = f"{REGISTRY_KEY}.application"


NONE_YET = (
    "There is no application yet: import the models after config.include('pyramid_aalam_sqa'), "
    "or set SQA_PROVIDER and SQA_APP in the environment."
)


AMBIGUOUS = (
    "Several applications are in this process, and none is of this module's package: "
    "give the name of the database, or call this inside a request."
)


OTHER = (
    "The database of this application is known with another name or other settings: call "
    "init_engine() when the settings are final, after config.include() and "
    "config.add_sqa_database(), and always with the same ones."
)


NOT_YET = "The application has no engine yet: call config.commit() or init_engine() before this."


class RegisteredApplication:
    """One application, from the moment on that something is known of it."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.settings = settings
        self.name = read_name(settings)
        self.package: str | None = None
        self.sqa: Sqa | None = None
        # Settings of add_sqa_bind().
        self.binds: dict[str, object] = {}
        # Whether somebody has the engine, so that no other may take its place.
        self.engaged = False
        self._section: Mapping[str, object] | None = None

    def use(self, settings: Mapping[str, object]) -> None:
        """Go on with *settings*, which may be others than before."""
        self.settings = settings
        self.name = read_name(settings) or self.name
        self._section = None

    def engage(self, name: str) -> Sqa:
        """Return the :class:`Sqa` called *name*, made now where the configuration has not yet.

        Raises :class:`SettingError` when there is one with another name or other settings.
        """
        return self.engage_with(self.read(name))

    def engage_with(self, settings: Settings) -> Sqa:
        """Return the :class:`Sqa` of *settings*, which are those of the one there is."""
        # Requests use it, if there is one: another one beside it would be a second answer.
        self.engaged = self.sqa is not None
        sqa = self.settle(settings)
        self.name, self.engaged = settings.name, True
        return sqa

    def settle(self, settings: Settings | None = None) -> Sqa:
        """Return the :class:`Sqa` of *settings*, which is the one there was if it has the same."""
        settings = settings or self.read(self.name)
        if self.sqa is None or (self.sqa.settings != settings and not self.engaged):
            self.sqa = Sqa(settings)
        if self.sqa.settings != settings:
            raise SettingError(OTHER)
        if settings.name:
            _named[settings.name] = self
        return self.sqa

    def read(self, name: str | None) -> Settings:
        """Return what the settings say, under *name*."""
        if self._section is None:
            self._section = read_section(self.settings)
        return read_settings({**self.settings, **self.binds}, self._section, name)


_lock = threading.Lock()


# By the id of its registry, which no dictionary takes as a key.
_announced: dict[int, RegisteredApplication] = {}


_named: dict[str, RegisteredApplication] = {}


# By PasteDeploy's context: an application that init_engine() is called for before the include.
_loading: WeakKeyDictionary[Any, RegisteredApplication] = WeakKeyDictionary()


def announce(registry: Any, package: str) -> None:
    """Note the application of *registry*, whose code is in *package*."""
    context = context_in_use()
    application = _loading.get(context) if context is not None else None
    if application is None or application.package is not None:
        application = RegisteredApplication(registry.settings)
    application.use(registry.settings)
    application.package = package.partition(".")[0]
    if context is not None:
        _loading[context] = application
    registry[APPLICATION_KEY] = application
    _announced[id(registry)] = application
    weakref.finalize(registry, _forget, id(registry))


def find(module: str) -> RegisteredApplication | None:
    """Return the application that code in *module* means when it gives no name.

    It is that of the current request or configuration, else the one that PasteDeploy is loading,
    else the only one, else the last whose package *module* is in. None when there is none yet;
    :class:`SettingError` when none of several fits.
    """
    current: RegisteredApplication | None = get_current_registry().get(APPLICATION_KEY)
    if current is not None:
        return current
    context = context_in_use()
    if context is not None:
        if context not in _loading:
            _loading[context] = RegisteredApplication(context.local_conf)
        return _loading[context]
    known = list(_announced.values())
    own = [each for each in known if each.package == module.partition(".")[0]]
    if not own and is_loading():
        # A module of an application that is not known yet: none of the others is meant.
        return None
    if not own and len({each.name for each in known}) > 1:
        raise SettingError(AMBIGUOUS)
    return next(reversed(own or known), None)


def engage(name: str, settings: Mapping[str, object] | None, module: str) -> Sqa:
    """Return the :class:`Sqa` called *name*, of *settings* or of the application of *module*."""
    check_name(name)
    if settings is None:
        application = find(module)
        if application is None:
            raise SettingError(NONE_YET)
        return application.engage(name)
    with _lock:
        asked, known = RegisteredApplication(settings), _named.get(name)
        if known is None:
            return asked.engage(name)
        return known.engage_with(asked.read(name))


def sqa_of(which: str | HasRegistry | None, module: str) -> Sqa:
    """Return the :class:`Sqa` that is called *which*, or has its registry, or is of *module*."""
    if isinstance(which, str):
        application = _named.get(check_name(which))
        if application is None:
            known = ", ".join(sorted(_named)) or "none"
            msg = f"No database {which!r} is known here, only: {known}; call init_engine() first."
            raise SettingError(msg)
    elif which is not None:
        return get_sqa(which)
    else:
        application = find(module)
        if application is None:
            raise SettingError(NONE_YET)
    if application.sqa is None:
        raise SettingError(NOT_YET)
    return application.sqa


def caller() -> str:
    """Return the module that has called the function that calls this."""
    name: str = sys._getframe(2).f_globals.get("__name__", "")  # noqa: SLF001 - no other way
    return name


def _forget(registry_id: int) -> None:
    """Forget the application whose registry is gone now."""
    application = _announced.pop(registry_id, None)
    for name in [name for name, known in _named.items() if known is application]:
        del _named[name]
