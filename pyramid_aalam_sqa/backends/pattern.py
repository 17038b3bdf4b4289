"""A regular expression that is compiled when it is first used.

Together the patterns of all products take a third of the time that the import of this package
takes, and a process uses those of one or two products.
"""

import re
from collections.abc import Callable
from functools import cached_property


class Pattern:
    """A pattern for the text of statements, in which upper and lower case are the same."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def match(self) -> Callable[[str], re.Match[str] | None]:
        """Return how a statement begins with the pattern, or None."""
        return self._compiled.match

    @cached_property
    def search(self) -> Callable[[str], re.Match[str] | None]:
        """Return where in a statement the pattern is, or None."""
        return self._compiled.search

    @property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.text, re.IGNORECASE | re.DOTALL)
