"""Addresses of pages keep the rest of the query string, and never name another host."""

import gc
import weakref
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyramid.request import Request, apply_request_extensions
from pyramid.response import Response
from sqlalchemy import create_engine, select
from sqlalchemy.pool import NullPool, StaticPool

from pyramid_aalam_sqa import paginate, paginate_keyset
from support.apps import application, with_view
from support.paged import SECRET, Author, library, opened


@pytest.fixture(scope="module")
def second_page():
    """Return the address of page 2 in a request with any bytes in its address."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with opened(engine) as session, application("sqlite://") as app:

        def second_page(**environ):
            request = Request({"REQUEST_METHOD": "GET", "sqa.session": session, **environ})
            request.registry = app.registry
            apply_request_extensions(request)
            page = request.sqa_paginate(select(Author), page=1, per_page=1)
            return page.url(2)

        yield second_page


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
def test_the_rest_of_the_query_string_is_not_changed(second_page, query, expected):
    """Repeated names, empty values and bytes that are not text stay the same."""
    assert second_page(PATH_INFO="/list", QUERY_STRING=query) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ""),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/list"}, "/app/list"),
        ({"PATH_INFO": "/\xc3\xbc/a b?#<"}, "/%C3%BC/a%20b%3F%23%3C"),
        ({"PATH_INFO": "//evil.example/x"}, "/.//evil.example/x"),
    ],
)
def test_the_path_is_that_of_the_request(second_page, environ, expected):
    """The address has the prefix under which the application is served, and no other host."""
    found = second_page(**environ)

    assert found == f"{expected}?page=2"
    assert not urlsplit(found).netloc


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.text("pageq&=%+ü;#/"), st.text("1&=%+ü;#/"))),
    st.text(st.characters(max_codepoint=255)),
)
def test_an_address_is_plain_ascii_and_means_what_was_sent(second_page, pairs, raw):
    """A server that reads the address finds the values that were sent."""
    kept = [(name, value) for name, value in pairs if name != "page"]
    url = second_page(PATH_INFO="/list", QUERY_STRING=urlencode(pairs))
    wild = second_page(PATH_INFO=raw, QUERY_STRING=raw)

    assert parse_qsl(urlsplit(url).query, keep_blank_values=True) == [*kept, ("page", "2")]
    assert wild.isascii()
    assert not set(" \r\n<>\"'#") & set(wild)
    assert parse_qsl(urlsplit(wild).query)[-1] == ("page", "2")


@pytest.fixture
def answer(sqlite, serve):
    """Answer one request with a view of the library."""

    def answer(view, path, **environ):
        setup = with_view(view, name="list", renderer="json")
        app = serve(sqlite.url, setup, **{"sqa.cursor_secret": SECRET})
        return Request.blank(path, environ=environ).get_response(app)

    with opened(create_engine(sqlite.url, poolclass=NullPool), *library()) as session:
        session.rollback()
        yield answer


def linked(page):
    """Answer with the Link header of a page."""
    return Response("ok", headers={"Link": page.link_header()})


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
def test_the_link_header_names_the_other_pages(answer, query, options, expected):
    """The header has each relation of RFC 8288 once, but only for pages that exist."""

    def view(request):
        return linked(request.sqa_paginate(select(Author.name), per_page=2, **options))

    response = answer(view, f"/list{query}", SCRIPT_NAME="/app")

    links = [f'</app/list?{url}>; rel="{relation}"' for relation, url in expected.items()]
    assert response.headers["Link"] == ", ".join(links)


def test_the_link_header_of_a_keyset_page_leads_through_the_table(answer):
    """A program can follow the header from the first page to the last, and back."""

    def view(request):
        return linked(request.sqa_paginate_keyset(select(Author.name), per_page=2))

    url, seen = "/list?tag=a&tag=b", []
    for relation in ("next", "next", "prev", "last", "prev", "first"):
        links = answer(view, url).headers["Link"]
        found = {part.split('"')[1]: part.split(">")[0].lstrip(" <") for part in links.split(",")}
        seen.append(sorted(found))
        url = found[relation]
        assert url.startswith("/list?tag=a&tag=b")

    assert url == "/list?tag=a&tag=b"
    assert seen[0] == ["first", "last", "next"]
    assert seen[1] == ["first", "last", "next", "prev"]
    assert seen[2] == ["first", "last", "prev"]


def test_a_page_is_json(answer):
    """The JSON object has the rows, the page's numbers, and the addresses of its neighbours."""
    names = select(Author.name)
    numbered = answer(lambda r: r.sqa_paginate(names, per_page=2), "/list?page=2").json
    keyset = answer(lambda r: r.sqa_paginate_keyset(names, per_page=2), "/list?a=1").json

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


def test_outside_a_request_a_page_has_the_address_that_it_was_given(shelf):
    """Without an address, the error says how to pass one."""
    page = paginate(shelf, select(Author), per_page=2, url="/a/list?x=1&page=9")
    bare = paginate(shelf, select(Author), per_page=2)
    keyset = paginate_keyset(shelf, select(Author), per_page=2)

    assert (page.url(2), page.next_url) == ("/a/list?x=1&page=2", "/a/list?x=1&page=2")
    assert (page.first_url, page.prev_url) == ("/a/list?x=1&page=1", None)
    assert "next_url" not in bare.__json__(None)
    for broken in (bare, keyset):
        with pytest.raises(ValueError, match="url="):
            broken.link_header()
    empty = paginate(shelf, select(Author).where(Author.id > 9), url="/")
    assert (empty.last_url, empty.link_header()) == (None, '</?page=1>; rel="first"')


def test_in_a_view_the_address_of_other_pages_may_be_another(answer):
    """A view that renders a part of a page can pass the address of the whole page."""
    views = (
        lambda r: r.sqa_paginate(select(Author.name), per_page=2, url="/whole?x=1"),
        lambda r: r.sqa_paginate_keyset(select(Author.name), per_page=2, url="/whole?x=1"),
    )
    numbered, keyset = (answer(view, "/list?y=2").json["next_url"] for view in views)

    assert numbered == "/whole?x=1&page=2"
    assert keyset.startswith("/whole?x=1&after=")


def test_a_test_s_own_session_is_paged_too(answer, shelf):
    """The request's session is then the session that the test has put into the environ."""
    shelf.add(Author(id=7, name="only here"))
    names = select(Author.name).where(Author.id == 7)
    found = answer(lambda r: r.sqa_paginate(names), "/list", **{"sqa.session": shelf})

    assert found.json["items"] == ["only here"]


def test_a_request_that_has_paged_is_gone_with_its_answer(answer):
    """Python frees the request at its end, because pages and addresses do not refer to it."""
    gone = []

    def view(request):
        gone.append(weakref.ref(request))
        pages = request.sqa_paginate_keyset if len(gone) == 2 else request.sqa_paginate
        return pages(select(Author.name))

    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            answer(view, "/list")
        alive = [reference() for reference in gone]
    finally:
        gc.enable()

    assert alive == [None, None]
