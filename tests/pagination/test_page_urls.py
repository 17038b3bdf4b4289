"""The addresses of pages: the rest of the query string stays, and nobody is led elsewhere."""

import gc
import weakref
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from pyramid_aalam_sqa import get_sqa, paginate
from pyramid_aalam_sqa.pagination.urls import Address
from support.paged import Author, library, opened


def address(path="/list", query=""):
    return Address.of({"PATH_INFO": path, "QUERY_STRING": query})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "/list?page=2"),
        ("page=7", "/list?page=2"),
        ("tag=a&page=1&tag=b&page=9", "/list?tag=a&tag=b&page=2"),
        ("q=&flag&&x=1=2", "/list?q=&flag&x=1=2&page=2"),
        ("q=%C3%BC+%26%3D", "/list?q=%C3%BC+%26%3D&page=2"),
        ("q=%ff%zz%", "/list?q=%ff%zz%&page=2"),
        ("p%61ge=1&Page=3", "/list?Page=3&page=2"),
        ("q=\xff\xfe", "/list?q=%FF%FE&page=2"),
        ("q=<\"'>\r\nX: y", "/list?q=%3C%22%27%3E%0D%0AX:%20y&page=2"),
    ],
)
def test_the_rest_of_the_query_string_stays_as_it_was_sent(query, expected):
    """Repeated names, empty values and bytes that are no text too."""
    assert address(query=query).url({"page": "2"}) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ""),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/list"}, "/app/list"),
        ({"PATH_INFO": "/\xc3\xbc/a b?#<"}, "/%C3%BC/a%20b%3F%23%3C"),
        ({"PATH_INFO": "//evil.example/x"}, "/.//evil.example/x"),
    ],
)
def test_the_path_is_that_of_the_request(environ, expected):
    """With the prefix that the application is served under, and never another host."""
    found = Address.of(environ)

    assert found.url({}) == expected
    assert not urlsplit(found.url({})).netloc


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.text("pageq&=%+ü;#/"), st.text("1&=%+ü;#/"))),
    st.text(st.characters(max_codepoint=255)),
)
def test_an_address_is_plain_ascii_and_means_what_was_sent(pairs, raw):
    """Whatever that was; a server that reads the address finds the same values."""
    kept = [(name, value) for name, value in pairs if name != "page"]
    url = address(query=urlencode(pairs)).url({"page": "3"})
    wild = address(raw, raw).url({"page": "3"})

    assert parse_qsl(urlsplit(url).query, keep_blank_values=True) == [*kept, ("page", "3")]
    assert wild.isascii()
    assert not set(" \r\n<>\"'#") & set(wild)
    assert parse_qsl(urlsplit(wild).query)[-1] == ("page", "3")


