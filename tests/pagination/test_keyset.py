"""Keyset pages: no row twice, none left out, whatever the order and whatever happens meanwhile."""

import base64
import enum
import logging
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound
from pyramid.request import Request
from sqlalchemy import (
    CHAR,
    REAL,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    TypeDecorator,
    Uuid,
    create_engine,
    delete,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects import oracle
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, StaticPool

from pyramid_aalam_sqa import get_sqa, paginate
from pyramid_aalam_sqa.backends.sorting import sorting_of
from pyramid_aalam_sqa.pagination.cursors import BadCursor, read_cursor, write_cursor
from pyramid_aalam_sqa.settings.reader import read_settings
from support.databases import plain_engine
from support.paged import Author, Note, library, opened, plain, sent, walk

SECRET = "nobody knows it, but for tests"
things = Table(
    "thing",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("a", Integer),
    Column("b", String(5)),
    Column("c", Integer, nullable=False),
)
QUIET = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@pytest.fixture
def session(any_database):
    """The empty table on each of the three databases."""
    with Session(plain_engine(any_database.url)) as session:
        things.create(session.connection())
        yield session


values = st.tuples(
    st.none() | st.integers(0, 2), st.none() | st.sampled_from("xyz"), st.integers(0, 1)
)
orders = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "id"]), st.sampled_from(["asc", "desc"]), st.booleans()
    ),
    unique_by=lambda order: order[0],
    max_size=3,
)


def ordered(session, order):
    """The rows in an *order*, where PostgreSQL and SQLite are told on which side NULL is."""
    clauses = []
    for name, direction, told in order:
        clause = getattr(things.c[name], direction)()
        if told and session.get_bind().dialect.name != "mysql":
            clause = clause.nulls_first() if name == "a" else clause.nulls_last()
        clauses.append(clause)
    return select(things.c.id).order_by(*clauses)


def fill(session, rows):
    session.execute(delete(things))
    if rows:
        session.execute(
            insert(things),
            [{"id": i, "a": a, "b": b, "c": c} for i, (a, b, c) in enumerate(rows)],
        )


def first(session, statement, size=2, **options):
    return paginate(
        session, statement, per_page=size, keyset=True, secret=SECRET, url="/", **options
    )


def end(session, statement, size=2):
    """The last page, by the cursor that leads there."""
    last = first(session, statement, size).last_url
    return first(session, statement, size, before=last.partition("before=")[2])


@settings(max_examples=60, **QUIET)
@given(rows=st.lists(values, max_size=9), order=orders, size=st.integers(1, 4))
@example(
    rows=[(None, "x", 0), (1, None, 1), (None, None, 0), (0, "y", 1), (None, "x", 1)],
    order=[("a", "asc", True), ("b", "desc", True), ("c", "desc", False)],
    size=1,
)
def test_a_walk_shows_every_row_once_in_the_order_of_the_statement(session, rows, order, size):
    """Forwards and backwards, with equal values, NULL, and both directions in one order."""
    fill(session, rows)
    statement = ordered(session, order)
    last = order[-1][1] if order else "asc"
    whole = session.scalars(statement.order_by(getattr(things.c.id, last)())).all()

    assert walk(first(session, statement, size)) == whole
    assert walk(end(session, statement, size), backwards=True) == whole
    numbered = paginate(session, statement, per_page=size)
    assert walk(numbered) == whole


@settings(max_examples=60, **QUIET)
@given(
    rows=st.lists(values, min_size=4, max_size=9),
    order=orders,
    backwards=st.booleans(),
    data=st.data(),
)
def test_a_row_that_exists_throughout_is_shown_once_whatever_happens_to_others(
    session, rows, order, backwards, data
):
    """Rows come and go between one page and the next, those at the very place too."""
    fill(session, rows)
    statement = ordered(session, order)
    existing, deleted = set(range(len(rows))), set()
    page = end(session, statement) if backwards else first(session, statement)
    shown = list(page)
    for number in range(100, 115):
        if not (page.has_prev if backwards else page.has_next):
            break
        if data.draw(st.booleans()):
            a, b, c = data.draw(values)
            session.execute(insert(things).values(id=number, a=a, b=b, c=c))
        if data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(existing)))
            session.execute(delete(things).where(things.c.id == gone))
            deleted.add(gone)
        # As the client comes back, with nothing but the address.
        page = (
            first(session, statement, before=page.prev_cursor)
            if backwards
            else first(session, statement, after=page.next_cursor)
        )
        shown += page.items

    assert len(shown) == len(set(shown))
    assert existing - deleted <= set(shown)


class Colour(enum.Enum):
    red = "r"
    green = "g"
    blue = "b"


