"""Pages by number: each row once, few statements, and no query string that does harm."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import Template
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound
from pyramid.request import Request
from sqlalchemy import (
    JSON,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    column,
    create_engine,
    desc,
    func,
    literal,
    select,
    table,
    text,
    union,
    union_all,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import (
    Bundle,
    Session,
    aliased,
    contains_eager,
    joinedload,
    selectinload,
    with_loader_criteria,
    with_polymorphic,
)
from sqlalchemy.pool import NullPool, StaticPool

from pyramid_aalam_sqa import Page, get_sqa, paginate
from support.databases import plain_engine
from support.paged import (
    Author,
    Employee,
    Manager,
    Note,
    all_of,
    library,
    opened,
    plain,
    sent,
    walk,
)

other = aliased(Author)
upper = func.upper(Author.name).label("upper")
number = func.count(Note.id).label("number")
ids = select(Author.id, Author.name)
few = select(Note.id, Note.author_id).where(Note.id >= 50).subquery("few")
# Each with whether its rows can be told apart, so that there are keyset pages of it.
SHAPES = {
    "an entity": (select(Author), True),
    "ordered": (select(Author).order_by(Author.name), True),
    "ordered by two ways": (select(Author).order_by(Author.name.desc(), Author.id), True),
    "ordered by a text": (select(Author).order_by(desc("name")), True),
    "an alias": (select(other).order_by(other.name.desc()), True),
    "two aliases": (select(Author, other).join(other, Author.id < other.id), True),
    "an alias of a subquery": (select(aliased(Author, ids.subquery())), True),
    "columns": (select(Author.name, Author.id), True),
    "one column": (select(Author.name), True),
    "a bundle": (select(Bundle("b", Author.name)), True),
    "a table": (select(Author.__table__), True),
    "where": (select(Author).where(Author.notes.any()), True),
    "several entities": (select(Author, Note).join(Note), True),
    "another's rows": (select(Author).join(Note).where(Note.id > 0), True),
    "many to one": (select(Note).join(Note.author), True),
    "an outer join": (select(Author, Note).outerjoin(Author.notes), True),
    "its other end": (
        select(Note.id, Author.id).outerjoin(Note.author).order_by(Author.name),
        True,
    ),
    "a full join": (
        select(few.c.id, Author.id).join_from(few, Author, few.c.author_id == Author.id, full=True),
        True,
    ),
    "a product": (select(Author, Note).where(Author.id * 10 == Note.id), True),
    "joined by two": (
        select(Note.id).join(Author, (Author.id == Note.author_id) & (Author.id > 1)),
        True,
    ),
    "joined to one": (select(Note).join(Author, Author.id == 3), True),
    "joined by what is the joined's own": (
        select(Note).join(Author, (Author.id == func.length(Author.name)) | (Author.id == 5)),
        True,
    ),
    "joined by a function": (
        select(Note).join(Author, Author.id == func.coalesce(Author.id, Note.id)),
        True,
    ),
    "joined by itself": (select(Note).join(Author, Author.id == Author.id), True),
    "joined eager load": (select(Author).options(joinedload(Author.notes)), True),
    "contained eager load": (
        select(Note).join(Note.author).options(contains_eager(Note.author)),
        True,
    ),
    "select-in load": (select(Author).options(selectinload(Author.notes)), True),
    "a criterion": (select(Author).options(with_loader_criteria(Author, Author.id > 1)), True),
    "inherited": (select(Manager), True),
    "polymorphic": (select(with_polymorphic(Employee, [Manager])), True),
    "an alias of an inherited": (select(aliased(Manager)), True),
    "distinct": (select(Author.name).distinct(), True),
    "distinct entities": (select(Author).join(Note).distinct(), True),
    "distinct and ordered": (select(upper).distinct().order_by(upper.desc()), True),
    "distinct with a constant": (select(Author.name, literal("x")).distinct(), True),
    "grouped": (select(Author.name, func.count()).group_by(Author.name), True),
    "grouped, ordered by the count": (
        select(Author.id, number).join(Note).group_by(Author.id).order_by(number.desc()),
        True,
    ),
    "grouped by a label": (select(upper, func.count()).group_by(upper).order_by(upper), True),
    "grouped by a text": (select(upper, func.count()).group_by("upper"), True),
    "having": (select(Author.name).group_by(Author.name).having(func.count() > 1), True),
    "a count": (select(func.count(Author.id)), False),
    "having alone": (select(func.max(Author.id)).having(func.count() > 1), False),
    "expressions": (select(func.upper(Author.name)), False),
    "a union": (union(ids, select(Note.id, Note.title)), True),
    "an ordered union": (
        union(ids, select(Note.id, Note.title)).order_by(desc("name"), ids.selected_columns.id),
        True,
    ),
    "a union ordered by a label": (
        union(select(upper), select(Note.title)).order_by(upper.desc()),
        True,
    ),
    "a union ordered by a text": (
        union(ids, select(Note.id, Note.title)).order_by(text("name")),
        False,
    ),
    "all of a union": (union_all(select(Author.name), select(Author.name)), False),
    "from a union": (select(union(ids, ids).subquery()), True),
    "from all of a union": (select(union_all(ids, ids).subquery()), False),
    "from a subquery": (select(ids.where(Author.id > 1).subquery()), True),
    "from a distinct subquery": (select(select(Author.name).distinct().cte()), True),
    "from a subquery that lost its keys": (select(select(Author.name).subquery()), False),
    "from a subquery of a join": (select(select(Author.id).join(Note).subquery()), False),
    "from a text": (
        select(text("SELECT id FROM author").columns(Author.id).subquery()),
        False,
    ),
    "without a key": (select(table("author", column("name")).c.name), False),
    "beside what has no key": (
        select(Author.id).join(table("note", column("author_id")), text("author_id = author.id")),
        False,
    ),
    "constants": (select(text("1")), False),
}
NAVIGATION = Template(
    '{% if p.has_prev %}<a href="?page={{ p.prev_num }}">back</a>{% endif %}'
    "{% for n in p.iter_pages() %}"
    "{% if not n %} ...{% elif n == p.page %} <b>{{ n }}</b>{% else %} {{ n }}{% endif %}"
    "{% endfor %}"
    '{% if p.has_next %} <a href="?page={{ p.next_num }}">on</a>{% endif %}'
    " {{ p.first }}-{{ p.last }} of {{ p.total }} on {{ p.pages }}:"
    "{% for x in p %} {{ x }}{% endfor %}"
)


def made(number, size, total):
    """A page of the numbers from 1 to *total*."""
    first = (number - 1) * size
    return Page(list(range(1, total + 1))[first : first + size], number, size, total)


# What Flask-SQLAlchemy 3.1 makes of the same template: page, rows on a page, rows.
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 3, 0), " 0-0 of 0 on 0:"),
        ((1, 3, 1), " <b>1</b> 1-1 of 1 on 1: 1"),
        ((1, 3, 3), " <b>1</b> 1-3 of 3 on 1: 1 2 3"),
        ((1, 3, 4), ' <b>1</b> 2 <a href="?page=2">on</a> 1-3 of 4 on 2: 1 2 3'),
        ((2, 3, 4), '<a href="?page=1">back</a> 1 <b>2</b> 4-4 of 4 on 2: 4'),
        (
            (1, 3, 21),
            ' <b>1</b> 2 3 4 5 6 7 <a href="?page=2">on</a> 1-3 of 21 on 7: 1 2 3',
        ),
        (
            (4, 3, 21),
            (
                '<a href="?page=3">back</a> 1 2 3 <b>4</b> 5 6 7 <a href="?page=5">on</a> '
                "10-12 of 21 on 7: 10 11 12"
            ),
        ),
        (
            (7, 3, 21),
            '<a href="?page=6">back</a> 1 2 ... 5 6 <b>7</b> 19-21 of 21 on 7: 19 20 21',
        ),
        (
            (1, 3, 60),
            ' <b>1</b> 2 3 4 5 ... 19 20 <a href="?page=2">on</a> 1-3 of 60 on 20: 1 2 3',
        ),
        (
            (5, 3, 60),
            (
                '<a href="?page=4">back</a> 1 2 3 4 <b>5</b> 6 7 8 9 ... 19 20 '
                '<a href="?page=6">on</a> 13-15 of 60 on 20: 13 14 15'
            ),
        ),
        (
            (7, 3, 60),
            (
                '<a href="?page=6">back</a> 1 2 ... 5 6 <b>7</b> 8 9 10 11 ... 19 20 '
                '<a href="?page=8">on</a> 19-21 of 60 on 20: 19 20 21'
            ),
        ),
        (
            (12, 3, 60),
            (
                '<a href="?page=11">back</a> 1 2 ... 10 11 <b>12</b> 13 14 15 16 ... 19 20 '
                '<a href="?page=13">on</a> 34-36 of 60 on 20: 34 35 36'
            ),
        ),
        (
            (20, 3, 60),
            '<a href="?page=19">back</a> 1 2 ... 18 19 <b>20</b> 58-60 of 60 on 20: 58 59 60',
        ),
        (
            (19, 3, 58),
            (
                '<a href="?page=18">back</a> 1 2 ... 17 18 <b>19</b> 20 '
                '<a href="?page=20">on</a> 55-57 of 58 on 20: 55 56 57'
            ),
        ),
        (
            (3, 1, 12),
            (
                '<a href="?page=2">back</a> 1 2 <b>3</b> 4 5 6 7 ... 11 12 '
                '<a href="?page=4">on</a> 3-3 of 12 on 12: 3'
            ),
        ),
    ],
)
def test_a_template_for_flask_sqlalchemy_shows_the_same_navigation(shape, expected):
    """Whoever moves an application over leaves its templates as they are."""
    assert NAVIGATION.render(p=made(*shape)) == expected


def test_the_edges_of_the_navigation_can_be_chosen():
    """As many numbers at each end and around the page as the template asks for."""
    page = made(10, 1, 20)
    numbers = page.iter_pages(left_edge=0, left_current=1, right_current=1, right_edge=1)

    assert list(numbers) == [None, 9, 10, 11, None, 20]


def test_a_page_made_by_hand_has_no_other_pages():
    """It says so, and is of use for a template's tests."""
    with pytest.raises(ValueError, match="made by hand"):
        made(1, 1, 1).next()


