"""Pages by keyset: a page has the rows after the last row, or before the first row, of another."""

from typing import Any, TypeVar, Unpack, overload

from sqlalchemy import Select
from sqlalchemy.orm import Session

from .cursors import check_place, read_cursor, write_cursor
from .fetching import Place, count_rows, fetch_rows
from .ordering import pageable
from .page_request import KeysetOptions, PageRequest, not_found_or
from .pages import KeysetPage
from .seek import Keyset
from .statements import column_count

T = TypeVar("T")


# The place before the first row, and the place after the last row.
EDGE: Place = ()


UNSIGNED = "The cursors of keyset pages must be signed: write paginate_keyset(..., secret=...)."


@overload
def paginate_keyset(
    session: Session, statement: Select[T], **options: Unpack[KeysetOptions]
) -> KeysetPage[T]: ...
@overload
def paginate_keyset(
    session: Session, statement: object, **options: Unpack[KeysetOptions]
) -> KeysetPage[Any]: ...
def paginate_keyset(
    session: Session, statement: object, **options: Unpack[KeysetOptions]
) -> KeysetPage[Any]:
    """Return the page of *statement*'s rows after or before a cursor.

    Another page has given the cursor: ``page.next_cursor`` is for ``after``, ``page.prev_cursor``
    for ``before``.

    The options are keywords. Each may be left out or None. Defaults are in parentheses:

    - ``after`` or ``before``: the cursor. Without a cursor, the first page is returned.
    - ``secret``: the text that cursors are signed with. It is needed to read or write a cursor.
    - ``per_page``: the number of rows on a page (20), never more than ``max_per_page`` (100). It
      may be text that a client has sent.
    - ``error_out``: whether HTTPNotFound is raised for a cursor with a wrong signature or for
      another order (true). If false, the first page is returned.
    - ``count``: whether all rows are counted, which takes a second statement (false).
    - ``url``: the address of this page. The addresses of other pages are made from it.

    In a view, ``request.sqa_paginate_keyset(statement)`` takes all these from the request and the
    settings. Raises TypeError or ValueError if *statement* cannot have keyset pages. The message
    says what to write instead.
    """
    return find_keyset_page(session, statement, PageRequest.of(options))


def find_keyset_page(session: Session, statement: object, wanted: PageRequest) -> KeysetPage[Any]:
    """Return the page that *wanted* asks for: after or before its cursor, or the first page."""
    return KeysetPages(session, pageable(statement), wanted).wanted_page()


class KeysetPages:
    """All keyset pages of one statement."""

    def __init__(self, session: Session, statement: Select[Any], wanted: PageRequest) -> None:
        self._session = session
        self._statement = statement
        self._wanted = wanted
        self._size = wanted.size
        self._keyset = Keyset(statement, session.get_bind(clause=statement).dialect)
        self._total: int | None = None

    def wanted_page(self) -> KeysetPage[Any]:
        """Return the page that was asked for."""
        place, backwards = self._read_place()
        if self._wanted.count:
            self._total = count_rows(self._session, self._statement)
        return self.page(place, backwards=backwards)

    def page(self, place: Place, *, backwards: bool) -> KeysetPage[Any]:
        """Return the page after *place*; if *backwards*, the page before it."""
        # One row more than the page needs: it tells whether there is a page after this one.
        statement = self._keyset.select(place, backwards=backwards).limit(self._size + 1)
        rows = fetch_rows(self._session, statement, column_count(self._statement))
        more, came_from_a_page = len(rows.items) > self._size, place != EDGE
        items, places = rows.items[: self._size], rows.places[: self._size]
        if backwards:
            items.reverse()
            places.reverse()
        # An empty page has no first and last row. One of its cursors leads back to the page that
        # the reader came from, and the other to the empty page itself.
        begin = places[0] if places else (place if backwards else EDGE)
        end = places[-1] if places else (EDGE if backwards else place)
        # Raise now for a type that a cursor cannot hold, not only when a cursor is written.
        check_place((*begin, *end))
        neighbours = {"prev": begin, "next": end, "last": EDGE}
        return KeysetPage(
            items,
            self._size,
            self._total,
            has_prev=more if backwards else came_from_a_page,
            has_next=came_from_a_page if backwards else more,
            turn=lambda back: self.page(begin if back else end, backwards=back),
            cursor_of=lambda relation: self._write_cursor(neighbours[relation]),
            address=self._wanted.address,
        )

    def _read_place(self) -> tuple[Place, bool]:
        """Return the place in the cursor, and whether the page before that place is wanted."""
        after, before = self._wanted.after, self._wanted.before
        text = before if after is None else after
        if text is None:
            return EDGE, False
        if after is not None and before is not None:
            return self._no_place()
        secret = self._secret()
        try:
            return read_cursor(text, self._keyset.order_signature, secret), after is None
        except ValueError:
            return self._no_place()

    def _no_place(self) -> tuple[Place, bool]:
        return not_found_or((EDGE, False), error_out=self._wanted.error_out)

    def _write_cursor(self, place: Place) -> str:
        return write_cursor(place, self._keyset.order_signature, self._secret())

    def _secret(self) -> bytes:
        if self._wanted.secret is None:
            raise ValueError(UNSIGNED)
        return self._wanted.secret