class Shouted(TypeDecorator):
    """What an application makes of a text has no order of its own."""

    impl = String(10)
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value and value["text"]

    def process_result_value(self, value, dialect):
        return value and {"text": value}


MOMENT = datetime(2026, 2, 28, 23, 59, 59)  # noqa: DTZ001 - as it is stored
TYPES = {
    "integer": (Integer(), [3, -1, 2**31 - 1, 0]),
    "single": (REAL(), [0.1, 0.2, 0.3, 1e30]),
    "float": (Float(), [0.1, 0.7, -0.3, 2.5]),
    "double": (Double(), [0.1, 0.2, 0.1 + 0.2, 1 / 3]),
    "numeric": (Numeric(10, 2), [Decimal("0.10"), Decimal("12345678.91"), Decimal(-1), Decimal(2)]),
    "rounded": (Numeric(20, 10, asdecimal=False), [Decimal("0.1234567891"), 1, 2, 3]),
    "text": (String(20), ["", "a", "B", "ä'\\%"]),
    "fixed": (CHAR(4), ["ab", "a", "ab", "abcd"]),
    "truth": (Boolean(), [True, False, True, False]),
    "bytes": (LargeBinary(20), [b"\x00\xff", b"'", b"", b"\\"]),
    "day": (Date(), [date(2026, 1, day) for day in (4, 1, 3, 2)]),
    "moment": (DateTime(), [MOMENT + timedelta(seconds=n) for n in (3, 1, 2, 0)]),
    "zoned": (DateTime(timezone=True), [MOMENT.replace(tzinfo=UTC, hour=n) for n in (3, 1, 2, 1)]),
    "uuid": (Uuid(), [uuid.UUID(int=n * 2**100) for n in (3, 1, 2, 0)]),
    "enum": (Enum(Colour, name="colour"), [*Colour, Colour.red]),
    "words": (Enum("zebra", "ant", name="word"), ["ant", "zebra", "ant", "zebra"]),
    "plain_enum": (Enum(Colour, name="plain", native_enum=False), [*Colour, Colour.red]),
    "shouted": (Shouted(), [{"text": word} for word in ("c", "a", "b", "a")]),
}
typed = Table(
    "typed",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    *(Column(name, kind) for name, (kind, _) in TYPES.items()),
)


@pytest.mark.filterwarnings("ignore:Dialect sqlite.*Decimal")
def test_rows_are_ordered_by_a_column_of_any_type(any_database):
    """A value comes back out of a cursor as the database compares it, to the last bit."""
    rows = [{"id": n, **{name: given[n] for name, (_, given) in TYPES.items()}} for n in range(4)]
    with Session(plain_engine(any_database.url)) as session:
        typed.create(session.connection())
        session.execute(insert(typed), [*rows, {"id": 9, **dict.fromkeys(TYPES)}])
        # As a person writes it; SQLAlchemy would give it microseconds on SQLite.
        session.execute(text("UPDATE typed SET moment = '2026-01-02 03:04:05' WHERE id < 2"))
        for name in TYPES:
            for direction in ("asc", "desc"):
                clause = getattr(typed.c[name], direction)()
                statement = select(typed.c.id).order_by(clause)
                whole = session.scalars(statement.order_by(getattr(typed.c.id, direction)())).all()
                page = first(session, statement, 1)
                found = list(page)
                while page.has_next and len(found) < 10:
                    page = first(session, statement, 1, after=page.next_cursor)
                    found += page

                assert found == whole, (name, direction)
                assert walk(end(session, statement, 1), backwards=True) == whole, name


def test_an_expression_that_was_not_stored_orders_rows_too(session):
    """A label, a function of a column, and what a database computes."""
    fill(session, [(n % 3, "xyz"[n % 3], n % 2) for n in range(7)])
    high = func.coalesce(things.c.a, 0).label("high")
    for statement in (
        select(things.c.id, high).order_by(high.desc()),
        select(things.c.id).order_by(things.c.a + things.c.c),
        select(things.c.id, high).order_by("high"),
    ):
        assert len(set(plain(walk(first(session, statement))))) == 7


def test_other_databases_are_asked_to_compare_as_plainly_as_they_can():
    """A type of the application's own is taken off, and a float is not rounded."""
    sorting = sorting_of(oracle.dialect())
    kinds = (Shouted(), Float(asdecimal=True), Numeric(asdecimal=False))
    exact = [sorting.exactly(Column("x", kind), oracle.dialect()).type for kind in kinds]

    assert [type(kind) for kind in exact] == [String, Double, Numeric]
    assert exact[2].asdecimal
    assert sorting.nulls_are_largest


