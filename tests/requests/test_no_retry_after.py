"""An answer after something was stored never asks for the same request again."""

import pytest
from pyramid.events import NewResponse
from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.response import Response
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa, session_scope
from pyramid_aalam_sqa.exceptions import OutcomeUnknownError
from support.apps import with_tween_above
from support.models import BODIES, INSERT
from support.proxy import Then

POOL_OF_ONE = {
    "sqlalchemy.pool_size": "1",
    "sqlalchemy.max_overflow": "0",
    "sqlalchemy.pool_timeout": "0.1",
}


def write(request):
    request.sqa_session.execute(INSERT, {"body": "row"})
    return Response("stored")


def fail(request, *_):
    """Wait for a connection although the only one is in use."""
    engine = get_sqa(request).engine
    with engine.connect():
        engine.connect()


def in_a_tween_above(config):
    def tween_factory(handler, registry):
        def tween(request):
            handler(request)
            fail(request)

        return tween

    with_tween_above(tween_factory)(config)
    config.add_view(write, name="page")


def in_a_callback(config):
    def view(request):
        request.add_response_callback(fail)
        return write(request)

    config.add_view(view, name="page")


def in_a_subscriber(config):
    config.add_subscriber(lambda event: fail(event.request), NewResponse)
    config.add_view(write, name="page")


def after_a_part(config):
    def view(request):
        write(request)
        request.tm.commit()
        request.tm.begin()
        fail(request)

    config.add_view(view, name="page")


def after_a_job(config):
    def view(request):
        with session_scope(request) as session:
            session.execute(INSERT, {"body": "row"})
        fail(request)

    config.add_view(view, name="page")


def after_a_commit_of_the_engine(config):
    def view(request):
        with get_sqa(request).engine.begin() as connection:
            connection.execute(INSERT, {"body": "row"})
        fail(request)

    config.add_view(view, name="page")


def in_a_subrequest(config):
    def view(request):
        with get_sqa(request).engine.begin() as connection:
            connection.execute(INSERT, {"body": "row"})
        inner = type(request).blank("/inner")
        return request.invoke_subrequest(inner, use_tweens=True)

    config.add_view(view, name="page")
    config.add_view(fail, name="inner")


PLACES = [
    in_a_tween_above,
    in_a_callback,
    in_a_subscriber,
    after_a_part,
    after_a_job,
    after_a_commit_of_the_engine,
    in_a_subrequest,
]


@pytest.mark.parametrize("place", PLACES, ids=lambda each: each.__name__)
def test_an_unavailable_database_is_a_500_once_something_is_stored(serve, sqlite, place):
    """A client that sends the request again would store it twice."""
    sqlite.run("CREATE TABLE note (body VARCHAR(50))")
    client = TestApp(serve(sqlite.url, place, **POOL_OF_ONE))
    response = client.get("/page", status=500)

    assert "Retry-After" not in response.headers
    assert "may be done already" in response.text
    assert sqlite.rows(BODIES) == [("row",)]


def test_the_page_of_an_unknown_outcome_that_finds_no_database_is_a_500(serve, proxied, proxy):
    """COMMIT was sent and never answered, so that it may be stored."""

    def page(error, request):
        fail(request)

    def setup(config):
        config.add_view(write, name="page")
        config.add_exception_view(page, context=OutcomeUnknownError)

    database, _, url = proxied
    database.run("CREATE TABLE IF NOT EXISTS note (body VARCHAR(50))")
    client = TestApp(serve(url, setup, **POOL_OF_ONE))
    proxy.have("COMMIT", Then.CUT)
    response = client.get("/page", status=500)

    assert "Retry-After" not in response.headers
    assert "may be done already" in response.text


def test_an_answer_of_the_applications_own_loses_the_header(serve, sqlite):
    """Its status stays what the application has made it."""

    def tween_factory(handler, registry):
        def tween(request):
            handler(request)
            return HTTPServiceUnavailable(headers=[("Retry-After", "9")])

        return tween

    def setup(config):
        with_tween_above(tween_factory)(config)
        config.add_view(write, name="page")
        config.add_view(lambda request: Response("fine"), name="nothing")

    sqlite.run("CREATE TABLE note (body VARCHAR(50))")
    client = TestApp(serve(sqlite.url, setup))

    assert "Retry-After" not in client.get("/page", status=503).headers
    assert client.get("/nothing", status=503).headers["Retry-After"] == "9"
