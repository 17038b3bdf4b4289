"""Pages of rows, by number or by place."""

from .options import PageRequest
from .pages import KeysetPage, Page
from .paging import PageOptions, find_page, paginate
from .urls import Address

__all__ = ["Address", "KeysetPage", "Page", "PageOptions", "PageRequest", "find_page", "paginate"]