# What a page says of its neighbours.


@pytest.fixture
def shelf():
    """Five authors, in a database of this test's own."""
    with opened(create_engine("sqlite://", poolclass=StaticPool), *library()) as session:
        yield session


NAMES = select(Author.name).order_by(Author.name)


def test_a_page_costs_one_statement_and_counts_when_it_is_asked_to(shelf):
    """To count a large table takes longer than all pages together."""
    with sent(shelf) as statements:
        page = first(shelf, NAMES)
        page.next()
    with sent(shelf) as counted:
        asked = first(shelf, NAMES, count=True)
        later = asked.next()

    assert len(statements) == 2
    assert (page.total, page.pages) == (None, 0)
    assert len(counted) == 3
    assert (asked.total, asked.pages, later.total) == (5, 3, 5)


def test_the_condition_is_one_that_an_index_serves(shelf):
    """A bound on the first column beside the rest; NULL is looked for where it may stand alone."""
    conditions = []
    for column in (Author.name, Note.title):
        with sent(shelf) as statements:
            first(shelf, select(column).where(column > "").order_by(column.desc()), 1).next()
        conditions.append(statements[1].partition(" AND ")[2].partition(" ORDER BY ")[0])

    assert conditions == [
        "author.name <= ? AND (author.name < ? OR author.id < ?)",
        (
            "(note.title <= ? OR note.title IS NULL) AND (note.title < ? OR note.title IS NULL OR "
            "note.id < ?)"
        ),
    ]


def test_a_page_has_no_numbers_for_a_template_that_shows_numbers(shelf):
    """The same template shows no numbers, and the two links."""
    page = first(shelf, NAMES).next()

    assert (page.has_prev, page.has_next) == (True, True)
    assert (page.page, page.prev_num, page.next_num) == (None, None, None)
    assert list(page.iter_pages(left_edge=1)) == []


def test_the_ends_have_no_neighbours(shelf):
    """From there on a page is empty, and leads back."""
    start, last = first(shelf, NAMES, 3), end(shelf, NAMES, 3)

    assert (start.has_prev, start.prev_cursor, start.prev_url) == (False, None, None)
    assert (last.has_next, last.next_cursor, last.next_url) == (False, None, None)
    before, after = start.prev(), last.next()
    assert before.items == after.items == []
    assert (before.has_prev, before.has_next, after.has_prev, after.has_next) == (
        False,
        True,
        True,
        False,
    )
    assert list(before.next()) == list(start)
    assert list(after.prev()) == list(last)
    assert before.prev().items == after.next().items == []
    assert list(first(shelf, NAMES, 3, after=before.next_cursor)) == list(start)
    assert list(first(shelf, NAMES, 3, before=after.prev_cursor)) == list(last)


def test_a_table_without_rows_has_one_empty_page(shelf):
    """And no way to another."""
    page = first(shelf, NAMES.where(Author.id > 9))

    assert (page.items, page.has_prev, page.has_next) == ([], False, False)
    assert page.next().items == page.prev().items == []


@pytest.mark.parametrize(
    ("statement", "error", "says"),
    [
        (select(Author.name).order_by(text("name")), TypeError, r"text\('name'\)"),
        (select(func.count(Author.id)), ValueError, "no entity and no column"),
    ],
)
def test_an_order_that_has_no_places_is_refused(shelf, statement, error, says):
    """Rather than to leave rows out."""
    with pytest.raises(error, match=says):
        first(shelf, statement)


def test_a_value_that_no_cursor_can_hold_is_refused():
    """When the place after it is to be written down."""
    with pytest.raises(TypeError, match="column of list"):
        write_cursor([["x"]], "order", b"secret")


# Cursors.

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(),
    st.binary(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False),
    st.dates(),
    st.datetimes(timezones=st.none() | st.just(UTC)),
    st.times(),
    st.timedeltas(),
    st.uuids(),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(SCALARS))
def test_a_cursor_keeps_its_values_and_their_types(values):
    """What comes out is what was put in, for the same order and secret alone."""
    cursor = write_cursor(values, "order", b"secret")
    found = read_cursor(cursor, "order", b"secret")

    assert found == tuple(values)
    assert list(map(type, found)) == list(map(type, values))
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    for order, secret in (("other", b"secret"), ("order", b"other")):
        with pytest.raises(BadCursor):
            read_cursor(cursor, order, secret)


def test_a_cursor_of_no_number_is_kept_too():
    """PostgreSQL sorts NaN, above all numbers."""
    assert str(read_cursor(write_cursor([float("nan")], "o", b"s"), "o", b"s")) == "(nan,)"


