"""The path of a request, as text that is safe in a log and in a page."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

# Without the apostrophe, which may end an attribute of HTML.
PATH_SAFE = "/~!$&()*+,;=:@"


def path_of(environ: Mapping[str, Any]) -> str:
    """Return the path of a WSGI *environ*, percent-encoded: ASCII, and without a line break."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return quote(path, PATH_SAFE, "latin-1")
