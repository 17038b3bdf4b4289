"""What a statement is made of: what it selects and from where, how its rows are told apart."""

# ruff: noqa: SLF001 - a Select has no public names for most of what was put into it

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from sqlalchemy import (
    JSON,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Join,
    Label,
    Select,
    Subquery,
    Table,
    func,
    inspect,
    literal_column,
    select,
)
from sqlalchemy.orm import Bundle, Mapper
from sqlalchemy.orm.util import AliasedInsp
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    BindParameter,
    ColumnClause,
    _label_reference,
    _textual_label_reference,
)
from sqlalchemy.sql.selectable import CTE

Column = ColumnElement[Any]


LABELS = (_label_reference, _textual_label_reference)


# What does not depend on the row that is joined; a function may.
GIVEN = (ColumnClause, BindParameter)


EXTENSIONS = ("pre_columns", "post_select", "post_criteria", "post_body")


def order_clauses(statement: Any) -> Sequence[Any]:
    """Return what stands in ORDER BY."""
    return cast("Sequence[Any]", statement._order_by_clauses)


def group_clauses(statement: Select[Any]) -> Sequence[Any]:
    """Return what stands in GROUP BY."""
    return cast("Sequence[Any]", statement._group_by_clauses)


def is_limited(statement: Any) -> bool:
    """Tell whether there is a LIMIT, an OFFSET or a FETCH."""
    return bool(statement._has_row_limiting_clause)


def is_distinct(statement: Select[Any]) -> bool:
    """Tell whether equal rows are made one."""
    return bool(statement._distinct) and not has_extension(statement)


def has_extension(statement: Select[Any]) -> bool:
    """Tell whether there is a clause that only one database knows, such as DISTINCT ON."""
    parts = (getattr(statement, f"_{name}_clause", None) for name in EXTENSIONS)
    return bool(statement._distinct_on) or any(part is not None for part in parts)


def selects_rows(statement: Select[Any]) -> bool:
    """Tell whether an entity or a column is selected, so that no count() makes one row of all."""
    return not statement._having_criteria and any(map(_is_row, statement.column_descriptions))


def count_of(statement: Select[Any]) -> Select[Any]:
    """Return the statement that counts the rows of *statement*.

    Without its columns, its order and its eager loads; without FOR UPDATE, which would lock all.
    """
    bare = statement.order_by(None)
    bare._for_update_arg = None
    if has_extension(bare):
        pass
    elif is_distinct(bare):
        if keys := entity_keys(bare):
            bare = bare.with_only_columns(*keys, maintain_column_froms=True)
    elif group_clauses(bare):
        if not any(isinstance(clause, LABELS) for clause in group_clauses(bare)):
            bare = _bare(bare)
    elif selects_rows(bare):
        return bare.with_only_columns(func.count(), maintain_column_froms=True)
    return select(func.count()).select_from(bare.subquery())


def selected(statement: Select[Any]) -> list[Column]:
    """Return the columns that are selected, without those that cannot be sorted by."""
    return [
        column
        for column in statement.selected_columns
        if not isinstance(unlabelled(column), BindParameter) and not isinstance(column.type, JSON)
    ]


def entity_keys(statement: Select[Any]) -> list[Column]:
    """Return the primary keys of the entities, or nothing where more than these is selected."""
    expressions = [description["expr"] for description in statement.column_descriptions]
    if not all(map(_is_entity, expressions)):
        return []
    return [column for entity in expressions for column in _entity_key(entity)]


def unique_columns(statement: Select[Any]) -> tuple[Iterable[Any], str]:
    """Return columns that tell rows apart and by which it is legal to sort, and what is in doubt.

    The primary keys of what is selected from; with DISTINCT what is selected; with GROUP BY what
    is grouped by. Where there are none, what is selected, and the reason.
    """
    if is_distinct(statement):
        return entity_keys(statement) or selected(statement), ""
    if group_clauses(statement):
        return group_clauses(statement), ""
    if not selects_rows(statement):
        return selected(statement), "this statement selects no entity and no column"
    keys = [_from_key(from_) for from_ in _froms(statement)]
    if not all(keys):
        return selected(statement), "something that is selected from here has no primary key"
    doubt = "DISTINCT ON chooses rows" if has_extension(statement) else ""
    return [column for key in keys for column in key], doubt


def has_outer_join(statement: Select[Any]) -> bool:
    """Tell whether a row may come with NULL for a whole table."""
    return any(map(_is_outer, _froms(statement)))


