"""The only module that touches a Configurator: what config.include() declares and does."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from pyramid.config import PHASE0_CONFIG, PHASE1_CONFIG, PHASE2_CONFIG, Configurator
from pyramid.interfaces import IExecutionPolicy, IRendererFactory
from pyramid.renderers import JSON, json_renderer_factory
from pyramid.router import default_execution_policy
from pyramid.tweens import EXCVIEW
from sqlalchemy.engine import URL
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..applications import APPLICATION_KEY, REGISTRY_KEY, Sqa, announce
from ..interfaces import IDatabaseUnavailable
from ..settings import DEFAULT, PYRAMID_OPTIONS, check_pyramid_options
from .json_renderer import add_json_adapters
from .lifetime import ending_policy
from .request import (
    sqa_after_commit,
    sqa_paginate,
    sqa_paginate_keyset,
    sqa_session,
    sqa_sessions,
    sqa_stream,
)
from .retry import retry_deriver
from .unavailable import unavailable

# After pyramid_retry's, and after any policy that the application sets.
LAST_CONFIG = 1000


CATEGORY = "sqa databases"


def includeme(config: Any) -> None:
    """Give each request ``request.sqa_session``; the response decides whether it commits.

    Includes pyramid_tm and pyramid_retry, sets ``tm.*`` where the application has not, reads
    ``sqlalchemy.*`` and ``sqa.*``, and adds the directives :func:`add_sqa_bind` and
    :func:`add_sqa_database`, through which it declares the databases of the ini file; the
    application's own call of it wins.
    """
    # At once: models are imported from here on, and ask for the name of their database.
    announce(config.registry, getattr(config.root_package, "__name__", config.root_package))
    # Before theirs is included, whose own check of retry.attempts is an empty AssertionError.
    config.action(
        (REGISTRY_KEY, "neighbours"), _set_pyramid_defaults, (config,), order=PHASE0_CONFIG
    )
    config.include("pyramid_tm")
    config.include("pyramid_retry")
    config.add_directive("add_sqa_database", add_sqa_database)
    config.add_directive("add_sqa_bind", add_sqa_bind)
    for session in (sqa_session, sqa_sessions):
        config.add_request_method(session, reify=True)
    for method in (sqa_after_commit, sqa_paginate, sqa_paginate_keyset, sqa_stream):
        config.add_request_method(_bound(method), method.__name__, property=True)
    config.add_tween("pyramid_aalam_sqa.rollback_tween_factory", under=EXCVIEW)
    config.add_tween("pyramid_aalam_sqa.retry_tween_factory", over="pyramid_tm.tm_tween_factory")
    config.action(
        (REGISTRY_KEY, "unavailable"), _answer_unavailable, (config,), order=PHASE2_CONFIG
    )
    config.action((REGISTRY_KEY, "json"), _add_json_renderer, (config,), order=PHASE0_CONFIG)
    config.add_view_deriver(retry_deriver, "sqa_retry")
    config.action((REGISTRY_KEY, "policy"), _wrap_policy, (config,), order=LAST_CONFIG)
    config.add_sqa_database()


def _bound(function: Callable[..., Any]) -> Callable[[Any], Callable[..., Any]]:
    """Return a property that is *function* of the request.

    Pyramid keeps a plain request method in the request, which then holds itself until collected.
    """
    return lambda request: partial(function, request)


def add_sqa_database(config: Any, url: str | URL | None = None, **options: Any) -> None:
    """Declare the application's database: ``config.add_sqa_database(url, **options)``.

    *url* and *options* (those of ``create_engine``, as values or as an ini file spells them)
    win over the settings ``sqlalchemy.url`` and ``sqlalchemy.<option>``. Settings are read when
    the configuration is committed; what is wrong then raises :class:`SettingError`.
    """
    given = {f"sqlalchemy.{name}": value for name, value in options.items()}
    if url is not None:
        given["sqlalchemy.url"] = url
    shown: list[Any] = []

    def register() -> None:
        application = config.registry[APPLICATION_KEY]
        application.use({**config.registry.settings, **given})
        _settle(config, shown)

    config.action((REGISTRY_KEY, "default"), register, order=PHASE1_CONFIG, introspectables=shown)


def add_sqa_bind(config: Any, key: str, url: str | URL | None = None, **options: Any) -> None:
    """Declare a further database: ``config.add_sqa_bind(key, url, **options)``.

    *url* and *options* win over the settings ``sqlalchemy.binds.<key>.url`` and
    ``sqlalchemy.binds.<key>.<option>``; what neither gives is the default database's.
    """
    prefix = f"sqlalchemy.binds.{key}."
    given = {f"{prefix}{name}": value for name, value in options.items()}
    if url is not None:
        given[f"{prefix}url"] = url
    shown: list[Any] = []

    def register() -> None:
        config.registry[APPLICATION_KEY].binds.update(given)
        if REGISTRY_KEY in config.registry:
            # A configurator that commits at once has read the settings before.
            _settle(config, shown)

    # Before the settings are read.
    order = PHASE1_CONFIG - 1
    config.action((REGISTRY_KEY, "bind", key), register, order=order, introspectables=shown)


def _settle(config: Any, shown: list[Any]) -> None:
    """Register the application's :class:`Sqa`, and put what it has into *shown*."""
    sqa = config.registry[APPLICATION_KEY].settle()
    _replace(config.registry, sqa)
    for key, database in (sqa.settings.databases or {DEFAULT: None}).items():
        title = str(database or "no database")
        introspectable = config.introspectable(CATEGORY, key, title, "sqa database")
        introspectable["url"] = title
        shown.append(introspectable)


def _replace(registry: Any, sqa: Sqa) -> None:
    """Register *sqa*; a configurator that commits at once has registered one for the ini before."""
    old = registry.get(REGISTRY_KEY)
    registry[REGISTRY_KEY] = sqa
    if old not in {None, sqa}:
        old.dispose()
    # Pyramid has no event for the end of an application: its registry is collected, or Python ends.
    weakref.finalize(registry, sqa.dispose)


def _answer_unavailable(config: Any) -> None:
    """Add our exception views before all others, so that the application's take their place.

    As actions of the include they would conflict with those of another included module.
    """
    own = Configurator(registry=config.registry, autocommit=True)
    own.add_exception_view(unavailable, context=IDatabaseUnavailable)
    # All connections in use for pool_timeout seconds.
    own.add_exception_view(unavailable, context=PoolTimeout)


def _add_json_renderer(config: Any) -> None:
    """Put ours in the place of Pyramid's own, before the application's takes the place of both.

    Pyramid's is one for the process: what is added to it would be added to every application.
    """
    registry = config.registry
    if registry.queryUtility(IRendererFactory, name="json") is json_renderer_factory:
        renderer = add_json_adapters(JSON())
        registry.registerUtility(renderer, IRendererFactory, name="json")


def _wrap_policy(config: Any) -> None:
    """Put the end of the sessions around whatever execution policy the application has."""
    registry = config.registry
    policy = registry.queryUtility(IExecutionPolicy, default=default_execution_policy)
    registry.registerUtility(ending_policy(policy), IExecutionPolicy)


def _set_pyramid_defaults(config: Any) -> None:
    settings = config.registry.settings
    check_pyramid_options(settings)
    for option in PYRAMID_OPTIONS:
        # An application that names its veto the old way has named one.
        if option.key == "tm.commit_veto" and "pyramid_tm.commit_veto" in settings:
            continue
        settings.setdefault(option.key, option.default)
