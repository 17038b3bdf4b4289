"""What the client is told agrees with what is stored."""

import http.client

import pytest
from pyramid.httpexceptions import HTTPFound
from pyramid.interfaces import IExceptionResponse
from pyramid.response import Response
from pyramid_retry import RetryableException, mark_error_retryable
from sqlalchemy import text
from webtest import TestApp

from support.models import INSERT
from support.processes import pserve

# All of them on the database that the promise is about; SQLite decides nothing by the method.
METHODS = {"mysql": ["GET", "POST", "PUT", "DELETE", "HEAD"], "sqlite": ["GET", "POST"]}


@pytest.fixture
def serve(serve, database, notes):
    """Make a client of an application with one view, and exception views."""

    def serve_view(view, *exception_views, settings=(), setup=None):
        def add_views(config):
            config.add_view(view)
            for context, exception_view in exception_views:
                config.add_exception_view(exception_view, context=context)
            if setup:
                setup(config)

        return TestApp(serve(database.url, add_views, **dict(settings)))

    return serve_view


def write(request, body):
    request.sqa_session.execute(INSERT, {"body": body})


@pytest.mark.parametrize("how", ["returned", "raised"])
@pytest.mark.parametrize(
    "statuses",
    [
        pytest.param((200, 201, 204, 302, 303, 399, 400, 404, 409, 500, 503, 599), id="common"),
        pytest.param(range(200, 600), id="all", marks=pytest.mark.deep),
    ],
)
@pytest.mark.sweep(1)
def test_pserve_stores_a_row_exactly_when_the_status_is_below_400(
    database, notes, tmp_path, how, statuses
):
    """A real pserve answers each status from 200 to 599 to each method over HTTP."""
    told = {}
    with pserve(tmp_path, database.url) as (port, _log):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for method in METHODS[database.kind]:
            for status in statuses:
                body = f"{method}-{status}"
                connection.request(method, f"/{how}/{status}/{body}")
                response = connection.getresponse()
                response.read()
                told[body] = response.status
        connection.close()
    promised = sorted(body for body, status in told.items() if status < 400)

    assert [int(body.split("-")[1]) for body in told] == list(told.values())
    assert notes() == promised


@pytest.mark.parametrize("status", [100, 199, 600, 999])
def test_a_status_outside_every_range_keeps_nothing(serve, notes, status):
    """Only a status from 200 to 399 commits."""

    def view(request):
        write(request, "row")
        response = Response()
        response.status = f"{status} Odd"
        return response

    serve(view).get("/", status="*", expect_errors=True)

    assert notes() == []


@pytest.mark.parametrize(
    ("status", "header", "stored"),
    [(200, "abort", []), (200, "rollback", []), (500, "commit", ["row"]), (200, "commit", ["row"])],
)
def test_the_x_tm_header_overrules_the_status(serve, notes, status, header, stored):
    """Only the application can set the header, as pyramid_tm documents."""

    def view(request):
        write(request, "row")
        return Response(status=status, headers={"X-Tm": header})

    serve(view).get("/", status=status)

    assert notes() == stored


def test_a_raised_redirect_commits(serve, notes):
    """The view may raise HTTPFound or return it. Both commit."""

    def view(request):
        write(request, "row")
        raise HTTPFound("/elsewhere")

    serve(view).get("/", status=302)

    assert notes() == ["row"]


def test_a_raised_redirect_with_an_exception_view_for_everything_commits(serve, notes):
    """The status of the page that the exception view renders decides."""

    def view(request):
        write(request, "view")
        raise HTTPFound("/elsewhere")

    def page(error, request):
        write(request, "page")
        return error

    serve(view, (IExceptionResponse, page)).get("/", status=302)

    assert notes() == ["page", "view"]


def test_an_exception_without_a_view_stores_nothing(serve, notes):
    """The server answers 500, and no part of the work is stored."""

    def view(request):
        write(request, "row")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        serve(view).get("/")

    assert notes() == []


@pytest.mark.parametrize(("status", "stored"), [(200, ["page"]), (500, [])])
def test_an_exception_view_gets_a_clean_session_and_its_page_decides(serve, notes, status, stored):
    """The view's work is rolled back first. The page's status decides on the page's writes."""

    def view(request):
        write(request, "view")
        raise RuntimeError

    def page(error, request):
        seen = request.sqa_session.execute(text("SELECT count(*) FROM note"))
        assert seen.scalar() == 0
        write(request, "page")
        return Response(status=status)

    serve(view, (RuntimeError, page)).get("/", status=status)

    assert notes() == stored


