"""Each attempt of a request reads its complete body."""

import io

import pytest
from pyramid.response import Response
from webtest.app import TestRequest

from support.retried import (
    Conflict,
    Refusing,
    fail_at_first,
    lines,
    number,
    page_for_everything,
    write,
)

SMALL, LARGE = b"line\n" * 20, bytes(range(256)) * 1000
JSON = {"content_type": "application/json"}


def post_form(app):
    return app.post("/", {"a": "1", "b": "ä"})


def read_form(request):
    return repr(sorted(request.POST.items()))


def post_json(app):
    return app.post_json("/", {"key": ["value"] * 2000})


def read_json(request):
    return str(len(request.json_body["key"]))


def read_body(request):
    return request.body.hex()


def read_body_file(request):
    return request.body_file.read().hex()


def read_file(request):
    upload = request.POST["upload"]
    return f"{upload.filename} {upload.file.read().hex()} {request.POST['title']}"


def send(content):
    def send(app):
        return app.post("/", content, content_type="application/octet-stream")

    return send


def upload(content):
    def upload(app):
        return app.post("/", {"title": "ä"}, upload_files=[("upload", "file.bin", content)])

    return upload


def chunked(app):
    """A body without a Content-Length."""
    environ = {"wsgi.input_terminated": True, "wsgi.input": io.BytesIO(LARGE)}
    return app.do_request(TestRequest.blank("/", method="POST", environ=environ))


BODIES = {
    "form": (post_form, read_form, "[('a', '1'), ('b', 'ä')]"),
    "json": (post_json, read_json, "2000"),
    "body": (send(SMALL), read_body, SMALL.hex()),
    "large_body": (send(LARGE), read_body, LARGE.hex()),
    "body_file": (send(SMALL), read_body_file, SMALL.hex()),
    "large_body_file": (send(LARGE), read_body_file, LARGE.hex()),
    "chunked_body": (chunked, read_body_file, LARGE.hex()),
    "file": (upload(SMALL), read_file, f"file.bin {SMALL.hex()} ä"),
    "large_file": (upload(LARGE), read_file, f"file.bin {LARGE.hex()} ä"),
    "empty_file": (upload(b""), read_file, "file.bin  ä"),
    "no_body": (lambda app: app.get("/"), read_body, ""),
}


@pytest.mark.parametrize("how", ["raised", "page", "commit"])
@pytest.mark.parametrize("name", BODIES)
@pytest.mark.sweep(8)
def test_each_attempt_reads_the_complete_body(serve_view, unique_notes, sqlite, name, how):
    """The stored file is complete, even if an earlier attempt has read a part of the body."""
    post, read, expected = BODIES[name]
    seen = []

    def view(request):
        seen.append(read(request))
        write(request, "row")
        if how == "commit":
            request.tm.get().join(Refusing(fail_at_first, request))
        else:
            fail_at_first(request)
        return Response()

    response = post(serve_view(view, setup=page_for_everything if how == "page" else None))
    # A file, where the body is large; WebOb leaves it to the collector.
    response.request.environ["wsgi.input"].close()

    assert response.status_int == 200
    assert seen == [expected] * 3
    assert unique_notes() == ["row"]


def test_a_body_that_was_read_in_part_is_read_from_its_beginning(serve_view):
    """An attempt may fail at any point of the body."""
    seen = []

    def view(request):
        seen.append(request.body_file.read(7 if number(request) < 3 else -1))
        fail_at_first(request)
        return Response()

    response = serve_view(view).post("/", LARGE, content_type="text/plain")
    response.request.environ["wsgi.input"].close()

    assert seen == [LARGE[:7], LARGE[:7], LARGE]


def test_a_body_that_the_view_has_closed_makes_the_attempt_the_last(
    serve_view, unique_notes, caplog
):
    """An io.TextIOWrapper closes the body. The client gets the view's error."""
    seen = []

    def view(request):
        with io.TextIOWrapper(request.body_file) as body:
            seen.append(body.read())
        write(request, "row")
        raise Conflict

    with pytest.raises(Conflict):
        serve_view(view).post("/", "content", content_type="text/plain")

    assert seen == ["content"]
    assert unique_notes() == []
    assert lines(caplog) == [
        "POST /: attempt 1 of 3 failed (Conflict), the last: its body is closed"
    ]
