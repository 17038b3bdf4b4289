"""The path and the query string of a request, as text that is safe in a log and in a page."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..pagination import Address

# Without the apostrophe, which may end an attribute of HTML.
PATH_SAFE = "/~!$&()*+,;=:@"
# The percent sign too: the client has encoded its query string already.
QUERY_SAFE = "%&=+;/?:@!$()*,~"


def path_of(environ: Mapping[str, Any]) -> str:
    """Return the path of a WSGI *environ*, percent-encoded: ASCII, and without a line break."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return quote(path, PATH_SAFE, "latin-1")


def address_of(environ: Mapping[str, Any]) -> Address:
    """Return the path and the query string of a WSGI *environ*, whatever bytes the client sent."""
    path = path_of(environ)
    if path.startswith("//"):
        # A browser takes what follows two slashes for the name of another host.
        path = f"/.{path}"
    return Address(path, quote(environ.get("QUERY_STRING", ""), QUERY_SAFE, "latin-1"))
