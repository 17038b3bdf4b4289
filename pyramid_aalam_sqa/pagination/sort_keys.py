"""Which expressions can order keyset pages: a row must have the same value on each page."""

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Over, TextClause, Tuple
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter, ColumnClause
from sqlalchemy.sql.functions import FunctionElement

# Functions that return another value on the next page though they have arguments. A function
# without arguments does so too, or returns the same value for every row.
VOLATILE = frozenset(
    {
        *("age", "changes", "clock_timestamp", "currval", "curtime", "gen_random_bytes"),
        *("current_time", "current_timestamp", "localtime", "localtimestamp", "nextval", "now"),
        *("rand", "random", "random_bytes", "random_normal", "randomblob", "setseed", "setval"),
        *("sleep", "pg_sleep", "sysdate", "utc_time", "utc_timestamp"),
    }
)
# The exception: the same value always.
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
    "Keyset pages cannot be ordered by literal_column({text!r}), which SQL takes for the position "
    "of a column: write the column."
)


BY_VOLATILE = (
    "Keyset pages cannot be ordered by {text}, because {name} may return another value on the next "
    "page: order by columns, or by a value that is stored."
)


BY_WINDOW = (
    "Keyset pages cannot be ordered by {text}, because SQL has no window functions in WHERE: label "
    "it in a subquery(), and page a select() from that."
)


BY_TUPLE = "Keyset pages cannot be ordered by {text}: give its columns to order_by() one by one."


BY_NO_COLUMN = (
    "Keyset pages cannot be ordered by {text}, which has no column in it: leave it out, or order "
    "by a column."
)


def check_sort_key(column: Any) -> None:
    """Check that *column*, a column or an expression, has one value for a row on every page.

    Raises TypeError for text() and tuple_(), and ValueError for a position, a window function, and
    a function such as random() or now(). The message says what to write instead.
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
    """Return whether *column* has no column in it."""
    return not any(isinstance(element, ColumnClause) for element in visitors.iterate(column))


def bound_values(column: Any) -> list[str]:
    """Return the values in *column* that are sent beside the text of the statement, as text."""
    values = [
        element.effective_value
        for element in visitors.iterate(column)
        if isinstance(element, BindParameter)
    ]
    # The text of a plain object is its address in memory, which is another one in each process.
    plain: object = object.__repr__
    return [type(each).__name__ if type(each).__repr__ is plain else repr(each) for each in values]


def _volatile_name(column: Any) -> str | None:
    """Return the name of a volatile function that *column* calls; None if it calls none."""
    elements = list(_elements(column))
    # A window function has no arguments of its own, and returns the same value for the same rows.
    windowed = {id(element.element) for element in elements if isinstance(element, Over)}
    names = (_name_if_volatile(element) for element in elements if id(element) not in windowed)
    return next(filter(None, names), None)


def _elements(column: Any) -> Iterator[Any]:
    """Yield the parts of *column*, and those of the columns of subqueries that it names."""
    for element in visitors.iterate(column):
        yield element
        if isinstance(element, ColumnElement):
            for base in element.base_columns - {element}:
                yield from visitors.iterate(base)


def _name_if_volatile(element: Any) -> str | None:
    if isinstance(element, ColumnClause) and element.is_literal:
        return _volatile_name_in(element.name)
    if isinstance(element, BindParameter):
        # SQLite's date() and its like take this text for the time of the call.
        is_now = isinstance(element.value, str) and element.value.strip().lower() == "now"
        return "'now'" if is_now else None
    if not isinstance(element, FunctionElement):
        return None
    # A sequence's next value is a function without arguments too.
    arguments = getattr(element, "clauses", ())
    return _call_if_volatile(str(element.name), has_arguments=bool(len(arguments)))


def _volatile_name_in(text: str) -> str | None:
    """Return the name of a volatile function in a *text* of SQL; None if it calls none."""
    text = QUOTED.sub("''", text)
    calls = (_call_if_volatile(name, has_arguments=not end) for name, end in CALL.findall(text))
    keyword = KEYWORDS.search(text)
    return next(filter(None, calls), keyword and keyword[0])


def _call_if_volatile(name: str, *, has_arguments: bool) -> str | None:
    name = name.lower()
    volatile = name in VOLATILE or not (has_arguments or name in FIXED)
    return f"{name}()" if volatile else None
