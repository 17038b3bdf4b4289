"""Checks the expressions that order keyset pages: a row must have the same value on each page."""

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Over, TextClause, Tuple
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter, ColumnClause
from sqlalchemy.sql.functions import FunctionElement

# Functions that may return another value on the next page, even with arguments. All functions
# without arguments are refused too: they may do the same, or have one value for all rows.
VOLATILE = frozenset(
    {
        *("age", "changes", "clock_timestamp", "currval", "curtime", "gen_random_bytes"),
        *("current_time", "current_timestamp", "localtime", "localtimestamp", "nextval", "now"),
        *("rand", "random", "random_bytes", "random_normal", "randomblob", "setseed", "setval"),
        *("sleep", "pg_sleep", "sysdate", "utc_time", "utc_timestamp"),
    }
)
# A function without arguments that always returns the same value.
FIXED = frozenset({"pi"})
# Functions that SQL calls without parentheses.
KEYWORDS = re.compile(
    r"\b(current_date|current_time|current_timestamp|localtime|localtimestamp|sysdate)\b",
    re.IGNORECASE,
)
CALL = re.compile(r"\b(\w+)\s*\(\s*(\)?)")
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")


BY_TEXT = "Keyset pages cannot be ordered by text({text!r}): write the column or the expression."


BY_POSITION = (
    "Keyset pages cannot be ordered by literal_column({text!r}), because SQL reads it as the "
    "position of a column: write the column."
)


BY_VOLATILE = (
    "Keyset pages cannot be ordered by {text}, because {name} may return another value on the next "
    "page: order by columns, or by a stored value."
)


BY_WINDOW = (
    "Keyset pages cannot be ordered by {text}, because SQL does not allow window functions in "
    "WHERE: label it in a subquery(), and page a select() from that."
)


BY_TUPLE = "Keyset pages cannot be ordered by {text}: give its columns to order_by() one by one."


BY_NO_COLUMN = (
    "Keyset pages cannot be ordered by {text}, because it contains no column: remove it, or order "
    "by a column."
)


def check_sort_key(column: Any) -> None:
    """Check that *column*, a column or an expression, has one value for a row on every page.

    Raises TypeError for text() and tuple_(). Raises ValueError for a position, for a window
    function, and for a function such as random() or now(). The message says what to write instead.
    """
    if isinstance(column, TextClause):
        raise TypeError(BY_TEXT.format(text=str(column)))
    if isinstance(column, Tuple):
        raise TypeError(BY_TUPLE.format(text=column))
    if isinstance(column, ColumnClause) and column.is_literal and column.name.strip().isdigit():
        raise ValueError(BY_POSITION.format(text=column.name))
    if any(isinstance(element, Over) for element in visitors.iterate(column)):
        raise ValueError(BY_WINDOW.format(text=column))
    if name := _volatile_name(column):
        raise ValueError(BY_VOLATILE.format(text=column, name=name))


def refuse_constant(column: Any) -> None:
    """Raise ValueError for a *column* that is the same for every row, such as literal(1)."""
    if is_constant(column):
        text = f"literal({column.value!r})" if isinstance(column, BindParameter) else str(column)
        raise ValueError(BY_NO_COLUMN.format(text=text))


def is_constant(column: Any) -> bool:
    """Return whether *column* is an expression without any column."""
    return not any(isinstance(element, ColumnClause) for element in visitors.iterate(column))


def bound_values(column: Any) -> list[str]:
    """Return, as text, the values in *column* that are sent as parameters."""
    values = [
        element.effective_value
        for element in visitors.iterate(column)
        if isinstance(element, BindParameter)
    ]
    # object.__repr__ shows an address in memory, which differs from process to process.
    plain: object = object.__repr__
    return [type(each).__name__ if type(each).__repr__ is plain else repr(each) for each in values]


def _volatile_name(column: Any) -> str | None:
    """Return the name of a volatile function that *column* calls; None if it calls none."""
    elements = list(_elements(column))
    # A function with OVER, such as row_number(), has no arguments, but is not volatile.
    windowed = {id(element.element) for element in elements if isinstance(element, Over)}
    names = (_name_if_volatile(element) for element in elements if id(element) not in windowed)
    return next(filter(None, names), None)


def _elements(column: Any) -> Iterator[Any]:
    """Yield the parts of *column*. For a column of a subquery, also yield the parts in there."""
    for element in visitors.iterate(column):
        yield element
        if isinstance(element, ColumnElement):
            for base in element.base_columns - {element}:
                yield from visitors.iterate(base)


def _name_if_volatile(element: Any) -> str | None:
    if isinstance(element, ColumnClause) and element.is_literal:
        return _volatile_name_in(element.name)
    if isinstance(element, BindParameter):
        # SQLite's date functions read the text "now" as the time of the call.
        is_now = isinstance(element.value, str) and element.value.strip().lower() == "now"
        return "'now'" if is_now else None
    if not isinstance(element, FunctionElement):
        return None
    # The next value of a sequence has no attribute "clauses". It counts as without arguments.
    arguments = getattr(element, "clauses", ())
    return _call_if_volatile(str(element.name), has_arguments=bool(len(arguments)))


def _volatile_name_in(text: str) -> str | None:
    """Return the name of a volatile function that the SQL *text* calls; None if it calls none."""
    text = QUOTED.sub("''", text)
    calls = (_call_if_volatile(name, has_arguments=not end) for name, end in CALL.findall(text))
    keyword = KEYWORDS.search(text)
    return next(filter(None, calls), keyword and keyword[0])


def _call_if_volatile(name: str, *, has_arguments: bool) -> str | None:
    name = name.lower()
    volatile = name in VOLATILE or not (has_arguments or name in FIXED)
    return f"{name}()" if volatile else None
