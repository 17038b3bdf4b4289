"""What the include declares. The only module that uses a Configurator."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from pyramid.config import PHASE0_CONFIG, PHASE1_CONFIG, PHASE2_CONFIG, Configurator
from pyramid.interfaces import IExecutionPolicy, IRendererFactory
from pyramid.renderers import JSON, json_renderer_factory
from pyramid.request import Request
from pyramid.router import default_execution_policy
from pyramid.tweens import EXCVIEW
from sqlalchemy.engine import URL

from ..applications import APPLICATION_KEY, REGISTRY_KEY, Sqa, directory
from ..exceptions import SettingError
from ..settings import DEFAULT_KEY, PYRAMID_OPTIONS, check_pyramid_options
from .debugging_hooks import ROOM, add_sqa_health, is_wanted, n_plus_one_deriver
from .json_renderer import add_json_adapters
from .lifetime import ending_policy
from .policy import attempts_policy
from .positions import positions_policy
from .read_only import ReadOnlyPredicate, read_only_deriver
from .request import (
    sqa_after_commit,
    sqa_session,
    sqa_sessions,
    sqa_stream,
)
from .retry import retry_deriver
from .service_unavailable import UNAVAILABLE, service_unavailable
from .tweens import check_tweens

# The order of an action that runs after pyramid_retry's and the application's own.
LAST_CONFIG = 1000

# What Pyramid's router and pyramid_tm set on each request; its class does not have it.
SET_ON_REQUESTS = frozenset(
    {
        *("context", "invoke_subrequest", "registry", "root", "subpath", "tm", "traversed"),
        *("view_name", "virtual_root", "virtual_root_path"),
    }
)

# Where the introspectables of the databases are listed.
CATEGORY = "sqa databases"

ONE_ATTEMPT = (
    "retry.attempts = 1: with sqa.reader.methods a request that writes is made again; write 2 or "
    "more, or remove sqa.reader.methods."
)


def includeme(config: Any) -> None:
    """Give each request ``request.sqa_session``; the response decides whether it commits.

    Includes pyramid_tm and pyramid_retry, and sets ``tm.*`` where the application has not. Reads
    the settings ``sqlalchemy.*`` and ``sqa.*``. Adds the directives :func:`add_sqa_database` and
    :func:`add_sqa_bind`. The databases of the ini file are declared through them, and the
    application's own calls win.
    """
    # A module, or its name.
    package = getattr(config.root_package, "__name__", config.root_package)
    # Not in an action: models are imported from now on, and ask for the name of their database.
    directory.register(config.registry, package)
    # Before pyramid_retry reads retry.attempts, because its own error has no text.
    config.action(
        (REGISTRY_KEY, "pyramid options"), _set_pyramid_defaults, (config,), order=PHASE0_CONFIG
    )
    config.include("pyramid_tm")
    config.include("pyramid_retry")
    config.add_directive("add_sqa_database", add_sqa_database)
    config.add_directive("add_sqa_bind", add_sqa_bind)
    config.add_directive("add_sqa_health", add_sqa_health)
    for session in (sqa_session, sqa_sessions):
        config.add_request_method(session, reify=True)
    for method in (sqa_after_commit, sqa_stream):
        config.add_request_method(_bound(method), method.__name__, property=True)
    config.add_request_method(_paginate, "sqa_paginate", property=True)
    config.add_request_method(_paginate_keyset, "sqa_paginate_keyset", property=True)
    config.add_tween("pyramid_aalam_sqa.rollback_tween_factory", under=EXCVIEW)
    config.add_tween("pyramid_aalam_sqa.retry_tween_factory", over="pyramid_tm.tm_tween_factory")
    config.action(
        (REGISTRY_KEY, "unavailable"), _add_unavailable_views, (config,), order=PHASE2_CONFIG
    )
    config.action((REGISTRY_KEY, "json"), _add_json_renderer, (config,), order=PHASE0_CONFIG)
    config.add_view_deriver(retry_deriver, "sqa_retry")
    config.add_view_deriver(read_only_deriver, "sqa_read_only")
    config.add_route_predicate("sqa_read_only", ReadOnlyPredicate)
    config.add_view_deriver(n_plus_one_deriver, "sqa_n_plus_one")
    if config.registry.settings.get("pyramid.tweens"):
        config.action((REGISTRY_KEY, "tweens"), check_tweens, (config,), order=LAST_CONFIG)
    config.add_sqa_database()
    # The engines are there now, also for a configurator that runs each action at once.
    config.action((REGISTRY_KEY, "policy"), _wrap_policy, (config,), order=LAST_CONFIG)
    config.action(
        (REGISTRY_KEY, "request attribute"),
        _add_request_attribute,
        (config,),
        order=PHASE2_CONFIG,
    )
    config.action((REGISTRY_KEY, "debugging"), _start_debugging, (config,), order=PHASE2_CONFIG)


def _add_request_attribute(config: Any) -> None:
    """Give the session of a request the second name that ``sqa.request_attribute`` asks for."""
    name = config.registry[REGISTRY_KEY].settings.sqa_options["request_attribute"]
    if name is None:
        return
    if hasattr(Request, name) or name in SET_ON_REQUESTS or name.startswith("sqa_"):
        msg = (
            f"sqa.request_attribute = {name}: each request has request.{name}, write another name."
        )
        raise SettingError(msg)
    config.add_request_method(lambda request: request.sqa_session, name, property=True)


def _start_debugging(config: Any) -> None:
    """Include the room ``debugging`` where a setting asks for it; the settings are known now."""
    if is_wanted(config.registry[REGISTRY_KEY].settings.sqa_options):
        config.include(ROOM)


def _bound(function: Callable[..., Any]) -> Callable[[Any], Callable[..., Any]]:
    """Return a property that is *function* with the request as its first argument.

    Pyramid stores a plain request method in the request itself. That is a reference cycle, so
    each request would live until the garbage collector runs.
    """
    return lambda request: partial(function, request)


def _paginate(request: Any) -> Callable[..., Any]:
    from .pages import sqa_paginate  # noqa: PLC0415 - many applications show no pages

    return partial(sqa_paginate, request)


def _paginate_keyset(request: Any) -> Callable[..., Any]:
    from .pages import sqa_paginate_keyset  # noqa: PLC0415 - as above

    return partial(sqa_paginate_keyset, request)


def add_sqa_database(config: Any, url: str | URL | None = None, **options: Any) -> None:
    """Declare the application's database: ``config.add_sqa_database(url, **options)``.

    *url* and *options* win over the settings ``sqlalchemy.url`` and ``sqlalchemy.<option>``. The
    options are those of ``create_engine``, as Python values or as an ini file spells them. They
    are checked when the configuration is committed, which raises :class:`SettingError` for a
    wrong one.
    """
    given = {f"sqlalchemy.{name}": value for name, value in options.items()}
    if url is not None:
        given["sqlalchemy.url"] = url
    shown: list[Any] = []

    def register() -> None:
        application = config.registry[APPLICATION_KEY]
        application.use_settings({**config.registry.settings, **given})
        _register_sqa(config, shown)

    config.action((REGISTRY_KEY, "default"), register, order=PHASE1_CONFIG, introspectables=shown)


def add_sqa_bind(config: Any, key: str, url: str | URL | None = None, **options: Any) -> None:
    """Declare a further database: ``config.add_sqa_bind(key, url, **options)``.

    *url* and *options* win over the settings ``sqlalchemy.binds.<key>.url`` and
    ``sqlalchemy.binds.<key>.<option>``. An option that neither gives is the default database's.
    """
    prefix = f"sqlalchemy.binds.{key}."
    given = {f"{prefix}{name}": value for name, value in options.items()}
    if url is not None:
        given[f"{prefix}url"] = url
    shown: list[Any] = []

    def register() -> None:
        config.registry[APPLICATION_KEY].bind_settings.update(given)
        if REGISTRY_KEY in config.registry:
            # A configurator that commits at once has built the Sqa already.
            _register_sqa(config, shown)

    # Before the action of add_sqa_database(), which reads the settings.
    order = PHASE1_CONFIG - 1
    config.action((REGISTRY_KEY, "bind", key), register, order=order, introspectables=shown)


def _register_sqa(config: Any, shown: list[Any]) -> None:
    """Put the application's :class:`Sqa` into its registry, and its databases into *shown*."""
    sqa = config.registry[APPLICATION_KEY].build_sqa()
    _replace(config.registry, sqa)
    for key, database in (sqa.settings.databases or {DEFAULT_KEY: None}).items():
        title = str(database or "no database")
        introspectable = config.introspectable(CATEGORY, key, title, "sqa database")
        introspectable["url"] = title
        shown.append(introspectable)


