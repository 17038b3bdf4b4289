"""In which order a statement's rows come, and what is added so that it is the same each time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, CompoundSelect, FromClause, Label, Select, TextClause, select
from sqlalchemy.orm import Query
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import _label_reference, _textual_label_reference
from sqlalchemy.sql.util import ClauseAdapter

from . import statements as shapes

Column = ColumnElement[Any]


Nulls = Literal["first", "last"] | None


FOREIGN = "Only a select(), a union of them, or a Query has pages; {given} is none of these."


LIMITED = (
    "The statement has a LIMIT or an OFFSET, and pages set their own: take them out, or make a "
    "subquery() of it and page a select() from that."
)


NO_PLACE = (
    "Keyset pages need rows that can be told apart, and {doubt}. Select from tables with primary "
    "keys, use distinct() or group_by(), or page without keyset=True."
)


BY_TEXT = "Keyset pages cannot be ordered by text({text!r}): write the column or the expression."


MODIFIERS: dict[object, dict[str, Any]] = {
    operators.asc_op: {"descending": False},
    operators.desc_op: {"descending": True},
    operators.nulls_first_op: {"nulls": "first"},
    operators.nulls_last_op: {"nulls": "last"},
}


@dataclass(frozen=True, slots=True)
class Key:
    """A column, or an expression, that rows are ordered by."""

    column: Column
    descending: bool = False
    nulls: Nulls = None

    def reversed(self) -> "Key":
        """Return the key of the opposite order."""
        opposite: dict[Nulls, Nulls] = {"first": "last", "last": "first", None: None}
        return replace(self, descending=not self.descending, nulls=opposite[self.nulls])

    def clause(self) -> Column:
        """Return what ORDER BY takes."""
        clause = self.column.desc() if self.descending else self.column.asc()
        if self.nulls is None:
            return clause
        return clause.nulls_first() if self.nulls == "first" else clause.nulls_last()


def paged(statement: object) -> Select[Any]:
    """Return *statement* as a select() that can be ordered, limited and cut anywhere.

    TypeError when it is of another kind, ValueError when it is limited already.
    """
    if isinstance(statement, Query):
        statement = statement.statement
    if not isinstance(statement, (Select, CompoundSelect)):
        raise TypeError(FOREIGN.format(given=type(statement).__name__))
    if shapes.is_limited(statement):
        raise ValueError(LIMITED)
    return statement if isinstance(statement, Select) else _around(statement)


def in_total_order(statement: Select[Any]) -> Select[Any]:
    """Return *statement* in an order that is the same each time, as far as there is one.

    With more columns at its end where a join may make equal rows: those of joined eager loads are
    merged, and these shall not be.
    """
    columns, added, doubt = _tie_breakers(statement)
    ordered = statement.order_by(*(key.clause() for key in added))
    if doubt or not shapes.is_joined(statement):
        return ordered
    return ordered.add_columns(*labelled(columns))


def labelled(columns: Iterable[Any]) -> Iterator[Label[Any]]:
    """Yield *columns* under names that no column of an application has."""
    return (column.label(f"_sqa_{number}") for number, column in enumerate(columns))


def keys_of(statement: Select[Any]) -> tuple[Key, ...]:
    """Return the total order of *statement*, by columns that may stand in WHERE.

    ValueError when there is none, TypeError when it is ordered by a text().
    """
    _, added, doubt = _tie_breakers(statement)
    if doubt:
        raise ValueError(NO_PLACE.format(doubt=doubt))
    given = _given_keys(statement)
    for key in given:
        if isinstance(key.column, TextClause):
            raise TypeError(BY_TEXT.format(text=str(key.column)))
    return tuple(replace(key, column=shapes.unlabelled(key.column)) for key in [*given, *added])


def name_of(keys: Iterable[Key]) -> str:
    """Return a text that is the same for the same order, in every process."""
    return ", ".join(f"{key.clause()} {type(key.column.type).__name__}" for key in keys)


def _tie_breakers(statement: Select[Any]) -> tuple[Iterable[Any], list[Key], str]:
    """Return what tells rows apart, what of it is not in ORDER BY, and why it may not be enough."""
    columns, doubt = shapes.unique_columns(statement)
    given = _given_keys(statement)
    # An index is read forwards or backwards, not both at once.
    descending = bool(given) and given[-1].descending
    names = _Names(statement)
    missing = {}
    for column in columns:
        key = _read_key(column, names)
        missing[shapes.identity(key.column)] = replace(key, descending=descending)
    for key in given:
        missing.pop(shapes.identity(key.column), None)
    return columns, list(missing.values()), doubt


def _given_keys(statement: Select[Any]) -> list[Key]:
    names = _Names(statement)
    return [_read_key(clause, names) for clause in shapes.order_clauses(statement)]


def _read_key(clause: Any, names: Any) -> Key:
    """Return *clause* of ORDER BY as a :class:`Key`; *names* has the columns that it may name."""
    found: dict[str, Any] = {}
    while True:
        modifier = MODIFIERS.get(getattr(clause, "modifier", None))
        if modifier is not None:
            found = modifier | found
            clause = clause.element
        elif isinstance(clause, _textual_label_reference):
            clause = names[clause.element]
        elif isinstance(clause, _label_reference):
            clause = clause.element
        else:
            return Key(clause, **found)


class _Names:
    """The columns that a text in ORDER BY may mean, looked for when there is one."""

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement

    def __getitem__(self, name: str) -> Any:
        return self._statement.selected_columns[name]


def _around(compound: CompoundSelect[Any]) -> Select[Any]:
    """A union can be ordered by the names of its columns alone; a select() around it by anything.

    It is distinct as the union was, which the rows of UNION ALL are not.
    """
    rows = compound.order_by(None).subquery()
    adapter = ClauseAdapter(rows)
    clauses = (_moved(clause, rows, adapter) for clause in shapes.order_clauses(compound))
    return select(*rows.c).order_by(*clauses)


def _moved(clause: Any, rows: FromClause, adapter: ClauseAdapter) -> Any:
    """Return *clause* of a union's ORDER BY for a select() from its *rows*."""
    if isinstance(clause, TextClause):
        return clause
    key = _read_key(clause, rows.c)
    if isinstance(key.column, Label) and key.column.name in rows.c:
        return replace(key, column=rows.c[key.column.name]).clause()
    return replace(key, column=adapter.traverse(key.column)).clause()
