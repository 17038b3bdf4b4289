"""If something changes the response after the commit, an error with the path is logged."""

import pytest
from pyramid.events import NewResponse
from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory
from pyramid_retry import RetryableException
from webtest import TestApp

from support.apps import with_tween_above, with_view
from support.models import BODIES, INSERT

SAID = "the transaction is stored"


@pytest.fixture
def bodies(database):
    database.run("CREATE TABLE note (body VARCHAR(50))")
    return lambda: [row[0] for row in database.rows(BODIES)]


def write(request):
    request.sqa_session.execute(INSERT, {"body": "row"})
    return Response("stored", content_type="text/plain")


def callback_that_sets_500(config):
    def view(request):
        request.add_response_callback(lambda request, response: setattr(response, "status", 500))
        return write(request)

    config.add_view(view, name="page")


def callback_that_raises(config):
    def view(request):
        request.add_response_callback(fail)
        return write(request)

    config.add_view(view, name="page")


def fail(*_):
    raise ZeroDivisionError


def cookie_that_is_too_long(config):
    def view(request):
        request.session["too"] = "long" * 5000
        return write(request)

    config.set_session_factory(SignedCookieSessionFactory("secret"))
    config.add_view(view, name="page")


def subscriber_that_raises(config):
    config.add_subscriber(fail, NewResponse)
    config.add_view(write, name="page")


def tween_above_that_answers_404(config):
    def tween_factory(handler, registry):
        def tween(request):
            handler(request)
            return HTTPNotFound()

        return tween

    with_tween_above(tween_factory)(config)
    config.add_view(write, name="page")


def tween_above_that_asks_for_a_retry(config):
    def tween_factory(handler, registry):
        def tween(request):
            handler(request)
            raise RetryableException

        return tween

    with_tween_above(tween_factory)(config)
    config.add_view(write, name="page")


def late_write(config):
    def view(request):
        request.add_response_callback(lambda request, response: write(request))
        return write(request)

    config.add_view(view, name="page")


class Finishing:
    """A data manager whose tpc_finish fails, after everything is stored."""

    transaction_manager = None

    def sortKey(self):  # noqa: N802 - transaction's interface
        return "finishing"

    def tpc_begin(self, transaction):
        """It has nothing to begin."""

    commit = tpc_vote = abort = tpc_abort = tpc_begin
    tpc_finish = fail


def finish_that_raises(config):
    def view(request):
        request.tm.get().join(Finishing())
        return write(request)

    config.add_view(view, name="page")


CHANGES = [
    callback_that_sets_500,
    callback_that_raises,
    cookie_that_is_too_long,
    subscriber_that_raises,
    tween_above_that_answers_404,
    tween_above_that_asks_for_a_retry,
    late_write,
    finish_that_raises,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda each: each.__name__)
def test_an_error_answer_after_the_commit_is_logged_with_the_path(
    serve, database, bodies, caplog, change
):
    """The commit cannot be undone, so an error is logged. The request is not tried again."""
    client = TestApp(serve(database.url, change), lint=False)
    try:
        status = client.get("/page", status="*").status_int
    except Exception:  # noqa: BLE001 - a server makes a 500 of it
        status = 500
    lines = [record for record in caplog.records if SAID in record.getMessage()]

    assert status >= 400
    assert bodies() == ["row"]
    assert [(line.levelname, "GET /page" in line.getMessage()) for line in lines] == [
        ("ERROR", True)
    ]


def test_a_range_that_is_answered_416_is_logged_with_the_path(serve, database, bodies, caplog):
    """WebOb decides on the status 416 while it sends the response."""

    def view(request):
        response = write(request)
        response.conditional_response = True
        return response

    client = TestApp(serve(database.url, with_view(view, name="page")))
    assert client.get("/page", headers={"Range": "bytes=0-2"}).status_int == 206
    assert SAID not in caplog.text
    client.get("/page", headers={"Range": "bytes=900-901"}, status=416)

    assert "GET /page" in caplog.text
    assert caplog.text.count(SAID) == 1
    assert bodies() == ["row", "row"]


def test_an_answer_that_is_true_is_not_logged(serve, database, bodies, caplog):
    """True answers: a success, a view's error, an error page, a part committed by hand."""

    def part(request):
        write(request)
        request.tm.commit()
        request.tm.begin()
        return HTTPNotFound()

    def broken(request):
        write(request)
        raise ZeroDivisionError

    def setup(config):
        for view in (write, part, broken):
            config.add_view(view, name=view.__name__)
        config.add_exception_view(
            lambda error, request: Response(status=500), context=ZeroDivisionError
        )

    client = TestApp(serve(database.url, setup))
    client.get("/write")
    client.get("/part", status=404)
    client.get("/broken", status=500)

    assert SAID not in caplog.text
    assert bodies() == ["row", "row"]
