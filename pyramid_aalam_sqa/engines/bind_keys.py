"""Finds the bind keys of a statement or a mapper: the databases that its tables are in."""

import threading
from collections.abc import Iterable
from functools import cache
from itertools import chain, count
from operator import methodcaller
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import MetaData, Sequence, Table, event
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.mapper import _all_registries
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.expression import BindParameter, ColumnClause, Insert
from sqlalchemy.sql.functions import next_value
from sqlalchemy.sql.visitors import ExternallyTraversible

from ..exceptions import BindError
from ..settings import DEFAULT

BIND_KEY_ATTRIBUTE = "__bind_key__"


BIND_KEY_INFO = "bind_key"


# Another number whenever a class was mapped: what was found before may be wrong since.
_numbers = count(1)


_generation = 0


_lock = threading.Lock()


_classes: tuple[int, WeakKeyDictionary[Table, set[str]]] = (-1, WeakKeyDictionary())


def mapping_generation() -> int:
    """Return a number that is another one when more classes are mapped."""
    return _generation


@event.listens_for(Mapper, "after_mapper_constructed")
def _begin_generation(*_: object) -> None:
    global _generation  # noqa: PLW0603 - of the process, as SQLAlchemy's registries are
    _generation = next(_numbers)


def names_by_bind_key(tables: Iterable[Any]) -> dict[str, list[str]]:
    """Return the keys of *tables* and sequences, each with the names of its own."""
    found: dict[str, list[str]] = {}
    for table in tables:
        found.setdefault(bind_key_of(table), []).append(full_name(table))
    return found


def full_name(item: Any) -> str:
    """Return the name of *item*, with its schema where a table has one."""
    return str(getattr(item, "fullname", None) or item.name)


def bind_key_of(item: Any) -> str:
    """Return the bind key of *item*, a table or a sequence.

    The class that is mapped to it knows it, else its own ``info``, else that of its MetaData.
    """
    known = _keys_of_classes().get(item) if isinstance(item, Table) else None
    if known:
        if len(known) > 1:
            keys = " and ".join(sorted(known))
            msg = f"The table {item.fullname!r} has classes with the bind keys {keys}: write one."
            raise BindError(msg)
        return next(iter(known))
    own = item.info.get(BIND_KEY_INFO)
    return str(own or (item.metadata.info.get(BIND_KEY_INFO) if item.metadata else None) or DEFAULT)


def tables_with_bind_key(key: str, metadata: MetaData) -> list[Table]:
    """Return the tables of *metadata* that are in the database called *key*."""
    return [table for table in metadata.sorted_tables if bind_key_of(table) == key]


def tables_in(statement: Any) -> set[Any]:
    """Return the tables and sequences that *statement* uses at any depth."""
    if isinstance(statement, ExecutableDDLElement):
        target = getattr(statement, "element", None)
        target = getattr(target, "table", target)
        return {target} if isinstance(target, (Table, Sequence)) else set()
    found: set[Any] = set()
    seen: set[int] = set()
    rest = [statement]
    while rest:
        each = rest.pop()
        kind = _kind(each.__class__)
        if kind is Table:
            found.add(each)
        elif kind is not None and id(each) not in seen:
            # A CTE that calls itself has itself among its parts.
            seen.add(id(each))
            rest += kind(each)
    return found


def _parts_of_insert(statement: Any) -> list[Any]:
    """Return the children and, which are none, the rows of a ``values([...])``."""
    rows = chain.from_iterable(statement._multi_values)  # noqa: SLF001 - it has no public name
    values = (row.values() if isinstance(row, dict) else row for row in rows)
    return [*statement.get_children(), *chain.from_iterable(values)]


def _parts_of_column(column: Any) -> list[Any]:
    """Return the table: all that DELETE ... USING says of its second one."""
    return [] if column.table is None else [column.table]


# For each base of what may be in a statement its parts; Table is what is looked for.
PARTS: dict[type, Any] = {
    Table: Table,
    Sequence: Table,
    next_value: lambda function: [function.sequence],
    BindParameter: None,
    ColumnClause: _parts_of_column,
    Insert: _parts_of_insert,
    ExternallyTraversible: methodcaller("get_children"),
}


@cache
def _kind(of: Any) -> Any:
    """Return how the parts of an object of the type *of* are found; None when it has none."""
    return next((parts for base, parts in PARTS.items() if issubclass(of, base)), None)


def tables_of_mapper(mapper: Mapper[Any]) -> set[Any]:
    """Return the tables of *mapper* and of all with the same base: a flush has one connection."""
    return {table for each in mapper.base_mapper.self_and_descendants for table in each.tables}


def _keys_of_classes() -> WeakKeyDictionary[Table, set[str]]:
    """Return the keys that mapped classes give to their tables."""
    global _classes  # noqa: PLW0603 - as above
    if _classes[0] != _generation:
        with _lock:
            now = _generation
            _classes = (now, _read_classes())
    return _classes[1]


def _read_classes() -> WeakKeyDictionary[Table, set[str]]:
    keys: WeakKeyDictionary[Table, set[str]] = WeakKeyDictionary()
    for registry in _all_registries():
        for mapper in registry.mappers:
            own = getattr(mapper.class_, BIND_KEY_ATTRIBUTE, None)
            if own is not None:
                for table in tables_in(mapper.local_table):
                    keys.setdefault(table, set()).add(own)
    return keys
