"""Look-ups that return one row or raise HTTPNotFound: functions, and methods of the sessions."""

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

    *ident* is one value, a tuple of values, or a dictionary with the names of attributes as keys.
    Text, such as a part of the URL, is converted to the type of its column. If the column cannot
    hold a value, such as ``"1abc"`` for an integer, ``HTTPNotFound`` is raised without a query.

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

    The statement is sent with LIMIT 1. If *statement* selects one thing, the object or the value
    is returned, None for NULL. If it selects several things, the ``Row`` is returned.
    *description* is shown to the visitor.
    """
    result = session.execute(limited_to_one(statement_of(statement)))
    row = merge_eager_loads(result).first()
    if row is None:
        raise HTTPNotFound(description)
    return _value_or_row(row)


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

    If there are several rows, a warning is logged too. An object that a join repeats counts once.
    The row is returned as by :func:`first_or_404`. *description* is shown to the visitor.
    """
    # A LIMIT is not set: it would cut the collections that contains_eager() fills.
    selected = statement_of(statement)
    result = merge_objects(session.execute(selected), selected)
    rows = result.fetchmany(2)
    result.close()
    if len(rows) > 1:
        names = ", ".join(entity_names(selected) or map(str, result.keys()))
        log.warning("one_or_404() found several rows of %s, and raises HTTPNotFound", names)
    if len(rows) != 1:
        raise HTTPNotFound(description)
    return _value_or_row(rows[0])


class LookUps:
    """The look-ups as methods, for a session class to inherit."""

    get_or_404 = get_or_404
    first_or_404 = first_or_404
    one_or_404 = one_or_404


class SqaSession(LookUps, Session):
    """A SQLAlchemy session with :func:`get_or_404`, :func:`first_or_404`, :func:`one_or_404`.

    ``request.sqa_session`` and all other sessions of this package are instances of this class.
    """


def _find(session: AnySession, entity: type[T], ident: object, options: dict[str, Any]) -> T | None:
    mapper = inspect(entity, raiseerr=False)
    if not isinstance(mapper, Mapper):
        # SQLAlchemy raises an error that says what is wrong with *entity*.
        return session.get(entity, ident, **options)
    bind = session.get_bind(**{"mapper": mapper, **(options.get("bind_arguments") or {})})
    key = identity_of(mapper, ident, bind.dialect)
    try:
        return None if key is None else session.get(entity, key, **options)
    except DBAPIError as error:
        if is_impossible_value(bind.dialect, error):
            return None
        raise


def _value_or_row(row: Row[Any]) -> Any:
    return row[0] if len(row) == 1 else row
