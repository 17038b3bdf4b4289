"""What a page knows: its rows, its neighbours and their addresses. No SQL, and no request."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

from .urls import Address, link_header

T = TypeVar("T")


NO_ADDRESS = "This page has no address: write paginate(..., url=request.path_qs), or a path."


class AnyPage(ABC, Generic[T]):
    """What every page has: its rows, and the addresses of others."""

    # What a program is told beside the rows.
    SHOWN: ClassVar[Sequence[str]] = ()

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
        """How many pages there are; 0 when the rows were not counted."""
        return -(-(self.total or 0) // self.per_page)

    @property
    def first_url(self) -> str | None:
        """The address of the first page."""
        return self._url_of("first")

    @property
    def prev_url(self) -> str | None:
        """The address of the page before, None on the first."""
        return self._url_of("prev")

    @property
    def next_url(self) -> str | None:
        """The address of the page after, None on the last."""
        return self._url_of("next")

    @property
    def last_url(self) -> str | None:
        """The address of the last page, None when it is not known which that is."""
        return self._url_of("last")

    def link_header(self) -> str:
        """Return the value of the response's header ``Link``, as RFC 8288 has it."""
        return link_header((to, self._url_of(to)) for to in ("first", "prev", "next", "last"))

    def __json__(self, request: object) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in self.SHOWN}
        if self._address is not None:
            shown |= {"prev_url": self.prev_url, "next_url": self.next_url}
        return {"items": self.items, **shown}

    @abstractmethod
    def _query_of(self, relation: str) -> Mapping[str, str | None] | None:
        """Return what the query string of another page says, None when there is no such page."""

    def _url_of(self, relation: str) -> str | None:
        query = self._query_of(relation)
        return None if query is None else self._with(query)

    def _with(self, query: Mapping[str, str | None]) -> str:
        if self._address is None:
            raise ValueError(NO_ADDRESS)
        return self._address.url(query)


class Page(AnyPage[T]):
    """A page with a number, as Flask-SQLAlchemy's ``Pagination`` is; made by :func:`paginate`.

    ``items`` are its rows, which it yields too; ``page`` is its number, from 1, ``per_page`` how
    many rows it may have, ``total`` how many there are on all pages, None when they were not
    counted.
    """

    SHOWN = ("page", "per_page", "total", "pages")

    def __init__(  # noqa: PLR0913 - as above
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
        """The number of its first row among all, from 1; 0 when it is empty."""
        return (self.page - 1) * self.per_page + 1 if self.items else 0

    @property
    def last(self) -> int:
        """The number of its last row among all; 0 when it is empty."""
        return self.first + len(self.items) - 1 if self.items else 0

    @property
    def has_prev(self) -> bool:
        """Whether it is not the first page."""
        return self.page > 1

    @property
    def prev_num(self) -> int | None:
        """The number of the page before, None on the first."""
        return self.page - 1 if self.has_prev else None

    @property
    def has_next(self) -> bool:
        """Whether there are rows after it, counted or not."""
        return self._more if self.total is None else self.page < self.pages

    @property
    def next_num(self) -> int | None:
        """The number of the page after, None on the last."""
        return self.page + 1 if self.has_next else None

    def prev(self, *, error_out: bool = False) -> Self:
        """Return the page before, with the same options; the first again when there is none."""
        return self._turned(self.page - 1, error_out)

    def next(self, *, error_out: bool = False) -> Self:
        """Return the page after, with the same options; an empty one when there is none."""
        return self._turned(self.page + 1, error_out)

    def iter_pages(
        self,
        *,
        left_edge: int = 2,
        left_current: int = 2,
        right_current: int = 4,
        right_edge: int = 2,
    ) -> Iterator[int | None]:
        """Yield the numbers to show in a navigation, None for each gap.

        They are the first *left_edge*, the last *right_edge*, and this page with some on each side.
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
        """Return the address of page *number*: that of the request, with the rest of its query."""
        return self._with({"page": str(number)})

    def _query_of(self, relation: str) -> Mapping[str, str] | None:
        known = {
            "first": 1,
            "prev": self.prev_num,
            "next": self.next_num,
            "last": self.pages or None,
        }
        number = known[relation]
        return None if number is None else {"page": str(number)}

    def _turned(self, number: int, error_out: bool) -> Self:
        if self._turn is None:
            raise ValueError("This page was made by hand, so that it has no other pages.")
        page: Self = self._turn(number, error_out)
        return page


class KeysetPage(AnyPage[T]):
    """A page after or before a place; made by :func:`paginate` with ``keyset=True``.

    It has no number and knows no numbers of others, so that ``page`` is None and ``iter_pages()``
    yields nothing; ``total`` is None unless the rows were counted.
    """

    SHOWN = ("per_page", "total")
    page = prev_num = next_num = None

    def __init__(  # noqa: PLR0913 - as above
        self,
        items: list[T],
        per_page: int,
        total: int | None,
        *,
        has_prev: bool,
        has_next: bool,
        turn: Callable[[bool], Any],
        cursors: Callable[[str], str],
        address: Address | None = None,
    ) -> None:
        super().__init__(items, per_page, total, address)
        self.has_prev = has_prev
        self.has_next = has_next
        self._turn = turn
        self._cursors = cursors

    @property
    def prev_cursor(self) -> str | None:
        """What ``before`` takes to show the page before, None on the first."""
        return self._cursors("prev") if self.has_prev else None

    @property
    def next_cursor(self) -> str | None:
        """What ``after`` takes to show the page after, None on the last."""
        return self._cursors("next") if self.has_next else None

    def prev(self) -> Self:
        """Return the page before, with the same options; an empty one when there is none."""
        page: Self = self._turn(True)
        return page

    def next(self) -> Self:
        """Return the page after, with the same options; an empty one when there is none."""
        page: Self = self._turn(False)
        return page

    def iter_pages(self, **edges: int) -> Iterator[int | None]:
        """Yield nothing, so that the navigation of a page with a number shows no numbers."""
        return iter(())

    def _query_of(self, relation: str) -> Mapping[str, str | None] | None:
        missing = {"first": False, "prev": not self.has_prev, "next": not self.has_next}
        if missing.get(relation):
            return None
        name = "after" if relation == "next" else "before"
        cursor = None if relation == "first" else self._cursors(relation)
        # Of both names, one is left.
        return {"after": None, "before": None, name: cursor}
