"""The status of a raised response decides, and not the status of the page made for it."""

import pytest
from pyramid.httpexceptions import (
    HTTPForbidden,
    HTTPFound,
    HTTPInternalServerError,
    HTTPNotFound,
    HTTPOk,
    HTTPSeeOther,
)
from pyramid.response import Response
from webtest import TestApp

from support.apps import with_view
from support.models import BODIES, INSERT, Note


@pytest.fixture
def bodies(any_database):
    any_database.run("CREATE TABLE note (id INTEGER, body VARCHAR(50))")
    return lambda: [row[0] for row in any_database.rows(BODIES)]


def visit(serve, database, raised, page, **settings):
    """Write, raise *raised*, and let an exception view return *page*."""

    def view(request):
        request.sqa_session.execute(INSERT, {"body": "view"})
        raise raised

    def setup(config):
        config.add_view(view)
        if page is not None:
            config.add_exception_view(lambda error, request: page, context=type(raised))

    app = serve(database.url, setup, **settings)
    return TestApp(app).get("/", status="*").status_int


@pytest.mark.parametrize(
    "raised",
    [HTTPForbidden(), HTTPNotFound(), HTTPInternalServerError()],
    ids=lambda each: each.code,
)
def test_a_raised_error_stores_nothing_whatever_page_is_made_of_it(
    serve, any_database, bodies, raised
):
    """For example, a forbidden view redirects to the login page."""
    status = visit(serve, any_database, raised, HTTPSeeOther("/login"))

    assert (status, bodies()) == (303, [])


@pytest.mark.parametrize(
    "raised", [HTTPFound("/"), HTTPSeeOther("/"), HTTPOk()], ids=lambda each: each.code
)
@pytest.mark.sweep(5)
def test_a_raised_success_is_stored(serve, any_database, bodies, raised):
    """For example, a view raises HTTPFound after it has saved a form."""
    visit(serve, any_database, raised, None)

    assert bodies() == ["view"]


def test_a_row_that_is_not_found_stores_nothing_though_its_page_is_a_200(
    serve, any_database, bodies
):
    """A view uses get_or_404(), and the not-found view answers 200."""

    def view(request):
        request.sqa_session.execute(INSERT, {"body": "view"})
        return Response(request.sqa_session.get_or_404(Note, 77).body)

    def setup(config):
        config.add_view(view)
        config.add_notfound_view(lambda request: Response("nothing here"))

    assert TestApp(serve(any_database.url, setup)).get("/").text == "nothing here"
    assert bodies() == []


def test_what_the_page_of_a_raised_error_writes_follows_its_own_status(serve, any_database, bodies):
    """For example, the page writes into a log who was refused."""

    def view(request):
        request.sqa_session.execute(INSERT, {"body": "view"})
        raise HTTPForbidden

    def page(request):
        request.sqa_session.execute(INSERT, {"body": "refused"})
        return HTTPSeeOther("/login")

    def setup(config):
        config.add_view(view)
        config.add_forbidden_view(page)

    TestApp(serve(any_database.url, setup)).get("/", status=303)

    assert bodies() == ["refused"]


def test_a_veto_of_the_applications_own_decides_on_raised_answers_too(serve, any_database, bodies):
    """The veto gets the response that was raised."""
    asked = []

    def veto(request, response):
        asked.append(response.status_int)
        return response.status_int == 302

    visit(serve, any_database, HTTPFound("/"), Response(), **{"tm.commit_veto": veto})

    assert asked == [302, 200]
    assert bodies() == []


def test_the_header_of_a_raised_answer_overrules_its_status(serve, any_database, bodies):
    """The raised response has the header X-Tm: commit."""
    raised = HTTPForbidden(headers={"X-Tm": "commit"})
    visit(serve, any_database, raised, Response())

    assert bodies() == ["view"]


def test_a_doomed_transaction_stays_doomed_behind_a_raised_error(serve, any_database, bodies):
    """What the page of the error writes is not stored either."""

    def view(request):
        request.tm.doom()
        raise HTTPForbidden

    def page(request):
        request.sqa_session.execute(INSERT, {"body": "page"})
        return Response()

    def setup(config):
        config.add_view(view)
        config.add_forbidden_view(page)

    TestApp(serve(any_database.url, setup)).get("/")

    assert bodies() == []


def test_a_view_that_is_not_found_by_its_route_needs_no_database(serve, sqlite):
    """There is no work to roll back."""
    app = serve(sqlite.url, with_view(lambda request: Response(), name="there"))

    assert TestApp(app).get("/elsewhere", status=404)
