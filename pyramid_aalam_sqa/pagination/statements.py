"""Reads the parts of a select(): what it selects, from where, and what makes its rows unique.

A Select is built by public methods, but most of its parts can be read by private names only. All
private names of SQLAlchemy that pages need are in this module.
"""

# ruff: noqa: SLF001 - each has its reason beside it; a Select has no public name for these

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


# In ORDER BY and GROUP BY, these classes stand for a label and for a name that was given as text.
# They do not have public names.
REFERENCES = (_label_reference, _textual_label_reference)


# Expressions that have one value for all rows of the joined table. A function may have another
# value for each row.
FIXED_FOR_JOIN = (ColumnClause, BindParameter)


# The clauses that Select.ext() adds, such as PostgreSQL's DISTINCT ON.
EXTENSIONS = ("pre_columns", "post_select", "post_criteria", "post_body")


def order_clauses(statement: Any) -> Sequence[Any]:
    """Return the clauses of ORDER BY."""
    # The public order_by() can only add clauses.
    return cast("Sequence[Any]", statement._order_by_clauses)


def referenced(clause: Any, statement: Any) -> Any:
    """Return the column of *statement* that *clause* refers to; None if it is not a reference."""
    if isinstance(clause, _textual_label_reference):
        return statement.selected_columns[clause.element]
    return clause.element if isinstance(clause, _label_reference) else None


def group_clauses(statement: Select[Any]) -> Sequence[Any]:
    """Return the clauses of GROUP BY."""
    # The public group_by() can only add clauses.
    return cast("Sequence[Any]", statement._group_by_clauses)


def is_limited(statement: Any) -> bool:
    """Return whether *statement* has a LIMIT, an OFFSET or a FETCH."""
    # The public limit(), offset() and fetch() can only set them.
    return bool(statement._has_row_limiting_clause)


def is_distinct(statement: Select[Any]) -> bool:
    """Return whether *statement* has a DISTINCT that merges equal rows."""
    # The public distinct() can only set it.
    return bool(statement._distinct) and not has_extension(statement)


def has_extension(statement: Select[Any]) -> bool:
    """Return whether *statement* has a clause of one product only, such as DISTINCT ON."""
    parts = (getattr(statement, f"_{name}_clause", None) for name in EXTENSIONS)
    # The public ext() and distinct() can only set them.
    return bool(statement._distinct_on) or any(part is not None for part in parts)


def is_joined(statement: Select[Any]) -> bool:
    """Return whether a join may repeat a row of a table in the result."""
    merged = is_distinct(statement) or group_clauses(statement)
    # The public join() and select_from() can only add to them.
    return bool(statement._setup_joins or statement._from_obj) and not merged


def has_outer_join(statement: Select[Any]) -> bool:
    """Return whether *statement* has an outer join, so that columns may be NULL in some rows."""
    return any(map(_is_outer, _froms(statement)))


def column_count(statement: Select[Any]) -> int:
    """Return the number of columns of a row."""
    # A result's keys() would leave out columns without a name.
    return len(statement.column_descriptions)


def is_never_null(column: Any) -> bool:
    """Return whether *column* belongs to a table, and is declared NOT NULL."""
    table = getattr(column, "table", None)
    return isinstance(getattr(table, "element", table), Table) and not column.nullable


def unlabelled(column: Any) -> Any:
    """Return *column* without its labels, so that it can be used in WHERE."""
    return unlabelled(column.element) if isinstance(column, Label) else column


def column_identity(column: Any) -> object:
    """Return a value that is equal for equal columns, even if the ORM has annotated one of them."""
    table = getattr(column, "table", None)
    # In SQLAlchemy, an annotated table has the same hash as the table.
    return hash(unlabelled(column)) if table is None else (hash(table), column.name)


def count_statement(statement: Select[Any]) -> Select[Any]:
    """Return a statement that counts the rows of *statement*.

    It leaves out what costs time without changing the number: the columns, the order, the eager
    loads. It also leaves out FOR UPDATE, which would lock every row.
    """
    bare = statement.order_by(None)
    # The public with_for_update() can only set it.
    bare._for_update_arg = None
    if has_extension(bare):
        return _count_all(bare)
    if is_distinct(bare):
        keys = _entity_keys(bare)
        return _count_all(
            bare.with_only_columns(*keys, maintain_column_froms=True) if keys else bare
        )
    if group_clauses(bare):
        # If GROUP BY uses a label, the column with that label must stay.
        labelled = any(isinstance(clause, REFERENCES) for clause in group_clauses(bare))
        return _count_all(bare if labelled else _without_columns(bare))
    if _selects_rows(bare):
        return bare.with_only_columns(func.count(), maintain_column_froms=True)
    return _count_all(bare)