@pytest.fixture
def session(any_database):
    """The library on each of the three databases."""
    with opened(plain_engine(any_database.url), *library()) as session:
        yield session


def statements_for(session):
    yield from SHAPES.items()
    yield "a Query", (session.query(Author).order_by(Author.name), True)
    yield "a Query of columns", (session.query(Note.id, Note.title).filter(Note.id > 1), True)
    if session.get_bind().dialect.name == "postgresql":
        chosen = select(Author).ext(distinct_on(Author.name)).order_by(Author.name)
        yield "distinct on", (chosen, False)
        document = select(Author.id, func.json_build_array(Author.name, type_=JSON))
        yield "what cannot be sorted", (union_all(document, document), False)


def shapes_of(session):
    """What this database can select: MariaDB has no FULL JOIN."""
    found = dict(statements_for(session))
    if session.get_bind().dialect.name != "postgresql":
        del found["a full join"]
    return found.items()


def test_each_shape_of_a_statement_has_pages_with_every_row_once(session):
    """Forwards and backwards, counted and not, in the order of the statement."""
    for name, (statement, _) in shapes_of(session):
        whole = all_of(session, getattr(statement, "statement", statement))
        for count in (True, False):
            page = paginate(session, statement, per_page=2, count=count)
            there = walk(page)
            last = paginate(session, statement, per_page=2, page=max(1, -(-len(whole) // 2)))

            assert sorted(plain(there)) == sorted(plain(whole)), name
            assert plain(walk(last, backwards=True)) == plain(there), name
            assert page.total == (len(whole) if count else None), name


def test_each_shape_has_keyset_pages_with_every_row_once_or_none_at_all(session):
    """Where rows cannot be told apart, the error says so; none is ever left out."""
    for name, (statement, apart) in shapes_of(session):
        whole = all_of(session, getattr(statement, "statement", statement))
        if not apart:
            with pytest.raises((ValueError, TypeError), match="Keyset pages"):
                paginate(session, statement, keyset=True)
            continue
        page = paginate(session, statement, per_page=2, keyset=True, count=True, secret="s", url="")
        there = walk(page)
        last = page.last_url.partition("=")[2]
        end = paginate(session, statement, per_page=2, keyset=True, before=last, secret="s")

        assert sorted(plain(there)) == sorted(plain(whole)), name
        assert plain(walk(end, backwards=True)) == plain(there), name
        assert page.total == len(whole), name


def test_rows_of_one_column_are_what_is_in_it_and_others_keep_their_names(session):
    """As Flask-SQLAlchemy has it, and without its loss of all columns but the first."""
    for keyset in (False, True):
        [name, *_] = paginate(session, select(Author.name), keyset=keyset)
        [row, *_] = paginate(session, select(Author.name, Author.id.label("key")), keyset=keyset)
        [pair, *_] = paginate(session, select(Author, Note).join(Note), keyset=keyset)

        assert name == "Ada"
        assert row._fields == ("name", "key")
        assert (pair.Author.id, pair.Note.author_id) == (2, 2)


def test_a_joined_eager_load_is_loaded_and_costs_no_row(session):
    """LIMIT is of authors, not of their notes."""
    statement = select(Author).options(joinedload(Author.notes)).order_by(Author.id.desc())
    for keyset in (False, True):
        with sent(session) as statements:
            page = paginate(session, statement, per_page=2, keyset=keyset, count=False)
            notes = [len(author.notes) for author in page]
            session.expunge_all()

        assert notes == [4, 3]
        assert len(statements) == 1


def test_a_join_shows_an_entity_as_often_as_it_says_whatever_is_loaded_with_it(session):
    """Merged, its rows would be fewer than were counted; distinct() makes them one."""
    other_way = select(Author).select_from(Note).join(Note.author)
    for statement in (select(Author).join(Note), other_way):
        for keyset in (False, True):
            eager = statement.options(joinedload(Author.notes))
            page = paginate(session, eager, per_page=3, keyset=keyset, count=True)

            assert plain(walk(page)) == ["(2,)"] + 2 * ["(3,)"] + 3 * ["(4,)"] + 4 * ["(5,)"]
            assert page.total == 10
            session.expunge_all()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (select(Author).order_by(Author.name).with_for_update(), "count(*) FROM author"),
        (select(Author.name).where(Author.id > 1), "count(*) FROM author WHERE author.id > 1"),
        (
            select(Author).options(joinedload(Author.notes)),
            "count(*) FROM author",
        ),
        (
            select(Author).join(Note).distinct().order_by(Author.name),
            (
                "count(*) FROM (SELECT DISTINCT author.id FROM author JOIN note ON author.id = "
                "note.author_id)"
            ),
        ),
        (
            select(Author.id, number).join(Note).group_by(Author.id),
            (
                "count(*) FROM (SELECT 1 FROM author JOIN note ON author.id = note.author_id "
                "GROUP BY author.id)"
            ),
        ),
    ],
)
def test_rows_are_counted_without_columns_order_and_eager_loads(statement, expected):
    """Nothing is computed but what tells how many there are, and nothing is locked."""
    with opened(create_engine("sqlite://", poolclass=StaticPool), *library()) as session:
        with sent(session) as statements:
            paginate(session, statement, per_page=1)
        [_, counting] = statements

    for named in (" AS count_1", " AS anon_1", " AS id", "?"):
        counting = counting.replace(named, "1" if named == "?" else "")
    assert counting == f"SELECT {expected}"


def test_rows_that_are_shown_may_be_locked_and_those_that_are_counted_are_not(session):
    """FOR UPDATE of one page would keep everybody from the whole table."""
    with sent(session) as statements:
        paginate(session, select(Author).with_for_update(), per_page=1)
    locking = session.get_bind().dialect.name != "sqlite"

    assert ["FOR UPDATE" in statement for statement in statements] == [locking, False]


@pytest.mark.parametrize(
    ("statement", "order"),
    [
        (select(Note).join(Note.author), "note.id ASC"),
        (select(Note).outerjoin(Note.author), "note.id ASC"),
        (select(Manager), "manager.id ASC"),
        (select(Author).join(Note), "author.id ASC, note.id ASC"),
        (select(Author).order_by(Author.name.desc()), "author.name DESC, author.id DESC"),
        (select(Author).order_by(Author.name, Author.id.desc()), "author.name, author.id DESC"),
    ],
)
def test_no_more_is_sorted_by_than_tells_rows_apart(statement, order):
    """By the keys of two tables no index sorts, nor by one that is read in two directions."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with opened(engine, *library()) as session, sent(session) as statements:
        paginate(session, statement, count=False)

    assert statements[0].partition(" ORDER BY ")[2].partition(" LIMIT")[0] == order


def test_a_page_costs_at_most_two_statements_and_one_where_its_end_is_seen():
    """Rows are counted once, and not at all where their number is known."""
    with opened(create_engine("sqlite://", poolclass=StaticPool), *library()) as session:
        costs = {}
        for name, options in {
            "in the middle": {"per_page": 2, "page": 2},
            "the end": {"per_page": 2, "page": 3},
            "all": {"per_page": 20},
            "not counted": {"per_page": 2, "count": False},
            "past the end": {"per_page": 2, "page": 4, "error_out": False},
        }.items():
            with sent(session) as statements:
                page = paginate(session, select(Author), **options)
            costs[name] = (len(statements), page.total)
        with sent(session) as statements:
            empty = paginate(session, select(Author).where(Author.id > 9))
        with sent(session) as turned:
            page.prev().prev()

    assert costs == {
        "in the middle": (2, 5),
        "the end": (1, 5),
        "all": (1, 5),
        "not counted": (1, None),
        "past the end": (2, 5),
    }
    assert (len(statements), empty.total, empty.items) == (1, 0, [])
    assert len(turned) == 2


def test_the_pages_after_and_before_keep_every_option():
    """The size that was asked for is that of all pages; it may not be more than was allowed."""
    with opened(create_engine("sqlite://", poolclass=StaticPool), *library()) as session:
        page = paginate(session, select(Author), per_page=3, max_per_page=2, count=False)
        after = page.next()
        last = after.next()

        assert [len(each.items) for each in (page, after, last)] == [2, 2, 1]
        assert [each.has_next for each in (page, after, last)] == [True, True, False]
        assert [each.total for each in (page, after, last)] == [None, None, None]
        assert plain(after.prev()) == plain(page)
        assert page.prev().page == 1
        assert last.next().items == []
        for wrong in (page.prev, last.next):
            with pytest.raises(HTTPNotFound):
                wrong(error_out=True)


@pytest.mark.parametrize(
    ("statement", "error", "says"),
    [
        (select(Author).limit(5), ValueError, "LIMIT"),
        (select(Author).offset(5), ValueError, "LIMIT"),
        (union(ids, ids).limit(5), ValueError, "LIMIT"),
        (text("SELECT 1"), TypeError, "TextClause"),
        (Author, TypeError, "DeclarativeAttributeIntercept"),
    ],
)
def test_what_has_no_pages_is_refused_with_the_way_out(statement, error, says):
    """A limit that is silently replaced is a wrong answer."""
    with Session(create_engine("sqlite://")) as session, pytest.raises(error, match=says):
        paginate(session, statement)


def test_a_page_of_no_rows_is_refused():
    """A setting that cannot be meant is found where it is written."""
    with Session(create_engine("sqlite://")) as session:
        for wrong in (0, -1, True, "5"):
            with pytest.raises(ValueError, match="max_per_page"):
                paginate(session, select(Author), max_per_page=wrong)


# From here on, what clients may ask for.


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An application with 130 rows, and the SELECTs that it sends."""
    url = f"sqlite:///{tmp_path_factory.mktemp('pages')}/test.sqlite"
    rows = Table("row", MetaData(), Column("id", Integer, primary_key=True), Column("a", String))
    engine = create_engine(url, poolclass=NullPool)
    rows.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(rows.insert(), [{"id": n, "a": f"{n % 3}"} for n in range(1, 131)])

    def view(request):
        options = {"numbers": {}, "mild": {"error_out": False}, "keys": {"keyset": True}}[
            request.view_name
        ]
        return request.sqa_paginate(select(rows.c.id).order_by(rows.c.a), **options)

    with Configurator(settings={"sqlalchemy.url": url}) as config:
        config.include("pyramid_aalam_sqa")
        for name in ("numbers", "mild", "keys"):
            config.add_view(view, name=name, renderer="json")
    app = config.make_wsgi_app()
    yield app, get_sqa(app).engine
    get_sqa(app).dispose()


def ask(served, name, query):
    """The status, the answer and the number of statements of a request with raw bytes."""
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
def test_no_query_string_is_answered_by_a_failure_or_without_a_bound(served, name, query):
    """A page, or that there is none; never more than a hundred rows, or two statements."""
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
    """The last of a repeated name counts; more rows than are allowed are not an error."""
    status, answer, _ = ask(served, "numbers", query)

    assert (status, answer["page"], len(answer["items"])) == (200, page, rows)
    assert answer["total"] == 130


@pytest.mark.parametrize(
    "value",
    ["0", "-1", "+1", "%201", "1.0", "1e1", "", "x", "٣", "%D9%A3", "1%00", "0x1", "1_0", "²"],
)
@pytest.mark.parametrize("name", ["page", "per_page"])
def test_what_is_no_number_is_a_404_or_page_1(served, name, value):
    """Neither Python's generosity with numbers nor the database's."""
    query = f"{name}={value}".encode()

    assert ask(served, "numbers", query)[0] == 404
    status, answer, _ = ask(served, "mild", query)
    assert (status, answer["page"], answer["per_page"]) == (200, 1, 20)


@pytest.mark.parametrize("number", ["8", "107374183", "107374184", "9" * 30, "9" * 5000])
def test_a_page_past_the_end_is_a_404(served, number):
    """Of whatever length the number is."""
    status, _, statements = ask(served, "numbers", f"page={number}".encode())

    assert status == 404
    assert len(statements) == (1 if len(number) < 10 and number != "107374184" else 0)


def test_a_page_past_the_end_is_empty_where_that_is_no_error(served):
    """It says how many pages there are, and leads back; a number beyond all measure is page 1."""
    _, answer, _ = ask(served, "mild", b"page=9")
    _, huge, _ = ask(served, "mild", b"page=" + b"9" * 30)

    assert (answer["items"], answer["page"], answer["pages"]) == ([], 9, 7)
    assert answer["prev_url"] == "/mild?page=8"
    assert huge["page"] == 1


@pytest.mark.parametrize("page", [2, "2"])
def test_a_page_from_elsewhere_than_the_query_string_wins(any_database, page):
    """Such as a part of the path, which is no more to be trusted."""
    with opened(plain_engine(any_database.url), *library()) as session:
        found = paginate(session, select(Author), page=page, per_page=2)

        assert plain(found) == ["(3,)", "(4,)"]
        with pytest.raises(HTTPNotFound):
            paginate(session, select(Author), page="2'")


def test_the_sizes_are_settings(tmp_path):
    """One line in the ini file for all pages; a view may still say otherwise."""
    settings = {
        "sqlalchemy.url": f"sqlite:///{tmp_path}/test.sqlite",
        "sqa.page_size": "2",
        "sqa.max_page_size": "3",
    }
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(
            lambda request: [
                len(request.sqa_paginate(select(Author)).items),
                len(request.sqa_paginate(select(Author), per_page=4).items),
                request.sqa_paginate(select(Author), page=2).page,
                len(request.sqa_paginate(select(Author), per_page=4, max_per_page=9).items),
            ],
            renderer="json",
        )
    app = config.make_wsgi_app()
    with opened(get_sqa(app).engine, *library()):
        answers = [
            Request.blank(path).get_response(app).json
            for path in ("/", "/?per_page=1", "/?per_page=9")
        ]
        wrong = Request.blank("/?per_page=x").get_response(app).status_int
    get_sqa(app).dispose()

    assert answers == [[2, 3, 2, 4], [1, 3, 2, 4], [3, 3, 2, 4]]
    assert wrong == 404
