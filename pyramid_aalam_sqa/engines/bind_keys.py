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
from ..settings import DEFAULT_KEY

# Where a class and an ``info`` dictionary have their bind key.
BIND_KEY_ATTRIBUTE = "__bind_key__"
BIND_KEY_INFO = "bind_key"

_generations = count(1)
_generation = 0
_lock = threading.Lock()
_keys_of_classes: tuple[int, WeakKeyDictionary[Table, set[str]]] = (-1, WeakKeyDictionary())


def mapping_generation() -> int:
    """Return a number that changes whenever a class is mapped.

    A cache of bind keys is valid for one generation: a new class may give a table another key.
    """
    return _generation


@event.listens_for(Mapper, "after_mapper_constructed")
def _begin_generation(*_: object) -> None:
    global _generation  # noqa: PLW0603 - of the process, as SQLAlchemy's registries are
    _generation = next(_generations)


def names_by_bind_key(tables: Iterable[Any]) -> dict[str, list[str]]:
    """Return the bind keys of *tables* and sequences, each key with the names that have it."""
    found: dict[str, list[str]] = {}
    for table in tables:
        found.setdefault(bind_key_of(table), []).append(full_name(table))
    return found


def full_name(item: Any) -> str:
    """Return the name of *item*, a table or a sequence, with its schema if a table has one."""
    return str(getattr(item, "fullname", None) or item.name)


def bind_key_of(item: Any) -> str:
    """Return the bind key of *item*, a table or a sequence.

    The first of these that has a key decides: the class that is mapped to the table, the
    ``info`` of *item*, the ``info`` of its MetaData. Without any it is ``default``. Raises
    :class:`BindError` when two classes give the table different keys.
    """
    known = _class_keys_by_table().get(item) if isinstance(item, Table) else None
    if known:
        if len(known) > 1:
            keys = " and ".join(sorted(known))
            msg = f"The table {item.fullname!r} has classes with the bind keys {keys}: write one."
            raise BindError(msg)
        return next(iter(known))
    own = item.info.get(BIND_KEY_INFO)
    inherited = item.metadata.info.get(BIND_KEY_INFO) if item.metadata else None
    return str(own or inherited or DEFAULT_KEY)


def tables_with_bind_key(key: str, metadata: MetaData) -> list[Table]:
    """Return the tables of *metadata* whose bind key is *key*, in the order of creation."""
    return [table for table in metadata.sorted_tables if bind_key_of(table) == key]


def tables_of_mapper(mapper: Mapper[Any]) -> set[Any]:
    """Return the tables of *mapper* and of all mappers with the same base class.

    A flush sends the statements for all of them on one connection.
    """
    return {table for each in mapper.base_mapper.self_and_descendants for table in each.tables}


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
        kind = _part_finder(each.__class__)
        if kind is Table:
            found.add(each)
        elif kind is not None and id(each) not in seen:
            # A recursive CTE has itself among its parts.
            seen.add(id(each))
            rest += kind(each)
    return found


def _parts_of_insert(statement: Any) -> list[Any]:
    """Return the children of an INSERT and the values of its rows, which are not children."""
    rows = chain.from_iterable(statement._multi_values)  # noqa: SLF001 - it has no public name
    values = (row.values() if isinstance(row, dict) else row for row in rows)
    return [*statement.get_children(), *chain.from_iterable(values)]


def _parts_of_column(column: Any) -> list[Any]:
    """Return the column's table: DELETE ... USING names its second table in no other way."""
    return [] if column.table is None else [column.table]


# How the parts of each type of element are found. Table marks what tables_in() looks for, None
# an element without parts. The first base class that matches decides.
PART_FINDERS: dict[type, Any] = {
    Table: Table,
    Sequence: Table,
    next_value: lambda function: [function.sequence],
    BindParameter: None,
    ColumnClause: _parts_of_column,
    Insert: _parts_of_insert,
    ExternallyTraversible: methodcaller("get_children"),
}


@cache
def _part_finder(element_type: Any) -> Any:
    """Return the entry of PART_FINDERS for *element_type*; None if there is none."""
    return next(
        (find for base, find in PART_FINDERS.items() if issubclass(element_type, base)), None
    )


def _class_keys_by_table() -> WeakKeyDictionary[Table, set[str]]:
    """Return the bind keys that mapped classes give to their tables."""
    global _keys_of_classes  # noqa: PLW0603 - a cache of the process, as above
    if _keys_of_classes[0] != _generation:
        with _lock:
            # Read first: a class that is mapped meanwhile makes what is found here outdated.
            generation = _generation
            _keys_of_classes = (generation, _read_class_keys())
    return _keys_of_classes[1]


def mapped_classes() -> list[type]:
    """Return every class of this process that is mapped to a table."""
    return [mapper.class_ for registry in _all_registries() for mapper in registry.mappers]


def _read_class_keys() -> WeakKeyDictionary[Table, set[str]]:
    keys: WeakKeyDictionary[Table, set[str]] = WeakKeyDictionary()
    for registry in _all_registries():
        for mapper in registry.mappers:
            own = getattr(mapper.class_, BIND_KEY_ATTRIBUTE, None)
            if own is not None:
                for table in tables_in(mapper.local_table):
                    keys.setdefault(table, set()).add(own)
    return keys
