"""Recognises a lazy load, the rows of one query that repeat it, and the option that cures it.

SQLAlchemy tells of a lazily loaded relationship in the public event ``do_orm_execute``. Of a
deferred column it tells only that a column is loaded; which one, and for which object, is in
attributes without a public name. They are read in this module alone.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import ColumnProperty, Mapper, MapperProperty, ORMExecuteState, Session

from .lines import Line

# The execution option in which a statement carries its lazy load to where it is recorded.
LAZY_LOAD = "sqa_lazy_load"


@dataclass(frozen=True, slots=True)
class LazyLoad:
    """One lazy load: *attribute* of *parent*; those of one *group* are of one query's rows."""

    attribute: str
    option: str
    parent: Hashable
    group: Hashable


@dataclass(slots=True)
class NPlusOne:
    """A lazy load that was repeated for the rows of one query: one statement for each of them.

    *option* is what cures it, added to that query; *line* is where the first load happened.
    """

    attribute: str
    option: str
    line: Line | None
    parents: set[Hashable] = field(default_factory=set, repr=False)
    # Whether the log is to have it, and whether it has it already.
    wanted: bool = False
    said: bool = False

    @property
    def count(self) -> int:
        """Return for how many rows of the query it was loaded."""
        return len(self.parents)

    def __str__(self) -> str:
        where = f" at {self.line}" if self.line else ""
        return (
            f"N+1: {self.attribute} was loaded for {self.count} rows of one query, each with a "
            f"statement of its own{where}: add .options({self.option}) to that query."
        )


@cache
def mark_lazy_loads() -> None:
    """Have each lazy load of every session carry its description, from now on.

    The listener is of all sessions: those of tests and jobs are plain ones of SQLAlchemy.
    """
    event.listen(Session, "do_orm_execute", _mark)


def _mark(state: ORMExecuteState) -> None:
    if state.is_select and (state.is_column_load or state.lazy_loaded_from is not None):
        load = _lazy_load_of(state)
        if load is not None:
            state.update_execution_options(**{LAZY_LOAD: load})


def _lazy_load_of(state: ORMExecuteState) -> LazyLoad | None:
    parent: Any = state.lazy_loaded_from
    if parent is not None:
        path = state.loader_strategy_path
        steps = list(_relationships(path)) if path is not None else []
        if not steps:
            return None
        option = ".".join(f"selectinload({name})" for name in steps)
        return _of_rows(steps[-1], option, parent)
    parent = getattr(state.load_options, "_refresh_state", None)
    names = getattr(getattr(state.statement, "_compile_options", None), "_only_load_props", None)
    if parent is None or not names:
        return None
    return _column_load(parent, sorted(names))


def _of_rows(attribute: str, option: str, parent: Any) -> LazyLoad | None:
    # SQLAlchemy numbers its queries; an object that was not loaded by one has no number.
    if parent.runid is None:
        return None
    return LazyLoad(attribute, option, parent.key, (attribute, parent.runid))


def _relationships(path: Any) -> Iterator[str]:
    """Yield ``Author.books`` for each relationship on the way from the query to what is loaded."""
    for step in path.path:
        if isinstance(step, MapperProperty):
            yield f"{step.parent.class_.__name__}.{step.key}"


def _column_load(parent: Any, names: list[str]) -> LazyLoad | None:
    mapper: Mapper[Any] = parent.mapper
    prefix = "".join(f"selectinload({name})." for name in _relationships(parent.load_path))
    deferred = [_attribute(mapper, name) for name in names if _is_deferred(mapper, name)]
    if deferred:
        options = ".".join(f"undefer({name})" for name in deferred)
        return _of_rows(deferred[0], prefix + options, parent)
    # Columns of a subclass, which a query for its base does not load. What has expired is all of
    # an object's columns, and to load them again is no mistake of the query.
    above = mapper.inherits
    if above is None or any(name in above.attrs for name in names):
        return None
    base, own = mapper.base_mapper.class_.__name__, mapper.class_.__name__
    option = f"{prefix}selectin_polymorphic({base}, [{own}])"
    return _of_rows(_attribute(mapper, names[0]), option, parent)


def _is_deferred(mapper: Mapper[Any], name: str) -> bool:
    attribute = mapper.attrs[name]
    return isinstance(attribute, ColumnProperty) and attribute.deferred


def _attribute(mapper: Mapper[Any], name: str) -> str:
    owner: Mapper[Any] = mapper.attrs[name].parent
    return f"{owner.class_.__name__}.{name}"
