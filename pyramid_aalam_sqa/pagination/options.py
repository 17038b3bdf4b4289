"""TODO."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from pyramid.httpexceptions import HTTPNotFound
from sqlalchemy import Select
from sqlalchemy.orm import Session

from .statements import count_of
from .urls import Address

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
class PageRequest:
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
    wanted: PageRequest
    size: int

    def count(self) -> int:
        """Return the number of rows."""
        total: int = self.session.execute(count_of(self.statement)).scalar_one()
        return total
