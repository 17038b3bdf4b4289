"""Marks the body of a request without one as read, as WebOb would, but at no cost.

pyramid_retry has each body copied before the first attempt, so that each attempt can read it. Where
there is no body, WebOb finds that out and puts an empty one in its place. That takes a quarter of
what this package costs a request that uses no database.
"""

from io import BytesIO
from typing import Any


def mark_empty_body(environ: dict[str, Any]) -> None:
    """Put into *environ* what ``request.make_body_seekable()`` puts there, if it has no body."""
    if (
        "CONTENT_LENGTH" in environ
        or "wsgi.input_terminated" in environ
        or "webob.is_body_readable" in environ
    ):
        # There is one, or one may follow although its length is not known.
        return
    environ["CONTENT_LENGTH"] = "0"
    environ["wsgi.input"] = BytesIO()
    environ["webob.is_body_seekable"] = True
