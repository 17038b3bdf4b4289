"""Keyset pages show every row exactly once, in any order and whatever other requests change."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jinja2 import Template
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    insert,
    select,
)
from sqlalchemy.orm import Session

from pyramid_aalam_sqa import paginate
from support.databases import plain_engine
from support.paged import Author, Note, first_page, last_page, sent, walk

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
    """The empty table ``thing`` on each of the three databases."""
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
    """Return the statement in *order*. On PostgreSQL and SQLite it says where NULL is."""
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


@pytest.mark.sweep(1)
@settings(max_examples=60, **QUIET)
@given(rows=st.lists(values, max_size=9), order=orders, size=st.integers(1, 4))
@example(
    rows=[(None, "x", 0), (1, None, 1), (None, None, 0), (0, "y", 1), (None, "x", 1)],
    order=[("a", "asc", True), ("b", "desc", True), ("c", "desc", False)],
    size=1,
)
def test_a_walk_shows_every_row_once_in_the_order_of_the_statement(session, rows, order, size):
    """This is true forwards and backwards, with equal values, NULL and mixed directions."""
    fill(session, rows)
    statement = ordered(session, order)
    last = order[-1][1] if order else "asc"
    whole = session.scalars(statement.order_by(getattr(things.c.id, last)())).all()

    assert walk(first_page(session, statement, size)) == whole
    assert walk(last_page(session, statement, size), backwards=True) == whole
    assert walk(paginate(session, statement, per_page=size)) == whole


@pytest.mark.sweep(1)
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
    """Other rows appear and vanish between two pages, even the last row of a page."""
    fill(session, rows)
    statement = ordered(session, order)
    existing, deleted = set(range(len(rows))), set()
    page = last_page(session, statement) if backwards else first_page(session, statement)
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
        # The client comes back with nothing but the cursor.
        page = (
            first_page(session, statement, before=page.prev_cursor)
            if backwards
            else first_page(session, statement, after=page.next_cursor)
        )
        shown += page.items

    assert len(shown) == len(set(shown))
    assert existing - deleted <= set(shown)


NAMES = select(Author.name).order_by(Author.name)


def test_a_page_costs_one_statement_and_counts_when_it_is_asked_to(shelf):
    """Rows are counted only on request, because counting a large table takes long."""
    with sent(shelf) as statements:
        page = first_page(shelf, NAMES)
        page.next()
    with sent(shelf) as counted:
        asked = first_page(shelf, NAMES, count=True)
        later = asked.next()

    assert len(statements) == 2
    assert (page.total, page.pages) == (None, 0)
    assert len(counted) == 3
    assert (asked.total, asked.pages, later.total) == (5, 3, 5)


def test_the_condition_is_one_that_an_index_serves(shelf):
    """The first column has its own bound. NULL is compared only if the column may be NULL."""
    conditions = []
    for column in (Author.name, Note.title):
        with sent(shelf) as statements:
            first_page(shelf, select(column).where(column > "").order_by(column.desc()), 1).next()
        conditions.append(statements[1].partition(" AND ")[2].partition(" ORDER BY ")[0])

    assert conditions == [
        "author.name <= ? AND (author.name < ? OR author.id < ?)",
        (
            "(note.title <= ? OR note.title IS NULL) AND (note.title < ? OR note.title IS NULL OR "
            "note.id < ?)"
        ),
    ]


def test_one_template_shows_both_kinds_of_pages(shelf):
    """Both kinds have the two links. A keyset page does not have attributes with numbers."""
    template = Template(
        "{% if p.page %}{{ p.page }} of {{ p.pages }}: {% endif %}"
        "{% if p.has_prev %}{{ p.prev_url }}{% endif %}"
        "{% if p.has_next %} and {{ p.next_url }}{% endif %}"
    )
    numbered = paginate(shelf, NAMES, per_page=2, page=2, url="/")
    keyset = first_page(shelf, NAMES).next()

    assert template.render(p=numbered) == "2 of 3: /?page=1 and /?page=3"
    before, after = template.render(p=keyset).split(" and ")
    assert (before, after) == (
        f"/?before={keyset.prev_cursor}",
        f"/?after={keyset.next_cursor}",
    )
    for name in ("page", "prev_num", "next_num", "iter_pages"):
        assert not hasattr(keyset, name)


def test_the_ends_have_no_neighbours(shelf):
    """The page after the last one is empty, and so is the one before the first. Both lead back."""
    start, last = first_page(shelf, NAMES, 3), last_page(shelf, NAMES, 3)

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
    assert list(first_page(shelf, NAMES, 3, after=before.next_cursor)) == list(start)
    assert list(first_page(shelf, NAMES, 3, before=after.prev_cursor)) == list(last)


def test_a_table_without_rows_has_one_empty_page(shelf):
    """The empty page does not link to another page."""
    page = first_page(shelf, NAMES.where(Author.id > 9))

    assert (page.items, page.has_prev, page.has_next) == ([], False, False)
    assert page.next().items == page.prev().items == []
