"""The address of another page: the address of this page with a part of its query string changed."""

from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote_plus


class Address:
    """A path with a query string. Repeated names, empty values and odd bytes of it are kept."""

    def __init__(self, path: str, query: str = "") -> None:
        self._path = path
        self._pairs = [
            (_decoded(part.partition("=")[0]), part) for part in query.split("&") if part
        ]

    def get(self, name: str) -> str | None:
        """Return the last value of *name* in the query string, as ``request.GET`` does, or None."""
        values = (part.partition("=")[2] for found, part in reversed(self._pairs) if found == name)
        last = next(values, None)
        return None if last is None else _decoded(last)

    def url(self, changed: Mapping[str, str | None]) -> str:
        """Return the address with the values of *changed*; a value of None removes the name."""
        kept = (part for name, part in self._pairs if name not in changed)
        added = (f"{name}={quote(value)}" for name, value in changed.items() if value is not None)
        query = "&".join([*kept, *added])
        return f"{self._path}?{query}" if query else self._path


def link_header(links: Iterable[tuple[str, str | None]]) -> str:
    """Return the value of a ``Link`` header (RFC 8288) for pairs of relation and address."""
    return ", ".join(f'<{url}>; rel="{relation}"' for relation, url in links if url is not None)


def _decoded(encoded: str) -> str:
    return unquote_plus(encoded, errors="replace")
