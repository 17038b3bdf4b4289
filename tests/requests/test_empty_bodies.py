"""A request without a body is marked as WebOb would mark it, and no other request is changed."""

from io import BytesIO

import pytest
from pyramid.request import Request
from pyramid.response import Response

from pyramid_aalam_sqa.requests.empty_body import mark_empty_body
from support.apps import with_view


def environ_without_a_body():
    environ = Request.blank("/").environ
    environ.pop("CONTENT_LENGTH", None)
    environ["wsgi.input"] = BytesIO(b"of the next request on this connection")
    return environ


def marks(environ):
    """Return what is of the body in *environ*."""
    keys = {key for key in environ if key.startswith(("webob.", "CONTENT_"))}
    return {key: environ[key] for key in keys} | {"wsgi.input": environ["wsgi.input"].read()}


def test_a_request_without_a_body_is_what_webob_makes_of_it():
    """If this fails, WebOb has changed: look at requests/empty_body.py again."""
    ours, theirs = environ_without_a_body(), environ_without_a_body()
    mark_empty_body(ours)
    Request(theirs).make_body_seekable()

    assert marks(ours) == marks(theirs)


@pytest.mark.parametrize(
    "given",
    [{"CONTENT_LENGTH": "3"}, {"CONTENT_LENGTH": ""}, {"wsgi.input_terminated": True}],
    ids=str,
)
def test_a_request_that_may_have_a_body_is_not_changed(given):
    """Such as one that is sent in chunks."""
    environ = {**environ_without_a_body(), **given}
    before = dict(environ)
    mark_empty_body(environ)

    assert environ == before


@pytest.mark.parametrize(("attempts", "read"), [("1", b"the rest"), ("3", b"")])
def test_with_one_attempt_the_input_is_left_to_the_view(serve, attempts, read):
    """As pyramid_retry leaves it."""

    def view(request):
        return Response(request.environ["wsgi.input"].read())

    app = serve("sqlite://", with_view(view), **{"retry.attempts": attempts})
    environ = {**environ_without_a_body(), "wsgi.input": BytesIO(b"the rest")}

    assert b"".join(app(environ, lambda *_: None)) == read
