"""sqa.reader.methods: a GET is read-only, and one that writes is made again."""

import logging

import pytest
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import ReadOnlyRequestError, get_sqa
from support.apps import application
from support.models import Base, Note

METHODS = {"sqa.reader.methods": "GET HEAD", "sqa.retry_pause": "0"}


def write(request):
    request.sqa_session.execute(text("INSERT INTO note VALUES (:body)"), request.params)
    return Response("written")


def change(request):
    row = request.sqa_session.execute(text("SELECT body FROM note")).all()
    return Response(" ".join(each[0] for each in row))


class Site:
    """An application that counts the attempts of its views."""

    def __init__(self, database):
        self.database = database
        self.attempts = []

    def counted(self, view):
        def counted(request):
            self.attempts.append(view.__name__)
            return view(request)

        return counted

    def setup(self, config):
        for name, view, options in (
            ("write", write, {}),
            ("read", change, {}),
            ("swallow", swallow, {}),
            ("page", write, {}),
            ("free", write, {"sqa_read_only": False}),
            ("strict", write, {"sqa_read_only": True}),
        ):
            config.add_route(name, f"/{name}", **options)
            config.add_view(self.counted(view), route_name=name)
        config.add_view(self.counted(write), name="traversed")
        config.add_view(self.counted(write), name="freed", sqa_read_only=False)
        config.add_view(self.counted(write), name="strictly", sqa_read_only=True)
        config.add_route("used", "/used", factory=used)
        config.add_view(self.counted(write), route_name="used", sqa_read_only=False)
        config.add_view(self.counted(change), name="once", sqa_read_only="snapshot")


def swallow(request):
    try:
        write(request)
    except ReadOnlyRequestError:
        return Response("swallowed")
    return Response("written")


def used(request):
    change(request)
    return {}


@pytest.fixture
def site(sqlite):
    sqlite.run("CREATE TABLE note (body VARCHAR(50))")
    return Site(sqlite)


@pytest.fixture
def client(site):
    with application(site.database.url, site.setup, **METHODS) as app:
        yield TestApp(app)


def notes(site):
    return [body for (body,) in site.database.rows("SELECT body FROM note")]


@pytest.mark.parametrize(
    ("path", "attempts"),
    [("write", 2), ("swallow", 2), ("traversed", 2), ("used", 2), ("free", 1), ("freed", 1)],
)
def test_a_get_that_writes_is_made_again_once_and_stored_once(site, client, caplog, path, attempts):
    """Unless the route or the view says that it writes. The log names it."""
    with caplog.at_level(logging.WARNING):
        assert client.get(f"/{path}?body=x").text == "written"

    assert len(site.attempts) == attempts
    assert notes(site) == ["x"]
    told = [each for each in caplog.messages if each.startswith("sqa.reader.methods: it is made")]
    assert len(told) == attempts - 1
    assert all(f"GET /{path}" in each for each in told)


@pytest.mark.parametrize("path", ["strict", "strictly"])
def test_a_get_that_says_itself_that_it_reads_is_not_made_again(site, client, path):
    """Its write is refused for good."""
    with pytest.raises(ReadOnlyRequestError):
        client.get(f"/{path}?body=x")

    assert (len(site.attempts), notes(site)) == (1, [])


def test_a_post_writes_as_ever(site, client):
    """It is not among the methods."""
    client.post("/write", {"body": "x"})

    assert (len(site.attempts), notes(site)) == (1, ["x"])


def test_a_get_that_reads_uses_the_pool_for_reading(site, client):
    """So does a view that asks for a snapshot."""
    assert client.get("/read").text == client.get("/once").text == ""
    sqa = get_sqa(client.app)
    assert sqa.engine.pool.checkedin() == 0
    assert sqa.reading.by_name()["default.reader"].pool.checkedin() == 1


def test_an_exception_view_does_not_hide_the_second_attempt(site):
    """A page for all errors would be shown for a write that is possible."""

    def setup(config):
        site.setup(config)
        config.add_exception_view(lambda error, _: Response(repr(error)), context=Exception)

    with application(site.database.url, setup, **METHODS) as app:
        assert TestApp(app).get("/write?body=x").text == "written"

    assert notes(site) == ["x"]


def test_a_changed_object_is_a_write_too(site):
    """It is found at the end of the view."""

    def view(request):
        request.sqa_session.get(Note, 1).body = "changed"
        return Response("changed")

    database = site.database
    database.run("DROP TABLE note")
    with application(database.url, lambda config: config.add_view(view), **METHODS) as app:
        with get_sqa(app).engine.begin() as connection:
            Base.metadata.create_all(connection)
            connection.execute(text("INSERT INTO note VALUES (1, 'before')"))
        assert TestApp(app).get("/").text == "changed"

    assert notes(site) == ["changed"]


def test_a_stream_reads_where_the_request_reads(site, client):
    """And a subrequest is a request with a method of its own."""
    request = Request.blank("/read")
    request.registry = client.app.registry

    assert client.app.invoke_subrequest(request, use_tweens=True).text == ""
