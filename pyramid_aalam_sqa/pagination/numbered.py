"""TODO."""

from functools import partial
from typing import Any

from pyramid.httpexceptions import HTTPNotFound

from .keyset import fetch
from .options import MAX_OFFSET, NO_PAGE, _instead, _number, _Pages
from .ordering import in_total_order
from .pages import Page
from .statements import width_of


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
