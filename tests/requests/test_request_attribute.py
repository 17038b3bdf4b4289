"""sqa.request_attribute gives request.sqa_session a second name."""

import pytest
from pyramid.exceptions import ConfigurationError
from pyramid.response import Response
from webtest import TestApp

from support.apps import with_view
from support.models import INSERT


def view(request):
    """A view of an application that was wired by hand, as the cookiecutter does it."""
    request.dbsession.execute(INSERT, {"body": "old"})
    assert request.dbsession is request.sqa_session
    return Response(status=request.params["status"])


def test_views_that_use_another_name_get_the_same_session(serve, database, notes):
    """What they write follows the status of the response."""
    client = TestApp(serve(database.url, with_view(view), **{"sqa.request_attribute": "dbsession"}))

    client.get("/", {"status": "404"}, status=404)
    assert notes() == []
    client.get("/", {"status": "200"})
    assert notes() == ["old"]


def test_without_the_setting_a_request_has_no_other_name(serve, sqlite):
    """The name belongs to the application."""

    def look(request):
        return Response(str(hasattr(request, "dbsession")))

    assert TestApp(serve(sqlite.url, with_view(look))).get("/").text == "False"


def test_the_session_of_a_test_has_the_name_too(serve, sqlite):
    """A session in the environ is used under both names."""

    def look(request):
        return Response(str(request.dbsession is request.environ["sqa.session"]))

    app = serve(sqlite.url, with_view(look), **{"sqa.request_attribute": "dbsession"})
    assert TestApp(app, extra_environ={"sqa.session": object()}).get("/").text == "True"


def test_a_method_of_the_applications_own_wins(serve, sqlite):
    """An application that still adds the attribute by hand starts, and keeps its own."""

    def setup(config):
        config.add_request_method(lambda request: "mine", "dbsession", reify=True)
        config.add_view(lambda request: Response(request.dbsession))

    app = serve(sqlite.url, setup, **{"sqa.request_attribute": "dbsession"})
    assert TestApp(app).get("/").text == "mine"


@pytest.mark.parametrize("name", ["session", "tm", "root", "params", "sqa_session", "sqa_other"])
def test_a_name_that_a_request_has_is_refused(serve, sqlite, name):
    """Otherwise the attribute would hide what Pyramid or this package sets."""
    with pytest.raises(
        ConfigurationError, match=f"sqa.request_attribute = {name}: each request has"
    ):
        serve(sqlite.url, **{"sqa.request_attribute": name})


@pytest.mark.parametrize("name", ["db session", "1st", "class", ""])
def test_what_is_not_a_name_is_refused(serve, sqlite, name):
    """The error says what to write."""
    with pytest.raises(ConfigurationError, match=r"sqa\.request_attribute"):
        serve(sqlite.url, **{"sqa.request_attribute": name})
