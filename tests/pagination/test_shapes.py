"""Statements of all shapes: each row is on exactly one page, or an error says why not."""

import pytest
from sqlalchemy import (
    JSON,
    column,
    desc,
    func,
    literal,
    select,
    table,
    text,
    union,
    union_all,
)
from sqlalchemy.orm import (
    Bundle,
    aliased,
    contains_eager,
    joinedload,
    selectinload,
    with_loader_criteria,
    with_polymorphic,
)

from pyramid_aalam_sqa import paginate, paginate_keyset
from support.paged import Author, Employee, Manager, Note, all_of, plain, sent, walk

other = aliased(Author)
upper = func.upper(Author.name).label("upper")
number = func.count(Note.id).label("number")
ids = select(Author.id, Author.name)
few = select(Note.id, Note.author_id).where(Note.id >= 50).subquery("few")
# Each with whether its rows can be told apart, which keyset pages need.
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


def distinct_authors():
    """DISTINCT ON, as the installed SQLAlchemy writes it: 2.1 uses an extension for it."""
    try:
        from sqlalchemy.dialects.postgresql import distinct_on
    except ImportError:
        return select(Author).distinct(Author.name)
    return select(Author).ext(distinct_on(Author.name))


def statements_for(session):
    yield from SHAPES.items()
    yield "a Query", (session.query(Author).order_by(Author.name), True)
    yield "a Query of columns", (session.query(Note.id, Note.title).filter(Note.id > 1), True)
    if session.get_bind().dialect.name == "postgresql":
        yield "distinct on", (distinct_authors().order_by(Author.name), False)
        document = select(Author.id, func.json_build_array(Author.name, type_=JSON))
        yield "what cannot be sorted", (union_all(document, document), False)


def shapes_of(session):
    """Return the statements that this database can run: only PostgreSQL has FULL JOIN."""
    found = dict(statements_for(session))
    if session.get_bind().dialect.name != "postgresql":
        del found["a full join"]
    return found.items()


@pytest.mark.sweep(1)
def test_each_shape_of_a_statement_has_pages_with_every_row_once(session):
    """This is true forwards and backwards, with and without a count, in the statement's order."""
    for name, (statement, _) in shapes_of(session):
        whole = all_of(session, getattr(statement, "statement", statement))
        for count in (True, False):
            page = paginate(session, statement, per_page=2, count=count)
            there = walk(page)
            last = paginate(session, statement, per_page=2, page=max(1, -(-len(whole) // 2)))

            assert sorted(plain(there)) == sorted(plain(whole)), name
            assert plain(walk(last, backwards=True)) == plain(there), name
            assert page.total == (len(whole) if count else None), name


@pytest.mark.sweep(1)
def test_each_shape_has_keyset_pages_with_every_row_once_or_none_at_all(session):
    """If rows are not unique, an error says so. A row is never left out."""
    for name, (statement, apart) in shapes_of(session):
        whole = all_of(session, getattr(statement, "statement", statement))
        if not apart:
            with pytest.raises((ValueError, TypeError), match="Keyset pages"):
                paginate_keyset(session, statement)
            continue
        page = paginate_keyset(session, statement, per_page=2, count=True, secret="s", url="")
        there = walk(page)
        last = page.last_url.partition("=")[2]
        end = paginate_keyset(session, statement, per_page=2, before=last, secret="s")

        assert sorted(plain(there)) == sorted(plain(whole)), name
        assert plain(walk(end, backwards=True)) == plain(there), name
        assert page.total == len(whole), name


def test_rows_of_one_column_are_what_is_in_it_and_others_keep_their_names(session):
    """One column is returned as its values. Several columns are returned as Rows with names."""
    for pages in (paginate, paginate_keyset):
        [name, *_] = pages(session, select(Author.name))
        [row, *_] = pages(session, select(Author.name, Author.id.label("key")))
        [pair, *_] = pages(session, select(Author, Note).join(Note))

        assert name == "Ada"
        assert row._fields == ("name", "key")
        assert (pair.Author.id, pair.Note.author_id) == (2, 2)


def test_a_joined_eager_load_is_loaded_and_costs_no_row(session):
    """LIMIT counts authors, and not the notes that are loaded with them."""
    statement = select(Author).options(joinedload(Author.notes)).order_by(Author.id.desc())
    for pages in (paginate, paginate_keyset):
        with sent(session) as statements:
            page = pages(session, statement, per_page=2, count=False)
            notes = [len(author.notes) for author in page]
            session.expunge_all()

        assert notes == [4, 3]
        assert len(statements) == 1


def test_a_join_shows_an_entity_as_often_as_it_says_whatever_is_loaded_with_it(session):
    """Merged rows would be fewer than the count. To merge them, the statement uses distinct()."""
    other_way = select(Author).select_from(Note).join(Note.author)
    for statement in (select(Author).join(Note), other_way):
        for pages in (paginate, paginate_keyset):
            eager = statement.options(joinedload(Author.notes))
            page = pages(session, eager, per_page=3, count=True)

            assert plain(walk(page)) == ["(2,)"] + 2 * ["(3,)"] + 3 * ["(4,)"] + 4 * ["(5,)"]
            assert page.total == 10
            session.expunge_all()
