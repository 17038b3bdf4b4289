"""Page and KeysetPage: the rows of a page, the pages before and after it, and their addresses."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

from .urls import Address, link_header

T = TypeVar("T")


NO_ADDRESS = (
    "This page does not know its address: write paginate(..., url=request.path_qs) or another path."
)
NOT_FROM_PAGINATE = (
    "paginate() did not make this page, so it cannot fetch other pages: call paginate()."
)


class AnyPage(ABC, Generic[T]):
    """The base of both kinds of page: the rows, and the addresses of other pages."""

    # The attributes that a page has in JSON, besides its rows.
    JSON_NAMES: ClassVar[Sequence[str]] = ()

    def __init__(
        self, items: list[T], per_page: int, total: int | None, address: Address | None
    ) -> None:
        self.items = items
        self.per_page = per_page
        self.total = total
        self._address = address

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    @property
    def pages(self) -> int:
        """The number of pages; 0 if the rows were not counted."""
        return -(-(self.total or 0) // self.per_page)

    @property
    def first_url(self) -> str | None:
        """The address of the first page."""
        return self._url_of("first")

    @property
    def prev_url(self) -> str | None:
        """The address of the previous page; None on the first page."""
        return self._url_of("prev")

    @property
    def next_url(self) -> str | None:
        """The address of the next page; None on the last page."""
        return self._url_of("next")

    @property
    def last_url(self) -> str | None:
        """The address of the last page; None if a numbered page did not count rows or has none."""
        return self._url_of("last")

    def link_header(self) -> str:
        """Return the value of the header ``Link`` (RFC 8288) with the addresses of other pages."""
        return link_header((to, self._url_of(to)) for to in ("first", "prev", "next", "last"))

    def __json__(self, request: object) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in self.JSON_NAMES}
        if self._address is not None:
            shown |= {"prev_url": self.prev_url, "next_url": self.next_url}
        return {"items": self.items, **shown}

    @abstractmethod
    def _query_of(self, relation: str) -> Mapping[str, str | None] | None:
        """Return the names and values that the query string of another page needs.

        *relation* is "first", "prev", "next" or "last". A value of None removes its name. Returns
        None if there is no such page.
        """

    def _url_of(self, relation: str) -> str | None:
        query = self._query_of(relation)
        return None if query is None else self._address_with(query)

    def _address_with(self, query: Mapping[str, str | None]) -> str:
        if self._address is None:
            raise ValueError(NO_ADDRESS)
        return self._address.url(query)


class Page(AnyPage[T]):
    """A page with a number. :func:`paginate` returns it.

    Iterating over it yields its rows, ``items``. ``page`` is its number, from 1. ``per_page`` is
    the number of rows that it has at most. ``total`` is the number of rows on all pages, None if
    they were not counted. All names are the same as in Flask-SQLAlchemy's ``Pagination``.
    """

    JSON_NAMES = ("page", "per_page", "total", "pages")

    def __init__(  # noqa: PLR0913 - each is one fact about a page
        self,
        items: list[T],
        page: int,
        per_page: int,
        total: int | None,
        *,
        more: bool = False,
        turn: Callable[[int, bool], Any] | None = None,
        address: Address | None = None,
    ) -> None:
        super().__init__(items, per_page, total, address)
        self.page = page
        self._more = more
        self._turn = turn

    @property
    def first(self) -> int:
        """The position of the page's first row among all rows, from 1; 0 if the page is empty."""
        return (self.page - 1) * self.per_page + 1 if self.items else 0

    @property
    def last(self) -> int:
        """The position of the page's last row among all rows; 0 if the page is empty."""
        return self.first + len(self.items) - 1 if self.items else 0

    @property
    def has_prev(self) -> bool:
        """Whether there is a previous page."""
        return self.page > 1

    @property
    def prev_num(self) -> int | None:
        """The number of the previous page; None on the first page."""
        return self.page - 1 if self.has_prev else None

    @property
    def has_next(self) -> bool:
        """Whether there is a next page. This is known even if the rows were not counted."""
        return self._more if self.total is None else self.page < self.pages

    @property
    def next_num(self) -> int | None:
        """The number of the next page; None on the last page."""
        return self.page + 1 if self.has_next else None

    def prev(self, *, error_out: bool = False) -> Self:
        """Return the previous page with the same options.

        On the first page, return the first page again, or raise HTTPNotFound if *error_out* is
        true.
        """
        return self._other_page(self.page - 1, error_out)

    def next(self, *, error_out: bool = False) -> Self:
        """Return the next page with the same options.

        On the last page, return an empty page, or raise HTTPNotFound if *error_out* is true.
        """
        return self._other_page(self.page + 1, error_out)

    def iter_pages(
        self,
        *,
        left_edge: int = 2,
        left_current: int = 2,
        right_current: int = 4,
        right_edge: int = 2,
    ) -> Iterator[int | None]:
        """Yield page numbers for a navigation bar, and None for each gap between them.

        The numbers are the first *left_edge* pages, the last *right_edge* pages, and this page
        with *left_current* pages before it and *right_current* pages after it.
        """
        end = self.pages + 1
        left = min(left_edge + 1, end)
        stop = min(self.page + right_current + 1, end)
        parts = (
            range(1, left),
            range(max(left, self.page - left_current), stop),
            range(max(stop, end - right_edge), end),
        )
        reached = 1
        for numbers in parts:
            if reached == end:
                return
            if numbers.start > reached:
                yield None
            yield from numbers
            reached = numbers.stop

    def url(self, number: int) -> str:
        """Return the address of page *number*. The rest of the query string stays the same."""
        return self._address_with({"page": str(number)})

    def _query_of(self, relation: str) -> Mapping[str, str] | None:
        known = {
            "first": 1,
            "prev": self.prev_num,
            "next": self.next_num,
            "last": self.pages or None,
        }
        number = known[relation]
        return None if number is None else {"page": str(number)}

    def _other_page(self, number: int, error_out: bool) -> Self:
        if self._turn is None:
            raise ValueError(NOT_FROM_PAGINATE)
        page: Self = self._turn(number, error_out)
        return page


