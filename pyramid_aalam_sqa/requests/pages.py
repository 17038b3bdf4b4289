"""The methods of a request that show pages. This module is imported when one of them is used.

With the room ``pagination`` it takes a sixth of the time that all of the package takes to import,
and many applications show no pages.
"""

from collections.abc import Mapping
from typing import Any, Unpack
from urllib.parse import quote

from ..applications import application_of
from ..pagination import (
    Address,
    KeysetOptions,
    KeysetPage,
    Page,
    PageOptions,
    PageRequest,
    find_keyset_page,
    find_page,
)
from .addresses import path_of

# What stays as it is in a query string. The percent sign too: the client has encoded it already.
QUERY_SAFE = "%&=+;/?:@!$()*,~"


def sqa_paginate(request: Any, statement: object, **options: Unpack[PageOptions]) -> Page[Any]:
    """Return the page of *statement* that the query string asks for, on ``request.sqa_session``.

    The options are those of :func:`paginate`. ``page`` and ``per_page`` are taken from the query
    string unless they are given here. The sizes are those of the settings ``sqa.page_size`` and
    ``sqa.max_page_size``, and ``url`` is the address of the request.
    """
    address = address_of(request.environ)
    wanted = _page_request(request, address, options, page=address.get("page"))
    return find_page(request.sqa_session, statement, wanted)


def sqa_paginate_keyset(
    request: Any, statement: object, **options: Unpack[KeysetOptions]
) -> KeysetPage[Any]:
    """Return the page of *statement* after or before the cursor in the query string.

    The options are those of :func:`paginate_keyset`. ``after``, ``before`` and ``per_page`` are
    taken from the query string unless they are given here; a cursor that is given here replaces
    both. The secret is that of the setting ``sqa.cursor_secret``. The rest is as for
    :func:`sqa_paginate`.
    """
    address = address_of(request.environ)
    given = options.get("after") is not None or options.get("before") is not None
    cursors = {} if given else {name: address.get(name) for name in ("after", "before")}
    # Not read where the caller gives one: without the setting it logs a warning.
    secret = None if options.get("secret") else application_of(request).cursor_secret
    wanted = _page_request(request, address, options, secret=secret, **cursors)
    return find_keyset_page(request.sqa_session, statement, wanted)


def _page_request(
    request: Any, address: Address, options: Mapping[str, Any], **asked: Any
) -> PageRequest:
    sqa_options = application_of(request).sessions.settings.sqa_options
    return PageRequest.of(
        options,
        per_page=address.get("per_page"),
        page_size=sqa_options["page_size"],
        max_per_page=sqa_options["max_page_size"],
        address=address,
        **asked,
    )


def address_of(environ: Mapping[str, Any]) -> Address:
    """Return the path and the query string of a WSGI *environ*, whatever bytes the client sent."""
    path = path_of(environ)
    if path.startswith("//"):
        # A browser takes what follows two slashes for the name of another host.
        path = f"/.{path}"
    return Address(path, quote(environ.get("QUERY_STRING", ""), QUERY_SAFE, "latin-1"))
