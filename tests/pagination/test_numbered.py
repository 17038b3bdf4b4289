"""Pages by number send few statements, and sort, count and lock no more than needed."""

import pytest
from sqlalchemy import func, select, text, union
from sqlalchemy.orm import joinedload

from pyramid_aalam_sqa import paginate, paginate_keyset
from support.paged import Author, Manager, Note, sent


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
            select(Author.id, func.count(Note.id)).join(Note).group_by(Author.id),
            (
                "count(*) FROM (SELECT 1 FROM author JOIN note ON author.id = note.author_id "
                "GROUP BY author.id)"
            ),
        ),
    ],
)
def test_rows_are_counted_without_columns_order_and_eager_loads(shelf, statement, expected):
    """The count statement contains only what changes the number, and locks no rows."""
    with sent(shelf) as statements:
        paginate(shelf, statement, per_page=1)
    [_, counting] = statements

    for named in (" AS count_1", " AS anon_1", " AS id", "?"):
        counting = counting.replace(named, "1" if named == "?" else "")
    assert counting == f"SELECT {expected}"


def test_rows_that_are_shown_may_be_locked_and_those_that_are_counted_are_not(session):
    """A count with FOR UPDATE would lock the whole table."""
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
def test_no_more_is_sorted_by_than_tells_rows_apart(shelf, statement, order):
    """An index cannot serve an order by the keys of two tables, or in two directions."""
    with sent(shelf) as statements:
        paginate(shelf, statement, count=False)

    assert statements[0].partition(" ORDER BY ")[2].partition(" LIMIT")[0] == order


def test_a_page_costs_at_most_two_statements_and_one_where_its_end_is_seen(shelf):
    """Rows are counted at most once, and not if the page itself shows the number."""
    costs = {}
    for name, options in {
        "in the middle": {"per_page": 2, "page": 2},
        "the end": {"per_page": 2, "page": 3},
        "all": {"per_page": 20},
        "not counted": {"per_page": 2, "count": False},
        "past the end": {"per_page": 2, "page": 4, "error_out": False},
    }.items():
        with sent(shelf) as statements:
            page = paginate(shelf, select(Author), **options)
        costs[name] = (len(statements), page.total)
    with sent(shelf) as statements:
        empty = paginate(shelf, select(Author).where(Author.id > 9))
    with sent(shelf) as turned:
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


@pytest.mark.parametrize(
    ("statement", "error", "says"),
    [
        (select(Author).limit(5), ValueError, "LIMIT"),
        (select(Author).offset(5), ValueError, "LIMIT"),
        (union(select(Author.id), select(Note.id)).limit(5), ValueError, "LIMIT"),
        (text("SELECT 1"), TypeError, "TextClause"),
        (Author, TypeError, "DeclarativeAttributeIntercept"),
    ],
)
def test_what_has_no_pages_is_refused_with_the_way_out(shelf, statement, error, says):
    """It would be wrong to replace the LIMIT of the statement without an error."""
    with pytest.raises(error, match=says):
        paginate(shelf, statement)


def test_a_page_of_no_rows_is_refused(shelf):
    """If max_per_page makes no sense, the error names the option and its value."""
    for wrong in (0, -1, True, "5"):
        with pytest.raises(ValueError, match=f"max_per_page is {wrong!r}"):
            paginate(shelf, select(Author), max_per_page=wrong)


@pytest.mark.parametrize("pages", [paginate, paginate_keyset])
def test_an_option_that_does_not_exist_is_refused(shelf, pages):
    """A misspelled option is never ignored: the error names it."""
    with pytest.raises(TypeError, match="'perpage'"):
        pages(shelf, select(Author), perpage=5)
