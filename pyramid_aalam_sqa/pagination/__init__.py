"""Pages of a statement's rows: by number, or by keyset (the rows after or before a row)."""

from .keyset import find_keyset_page, paginate_keyset
from .numbered import find_page, paginate
from .page_request import KeysetOptions, PageOptions, PageRequest
from .pages import KeysetPage, Page
from .urls import Address

__all__ = [
    "Address",
    "KeysetOptions",
    "KeysetPage",
    "Page",
    "PageOptions",
    "PageRequest",
    "find_keyset_page",
    "find_page",
    "paginate",
    "paginate_keyset",
]