def is_never_null(column: Any) -> bool:
    """Tell whether *column* is one of a table, and declared NOT NULL."""
    table = getattr(column, "table", None)
    return isinstance(getattr(table, "element", table), Table) and not column.nullable


def is_joined(statement: Select[Any]) -> bool:
    """Tell whether one row of a table may be there several times."""
    merged = is_distinct(statement) or group_clauses(statement)
    return bool(statement._setup_joins or statement._from_obj) and not merged


def width_of(statement: Select[Any]) -> int:
    """Return how many columns a row has; the keys of a result leave those without a name out."""
    return len(statement.column_descriptions)


def unlabelled(column: Any) -> Any:
    """Return *column* as it may stand in WHERE."""
    return unlabelled(column.element) if isinstance(column, Label) else column


def identity(column: Any) -> object:
    """Return what is equal for the same column, however the ORM has annotated it."""
    table = getattr(column, "table", None)
    # SQLAlchemy gives an annotated table the hash of the table.
    return hash(unlabelled(column)) if table is None else (hash(table), column.name)


def _bare(statement: Select[Any]) -> Select[Any]:
    return statement.with_only_columns(literal_column("1"), maintain_column_froms=True)


def _froms(statement: Select[Any]) -> Sequence[FromClause]:
    """Return what is selected from, without the joins of eager loads."""
    if not (statement._setup_joins or statement._from_obj):
        parts = (*statement._raw_columns, *statement._where_criteria)
        froms = {hash(from_): from_ for part in parts for from_ in part._from_objects}
        if len(froms) == 1:
            # get_final_froms() compiles the statement, which costs more than the page itself.
            return list(froms.values())
    return _bare(statement).order_by(None).group_by(None).get_final_froms()


def _is_row(description: Any) -> bool:
    expression = description["expr"]
    if isinstance(expression, Bundle) or _is_entity(expression):
        return True
    column = unlabelled(getattr(expression, "expression", expression))
    return isinstance(column, ColumnClause) and not column.is_literal


def _is_entity(expression: Any) -> bool:
    return isinstance(inspect(expression, raiseerr=False), (Mapper, AliasedInsp))


def _entity_key(entity: Any) -> Iterator[Column]:
    mapper = inspect(entity).mapper
    for column in mapper.primary_key:
        yield getattr(entity, mapper.get_property_by_column(column).key).expression


def _from_key(from_: FromClause) -> list[Column]:
    """Return the columns that tell the rows of *from_* apart, or nothing when there are none.

    Without those of a table that is joined by its whole primary key: to sort by the keys of two
    tables, a database can use the index of neither.
    """
    entity = from_._annotations.get("parententity")
    # The ORM marks a join of two entities with the first of them.
    if entity is not None and hash(entity.selectable) == hash(from_):
        return list(_entity_key(entity.entity))
    if isinstance(from_, (Subquery, CTE)):
        return _subquery_key(from_)
    if not isinstance(from_, Join):
        return list(getattr(from_, "primary_key", ()))
    left, right = _from_key(from_.left), _from_key(from_.right)
    if not left or not right:
        return []
    given = set(_given_by(from_.onclause, set(map(identity, from_.right.c))))
    if not from_.full and set(map(identity, right)) <= given:
        return left
    return left + right


def _subquery_key(rows: Subquery | CTE) -> list[Column]:
    inner: Any = rows.element
    if isinstance(inner, CompoundSelect):
        return [] if inner.keyword.value.endswith("ALL") else list(rows.c)
    if not isinstance(inner, Select):
        return []
    columns, doubt = unique_columns(inner)
    found = [rows.corresponding_column(column) for column in columns]
    return [] if doubt or any(column is None for column in found) else cast("list[Column]", found)


def _given_by(condition: Any, own: set[object]) -> Iterator[object]:
    """Yield those of a table's *own* columns that *condition* makes equal to another's."""
    operator = getattr(condition, "operator", None)
    if operator is operators.and_:
        for part in condition.clauses:
            yield from _given_by(part, own)
    elif operator is operators.eq:
        for side, other in ((condition.left, condition.right), (condition.right, condition.left)):
            if isinstance(other, GIVEN) and identity(side) in own and identity(other) not in own:
                yield identity(side)


def _is_outer(from_: FromClause) -> bool:
    if not isinstance(from_, Join):
        return False
    return from_.isouter or from_.full or _is_outer(from_.left) or _is_outer(from_.right)