def unique_columns(statement: Select[Any]) -> tuple[Iterable[Any], str]:
    """Return columns in which no two rows are equal, and that ORDER BY can use.

    These are the primary keys of the tables. With DISTINCT they are the selected columns, and with
    GROUP BY the columns of GROUP BY. The second value is empty, or says why rows may be equal all
    the same.
    """
    if is_distinct(statement):
        if entity_keys := _entity_keys(statement):
            return entity_keys, ""
        has_json = any(isinstance(column.type, JSON) for column in statement.selected_columns)
        why_not_unique = "some of these rows may differ only in a JSON column" if has_json else ""
        return _sortable_columns(statement), why_not_unique
    if group_clauses(statement):
        return group_clauses(statement), ""
    if not _selects_rows(statement):
        return _sortable_columns(statement), "this statement selects no entity and no column"
    keys = [_from_key(from_) for from_ in _froms(statement)]
    if not all(keys):
        why_not_unique = "this statement selects from a table or subquery without a primary key"
        return _sortable_columns(statement), why_not_unique
    why_not_unique = "DISTINCT ON decides which rows there are" if has_extension(statement) else ""
    return [column for key in keys for column in key], why_not_unique


def _count_all(statement: Select[Any]) -> Select[Any]:
    return select(func.count()).select_from(statement.subquery())


def _without_columns(statement: Select[Any]) -> Select[Any]:
    return statement.with_only_columns(literal_column("1"), maintain_column_froms=True)


def _sortable_columns(statement: Select[Any]) -> list[Column]:
    return [
        column
        for column in statement.selected_columns
        if not isinstance(unlabelled(column), BindParameter) and not isinstance(column.type, JSON)
    ]


def _selects_rows(statement: Select[Any]) -> bool:
    """Return whether *statement* selects an entity or a column, and has no HAVING.

    Only then may count() replace the columns. Anything else, such as max(), may merge all rows.
    """
    # The public having() can only add to it.
    return not statement._having_criteria and any(map(_is_row, statement.column_descriptions))


def _is_row(description: Any) -> bool:
    expression = description["expr"]
    if isinstance(expression, Bundle) or _is_entity(expression):
        return True
    column = unlabelled(getattr(expression, "expression", expression))
    return isinstance(column, ColumnClause) and not column.is_literal


def _is_entity(expression: Any) -> bool:
    return isinstance(inspect(expression, raiseerr=False), (Mapper, AliasedInsp))


def _entity_keys(statement: Select[Any]) -> list[Column]:
    """Return the primary keys of the entities; an empty list if anything else is selected too."""
    expressions = [description["expr"] for description in statement.column_descriptions]
    if not all(map(_is_entity, expressions)):
        return []
    return [column for entity in expressions for column in _entity_key(entity)]


def _entity_key(entity: Any) -> Iterator[Column]:
    mapper = inspect(entity).mapper
    for column in mapper.primary_key:
        yield getattr(entity, mapper.get_property_by_column(column).key).expression


def _froms(statement: Select[Any]) -> Sequence[FromClause]:
    """Return what *statement* selects from, without the joins of eager loads."""
    if not (statement._setup_joins or statement._from_obj):
        # The public get_final_froms() compiles the statement, which takes longer than the page
        # itself. In a statement without a join, the columns and WHERE have all tables.
        parts = (*statement._raw_columns, *statement._where_criteria)
        froms = {hash(from_): from_ for part in parts for from_ in part._from_objects}
        if len(froms) == 1:
            return list(froms.values())
    return _without_columns(statement).order_by(None).group_by(None).get_final_froms()


def _from_key(from_: FromClause) -> list[Column]:
    """Return columns in which no two rows of *from_* are equal; an empty list if there are none.

    If a table is joined by its whole primary key, each row meets one row of it at most. Then its
    key is left out, because an index cannot serve an order by the keys of two tables.
    """
    # The ORM annotates a table with its entity, and a join of two entities with the first entity.
    # The annotation does not have a public name.
    entity = from_._annotations.get("parententity")
    if entity is not None and hash(entity.selectable) == hash(from_):
        return list(_entity_key(entity.entity))
    if isinstance(from_, (Subquery, CTE)):
        return _subquery_key(from_)
    if not isinstance(from_, Join):
        return list(getattr(from_, "primary_key", ()))
    left, right = _from_key(from_.left), _from_key(from_.right)
    if not left or not right:
        return []
    joined_by = set(_columns_fixed_by(from_.onclause, set(map(column_identity, from_.right.c))))
    if not from_.full and set(map(column_identity, right)) <= joined_by:
        return left
    return left + right


def _subquery_key(rows: Subquery | CTE) -> list[Column]:
    inner: Any = rows.element
    if isinstance(inner, CompoundSelect):
        return [] if inner.keyword.value.endswith("ALL") else list(rows.c)
    if not isinstance(inner, Select):
        return []
    columns, why_not_unique = unique_columns(inner)
    found = [rows.corresponding_column(column) for column in columns]
    return (
        []
        if why_not_unique or any(column is None for column in found)
        else cast("list[Column]", found)
    )


def _columns_fixed_by(condition: Any, own: set[object]) -> Iterator[object]:
    """Yield those of *own*, a joined table's columns, for which *condition* allows one value."""
    operator = getattr(condition, "operator", None)
    if operator is operators.and_:
        for part in condition.clauses:
            yield from _columns_fixed_by(part, own)
    elif operator is operators.eq:
        for side, other in ((condition.left, condition.right), (condition.right, condition.left)):
            if not isinstance(other, FIXED_FOR_JOIN):
                continue
            if column_identity(side) in own and column_identity(other) not in own:
                yield column_identity(side)


def _is_outer(from_: FromClause) -> bool:
    if not isinstance(from_, Join):
        return False
    return from_.isouter or from_.full or _is_outer(from_.left) or _is_outer(from_.right)
