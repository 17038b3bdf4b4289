"""No query string of a client leads to an error, or to an unlimited number of rows."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyramid.httpexceptions import HTTPNotFound
from pyramid.request import Request
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from pyramid_aalam_sqa import get_sqa, paginate
from support.apps import application, with_view
from support.paged import Author, library, opened, plain, sent


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An application with 130 rows, and a list of the SELECTs that it sends."""
    url = f"sqlite:///{tmp_path_factory.mktemp('pages')}/test.sqlite"
    rows = Table("row", MetaData(), Column("id", Integer, primary_key=True), Column("a", String))
    engine = create_engine(url, poolclass=NullPool)
    rows.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(rows.insert(), [{"id": n, "a": f"{n % 3}"} for n in range(1, 131)])

    def view(request):
        statement = select(rows.c.id).order_by(rows.c.a)
        if request.view_name == "keys":
            return request.sqa_paginate_keyset(statement)
        return request.sqa_paginate(statement, error_out=request.view_name != "mild")

    names = ("numbers", "mild", "keys")
    views = [with_view(view, name=name, renderer="json") for name in names]
    with application(url, *views) as app:
        yield app, get_sqa(app).engine


def ask(served, name, query):
    """Return status, JSON and statements of a request with the bytes *query* as query string."""
    app, engine = served
    with Session(engine) as session, sent(session) as statements:
        environ = {"QUERY_STRING": query.decode("latin-1")}
        response = Request.blank(f"/{name}", environ=environ).get_response(app)
    return response.status_int, response.json if response.status_int == 200 else None, statements


words = st.one_of(
    st.sampled_from([b"1", b"2", b"7", b"-1", b"+2", b"1e3", b"0", b"", b"%00", b"9" * 31, b"1_0"]),
    st.integers().map(lambda n: str(n).encode()),
    st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text(st.characters(categories=["Nd"]), min_size=1).map(str.encode),
    st.binary(),
)
keys = st.one_of(st.sampled_from([b"page", b"per_page", b"after", b"before"]), words)
queries = st.lists(st.tuples(keys, words)).map(lambda all_: b"&".join(map(b"=".join, all_)))


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(["numbers", "mild", "keys"]), queries)
@pytest.mark.deep
def test_no_query_string_is_answered_by_a_failure_or_without_a_bound(served, name, query):
    """The answer is a page or a 404, with at most 100 rows and two statements."""
    status, page, statements = ask(served, name, query)

    assert status in {200, 404}
    assert name != "mild" or status == 200
    assert page is None or len(page["items"]) <= 100
    assert len(statements) <= 2


@pytest.mark.parametrize(
    ("query", "page", "rows"),
    [
        (b"", 1, 20),
        (b"page=3", 3, 20),
        (b"page=007", 7, 10),
        (b"page=1&page=2", 2, 20),
        (b"p%61ge=2", 2, 20),
        (b"per_page=50&page=2", 2, 50),
        (b"per_page=130", 1, 100),
        (b"per_page=" + b"9" * 40, 1, 100),
        (b"q=%ff&page=2&q=\xff", 2, 20),
    ],
)
def test_the_query_string_chooses_the_page(served, query, page, rows):
    """If a name is repeated, the last value counts. Too large a size becomes the largest."""
    status, answer, _ = ask(served, "numbers", query)

    assert (status, answer["page"], len(answer["items"])) == (200, page, rows)
    assert answer["total"] == 130


@pytest.mark.parametrize(
    "value",
    ["0", "-1", "+1", "%201", "1.0", "1e1", "", "x", "٣", "%D9%A3", "1%00", "0x1", "1_0", "²"],
)
@pytest.mark.parametrize("name", ["page", "per_page"])
def test_a_text_in_place_of_a_number_is_a_404_or_page_1(served, name, value):
    """Python and the databases would read some of these texts as numbers."""
    query = f"{name}={value}".encode()

    assert ask(served, "numbers", query)[0] == 404
    status, answer, _ = ask(served, "mild", query)
    assert (status, answer["page"], answer["per_page"]) == (200, 1, 20)


@pytest.mark.parametrize("number", ["8", "107374183", "107374184", "9" * 30, "9" * 5000])
def test_a_page_past_the_end_is_a_404(served, number):
    """This is true for a number of any length."""
    status, _, statements = ask(served, "numbers", f"page={number}".encode())

    assert status == 404
    assert len(statements) == (1 if len(number) < 10 and number != "107374184" else 0)


def test_a_page_past_the_end_is_empty_without_the_error(served):
    """The empty page knows the number of pages. A number that is too large means page 1."""
    _, answer, _ = ask(served, "mild", b"page=9")
    _, huge, _ = ask(served, "mild", b"page=" + b"9" * 30)

    assert (answer["items"], answer["page"], answer["pages"]) == ([], 9, 7)
    assert answer["prev_url"] == "/mild?page=8"
    assert huge["page"] == 1


@pytest.mark.parametrize("page", [2, "2"])
def test_a_page_from_elsewhere_than_the_query_string_wins(session, page):
    """The view may take it from the path, for example, which the client writes as well."""
    found = paginate(session, select(Author), page=page, per_page=2)

    assert plain(found) == ["(3,)", "(4,)"]
    with pytest.raises(HTTPNotFound):
        paginate(session, select(Author), page="2'")


def test_the_sizes_are_settings(sqlite, serve):
    """One line in the ini file sets the size of all pages. A view can override it."""

    def view(request):
        return [
            len(request.sqa_paginate(select(Author)).items),
            len(request.sqa_paginate(select(Author), per_page=4).items),
            request.sqa_paginate(select(Author), page=2).page,
            len(request.sqa_paginate(select(Author), per_page=4, max_per_page=9).items),
        ]

    sizes = {"sqa.page_size": "2", "sqa.max_page_size": "3"}
    app = serve(sqlite.url, with_view(view, renderer="json"), **sizes)
    with opened(get_sqa(app).engine, *library()):
        answers = [
            Request.blank(path).get_response(app).json
            for path in ("/", "/?per_page=1", "/?per_page=9")
        ]
        wrong = Request.blank("/?per_page=x").get_response(app).status_int

    assert answers == [[2, 3, 2, 4], [1, 3, 2, 4], [3, 3, 2, 4]]
    assert wrong == 404
