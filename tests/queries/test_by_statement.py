"""Look-ups by statement return the first row or the only row, or raise HTTPNotFound."""

import logging

import pytest
from pyramid.httpexceptions import HTTPNotFound
from sqlalchemy import bindparam, func, insert, literal_column, select, text, union
from sqlalchemy.engine import Row
from sqlalchemy.orm import Bundle, Session, aliased, contains_eager, joinedload

from pyramid_aalam_sqa import first_or_404, one_or_404
from support.authors import ADA, Author, Note
from support.databases import plain_engine

Other = aliased(Author)
NAMES = select(Author.name).order_by(Author.id)
# What is asked for, and what the first row of it is.
SHAPES = {
    "entity": (select(Author).order_by(Author.id), lambda found: found.name, "Ada"),
    "alias": (select(Other).order_by(Other.id), lambda found: found.name, "Ada"),
    "value": (NAMES, str, "Ada"),
    "null": (select(Author.nickname).order_by(Author.id), lambda found: found, None),
    "two entities": (
        select(Author, Note).join(Note).order_by(Author.id, Note.number),
        lambda found: (type(found) is Row, found.Author.name, found.Note.body),
        (True, "Ada", "one"),
    ),
    "entity and column": (
        select(Author, Note.body).join(Author.notes).order_by(Author.id, Note.number),
        lambda found: (found[0].name, found.body),
        ("Ada", "one"),
    ),
    "entity and what cannot be hashed": (
        select(Author, Author.extra).order_by(Author.id),
        lambda found: found.extra,
        {"age": [36]},
    ),
    "columns": (select(Author.id, Author.name).order_by(Author.id), tuple, (1, "Ada")),
    "bundle": (select(Bundle("b", Author.id)).order_by(Author.id), tuple, (1,)),
    "table": (select(Author.__table__).order_by(Author.id), lambda found: found.name, "Ada"),
    "joined load": (
        select(Author).options(joinedload(Author.notes)).order_by(Author.id),
        lambda found: [note.body for note in found.notes],
        ["one", "two", "three"],
    ),
    "distinct": (select(Note.body).distinct().order_by(Note.body), str, "one"),
    "distinct entity": (
        select(Author)
        .join(Author.notes)
        .distinct()
        .order_by(Author.id)
        .with_only_columns(Author.id),
        int,
        1,
    ),
    "group_by": (
        select(Note.author_id, func.count()).group_by(Note.author_id).order_by(Note.author_id),
        tuple,
        (1, 3),
    ),
    "union": (union(NAMES.order_by(None), select(Note.body)).order_by("name"), str, "Ada"),
    "offset": (NAMES.offset(1), str, "Bob"),
    "own limit": (NAMES.limit(5), str, "Ada"),
    "own limit in SQL": (NAMES.limit(bindparam("most", 1)), str, "Ada"),
    "text": (text("SELECT name FROM author ORDER BY id"), str, "Ada"),
    "statement": (
        select(Author).from_statement(text("SELECT * FROM author ORDER BY id")),
        lambda found: found.name,
        "Ada",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.sweep(30)
def test_first_or_404_gives_the_first_of_whatever_is_asked_for(session, statements, shape):
    """One statement is sent. One selected thing is returned as itself, several as a Row."""
    statement, look, expected = SHAPES[shape]

    assert look(session.first_or_404(statement)) == expected
    assert len(statements) == 1


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape not in {"text", "statement"}])
def test_first_or_404_asks_for_one_row(session, statements, shape):
    """The database does not send a million rows when the caller needs one."""
    session.first_or_404(SHAPES[shape][0])

    assert "LIMIT" in statements[0]


def test_first_or_404_takes_a_query(session, statements):
    """The eager loads of a legacy Query are kept."""
    query = session.query(Author).options(joinedload(Author.notes)).order_by(Author.id)
    found = session.first_or_404(query)

    assert len(found.notes) == 3
    assert session.first_or_404(session.query(Author.id, Author.name).order_by(Author.id)) == (
        1,
        "Ada",
    )
    assert ["LIMIT" in statement for statement in statements] == [True, True]


NOTHING = {
    "entity": select(Author).where(Author.id == 9),
    "value": select(Author.nickname).where(Author.id == 9),
    "two entities": select(Author, Note).join(Note).where(Note.number == 9),
    "no limit": select(Author).limit(0),
    "offset": select(Author).offset(5).order_by(Author.id),
    "joined load": select(Author).options(joinedload(Author.notes)).where(Author.id == 9),
    "text": text("SELECT name FROM author WHERE id = 9"),
}


