"""Makes the engine of a database from its settings, and checks that they fit together."""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from ..backends import Backend, backend_class, backend_for, check_options, check_ready_engine
from ..exceptions import SettingError
from ..settings import Database, RawSetting, read_options
from .errors import install_listeners
from .forks import one_process, separate_processes
from .hosts import use_hosts
from .idle import ping_in_doubt
from .listeners import know_listeners
from .password_file import use_password_file
from .pool import BudgetPool
from .read_only import install_reading_listeners

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
    backend = backend_for(database.url, sqa_options, database.name, database.prefix)
    budget = _budget_options(database, sqa_options, backend.UNLISTED_CONNECTIONS)
    path = sqa_options["password_file"]
    if database.engine is not None:
        if path:
            msg = "sqa.password_file: sqlalchemy.engine is used as it is; remove one of the two."
            raise SettingError(msg)
        check_ready_engine(backend, database.engine)
        if install_listeners(database.engine, backend):
            backend.watch_connections(database.engine)
        return database.engine
    check_options(backend, database.options)
    engine = _prepared(database, backend, budget)
    install_listeners(engine, backend)
    separate_processes(engine, backend)
    return engine


def make_reading_engine(database: Database, sqa_options: Mapping[str, Any]) -> Engine:
    """Return a second engine of *database*, for read-only requests, with a pool of its own.

    The server refuses each write on its connections. They are in AUTOCOMMIT, so that a statement
    needs no BEGIN and no COMMIT.
    """
    backend = backend_for(database.url, sqa_options, database.name, database.prefix)
    backend.reading = True
    budget = _budget_options(database, sqa_options, backend.UNLISTED_CONNECTIONS)
    reading = replace(database, options={**database.options, "isolation_level": "AUTOCOMMIT"})
    engine = _prepared(reading, backend, budget)
    install_reading_listeners(engine, backend)
    separate_processes(engine, backend)
    return engine


def make_replica_engine(database: Database, url: URL, sqa_options: Mapping[str, Any]) -> Engine:
    """Return an engine as :func:`make_reading_engine` does, for the replica of *database* at *url*.

    No request waits longer than ``sqa.reader.wait`` for a connection to it.
    """
    wait = max(1, ceil(sqa_options["reader.wait"]))
    arguments = {**database.options.get("connect_args", {}), "connect_timeout": wait}
    options = {**database.options, "connect_args": arguments}
    replica = replace(database, url=url, options=options, engine=None)
    # One that is silent now is to be found out before a statement waits for it.
    own = {"hosts": None, "ping_after": min(wait, sqa_options["ping_after"])}
    return make_reading_engine(replica, {**sqa_options, **own})


def reads_apart(database: Database) -> bool:
    """Tell whether read-only requests can have connections to *database* of their own.

    They cannot where the application has made the engine or the pool, nor where the database is in
    the memory of one connection.
    """
    backend = backend_class(database.url.get_backend_name())
    ready = database.engine is not None or "pool" in database.options
    return backend.READS_APART and not ready and not backend.is_memory(database.url)


def _prepared(database: Database, backend: Backend, budget: Mapping[str, Any]) -> Engine:
    """Return a new engine of *database*, whose connections are set up as *backend* does it."""
    sqa_options = backend.sqa_options
    options = _with_defaults(database, backend.engine_defaults(), budget)
    engine = _create(database, options)
    # In this order: each of these do_connect listeners hands the connecting on to the next, and
    # the last one to the dialect, whose connect() the backend may replace.
    if sqa_options["hosts"]:
        use_hosts(engine, backend, sqa_options["hosts"])
    path = sqa_options["password_file"]
    if path:
        use_password_file(engine, path, options["connect_args"])
    backend.prepare(engine, options["connect_args"])
    if sqa_options["shortcuts"]:
        ping_in_doubt(engine, backend)
        know_listeners(engine)
    if sqa_options["reset_connection"]:
        event.listen(engine, "checkin", _close_connection)
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
    return engine


def _close_connection(_connection: object, record: ConnectionPoolEntry) -> None:
    """Close a connection that comes back to the pool, and so drop all that was set on it."""
    record.invalidate()


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
    if limit <= reserve:
        msg = (
            f"sqa.max_connections = {limit}: the server counts a connection for a moment after it "
            f"was closed, and {reserve} is kept free for that; write {reserve + 1} or more."
        )
        raise SettingError(msg)
    return {**BUDGET_DEFAULTS, "max_connections": limit, "reserve": reserve}


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
    poolclass = given.pop("poolclass", None) or options.pop("poolclass", None)
    poolclass = poolclass or backend.get_pool_class(database.url)
    if "pool" in given:
        unwanted = {name for name in options if name.startswith("pool")} | QUEUE_POOL_OPTIONS
    else:
        unwanted = set() if issubclass(poolclass, (QueuePool, BudgetPool)) else QUEUE_POOL_OPTIONS
        given["poolclass"] = one_process(poolclass)
    arguments = {**options.pop("connect_args", {}), **given.pop("connect_args", {})}
    kept = {name: value for name, value in options.items() if name not in unwanted}
    return {**kept, **given, "connect_args": arguments}
