"""Orders of keyset pages: each row has one place, or the first page says what to write."""

import pytest
from pyramid.httpexceptions import HTTPNotFound
from sqlalchemy import (
    JSON,
    Column,
    Sequence,
    String,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    null,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.orm import aliased

from pyramid_aalam_sqa.backends import sorting_of
from support.paged import Author, Note, all_of, first_page, last_page, walk

title, number = Note.title, Note.author_id
other = aliased(Note)
ranked = select(
    Note.id, func.row_number().over(order_by=(Note.title, Note.id)).label("rank")
).subquery()
shuffled = select(Note.id, func.random().label("place")).subquery()
# Each orders the notes by what the database computes for a row.
ORDERS = {
    "a label": func.coalesce(number, 0).label("known"),
    "a sum": number + Note.id,
    "a negative": -Note.id,
    "a product": Note.id * 1.5,
    "a quotient": Note.id / 7,
    "a comparison": Note.id > 30,
    "several comparisons": (Note.id > 30) & (title == "t0") | title.is_(None),
    "a denial": ~(Note.id > 30),
    "a range": Note.id.between(20, 40),
    "a list": Note.id.in_([30, 31, 50]),
    "a pattern": title.like("%1"),
    "a missing value": title.is_(None),
    "a function": func.lower(title),
    "a function with a value": func.coalesce(title, "t"),
    "a distance": func.abs(Note.id - 35),
    "a text of several": title + "x" + cast(Note.id, String(9)),
    "a cast": cast(Note.id, String(9)),
    "a case": case((Note.id > 40, 1), (Note.id > 20, 3), else_=2),
    "a case without an else": case((Note.id > 40, "x")),
    "an existence": exists().where(other.author_id == number, other.id > Note.id),
    "another table": select(Author.name).where(Author.id == number).scalar_subquery(),
    "a count of another table": select(func.count(other.id))
    .where(other.author_id == number)
    .scalar_subquery(),
    "literal SQL": literal_column("note.id % 3"),
    "a constant in it": Note.id * func.length("abc"),
}


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.sweep(2)
def test_rows_are_ordered_by_an_expression_too(session, descending):
    """Each row is shown once, in the order of the database, forwards and backwards."""
    for name, expression in ORDERS.items():
        key, end = (expression.desc(), Note.id.desc()) if descending else (expression, Note.id)
        statement = select(Note.id).order_by(key)
        whole = all_of(session, statement.order_by(end))
        page = first_page(session, statement, 4)
        found = list(page)
        while page.has_next and len(found) <= len(whole):
            page = first_page(session, statement, 4, after=page.next_cursor)
            found += page

        assert found == whole, name
        assert walk(last_page(session, statement, 4), backwards=True) == whole, name


def test_rows_are_ordered_by_a_column_of_a_subquery(session):
    """The subquery contains a window function, because SQL allows it there."""
    for column in (ranked.c.rank, ranked.c.rank.desc()):
        statement = select(ranked.c.id).order_by(column)
        whole = all_of(session, statement)

        assert walk(first_page(session, statement, 3)) == whole


REFUSED = {
    "text": (text("title"), TypeError, r"text\('title'\): write the column"),
    "a tuple": (tuple_(Note.title, Note.id), TypeError, "one by one"),
    "a position": (literal_column("1"), ValueError, r"literal_column\('1'\)"),
    "a number": (literal(1), ValueError, r"literal\(1\), because it contains no column"),
    "a word": (literal("title"), ValueError, r"literal\('title'\), because it contains no column"),
    "nothing": (null(), ValueError, "NULL, because it contains no column"),
    "a function of no column": (func.lower("A"), ValueError, "no column"),
    "chance": (func.random(), ValueError, r"random\(\) may return another value"),
    "chance from a seed": (func.rand(5), ValueError, r"rand\(\) may return"),
    "chance in an expression": (Note.id + func.random(), ValueError, r"random\(\)"),
    "chance in a case": (case((Note.id > 3, func.rand())), ValueError, r"rand\(\)"),
    "chance in literal SQL": (literal_column("note.id * RAND()"), ValueError, r"rand\(\)"),
    "chance in a subquery": (
        select(Author.id).where(Author.id > func.random()).scalar_subquery(),
        ValueError,
        r"random\(\)",
    ),
    "the time": (func.now() - Note.id, ValueError, r"now\(\)"),
    "the time with digits": (func.now(6), ValueError, r"now\(\)"),
    "the time by a keyword": (func.current_timestamp(), ValueError, "current_timestamp"),
    "the time in literal SQL": (
        literal_column("CURRENT_TIMESTAMP - note.id"),
        ValueError,
        "CURRENT_TIMESTAMP",
    ),
    "SQLite's time": (func.julianday("now") - Note.id, ValueError, "'now'"),
    "a new identifier": (func.gen_random_uuid(), ValueError, r"gen_random_uuid\(\)"),
    "an application's function": (func.my_chance() + Note.id, ValueError, r"my_chance\(\)"),
    "a sequence": (Sequence("numbers").next_value(), ValueError, "next_value"),
    "a window": (func.row_number().over(order_by=Note.id), ValueError, r"in a subquery\(\)"),
    "a label of chance": (func.random().label("place"), ValueError, r"random\(\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_order_that_is_not_the_same_on_each_page_is_refused(shelf, name):
    """The first page raises an error, because later pages would leave rows out."""
    key, error, says = REFUSED[name]
    with pytest.raises(error, match=says):
        first_page(shelf, select(Note.id, Note.title).order_by(Note.title, key))


def test_an_order_by_what_a_subquery_draws_is_refused(shelf):
    """The subquery would draw other random numbers for the next page."""
    with pytest.raises(ValueError, match=r"random\(\)"):
        first_page(shelf, select(shuffled.c.id).order_by(shuffled.c.place))


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (select(func.count(Author.id)), "no entity and no column"),
        (select(Author.name, func.random()).distinct(), r"random\(\)"),
        (select(Author.name, literal_column("1", JSON)).distinct(), "only in a JSON column"),
    ],
)
def test_rows_that_cannot_be_told_apart_are_refused(shelf, statement, says):
    """Otherwise pages would leave rows out."""
    with pytest.raises(ValueError, match=says):
        first_page(shelf, statement)


def test_a_literal_function_name_in_quotes_is_text(shelf):
    """The text 'now()' calls no function, and a quoted column may have such a name."""
    key = literal_column("note.title || 'now()'")

    assert len(walk(first_page(shelf, select(Note.id).order_by(key), 3))) == 11


def test_a_constant_that_is_grouped_by_does_not_matter(shelf):
    """The constant is the same in each row, and the other columns make the rows unique."""
    statement = select(Note.title, func.count()).group_by(Note.title, func.lower("A"))

    rows = [tuple(row) for row in walk(first_page(shelf, statement, 1))]
    assert rows == [(None, 1), ("t0", 6), ("t1", 4)]


def test_a_place_by_a_distance_is_only_for_that_distance(shelf):
    """The values in an expression belong to the order. With other values the cursor is a 404."""
    nearest_35, nearest_20 = (
        select(Note.id).order_by(func.abs(Note.id - center)) for center in (35, 20)
    )
    cursor = first_page(shelf, nearest_35).next_cursor

    assert first_page(shelf, nearest_35, after=cursor).has_prev
    with pytest.raises(HTTPNotFound):
        first_page(shelf, nearest_20, after=cursor)


@pytest.mark.parametrize(
    ("type_", "dialect", "says"),
    [
        (JSON(), postgresql.dialect(), "PostgreSQL does not sort it, but JSONB"),
        (postgresql.HSTORE(), postgresql.dialect(), "no operator <"),
        (JSON(), MySQLDialect_pymysql(), "MySQL does not sort its objects"),
    ],
)
def test_a_type_without_an_order_is_refused(type_, dialect, says):
    """The error says to order by a part of the value."""
    column = Column("data", type_)
    with pytest.raises(TypeError, match=rf"{says}.*data\[...\].as_string\(\)"):
        sorting_of(dialect).exactly(column, dialect)
