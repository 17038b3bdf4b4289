"""What a caller or a client asks for: the options of a page, and numbers that a client sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypedDict, TypeVar

from pyramid.httpexceptions import HTTPNotFound

from .urls import Address

T = TypeVar("T")


PAGE_SIZE = 20
MAX_PAGE_SIZE = 100


# The most rows that are skipped. It is the largest number that every driver can send.
MAX_OFFSET = 2**31 - 1
TOO_LARGE = MAX_OFFSET + 2
# A number with more digits is larger than MAX_OFFSET. It is not converted, because it may have a
# million digits.
MOST_DIGITS = 10


NO_PAGE = "There is no such page."
BAD_MAXIMUM = "max_per_page is {size!r}: write a whole number from 1 up."


class CommonOptions(TypedDict, total=False):
    """The options of every page."""

    per_page: int | str | None
    max_per_page: int | None
    error_out: bool
    count: bool | None
    url: str | None


class PageOptions(CommonOptions, total=False):
    """The options of a page with a number."""

    page: int | str | None


class KeysetOptions(CommonOptions, total=False):
    """The options of a page after or before a cursor."""

    after: str | None
    before: str | None
    secret: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """The options of a page with their defaults.

    ``page`` and ``per_page`` are numbers, or text that a client has sent. ``page_size`` is the
    number of rows if ``per_page`` is not given. If ``count`` is None, numbered pages are counted
    and keyset pages are not. ``secret`` signs cursors. ``address`` is the address of this page.
    """

    page: int | str = 1
    per_page: int | str | None = None
    page_size: int = PAGE_SIZE
    max_per_page: int = MAX_PAGE_SIZE
    error_out: bool = True
    count: bool | None = None
    after: str | None = None
    before: str | None = None
    secret: bytes | None = None
    address: Address | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], **defaults: Any) -> Self:
        """Return the request with the *options* of a caller. None means that one is not given.

        *defaults* are the values of fields that *options* does not give.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if "url" in given:
            given["address"] = Address(*given.pop("url").split("?", 1))
        if "secret" in given:
            given["secret"] = given["secret"].encode()
        known = {name: value for name, value in defaults.items() if value is not None}
        return cls(**{**known, **given})

    @property
    def size(self) -> int:
        """The number of rows on a full page.

        Raises ValueError if ``max_per_page`` is not a whole number from 1 up. If ``per_page`` is
        not such a number, raises HTTPNotFound, or uses ``page_size`` when ``error_out`` is false.
        """
        if type(self.max_per_page) is not int or self.max_per_page < 1:
            raise ValueError(BAD_MAXIMUM.format(size=self.max_per_page))
        size = self.page_size if self.per_page is None else read_number(self.per_page)
        if size < 1:
            size = not_found_or(self.page_size, error_out=self.error_out)
        return min(size, self.max_per_page)


def read_number(given: int | str) -> int:
    """Return the number that a client sent; 0 for text with anything but the digits 0 to 9.

    int() would also accept signs, blanks, underscores, and the digits of every script.
    """
    if not isinstance(given, str):
        return given
    if not (given.isascii() and given.isdigit()):
        return 0
    return int(given) if len(given) <= MOST_DIGITS else TOO_LARGE


def not_found_or(default: T, *, error_out: bool) -> T:
    """Raise HTTPNotFound if *error_out* is true; else return *default*."""
    if error_out:
        raise HTTPNotFound(NO_PAGE)
    return default
