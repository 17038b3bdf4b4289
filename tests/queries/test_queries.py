"""Look-ups: a row or HTTPNotFound, alike on every database, whatever is asked for."""

import logging
from contextlib import contextmanager

import pytest
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response
from sqlalchemy import (
    JSON,
    ForeignKey,
    String,
    bindparam,
    event,
    func,
    insert,
    literal_column,
    select,
    text,
    union,
)
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.engine import Row
from sqlalchemy.exc import ArgumentError, DataError, NoInspectionAvailable
from sqlalchemy.orm import (
    Bundle,
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    contains_eager,
    joinedload,
    mapped_column,
    relationship,
)
from webtest import TestApp

import pyramid_aalam_sqa as sqa
from pyramid_aalam_sqa import (
    SqaSession,
    first_or_404,
    get_or_404,
    get_sqa,
    one_or_404,
    session_scope,
)
from support.databases import own_database, plain_engine


class Base(DeclarativeBase):
    """The models of this module."""


class Author(Base):
    """Has notes, and perhaps a nickname."""

    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(20))
    nickname: Mapped[str | None] = mapped_column(String(20))
    extra: Mapped[dict] = mapped_column(JSON)
    notes: Mapped[list["Note"]] = relationship(order_by="Note.number", back_populates="author")


class Note(Base):
    """Has a composite key."""

    __tablename__ = "note"
    author_id: Mapped[int] = mapped_column(ForeignKey(Author.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    body: Mapped[str] = mapped_column(String(20))
    author: Mapped[Author] = relationship(back_populates="notes")


ADA = {"id": 1, "name": "Ada", "nickname": None, "extra": {"age": [36]}}
BOB = {"id": 2, "name": "Bob", "nickname": "B", "extra": {}}
NOTES = [(1, 1, "one"), (1, 2, "two"), (1, 3, "three"), (2, 1, "one")]
HOSTILE = [
    *(
        "1abc",
        "1.0",
        " 1",
        "1\0",
        "",
        "1; DROP TABLE note",
        "\u0661",
        str(10**30),
        2**63,
        1.0,
        b"1",
    ),
    *(None, True, (1, 2), (), {}, {"id": 1, "name": "Ada"}, ("1abc",)),
]


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def app(request, tmp_path_factory):
    """An application on each database, with two authors and four notes."""
    if request.param == "sqlite":
        with _app(f"sqlite:///{tmp_path_factory.mktemp('queries')}/test.sqlite") as app:
            yield app
        return
    url = (
        request.getfixturevalue("mariadb_url")
        if request.param == "mariadb"
        else request.getfixturevalue("postgresql_server").url()
    )
    with own_database(url) as database, _app(database.url) as app:
        yield app


@contextmanager
def _app(url):
    with Configurator(settings={"sqlalchemy.url": url}) as config:
        config.include("pyramid_aalam_sqa")
        for view in (show, wrong):
            config.add_route(view.__name__, f"/{view.__name__}/{{id}}")
            config.add_view(view, route_name=view.__name__)
    app = config.make_wsgi_app()
    engine = plain_engine(url)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Author), [ADA, BOB])
        keys = ("author_id", "number", "body")
        connection.execute(insert(Note), [dict(zip(keys, note, strict=True)) for note in NOTES])
    yield app
    get_sqa(app).dispose()


@pytest.fixture
def session(app):
    """The session of a script; what a test writes is undone."""
    with SqaSession(get_sqa(app).engine) as session:
        yield session


@pytest.fixture
def statements(app):
    """What is sent to the database."""
    seen = []

    def sent(connection, cursor, statement, *_):
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    engine = get_sqa(app).engine
    event.listen(engine, "before_cursor_execute", sent)
    yield seen
    event.remove(engine, "before_cursor_execute", sent)


def new_base():
    """A base of one test's own."""

    class OwnBase(DeclarativeBase):
        pass

    return OwnBase


def show(request):
    return Response(request.sqa_session.get_or_404(Author, request.matchdict["id"]).name)


def wrong(request):
    author = request.sqa_session.get_or_404(Author, 1)
    author.name = "changed"
    request.sqa_session.get_or_404(Author, request.matchdict["id"], description="No <such> one")


@pytest.mark.parametrize("ident", [1, "1", (1,), ["1"], {"id": "1"}])
def test_a_row_is_found_by_its_key(session, ident):
    """As it comes: a number, a piece of the URL, a tuple, a dictionary."""
    assert session.get_or_404(Author, ident).name == "Ada"