class KeysetPage(AnyPage[T]):
    """A page after or before a row. :func:`paginate_keyset` returns it.

    Iterating over it yields its rows, ``items``. ``per_page`` is the number of rows that it has at
    most. ``total`` is the number of rows on all pages, None if they were not counted. ``has_prev``
    and ``has_next`` say whether there is a previous and a next page. Keyset pages do not have
    numbers.
    """

    JSON_NAMES = ("per_page", "total")

    def __init__(  # noqa: PLR0913 - as above
        self,
        items: list[T],
        per_page: int,
        total: int | None,
        *,
        has_prev: bool,
        has_next: bool,
        turn: Callable[[bool], Any],
        cursor_of: Callable[[str], str],
        address: Address | None = None,
    ) -> None:
        super().__init__(items, per_page, total, address)
        self.has_prev = has_prev
        self.has_next = has_next
        self._turn = turn
        self._cursor_of = cursor_of

    @property
    def prev_cursor(self) -> str | None:
        """The cursor to pass as ``before`` for the previous page; None on the first page."""
        return self._cursor_of("prev") if self.has_prev else None

    @property
    def next_cursor(self) -> str | None:
        """The cursor to pass as ``after`` for the next page; None on the last page."""
        return self._cursor_of("next") if self.has_next else None

    def prev(self) -> Self:
        """Return the previous page with the same options; an empty page before the first."""
        page: Self = self._turn(True)
        return page

    def next(self) -> Self:
        """Return the next page with the same options; an empty page after the last."""
        page: Self = self._turn(False)
        return page

    def _query_of(self, relation: str) -> Mapping[str, str | None] | None:
        if relation == "first":
            return {"after": None, "before": None}
        if (relation == "prev" and not self.has_prev) or (relation == "next" and not self.has_next):
            return None
        used, unused = ("after", "before") if relation == "next" else ("before", "after")
        return {unused: None, used: self._cursor_of(relation)}
