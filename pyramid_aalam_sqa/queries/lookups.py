"""The look-ups, as functions and as methods of the sessions: a row, or HTTPNotFound."""

import logging
from typing import Any, TypeVar, TypeVarTuple, overload

from pyramid.httpexceptions import HTTPNotFound
from sqlalchemy import Executable, inspect
from sqlalchemy.engine import Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper, Query, Session, scoped_session
from sqlalchemy.sql.selectable import TypedReturnsRows

from ..backends import is_impossible_value
from .primary_keys import identity_of
from .statements import (
    entity_names,
    limited_to_one,
    merge_eager_loads,
    merge_objects,
    statement_of,
)

log = logging.getLogger(__name__)


T = TypeVar("T")
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
    """Return the object of class *entity* whose primary key is *ident*, or raise ``HTTPNotFound``.

    *ident* is one value, a tuple of values, or a dictionary by the names of attributes. Text, such
    as a part of the URL, is converted to the type of its column. A value that the column cannot
    hold, such as ``"1abc"`` for an integer, is not found, and the database is not asked.

    *description* is shown to the visitor. *get_options* are the options of ``Session.get()``.
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
    """Return the first row of *statement*, or raise ``HTTPNotFound`` if it has no rows.

    The database is asked for one row. If *statement* selects one thing, this is what is returned:
    an object or a value, None for NULL. If it selects several, the ``Row`` is returned.
    *description* is shown to the visitor.
    """
    result = session.execute(limited_to_one(statement_of(statement)))
    row = merge_eager_loads(result).first()
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
    """Return the only row of *statement*, or raise ``HTTPNotFound`` if there is not exactly one.

    Several rows are also logged as a warning. An object that a join repeats counts once. What is
    returned for the row is the same as by :func:`first_or_404`. *description* is shown to the
    visitor.
    """
    # It sets no LIMIT, which would cut the collections that contains_eager() fills.
    selected = statement_of(statement)
    result = merge_objects(session.execute(selected), selected)
    rows = result.fetchmany(2)
    result.close()
    if len(rows) > 1:
        names = ", ".join(entity_names(selected) or map(str, result.keys()))
        log.warning("one_or_404() found several rows of %s, and raises HTTPNotFound", names)
    if len(rows) != 1:
        raise HTTPNotFound(description)
    return _content(rows[0])


class LookUps:
    """The look-ups as methods, for a session class to inherit."""

    get_or_404 = get_or_404
    first_or_404 = first_or_404
    one_or_404 = one_or_404


class SqaSession(LookUps, Session):
    """A SQLAlchemy session with :func:`get_or_404`, :func:`first_or_404`, :func:`one_or_404`.

    ``request.sqa_session`` and every other session that this package makes are instances of it.
    """


def _find(session: AnySession, entity: type[T], ident: object, options: dict[str, Any]) -> T | None:
    mapper = inspect(entity, raiseerr=False)
    if not isinstance(mapper, Mapper):
        # SQLAlchemy raises an error that says what is wrong with it.
        return session.get(entity, ident, **options)
    bind = session.get_bind(**{"mapper": mapper, **(options.get("bind_arguments") or {})})
    key = identity_of(mapper, ident, bind.dialect)
    try:
        return None if key is None else session.get(entity, key, **options)
    except DBAPIError as error:
        if is_impossible_value(bind.dialect, error):
            return None
        raise


def _content(row: Row[Any]) -> Any:
    return row[0] if len(row) == 1 else row
