"""Makes the address of another page: this page's address with another query string."""

from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote_plus


class Address:
    """A path with a query string, kept as it was sent: repeated names, empty values, any bytes."""

    def __init__(self, path: str, query: str = "") -> None:
        self._path = path
        self._pairs = [
            (_decoded(part.partition("=")[0]), part) for part in query.split("&") if part
        ]

    def get(self, name: str) -> str | None:
        """Return the last value of *name* in the query string, as ``request.GET`` does.

        Returns None if the query string does not have *name*.
        """
        values = (part.partition("=")[2] for found, part in reversed(self._pairs) if found == name)
        last = next(values, None)
        return None if last is None else _decoded(last)

    def url(self, changed: Mapping[str, str | None]) -> str:
        """Return the address with the values in *changed*. A value of None removes its name."""
        kept = (part for name, part in self._pairs if name not in changed)
        added = (f"{name}={quote(value)}" for name, value in changed.items() if value is not None)
        query = "&".join([*kept, *added])
        return f"{self._path}?{query}" if query else self._path


def link_header(links: Iterable[tuple[str, str | None]]) -> str:
    """Return the value of a ``Link`` header (RFC 8288). *links* are pairs of relation and URL."""
    return ", ".join(f'<{url}>; rel="{relation}"' for relation, url in links if url is not None)


def _decoded(encoded: str) -> str:
    return unquote_plus(encoded, errors="replace")