@pytest.mark.parametrize("ident", [(1, 2), ("1", "2"), {"number": "2", "author_id": "1"}])
def test_a_row_is_found_by_a_composite_key(session, ident):
    """In the order of the key, or by name."""
    assert session.get_or_404(Note, ident).body == "two"


@pytest.mark.parametrize("ident", [3, "3", -1])
def test_a_row_that_is_not_there_is_not_found(session, ident):
    """The plain case."""
    with pytest.raises(HTTPNotFound):
        session.get_or_404(Author, ident)


@pytest.mark.parametrize("ident", HOSTILE, ids=ascii)
def test_what_can_be_no_key_never_reaches_the_database(session, statements, ident):
    """MariaDB would answer with row 1, PostgreSQL with an error."""
    with pytest.raises(HTTPNotFound):
        session.get_or_404(Author, ident)
    with pytest.raises(HTTPNotFound):
        session.get_or_404(Note, (1, ident))

    assert statements == []


def test_one_statement_finds_a_row_and_none_finds_it_again(session, statements):
    """The text and the number are the same row, which the session has by then."""
    found = session.get_or_404(Author, "1")

    assert session.get_or_404(Author, 1) is found
    assert len(statements) == 1


def test_options_reach_the_session(session, statements):
    """Eager loads, locks, everything that get() takes."""
    options = [joinedload(Author.notes)]
    found = session.get_or_404(Author, "1", options=options)
    bind = {"bind": session.connection()}

    assert [note.body for note in found.notes] == ["one", "two", "three"]
    assert session.get_or_404(Author, "2", bind_arguments=bind).name == "Bob"
    assert session.get_or_404(Note, (1, 1), with_for_update=True)
    assert len(statements) == 3


@pytest.mark.parametrize("entity", [str, aliased(Author)], ids=["str", "alias"])
def test_what_is_not_mapped_is_an_error_and_no_404(session, entity):
    """SQLAlchemy's own, for it is not the visitor's."""
    with pytest.raises((ArgumentError, NoInspectionAvailable)):
        session.get_or_404(entity, 1)


def test_letters_that_a_column_cannot_hold_are_not_found(session):
    """MariaDB ends a comparison of such letters with an error."""

    class Tag(new_base()):
        __tablename__ = "tag"
        name: Mapped[str] = mapped_column(String(20), primary_key=True)
        __table_args__ = {"mysql_charset": "latin1"}  # noqa: RUF012 - SQLAlchemy's way

    Tag.metadata.create_all(session.connection())
    with pytest.raises(HTTPNotFound):
        session.get_or_404(Tag, "Ŕ")

    assert session.scalar(select(1)) == 1


def test_a_type_that_only_the_database_knows_is_its_to_judge(postgresql):
    """An address is a row or not found, and nonsense is not found either."""

    class Host(new_base()):
        __tablename__ = "host"
        address: Mapped[str] = mapped_column(INET, primary_key=True)

    with Session(plain_engine(postgresql.url)) as session:
        Host.metadata.create_all(session.connection())
        session.add(Host(address="10.0.0.1"))
        session.commit()

        assert get_or_404(session, Host, "10.0.0.1")
        with pytest.raises(HTTPNotFound):
            get_or_404(session, Host, "nonsense")
        session.rollback()
        # The application's own mistake, which the look-up only brings to light.
        session.add(Host(address="nonsense too"))
        with pytest.raises(DataError):
            get_or_404(session, Host, "10.0.0.2")


def test_other_errors_of_the_database_stay_errors(session):
    """A table that is not there is no 404."""

    class Missing(new_base()):
        __tablename__ = "missing"
        id: Mapped[int] = mapped_column(primary_key=True)

    with pytest.raises(Exception, match="missing") as raised:
        session.get_or_404(Missing, 1)

    assert not isinstance(raised.value, HTTPNotFound)


def test_a_view_answers_with_the_row_or_a_404_that_keeps_nothing(app):
    """The rule about the outcome sees a 404, and the visitor what the view says of it."""
    client = TestApp(app)
    assert client.get("/show/1").text == "Ada"
    client.get("/show/1abc", status=404)
    answer = client.get("/wrong/9", status=404, headers={"Accept": "text/html"})

    assert "No &lt;such&gt; one" in answer.text
    assert client.get("/show/1").text == "Ada"


