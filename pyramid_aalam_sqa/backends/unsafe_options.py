"""Refuses, at start-up, options that would break what a transaction promises.

With them an error answer could leave rows behind, one request could commit the rows of another, or
rows could be lost after a COMMIT. This module has what all products share. What is particular to
one product and its drivers is in its Backend.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from ..exceptions import SettingError
from .backend import Backend
from .spelling import most_similar

AUTOCOMMIT_ADVICE = (
    "every statement would be stored at once, and an error answer could not undo it. Remove it. "
    "A single connection may have it: "
    'engine.connect().execution_options(isolation_level="AUTOCOMMIT").'
)


RESET_ADVICE = (
    "a transaction that was left open would go on in the next request, which would commit it. "
    "Remove it, or write rollback."
)


SHARED_ADVICE = (
    "hands one connection to several requests at once, and one would commit what another has "
    "written. Remove it: without it all threads share a database in memory, one after the other."
)


def check_options(backend: Backend, options: Mapping[str, Any]) -> None:
    """Raise :class:`SettingError` for the first option that breaks the promise.

    *options* are those for create_engine that the application has given. The parameters of the URL
    are checked too, and whether the driver knows each of its arguments.
    """
    for key, advice in (*_unsafe_options(backend, options), *_unsafe_arguments(backend, options)):
        msg = f"{key}: {advice}"
        raise SettingError(msg)


def check_ready_engine(backend: Backend, engine: Engine) -> None:
    """Raise :class:`SettingError` if *engine*, which the application has made, breaks the promise.

    What the engine does not show is checked on each new connection.
    """
    advice = backend.driver_problem(engine.dialect)
    if advice is None and _is_autocommit(engine.get_execution_options()):
        advice = f"with isolation_level = AUTOCOMMIT {AUTOCOMMIT_ADVICE}"
    if advice:
        msg = f"{backend.prefix}engine: {advice}"
        raise SettingError(msg)


def _unsafe_options(backend: Backend, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the key of each unsafe option and the advice for it."""
    prefix = backend.prefix
    if _is_autocommit(options):
        yield f"{prefix}isolation_level", f"with AUTOCOMMIT {AUTOCOMMIT_ADVICE}"
    if _is_autocommit(options.get("execution_options") or {}):
        yield f"{prefix}execution_options", f"with AUTOCOMMIT {AUTOCOMMIT_ADVICE}"
    if options.get("pool_reset_on_return", "rollback") != "rollback":
        yield f"{prefix}pool_reset_on_return", RESET_ADVICE
    for key in ("pool", "poolclass"):
        found = options.get(key)
        pool_class = found if isinstance(found, type) else type(found)
        if issubclass(pool_class, (StaticPool, SingletonThreadPool)):
            yield f"{prefix}{key}", f"a {pool_class.__name__} {SHARED_ADVICE}"
    yield from backend.unsafe_options(options)


def _unsafe_arguments(backend: Backend, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the place of each unsafe or unknown argument of the driver and the advice for it."""
    known = backend.driver_arguments(
        options.get("module") or backend.url.get_dialect().import_dbapi()
    )
    places = (
        (f"{backend.prefix}connect_args.", options.get("connect_args") or {}),
        (f"{backend.prefix}url: ?", backend.url.query),
    )
    for place, given in places:
        for name, value in given.items():
            advice = backend.unsafe_argument(name, value)
            if advice is None and known is not None and name not in known:
                advice = _unknown_argument(name, known)
            if advice is not None:
                yield f"{place}{name}", advice


def _unknown_argument(name: str, known: frozenset[str]) -> str:
    near = most_similar(name, sorted(known))
    advice = f"did you mean {near}?" if near else "remove it."
    return f"the driver has no such argument; {advice}"


def _is_autocommit(options: Mapping[str, Any]) -> bool:
    level = options.get("isolation_level")
    return isinstance(level, str) and level.strip().upper() == "AUTOCOMMIT"