@pytest.mark.parametrize("look_up", [first_or_404, one_or_404])
@pytest.mark.parametrize("shape", NOTHING)
def test_no_row_is_not_found(session, look_up, shape):
    """Both look-ups raise HTTPNotFound. If the statement itself has LIMIT 0, it is kept."""
    with pytest.raises(HTTPNotFound) as raised:
        look_up(session, NOTHING[shape], description="Gone")

    assert raised.value.detail == "Gone"


def test_a_fetch_of_the_statement_s_own_is_left_as_it_is(postgresql):
    """A LIMIT could not express FETCH ... WITH TIES."""
    statement = select(literal_column("1")).order_by(literal_column("1")).fetch(1, with_ties=True)
    with Session(plain_engine(postgresql.url)) as session:
        assert first_or_404(session, statement) == 1
        with pytest.raises(HTTPNotFound):
            first_or_404(session, statement.fetch(0))


def test_first_or_404_returns_what_an_insert_returns(app, session):
    """A statement that writes cannot have a LIMIT."""
    statement = insert(Author).values(**{**ADA, "id": 3}).returning(Author.id)

    assert session.first_or_404(statement) == 3


OF_ADA = select(Author).where(Author.id == 1)
# What is asked for where there is one, and what that is.
ONLY = {
    "entity": (OF_ADA, lambda found: found.name, "Ada"),
    "null": (select(Author.nickname).where(Author.id == 1), lambda found: found, None),
    "columns": (select(Author.id, Author.name).where(Author.id == 2), tuple, (2, "Bob")),
    "two entities": (
        select(Author, Note).join(Note).where(Note.number == 3),
        lambda found: found.Note.body,
        "three",
    ),
    "count": (select(func.count()).select_from(Note), int, 4),
    "union": (
        union(
            select(Author.id).where(Author.id == 1),
            select(Note.number).where(Note.number == 1),
        ),
        int,
        1,
    ),
    "text": (text("SELECT name FROM author WHERE id = 2"), str, "Bob"),
    "joined load": (
        OF_ADA.options(joinedload(Author.notes)),
        lambda found: len(found.notes),
        3,
    ),
    "contains_eager": (
        OF_ADA.join(Author.notes).options(contains_eager(Author.notes)),
        lambda found: len(found.notes),
        3,
    ),
    "entity and what cannot be hashed": (
        select(Author, Author.extra).where(Author.id == 1),
        lambda found: found.extra,
        {"age": [36]},
    ),
    "join": (OF_ADA.join(Author.notes), lambda found: found.name, "Ada"),
    "group_by": (
        select(Note.author_id, func.count()).group_by(Note.author_id).having(func.count() > 1),
        tuple,
        (1, 3),
    ),
    "distinct": (select(Note.author_id).where(Note.author_id == 1).distinct(), int, 1),
}


@pytest.mark.parametrize("shape", ONLY)
def test_one_or_404_gives_the_only_row(session, statements, shape):
    """One statement loads whole collections. An object that a join repeats counts once."""
    statement, look, expected = ONLY[shape]

    assert look(session.one_or_404(statement)) == expected
    assert len(statements) == 1


SEVERAL = {
    "entity": (select(Author), "Author"),
    "alias": (select(Other.name), "Author"),
    "two entities": (select(Author, Note.body).join(Note), "Author, Note"),
    "equal values": (select(Note.body).where(Note.body == "one"), "Note"),
    "table": (select(Author.__table__.c.id, Author.__table__.c.name), "id, name"),
    "union": (union(select(Author.name), select(Note.body)), "name"),
    "text": (text("SELECT body AS b FROM note WHERE number = 1"), "b"),
}


@pytest.mark.parametrize("shape", SEVERAL)
def test_several_rows_are_not_found_and_are_logged(session, caplog, shape):
    """The log has names but no values. Two rows with equal values count as two."""
    statement, names = SEVERAL[shape]
    with pytest.raises(HTTPNotFound):
        session.one_or_404(statement)

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "pyramid_aalam_sqa.queries.lookups"
    assert record.getMessage() == (
        f"one_or_404() found several rows of {names}, and raises HTTPNotFound"
    )


def test_one_or_404_takes_a_query(session, caplog):
    """A legacy Query is looked up like a select()."""
    query = session.query(Author).options(joinedload(Author.notes))

    assert len(session.one_or_404(query.filter_by(id=1)).notes) == 3
    with pytest.raises(HTTPNotFound):
        session.one_or_404(query)
    assert "several rows of Author," in caplog.text
