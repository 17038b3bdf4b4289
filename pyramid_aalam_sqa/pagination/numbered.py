"""Pages by number, with LIMIT and OFFSET, in an order that is the same each time."""

from typing import Any, TypeVar, Unpack, overload

from pyramid.httpexceptions import HTTPNotFound
from sqlalchemy import Select
from sqlalchemy.orm import Session

from .fetching import count_rows, fetch_rows
from .ordering import TotalOrder, pageable
from .page_request import (
    MAX_OFFSET,
    NO_PAGE,
    PageOptions,
    PageRequest,
    not_found_or,
    read_number,
)
from .pages import Page
from .statements import column_count

T = TypeVar("T")


@overload
def paginate(session: Session, statement: Select[T], **options: Unpack[PageOptions]) -> Page[T]: ...
@overload
def paginate(session: Session, statement: object, **options: Unpack[PageOptions]) -> Page[Any]: ...
def paginate(session: Session, statement: object, **options: Unpack[PageOptions]) -> Page[Any]:
    """Return one page of the rows of *statement*: a select(), a union or a legacy Query.

    The options are keywords. Each may be left out or None. Defaults are in parentheses:

    - ``page``: the number of the page; the first page is 1 (1).
    - ``per_page``: the number of rows on a page (20), never more than ``max_per_page`` (100).
    - ``error_out``: whether HTTPNotFound is raised for a page that does not exist (true). If
      false, page 1 is returned if ``page`` is not a number, and an empty page after the last page.
    - ``count``: whether all rows are counted, which takes a second statement (true).
    - ``url``: the address of this page. The addresses of other pages are made from it.

    ``page`` and ``per_page`` may be text that a client has sent.

    In a view, ``request.sqa_paginate(statement)`` takes all these from the request and the
    settings. Raises TypeError or ValueError if *statement* cannot have pages. The message says
    what to write instead.
    """
    return find_page(session, statement, PageRequest.of(options))


def find_page(session: Session, statement: object, wanted: PageRequest) -> Page[Any]:
    """Return the page with the number in *wanted*."""
    pages = NumberedPages(session, pageable(statement), wanted)
    return pages.page(read_number(wanted.page), wanted.error_out)


class NumberedPages:
    """All numbered pages of one statement."""

    def __init__(self, session: Session, statement: Select[Any], wanted: PageRequest) -> None:
        self._session = session
        self._statement = statement
        self._ordered = TotalOrder(statement).statement()
        self._size = wanted.size
        self._is_counted = wanted.count is not False
        self._address = wanted.address
        self._total: int | None = None

    def page(self, number: int, error_out: bool) -> Page[Any]:
        """Return page *number*.

        If the page does not exist, HTTPNotFound is raised when *error_out* is true. When it is
        false, page 1 is returned for a number that is too small or too large, else an empty page.
        """
        size = self._size
        if number < 1 or (number - 1) * size > MAX_OFFSET:
            number = not_found_or(1, error_out=error_out)
        skipped = (number - 1) * size
        # If rows are not counted, one row more tells whether there is a next page.
        limit = size if self._is_counted else size + 1
        statement = self._ordered.limit(limit).offset(skipped)
        items = fetch_rows(self._session, statement, column_count(self._statement)).items
        if not items and number > 1 and error_out:
            raise HTTPNotFound(NO_PAGE)
        return Page(
            items[:size],
            number,
            size,
            self._count(skipped, len(items)),
            more=len(items) > size,
            turn=self.page,
            address=self._address,
        )

    def _count(self, skipped: int, found: int) -> int | None:
        """Return how many rows there are; None if they are not counted.

        The database counts them once at most. It does not count if this page shows where the rows
        end, because then *skipped* + *found* is the number.
        """
        if self._is_counted and self._total is None:
            ends_here = 0 < found < self._size or (not found and not skipped)
            if ends_here:
                self._total = skipped + found
            else:
                self._total = count_rows(self._session, self._statement)
        return self._total
