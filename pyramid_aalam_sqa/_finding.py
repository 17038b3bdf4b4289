"""Finds the page that is wanted: reads its number or its cursor, and asks the database for it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar

from pyramid.httpexceptions import HTTPNotFound
from sqlalchemy import Select
from sqlalchemy.orm import Session

from ._addresses import Address
from ._cursor import BadCursor, read_cursor, write_cursor
from ._keyset import EDGE, Keyset, Values, fetch
from ._ordering import in_total_order, paged
from ._pages import KeysetPage, Page
from ._shapes import count_of, width_of

T = TypeVar("T")
PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
# More rows than anybody skips, and a number that every driver can send.
MAX_OFFSET = 2**31 - 1
HUGE = MAX_OFFSET + 2
# With more digits a number is huge, however it begins.
DIGITS = 10

UNSIGNED = "The cursors of keyset pages are signed: write paginate(..., secret=...)."
NO_PAGE = "There is no such page."
TOO_SMALL = "max_per_page is {size!r}: write a whole number from 1 up."


def no_secret() -> NoReturn:
    """Raise ValueError where a cursor is read or written without a secret."""
    raise ValueError(UNSIGNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which page is wanted, and how it is found; numbers and cursors as a client may write them."""

    page: int | str | None = None
    per_page: int | str | None = None
    page_size: int = PAGE_SIZE
    max_per_page: int = MAX_PAGE_SIZE
    error_out: bool = True
    count: bool | None = None
    keyset: bool = False
    after: str | None = None
    before: str | None = None
    secret: Callable[[], bytes] = no_secret
    address: Address | None = None


def find_page(session: Session, statement: object, wanted: Wanted) -> Page[Any] | KeysetPage[Any]:
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


def _number(given: int | str | None, default: int) -> int:
    """Return the number that was *given*, 0 for what is none.

    int() alone would take signs, blanks, underscores and the digits of every script.
    """
    if given is None:
        return default
    if isinstance(given, str):
        if not (given.isascii() and given.isdigit()):
            return 0
        return int(given) if len(given) <= DIGITS else HUGE
    return given


def _instead(error_out: bool, default: T) -> T:
    if error_out:
        raise HTTPNotFound(NO_PAGE)
    return default


@dataclass(frozen=True, slots=True)
class _Pages:
    """All pages of a statement."""

    session: Session
    statement: Select[Any]
    wanted: Wanted
    size: int

    def count(self) -> int:
        """Return the number of rows."""
        total: int = self.session.execute(count_of(self.statement)).scalar_one()
        return total


class _Numbered(_Pages):
    """The pages that have numbers."""

    __slots__ = ()

    def asked(self) -> Page[Any]:
        """Return the page that was asked for."""
        return self.turn(None, _number(self.wanted.page, 1), self.wanted.error_out)

    def turn(self, total: int | None, number: int, error_out: bool) -> Page[Any]:
        """Return page *number*; *total* rows were counted before, if they were."""
        if number < 1 or (number - 1) * self.size > MAX_OFFSET:
            number = _instead(error_out, 1)
        counted = self.wanted.count is not False
        skipped = (number - 1) * self.size
        # One row more tells whether there is another page.
        wanted = self.size if counted else self.size + 1
        statement = in_total_order(self.statement).limit(wanted).offset(skipped)
        items = fetch(self.session, statement, width_of(self.statement)).items
        if not items and number > 1 and error_out:
            raise HTTPNotFound(NO_PAGE)
        if counted and total is None:
            ends_here = 0 < len(items) < self.size or not (items or skipped)
            total = skipped + len(items) if ends_here else self.count()
        return Page(
            items[: self.size],
            number,
            self.size,
            total,
            more=len(items) > self.size,
            turn=partial(self.turn, total),
            address=self.wanted.address,
        )


@dataclass(frozen=True, slots=True)
class _Keyset(_Pages):
    """The pages after and before a place."""

    keyset: Keyset

    def asked(self) -> KeysetPage[Any]:
        """Return the page after the cursor that was given, or before it."""
        total = self.count() if self.wanted.count else None
        return self.fetch(total, *self._place())

    def fetch(self, total: int | None, place: Values, backwards: bool) -> KeysetPage[Any]:
        """Return the page after *place*, or *backwards* the one before it."""
        rows = self.keyset.fetch(place, backwards=backwards, limit=self.size + 1)
        more, known = len(rows.items) > self.size, place != EDGE
        items, places = rows.items[: self.size], rows.places[: self.size]
        if backwards:
            items.reverse()
            places.reverse()
        # From an empty page, the one way leads back, and the other stays.
        begin = places[0] if places else (place if backwards else EDGE)
        end = places[-1] if places else (EDGE if backwards else place)
        return KeysetPage(
            items,
            self.size,
            total,
            has_prev=more if backwards else known,
            has_next=known if backwards else more,
            turn=lambda back: self.fetch(total, begin if back else end, back),
            cursors=lambda to: self._cursor({"prev": begin, "next": end, "last": EDGE}[to]),
            address=self.wanted.address,
        )

    def _place(self) -> tuple[Values, bool]:
        after, before = self.wanted.after, self.wanted.before
        text = before if after is None else after
        if text is None:
            return EDGE, False
        if after is not None and before is not None:
            return _instead(self.wanted.error_out, (EDGE, False))
        try:
            place = read_cursor(text, self.keyset.name, self.wanted.secret())
        except BadCursor:
            return _instead(self.wanted.error_out, (EDGE, False))
        return place, after is None

    def _cursor(self, place: Values) -> str:
        return write_cursor(place, self.keyset.name, self.wanted.secret())
