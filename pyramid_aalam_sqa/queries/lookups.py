"""Rows, or HTTPNotFound: look-ups as functions, as methods of the sessions, as route factories."""

import logging
from typing import Any, TypeVar, TypeVarTuple, cast, overload

from pyramid.httpexceptions import HTTPNotFound
from sqlalchemy import Executable, GenerativeSelect, inspect
from sqlalchemy.engine import Result, Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper, Query, Session, scoped_session
from sqlalchemy.sql.selectable import TypedReturnsRows

from ..backends import says_no_such_value
from .primary_keys import identity_of

T = TypeVar("T")
log = logging.getLogger(__name__)


T2 = TypeVar("T2")


Ts = TypeVarTuple("Ts")


AnySession = Session | scoped_session[Any]


def get_or_404(
    session: AnySession,
    entity: type[T],
    ident: object,
    *,
    description: str | None = None,
    **get_options: Any,
) -> T:
    """Return the row of *entity* whose primary key is *ident*, or raise ``HTTPNotFound``.

    *ident* is one value, or a tuple, or a dictionary by attribute names. Text, such as a piece of
    the URL, is turned into what the columns hold; what none of them can hold, for example
    ``"1abc"``, is not found without asking the database. *description* is told to the visitor.
    *get_options* are those of ``Session.get()``.
    """
    row = _find(session, entity, ident, get_options)
    if row is None:
        raise HTTPNotFound(description)
    return row


@overload
def first_or_404(
    session: AnySession, statement: TypedReturnsRows[T], *, description: str | None = None
) -> T: ...
@overload
def first_or_404(
    session: AnySession,
    statement: TypedReturnsRows[T, T2, *Ts],
    *,
    description: str | None = None,
) -> Row[T, T2, *Ts]: ...
@overload
def first_or_404(
    session: AnySession, statement: Query[T], *, description: str | None = None
) -> T: ...
@overload
def first_or_404(
    session: AnySession, statement: Executable, *, description: str | None = None
) -> Any: ...
def first_or_404(
    session: AnySession, statement: Executable, *, description: str | None = None
) -> Any:
    """Return the first row of *statement*, or raise ``HTTPNotFound`` when it has none.

    That is the object or value where one is selected, else the ``Row``. A NULL is a value: it is
    returned as None. The database is asked for one row.
    """
    selected = _plain(statement)
    row = _distinct(session.execute(_limited(selected)), selected).first()
    if row is None:
        raise HTTPNotFound(description)
    return _content(row)


@overload
def one_or_404(
    session: AnySession, statement: TypedReturnsRows[T], *, description: str | None = None
) -> T: ...
@overload
def one_or_404(
    session: AnySession,
    statement: TypedReturnsRows[T, T2, *Ts],
    *,
    description: str | None = None,
) -> Row[T, T2, *Ts]: ...
@overload
def one_or_404(
    session: AnySession, statement: Query[T], *, description: str | None = None
) -> T: ...
@overload
def one_or_404(
    session: AnySession, statement: Executable, *, description: str | None = None
) -> Any: ...
def one_or_404(
    session: AnySession, statement: Executable, *, description: str | None = None
) -> Any:
    """Return the only row of *statement*, or raise ``HTTPNotFound``: for none, and for several.

    Several are logged as a warning. It returns what :func:`first_or_404` does. An object that a
    join has repeated is one.
    """
    # Without a limit, which would cut the collections of contains_eager().
    selected = _plain(statement)
    result = _distinct(session.execute(selected), selected)
    rows = result.fetchmany(2)
    result.close()
    if len(rows) > 1:
        names = ", ".join(_names(selected) or map(str, result.keys()))
        log.warning("one_or_404() found several rows of %s, and answers that there is none", names)
    if len(rows) != 1:
        raise HTTPNotFound(description)
    return _content(rows[0])


class LookUps:
    """The look-ups as methods of a session."""

    get_or_404 = get_or_404
    first_or_404 = first_or_404
    one_or_404 = one_or_404


class SqaSession(LookUps, Session):
    """A SQLAlchemy session with :func:`get_or_404`, :func:`first_or_404`, :func:`one_or_404`.

    ``request.sqa_session`` is one, and so is every other session that this package makes.
    """


def _find(session: AnySession, entity: type[T], ident: object, options: dict[str, Any]) -> T | None:
    mapper = inspect(entity, raiseerr=False)
    if not isinstance(mapper, Mapper):
        # It says what is wrong with that.
        return session.get(entity, ident, **options)
    bind = session.get_bind(**{"mapper": mapper, **(options.get("bind_arguments") or {})})
    key = identity_of(mapper, ident, bind.dialect)
    try:
        return None if key is None else session.get(entity, key, **options)
    except DBAPIError as error:
        if says_no_such_value(bind.dialect.name, error):
            return None
        raise


def _plain(statement: Executable) -> Executable:
    # As a statement, a Query would lose its eager loads.
    return statement.statement if isinstance(statement, Query) else statement


def _limited(statement: Executable) -> Executable:
    """Return *statement* asking for one row, unless its own limit may be none."""
    if not isinstance(statement, GenerativeSelect):
        return statement
    own, fetch = statement._limit_clause, statement._fetch_clause  # noqa: SLF001 - no other way
    if fetch is not None or (own is not None and getattr(own, "value", None) in {None, 0}):
        return statement
    return statement.limit(1)


def _distinct(result: Result[Any], statement: Executable) -> Result[Any]:
    """Make one row of what an eager load has repeated for each member of a collection."""
    selected = _descriptions(statement)
    objects = [each for each in selected if _is_object(each)]
    hashable = all(getattr(each["type"], "hashable", True) for each in selected)
    return result.unique() if objects and hashable else result


def _descriptions(statement: Executable) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", getattr(statement, "column_descriptions", []))


def _is_object(description: dict[str, Any]) -> bool:
    return description["expr"] is description.get("entity")


def _names(statement: Executable) -> list[str]:
    """Return the classes that *statement* selects from, without a value that a log may not have."""
    entities = [each.get("entity") for each in _descriptions(statement)]
    names = [inspect(entity).mapper.class_.__name__ for entity in entities if entity is not None]
    return list(dict.fromkeys(names))


def _content(row: Row[Any]) -> Any:
    return row[0] if len(row) == 1 else row