@settings(max_examples=100, deadline=None)
@given(st.text() | st.binary().map(lambda b: base64.urlsafe_b64encode(b).decode()))
@example("x")
@example("ü")
@example("")
def test_no_text_passes_for_a_cursor(text):
    """A made-up one is found out before anything in it is looked at."""
    with pytest.raises(BadCursor):
        read_cursor(text, "order", b"secret")


def test_each_changed_character_of_a_cursor_is_found_out():
    """In the signature as in the values."""
    cursor = write_cursor(["Ada", 7], "order", b"secret")
    for place, was in enumerate(cursor[:-1]):
        changed = cursor[:place] + ("A" if was != "A" else "B") + cursor[place + 1 :]
        with pytest.raises(BadCursor):
            read_cursor(changed, "order", b"secret")


def test_a_cursor_of_another_order_is_a_404_and_no_error(shelf):
    """Such as one that was kept while the page was ordered in another way."""
    cursor = first(shelf, NAMES).next_cursor
    other = (
        NAMES.order_by(None).order_by(Author.name.desc()),
        NAMES.order_by(None),
        NAMES.order_by(None).order_by(func.lower(Author.name)),
    )

    assert list(first(shelf, NAMES, after=cursor)) == ["Grace", "Mary"]
    for statement in other:
        with pytest.raises(HTTPNotFound):
            first(shelf, statement, after=cursor)
        mild = first(shelf, statement, after=cursor, error_out=False)
        assert list(mild) == list(first(shelf, statement))
        assert mild.has_prev is False


def test_two_cursors_are_none(shelf):
    """Nobody can tell which was meant."""
    page = first(shelf, NAMES).next()
    both = {"after": page.next_cursor, "before": page.prev_cursor}

    with pytest.raises(HTTPNotFound):
        first(shelf, NAMES, **both)
    assert list(first(shelf, NAMES, **both, error_out=False)) == ["Ada", "Ada"]


def test_outside_a_request_a_cursor_needs_a_secret_and_a_walk_needs_none(shelf):
    """A script goes from page to page without any address."""
    page = paginate(shelf, NAMES, per_page=2, keyset=True)

    assert walk(page) == ["Ada", "Ada", "Grace", "Mary", "Zoe"]
    with pytest.raises(ValueError, match="secret"):
        _ = page.next_cursor
    with pytest.raises(ValueError, match="secret"):
        paginate(shelf, NAMES, keyset=True, after="x")


@pytest.fixture
def serve(tmp_path):
    """Applications on one database; each is another process, or the same after a restart."""
    made = []
    url = f"sqlite:///{tmp_path}/test.sqlite"

    def serve(**options):
        with Configurator(settings={"sqlalchemy.url": url, **options}) as config:
            config.include("pyramid_aalam_sqa")
            config.add_view(
                lambda request: request.sqa_paginate(NAMES, keyset=True, per_page=2),
                renderer="json",
            )
        app = config.make_wsgi_app()
        made.append(app)
        return lambda path: Request.blank(path).get_response(app)

    engine = create_engine(url, poolclass=NullPool)
    with opened(engine, *library()) as session:
        session.rollback()
        yield serve
        for app in made:
            get_sqa(app).dispose()


def test_the_address_of_a_page_holds_in_every_process_that_has_the_secret(serve):
    """And nowhere else."""
    here, there = (serve(**{"sqa.cursor_secret": SECRET}) for _ in range(2))
    other = serve(**{"sqa.cursor_secret": SECRET[::-1]})
    following = here("/").json["next_url"]

    assert there(following).json["items"] == ["Grace", "Mary"]
    assert there(there(following).json["prev_url"]).json["items"] == ["Ada", "Ada"]
    assert other(following).status_int == 404


def test_without_a_secret_each_start_has_its_own_and_the_log_says_so_once(serve, caplog):
    """Nothing is guessable for want of a line in the ini file."""
    caplog.set_level(logging.WARNING)
    here, there = serve(), serve()
    following = here("/").json["next_url"]
    answer = here(following).json

    assert answer["items"] == ["Grace", "Mary"]
    assert len([record for record in caplog.records if "cursor_secret" in record.message]) == 1
    assert there(following).status_int == 404


def test_a_secret_is_never_shown(serve):
    """Not by what holds it, and not by the error for one that is too short."""
    told = read_settings({"sqlalchemy.url": "sqlite://", "sqa.cursor_secret": SECRET})
    assert SECRET not in repr(told)
    with pytest.raises(Exception, match="16 characters or more") as refused:
        serve(**{"sqa.cursor_secret": "guessed"})
    assert "guessed" not in str(refused.value)
