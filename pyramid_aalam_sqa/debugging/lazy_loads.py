"""Recognises a lazy load, the rows of one query that repeat it, and the option that cures it.

SQLAlchemy tells of a lazily loaded relationship in the public event ``do_orm_execute``. Of a
deferred column it tells only that a column is loaded; which one, and for which object, is in
attributes without a public name. They are read in this module alone.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import ColumnProperty, Mapper, MapperProperty, ORMExecuteState, Session
from sqlalchemy.orm.interfaces import UserDefinedOption

from .lines import Line

# The execution option in which a statement carries its lazy load to where it is recorded.
LAZY_LOAD = "sqa_lazy_load"
# Lazy loads below lazy loads. The option for what is deeper would be longer than a reader bears.
DEEPEST = 5


@dataclass(frozen=True, slots=True)
class LazyLoad:
    """One lazy load: *attribute* of *parent*. Those of one *group* are of one query's rows.

    A row that was itself lazily loaded counts as a row of the query at the beginning: *option* is
    for that query, and *depth* is the number of lazy loads from there.
    """

    attribute: str
    option: str
    parent: Hashable
    group: Hashable
    depth: int = 1


class Origin(UserDefinedOption):
    """Tells each object which lazy load has loaded it: SQLAlchemy hands the option on to it.

    With an option, SQLAlchemy also keeps the path that leads from the query to the object.
    """

    propagate_to_loaders = True


@dataclass(slots=True)
class Group:
    """The lazy loads of one attribute for the rows of one query."""

    attribute: str
    option: str
    # Where the first of them happened.
    line: Line | None
    parents: set[Hashable] = field(default_factory=set)
    # Whether the log is to have it, and whether it has it already.
    wanted: bool = False
    said: bool = False


@dataclass(frozen=True, slots=True)
class NPlusOne:
    """A lazy load that was repeated for the rows of one query: one statement for each of them.

    *option* is what cures it, added to that query; *line* is where the first load happened.
    *count* is the number of rows, *queries* the number of queries that they are of: 1, unless the
    same code has run more than once.
    """

    attribute: str
    option: str
    line: Line | None
    count: int
    queries: int = 1

    @property
    def rows(self) -> str:
        """Return for what it was loaded: ``3 rows of one query``."""
        queries = "one query" if self.queries == 1 else f"{self.queries} queries"
        return f"{self.count} rows of {queries}"

    def __str__(self) -> str:
        where = f" at {self.line}" if self.line else ""
        return (
            f"N+1: {self.attribute} was loaded for {self.rows}, each row with a statement of its "
            f"own{where}: add .options({self.option}) to the query."
        )


def found_in(groups: Iterable[Group]) -> list[NPlusOne]:
    """Return what is found in *groups*: those of two rows or more, equal ones as one."""
    guilty: dict[tuple[str, str, Line | None], list[int]] = {}
    for group in groups:
        if len(group.parents) > 1:
            key = (group.attribute, group.option, group.line)
            guilty.setdefault(key, []).append(len(group.parents))
    return [NPlusOne(*key, sum(counts), len(counts)) for key, counts in guilty.items()]


@cache
def mark_lazy_loads() -> None:
    """Have each lazy load of every session carry its description, from now on.

    The listener is of all sessions: those of tests and jobs are plain ones of SQLAlchemy.
    """
    event.listen(Session, "do_orm_execute", _mark)


def _mark(state: ORMExecuteState) -> None:
    if not state.is_select:
        return
    if state.lazy_loaded_from is not None:
        load = _relationship_load(state, state.lazy_loaded_from)
    elif state.is_column_load:
        load = _column_load(state)
    else:
        return
    if load is not None:
        state.update_execution_options(**{LAZY_LOAD: load})
        state.statement = state.statement.options(Origin(load))


def _relationship_load(state: ORMExecuteState, parent: Any) -> LazyLoad | None:
    steps = list(_relationships(state.loader_strategy_path))
    return _of_rows(steps[-1], ".".join(f"selectinload({name})" for name in steps), parent)


def _of_rows(attribute: str, option: str, parent: Any) -> LazyLoad | None:
    loads: list[Any] = [each.payload for each in parent.load_options if isinstance(each, Origin)]
    if loads:
        above = loads[-1]
        if above.depth == DEEPEST:
            return None
        group = (attribute, above.group)
        return LazyLoad(attribute, option, parent.key, group, above.depth + 1)
    # SQLAlchemy numbers its queries; an object that was not loaded by one has no number.
    if parent.runid is None:
        return None
    return LazyLoad(attribute, option, parent.key, (attribute, parent.runid))


def _relationships(path: Any) -> Iterator[str]:
    """Yield ``Author.books`` for each relationship on the way from the query to what is loaded."""
    for step in path.path:
        if isinstance(step, MapperProperty):
            yield f"{step.parent.class_.__name__}.{step.key}"


def _column_load(state: ORMExecuteState) -> LazyLoad | None:
    parent: Any = getattr(state.load_options, "_refresh_state", None)
    options = getattr(state.statement, "_compile_options", None)
    # Without names it is session.refresh(), which is asked for row by row.
    names = sorted(getattr(options, "_only_load_props", None) or ())
    if not names:
        return None
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