@pytest.fixture
def serve():
    """Answer one request by a view of the library."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    made = []

    def serve(view, path, **environ):
        settings = {"sqlalchemy.engine": engine, "sqa.cursor_secret": "kept for the tests"}
        with Configurator(settings=settings) as config:
            config.include("pyramid_aalam_sqa")
            config.add_view(view, name="list", renderer="json")
        app = config.make_wsgi_app()
        made.append(app)
        return Request.blank(path, environ=environ).get_response(app)

    with opened(engine, *library()):
        yield serve
    for app in made:
        get_sqa(app).dispose()
    engine.dispose()


def linked(**options):
    def view(request):
        page = request.sqa_paginate(select(Author.name), per_page=2, **options)
        return Response("ok", headers={"Link": page.link_header()})

    return view


@pytest.mark.parametrize(
    ("query", "options", "expected"),
    [
        ("?a=1", {}, {"first": "a=1&page=1", "next": "a=1&page=2", "last": "a=1&page=3"}),
        (
            "?page=2",
            {},
            {"first": "page=1", "prev": "page=1", "next": "page=3", "last": "page=3"},
        ),
        ("?page=3", {}, {"first": "page=1", "prev": "page=2", "last": "page=3"}),
        ("?page=2", {"count": False}, {"first": "page=1", "prev": "page=1", "next": "page=3"}),
    ],
)
def test_the_link_header_names_the_other_pages(serve, query, options, expected):
    """By the relations of RFC 8288, each once, and none that is not there."""
    response = serve(linked(**options), f"/list{query}", SCRIPT_NAME="/app")

    links = [f'</app/list?{url}>; rel="{relation}"' for relation, url in expected.items()]
    assert response.headers["Link"] == ", ".join(links)


def test_the_link_header_of_a_keyset_page_leads_through_the_table(serve):
    """A program follows it from end to end, and back."""
    url, seen = "/list?tag=a&tag=b", []
    for relation in ("next", "next", "prev", "last", "prev", "first"):
        links = serve(linked(keyset=True), url).headers["Link"]
        found = {part.split('"')[1]: part.split(">")[0].lstrip(" <") for part in links.split(",")}
        seen.append(sorted(found))
        url = found[relation]
        assert url.startswith("/list?tag=a&tag=b")

    assert url == "/list?tag=a&tag=b"
    assert seen[0] == ["first", "last", "next"]
    assert seen[1] == ["first", "last", "next", "prev"]
    assert seen[2] == ["first", "last", "prev"]


def test_a_page_is_json(serve):
    """With its rows, where it stands, and the ways from there."""
    numbered = serve(lambda r: r.sqa_paginate(select(Author.name), per_page=2), "/list?page=2").json
    keyset = serve(
        lambda r: r.sqa_paginate(select(Author.name), per_page=2, keyset=True), "/list?a=1"
    ).json

    assert numbered == {
        "items": ["Mary", "Ada"],
        "page": 2,
        "per_page": 2,
        "total": 5,
        "pages": 3,
        "prev_url": "/list?page=1",
        "next_url": "/list?page=3",
    }
    assert keyset["next_url"].startswith("/list?a=1&after=")
    del keyset["next_url"]
    assert keyset == {"items": ["Ada", "Grace"], "per_page": 2, "total": None, "prev_url": None}


def test_outside_a_request_a_page_has_the_address_that_it_was_given():
    """Without one, it says how to give it."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with opened(engine, *library()) as session:
        page = paginate(session, select(Author), per_page=2, url="/a/list?x=1&page=9")
        bare = paginate(session, select(Author), per_page=2)
        keyset = paginate(session, select(Author), per_page=2, keyset=True)

        assert (page.url(2), page.next_url) == ("/a/list?x=1&page=2", "/a/list?x=1&page=2")
        assert (page.first_url, page.prev_url) == ("/a/list?x=1&page=1", None)
        assert "next_url" not in bare.__json__(None)
        for broken in (bare, keyset):
            with pytest.raises(ValueError, match="url="):
                broken.link_header()
        empty = paginate(session, select(Author).where(Author.id > 9), url="/")
        assert (empty.last_url, empty.link_header()) == (None, '</?page=1>; rel="first"')


def test_a_test_s_own_session_is_paged_too(serve):
    """The request's session is whatever the test has put in its place."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with opened(engine, Author(id=7, name="only here")) as session:
        answer = serve(
            lambda request: request.sqa_paginate(select(Author.name)),
            "/list",
            **{"sqa.session": session},
        )

        assert isinstance(session, Session)
        assert answer.json["items"] == ["only here"]


def test_a_request_that_has_paged_is_gone_with_its_answer(serve):
    """Nothing waits for the collector: neither a page nor its addresses hold the request."""
    gone = []

    def view(request):
        gone.append(weakref.ref(request))
        return request.sqa_paginate(select(Author.name), keyset=len(gone) == 2)

    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            serve(view, "/list")
        alive = [reference() for reference in gone]
    finally:
        gc.enable()

    assert alive == [None, None]
