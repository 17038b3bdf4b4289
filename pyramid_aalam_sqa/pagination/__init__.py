"""Pages of a statement's rows: by number, or after and before a place."""

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