def test_an_exception_view_may_query_after_a_failed_statement(serve, notes):
    """The session works in the exception view, though a database error has ended the work."""

    def view(request):
        write(request, "view")
        request.sqa_session.execute(text("SELECT nothing FROM nowhere"))

    def page(error, request):
        write(request, "page")
        return Response()

    serve(view, (Exception, page)).get("/")

    assert notes() == ["page"]


def test_a_doomed_transaction_stores_nothing_whatever_the_status(serve, notes):
    """After request.tm.doom() the transaction is rolled back."""

    def view(request):
        write(request, "row")
        request.tm.doom()
        return Response()

    serve(view).get("/")

    assert notes() == []


def test_a_transaction_doomed_before_the_exception_stays_doomed(serve, notes):
    """The new transaction of the exception view is doomed too."""

    def view(request):
        request.tm.doom()
        raise RuntimeError

    def page(error, request):
        write(request, "page")
        return Response()

    serve(view, (RuntimeError, page)).get("/")

    assert notes() == []


def test_the_transaction_of_an_exception_view_keeps_user_and_note(serve):
    """A reader of transaction notes finds the path in the second transaction too."""
    seen = []

    def view(request):
        request.tm.get().user = "the user"
        raise RuntimeError

    def page(error, request):
        seen.append((request.tm.get().user, request.tm.get().description))
        return Response()

    serve(view, (RuntimeError, page)).get("/")

    assert seen == [("the user", "/")]


def test_the_page_of_an_attempt_that_is_tried_again_stores_nothing(serve, notes):
    """An exception view that logs to the database and answers 200 logs only the last attempt."""
    attempts = []

    def view(request):
        attempts.append(request.environ["retry.attempt"])
        write(request, "view")
        raise RetryableException

    def page(error, request):
        write(request, f"page {request.environ['retry.attempt']}")
        return Response()

    serve(view, (RetryableException, page)).get("/")

    assert attempts == [0, 1, 2]
    assert notes() == ["page 2"]


def test_an_error_that_another_data_manager_calls_transient_is_tried_again(serve, notes):
    """The data manager is asked before the early rollback removes it."""

    class Flaky:
        transaction_manager = None

        def should_retry(self, error):
            return isinstance(error, KeyError)

        def abort(self, transaction):
            """Do nothing, because there is nothing to undo."""

    attempts = []

    def view(request):
        attempts.append(1)
        request.tm.get().join(Flaky())
        write(request, "row")
        if len(attempts) < 3:
            raise KeyError
        request.tm.doom()
        return Response()

    serve(view).get("/")

    assert len(attempts) == 3


def test_a_view_that_ends_its_transaction_and_then_fails_leaves_a_usable_session(serve, notes):
    """The part that the view committed stays stored. The exception view can write."""

    def view(request):
        write(request, "part")
        request.tm.commit()
        raise RuntimeError

    def page(error, request):
        write(request, "page")
        return Response()

    serve(view, (RuntimeError, page)).get("/")

    assert notes() == ["page", "part"]


def test_a_rollback_that_fails_is_logged_and_the_views_error_is_shown(serve, notes, caplog):
    """The view's error is the cause, so it is shown and not the rollback's error."""

    class Broken:
        def abort(self, transaction):
            raise OSError("cannot undo")

    def view(request):
        request.tm.get().join(Broken())
        raise RuntimeError("the view's own")

    def page(error, request):
        write(request, "page")
        return Response(str(error))

    response = serve(view, (Exception, page)).get("/")

    assert response.text == "the view's own"
    assert "cannot undo" in caplog.text
    assert notes() == ["page"]


def test_a_request_that_pyramid_tm_leaves_alone_is_left_alone(serve, notes):
    """If tm.activate_hook returns false, the package begins and ends no transaction."""

    def view(request):
        raise RuntimeError("plain")

    with pytest.raises(RuntimeError, match="plain"):
        serve(view, settings={"tm.activate_hook": lambda request: False}).get("/")


def test_an_error_marked_retryable_by_the_application_is_tried_again(serve, notes):
    """Both ways to mark an error with pyramid_retry work."""
    attempts = []

    def view(request):
        attempts.append(1)
        write(request, "row")
        if len(attempts) == 1:
            error = ValueError()
            mark_error_retryable(error)
            raise error
        return Response()

    serve(view).get("/")

    assert notes() == ["row"]
