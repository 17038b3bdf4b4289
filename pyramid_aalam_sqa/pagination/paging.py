"""Pages of a statement's rows: by number, or after and before a place."""

from functools import partial
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

from sqlalchemy import Select
from sqlalchemy.orm import Session

from .keyset import Keyset, _Keyset
from .numbered import _Numbered
from .options import MAX_PAGE_SIZE, TOO_SMALL, PageRequest, _instead, _number, no_secret
from .ordering import paged
from .pages import KeysetPage, Page
from .urls import Address

T = TypeVar("T")


class PageOptions(TypedDict, total=False):
    """What may be said about a page, for type checkers."""

    page: int | str | None
    per_page: int | str | None
    max_per_page: int | None
    error_out: bool
    count: bool | None
    after: str | None
    before: str | None


@overload
def paginate(
    session: Session,
    statement: Select[T],
    *,
    keyset: Literal[False] = False,
    secret: str | None = None,
    url: str | None = None,
    **options: Unpack[PageOptions],
) -> Page[T]: ...
@overload
def paginate(
    session: Session,
    statement: Select[T],
    *,
    keyset: Literal[True],
    secret: str | None = None,
    url: str | None = None,
    **options: Unpack[PageOptions],
) -> KeysetPage[T]: ...
@overload
def paginate(
    session: Session,
    statement: object,
    *,
    keyset: Literal[False] = False,
    secret: str | None = None,
    url: str | None = None,
    **options: Unpack[PageOptions],
) -> Page[Any]: ...
@overload
def paginate(
    session: Session,
    statement: object,
    *,
    keyset: Literal[True],
    secret: str | None = None,
    url: str | None = None,
    **options: Unpack[PageOptions],
) -> KeysetPage[Any]: ...
def paginate(  # noqa: PLR0913 - each is a keyword that most calls leave out
    session: Session,
    statement: object,
    *,
    page: int | str | None = None,
    per_page: int | str | None = None,
    max_per_page: int | None = None,
    error_out: bool = True,
    count: bool | None = None,
    keyset: bool = False,
    after: str | None = None,
    before: str | None = None,
    secret: str | None = None,
    url: str | None = None,
) -> Page[Any] | KeysetPage[Any]:
    """Return one page of the rows of *statement*: a select(), a union or a legacy Query.

    Page 1 with 20 rows unless told otherwise, never more than *max_per_page* rows (100). Where
    there is no such page, HTTPNotFound; with *error_out* false, page 1, or past the end an empty
    one. *count* false leaves the second statement out, which counts all rows.

    With *keyset* it is the page *after* or *before* a cursor, which was signed with *secret*, and
    rows are counted when *count* is true. *url* is the address that those of other pages are made
    of. In a view, ``request.sqa_paginate(statement)`` knows all this by itself.

    Raises TypeError or ValueError for a *statement* that has no such pages, and says what to write.
    """
    wanted = PageRequest(
        page=page,
        per_page=per_page,
        max_per_page=MAX_PAGE_SIZE if max_per_page is None else max_per_page,
        error_out=error_out,
        count=count,
        keyset=keyset,
        after=after,
        before=before,
        secret=no_secret if secret is None else partial(str.encode, secret),
        address=None if url is None else Address(*url.split("?", 1)),
    )
    return find_page(session, statement, wanted)


def find_page(
    session: Session, statement: object, wanted: PageRequest
) -> Page[Any] | KeysetPage[Any]:
    """Return the page that is *wanted*."""
    if type(wanted.max_per_page) is not int or wanted.max_per_page < 1:
        raise ValueError(TOO_SMALL.format(size=wanted.max_per_page))
    size = _number(wanted.per_page, wanted.page_size)
    if size < 1:
        size = _instead(wanted.error_out, wanted.page_size)
    size = min(size, wanted.max_per_page)
    rows = paged(statement)
    if wanted.keyset:
        return _Keyset(session, rows, wanted, size, Keyset(session, rows)).asked()
    return _Numbered(session, rows, wanted, size).asked()
