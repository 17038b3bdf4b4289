"""Refuses statements on tables with a bind key, in an application that has declared no binds.

Its sessions have one engine and do not look at bind keys. Without this check they would write a row
of the bind ``audit`` into the default database.
"""

import threading
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import MetaData, Table, event
from sqlalchemy.engine import Engine, ExecutionContext
from sqlalchemy.orm import Mapper

from ..backends import listen_for_statements
from ..engines import (
    BIND_KEY_ATTRIBUTE,
    BIND_KEY_INFO,
    mapping_generation,
    names_by_bind_key,
    session_of_connection,
    tables_in,
)
from ..settings import DEFAULT_KEY
from .routing import RoutingSession, unknown_bind

_lock = threading.Lock()
# The engines to check once a class or a table has a bind key. Until then no statement pays for it.
_unchecked: WeakSet[Engine] = WeakSet()
_any_key_declared = False


def refuse_bind_keys(engines: Iterable[Engine]) -> None:
    """Raise :class:`BindError` for statements that use *engines* for tables with a bind key."""
    with _lock:
        for engine in engines:
            if _any_key_declared:
                listen_for_statements(engine, _UndeclaredKeyCheck())
            else:
                _unchecked.add(engine)


def _check_from_now_on() -> None:
    global _any_key_declared  # noqa: PLW0603 - of the process, as SQLAlchemy's registries are
    _any_key_declared = True
    with _lock:
        for engine in list(_unchecked):
            listen_for_statements(engine, _UndeclaredKeyCheck())
        _unchecked.clear()


@event.listens_for(Mapper, "after_mapper_constructed")
def _look_at_class(mapper: Mapper[Any], class_: type[Any]) -> None:
    if getattr(class_, BIND_KEY_ATTRIBUTE, None) not in {None, DEFAULT_KEY}:
        _check_from_now_on()


@event.listens_for(Table, "after_parent_attach")
def _look_at_table(table: Table, metadata: MetaData) -> None:
    keys = (table.info.get(BIND_KEY_INFO), metadata.info.get(BIND_KEY_INFO))
    if any(key not in {None, DEFAULT_KEY} for key in keys):
        _check_from_now_on()


class _UndeclaredKeyCheck:
    """Checks each statement of one engine just before it is sent, once for each compiled form."""

    def __init__(self) -> None:
        # The mapping generation in which a compiled statement was found to have no bind key.
        self._checked: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def __call__(self, _statement: str, context: ExecutionContext | None) -> None:
        compiled = getattr(context, "compiled", None)
        if (
            context is None
            or compiled is None
            or self._checked.get(compiled) == mapping_generation()
        ):
            return
        if isinstance(session_of_connection(context.root_connection), RoutingSession):
            # An application that has binds may use the same ready engine.
            return
        # A statement with what eager loading joins; DDL has none.
        state = getattr(compiled, "compile_state", None)
        final = getattr(state, "statement", None)
        tables = tables_in(compiled.statement if final is None else final)
        for key in names_by_bind_key(tables):
            if key != DEFAULT_KEY:
                raise unknown_bind(key, [DEFAULT_KEY])
        self._checked[compiled] = mapping_generation()