def _replace(registry: Any, sqa: Sqa) -> None:
    """Register *sqa*, and dispose the one that a configurator that commits at once made before."""
    old = registry.get(REGISTRY_KEY)
    registry[REGISTRY_KEY] = sqa
    if old not in {None, sqa}:
        old.dispose()
    # Pyramid has no event for the end of an application: its registry is collected, or Python ends.
    weakref.finalize(registry, sqa.dispose)


def _add_unavailable_views(config: Any) -> None:
    """Add our exception views before all others, so that the application's replace them.

    As actions of the include they would conflict with those of another included module.
    """
    own = Configurator(registry=config.registry, autocommit=True)
    for kind in UNAVAILABLE:
        own.add_exception_view(service_unavailable, context=kind)


def _add_json_renderer(config: Any) -> None:
    """Replace Pyramid's own JSON renderer, unless the application has replaced it already.

    Pyramid's renderer is one object for the whole process: an adapter that is added to it would be
    added for every application.
    """
    registry = config.registry
    if registry.queryUtility(IRendererFactory, name="json") is json_renderer_factory:
        renderer = add_json_adapters(JSON())
        registry.registerUtility(renderer, IRendererFactory, name="json")


def _wrap_policy(config: Any) -> None:
    """Wrap the application's execution policy in what has to happen around all attempts."""
    registry = config.registry
    policy = registry.queryUtility(IExecutionPolicy, default=default_execution_policy)
    ending = ending_policy(attempts_policy(policy))
    application = registry[APPLICATION_KEY]
    if application.sessions.reading.replicated:
        ending = positions_policy(ending, application)
    if application.sessions.settings.sqa_options["reader.methods"]:
        application.has_read_only = True
        if registry.settings["retry.attempts"] in {1, "1"}:
            raise SettingError(ONE_ATTEMPT)
    registry.registerUtility(ending, IExecutionPolicy)


def _set_pyramid_defaults(config: Any) -> None:
    """Set the ``tm.*`` and ``retry.*`` settings that the application has not set."""
    settings = config.registry.settings
    check_pyramid_options(settings)
    for option in PYRAMID_OPTIONS:
        # pyramid_tm still reads this older name of its setting.
        if option.key == "tm.commit_veto" and "pyramid_tm.commit_veto" in settings:
            continue
        settings.setdefault(option.key, option.default)