def test_the_not_found_view_of_an_application_is_called(sqlite):
    """With the description, and a session that works."""

    def missing(error, request):
        return Response(f"{error.detail}, {request.sqa_session.scalar(select(42))}", status=404)

    def view(request):
        request.sqa_session.one_or_404(select(1).where(literal_column("1") == 0), description="No")

    with Configurator(settings={"sqlalchemy.url": sqlite.url}) as config:
        config.include("pyramid_aalam_sqa")
        config.add_notfound_view(missing)
        config.add_view(view)

    assert TestApp(config.make_wsgi_app()).get("/", status=404).text == "No, 42"


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
def test_first_or_404_gives_the_first_of_whatever_is_asked_for(session, statements, shape):
    """With one statement; what is one thing comes as itself, and several as a row."""
    statement, look, expected = SHAPES[shape]

    assert look(session.first_or_404(statement)) == expected
    assert len(statements) == 1


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape not in {"text", "statement"}])
def test_first_or_404_asks_for_one_row(session, statements, shape):
    """A table of a million rows is not fetched to look at one."""
    session.first_or_404(SHAPES[shape][0])

    assert "LIMIT" in statements[0]


def test_first_or_404_takes_a_query(session, statements):
    """The legacy one, with its eager loads."""
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
    """For the first and for the only one, and a limit of none stays one of none."""
    with pytest.raises(HTTPNotFound) as raised:
        look_up(session, NOTHING[shape], description="Gone")

    assert raised.value.detail == "Gone"


def test_rows_that_are_to_be_fetched_with_their_equals_are_left_so(postgresql):
    """The statement's own FETCH says more than a limit could."""
    statement = select(literal_column("1")).order_by(literal_column("1")).fetch(1, with_ties=True)
    with Session(plain_engine(postgresql.url)) as session:
        assert first_or_404(session, statement) == 1
        with pytest.raises(HTTPNotFound):
            first_or_404(session, statement.fetch(0))


def test_first_or_404_returns_what_an_insert_returns(app, session):
    """A statement that writes has no limit."""
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
    """With one statement, collections whole; an object that a join repeats is one."""
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
    """By what was asked for and never by value; two rows are two, though they say the same."""
    statement, names = SEVERAL[shape]
    with pytest.raises(HTTPNotFound):
        session.one_or_404(statement)

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "pyramid_aalam_sqa.queries"
    assert record.getMessage() == (
        f"one_or_404() found several rows of {names}, and answers that there is none"
    )


def test_one_or_404_takes_a_query(session, caplog):
    """The legacy one."""
    query = session.query(Author).options(joinedload(Author.notes))

    assert len(session.one_or_404(query.filter_by(id=1)).notes) == 3
    with pytest.raises(HTTPNotFound):
        session.one_or_404(query)
    assert "several rows of Author," in caplog.text


def test_every_session_of_the_package_has_the_look_ups(app):
    """Of a request, a transaction, a thread, a scope, and the thread's plain one."""
    threads = sqa.Session(app)
    with session_scope(app) as scoped, threads:
        for session in (scoped, threads, threads()):
            assert session.get_or_404(Author, "1").name == "Ada"
            assert session.first_or_404(select(Author.name).order_by(Author.id)) == "Ada"
            assert session.one_or_404(select(Author).where(Author.id == 2)).name == "Bob"
        assert isinstance(scoped, SqaSession)
        assert isinstance(threads(), SqaSession)


def test_a_session_class_may_have_look_ups_of_its_own(sqlite):
    """Derived from ours, so that it comes first."""

    class Own(SqaSession):
        def get_or_404(self, entity, ident, **options):
            return "mine"

    settings = {"sqlalchemy.url": sqlite.url, "sqa.session.class_": Own}
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
    with session_scope(config) as session:
        assert session.get_or_404(Author, 1) == "mine"
    get_sqa(config).dispose()


def test_the_functions_take_any_session(app):
    """The plain one of a test, which stands in environ["sqa.session"]."""
    with Session(get_sqa(app).engine) as session:
        assert get_or_404(session, Author, "1").name == "Ada"
        assert first_or_404(session, NAMES) == "Ada"
        assert one_or_404(session, select(Author).where(Author.id == 1)).name == "Ada"
        with pytest.raises(HTTPNotFound):
            get_or_404(session, Author, "1abc")
    with Session() as unbound:
        bind = {"bind": get_sqa(app).engine}
        assert get_or_404(unbound, Author, "1", bind_arguments=bind).name == "Ada"
