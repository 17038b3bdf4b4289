"""Makes the engine of a database from its settings, and checks that they fit together."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from inspect import Parameter, signature
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from ..backends import Backend, backend_for
from ..exceptions import SettingError
from ..settings import Database, RawSetting, read_options
from .errors import install_listeners
from .password_file import use_password_file
from .pool import BUDGET, BudgetPool

# Options of QueuePool that other pools may not have.
QUEUE_POOL_OPTIONS = {"pool_size", "max_overflow", "pool_timeout"}


# Small numbers: a process has many such engines, and each has a statement cache of its own.
BUDGET_DEFAULTS = {
    "poolclass": BudgetPool,
    "pool_size": 1,
    "max_overflow": 4,
    "query_cache_size": 50,
}


def make_engine(database: Database, sqa_options: Mapping[str, Any]) -> Engine:
    """Return the engine of *database*; it connects when it is first used.

    A ready engine in the settings is returned itself, with our error listeners added. Raises
    :class:`SettingError` when two options contradict each other or the driver refuses one.
    """
    backend = backend_for(database.url, sqa_options, database.name)
    backend.prefix = database.prefix
    budget = _budget_options(database, sqa_options, backend.STILL_COUNTED)
    path = sqa_options["password_file"]
    if database.engine is not None:
        if path:
            msg = "sqa.password_file: sqlalchemy.engine is used as it is; remove one of the two."
            raise SettingError(msg)
        install_listeners(database.engine, backend)
        return database.engine
    options = _with_defaults(database, backend.engine_defaults(), budget)
    engine = _create(database, options)
    if path:
        # First: a backend has a do_connect listener too, and the first one that connects wins.
        use_password_file(engine, path, options["connect_args"])
    backend.prepare(engine)
    if sqa_options["reset_connection"]:
        event.listen(engine, "checkin", _close_connection)
    install_listeners(engine, backend)
    _engines_to_empty_in_children()[engine] = backend
    return engine


def _create(database: Database, options: Mapping[str, Any]) -> Engine:
    try:
        engine = create_engine(database.url, **options)
    except ValueError as error:
        msg = f"{database.prefix}url: one of the parameters after the ? is wrong: {error}"
        raise SettingError(msg) from None
    except (TypeError, AttributeError, ArgumentError) as error:
        # It is safe to show: SQLAlchemy's text names the options, never their values.
        named = [name for name in database.options if re.search(rf"\b{name}\b", str(error))]
        keys = ", ".join(f"{database.prefix}{name}" for name in named or ["*"])
        msg = f"{keys}: this does not fit the other options: {error}"
        raise SettingError(msg) from None
    _refuse_unknown_arguments(engine, database)
    return engine


def _close_connection(_connection: object, record: ConnectionPoolEntry) -> None:
    """Close a connection that comes back to the pool, and so drop all that was set on it."""
    record.invalidate()


@cache
def _engines_to_empty_in_children() -> WeakKeyDictionary[Engine, Backend]:
    """Return the engines whose pools are emptied in a child process after a fork.

    Two processes that share one connection would read each other's answers. The first call
    registers the functions that Python calls around a fork.
    """
    engines: WeakKeyDictionary[Engine, Backend] = WeakKeyDictionary()

    def prepare() -> None:
        for engine, backend in list(engines.items()):
            backend.before_fork(engine)

    def empty_pools() -> None:
        BUDGET.start_empty()
        for engine in list(engines):
            # The connections stay open: the parent process goes on using them.
            engine.dispose(close=False)

    os.register_at_fork(before=prepare, after_in_child=empty_pools)
    return engines


def _budget_options(
    database: Database, sqa_options: Mapping[str, Any], reserve: int
) -> dict[str, Any]:
    """Return the options of an engine in the process's connection budget; empty without a budget.

    *reserve* is how many connections the server may still count for a moment after they were
    closed. The budget is smaller by this number.
    """
    limit = sqa_options["max_connections"]
    if limit is None:
        return {}
    own = "engine" if database.engine is not None else None
    own = own or next((name for name in ("pool", "poolclass") if name in database.options), None)
    if own:
        msg = (
            f"sqa.max_connections needs a pool of its own: remove {database.prefix}{own}, "
            "or sqa.max_connections."
        )
        raise SettingError(msg)
    return {**BUDGET_DEFAULTS, "max_connections": max(1, limit - reserve)}


def _with_defaults(
    database: Database, defaults: Mapping[str, str], budget: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options for create_engine(): the given ones, and *defaults* that fit them."""
    given = dict(database.options)
    backend: Any = database.url.get_dialect()
    in_url = {f"connect_args.{name}" for name in database.url.query}
    options = read_options(
        (RawSetting(key, key, text) for key, text in defaults.items() if key not in in_url), backend
    )
    if "poolclass" not in options:
        # An SQLite database in memory has another pool: it is lost when its connection closes.
        options = {**budget, **options}
    poolclass = given.get("poolclass") or options.get("poolclass")
    if "pool" in given:
        unwanted = {name for name in options if name.startswith("pool")} | QUEUE_POOL_OPTIONS
    elif issubclass(poolclass or backend.get_pool_class(database.url), (QueuePool, BudgetPool)):
        unwanted = set()
    else:
        unwanted = QUEUE_POOL_OPTIONS
    arguments = {**options.pop("connect_args", {}), **given.pop("connect_args", {})}
    kept = {name: value for name, value in options.items() if name not in unwanted}
    return {**kept, **given, "connect_args": arguments}


def _refuse_unknown_arguments(engine: Engine, database: Database) -> None:
    """Check connect_args at start-up; the driver would refuse them at the first request."""
    try:
        known = signature(engine.dialect.loaded_dbapi.connect).parameters
    except ValueError:
        return  # A function written in C may have no signature.
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for name in database.options.get("connect_args", {}):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            advice = f"did you mean connect_args.{near[0]}?" if near else "remove it."
            msg = f"{database.prefix}connect_args.{name}: the driver has no such argument; {advice}"
            raise SettingError(msg)
