"""Look-ups by primary key: a row or HTTPNotFound, the same on every database."""

import pytest
from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response
from sqlalchemy import String, literal_column, select
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.exc import ArgumentError, DataError, NoInspectionAvailable
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, joinedload, mapped_column
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
from support.apps import with_view
from support.authors import Author, Note
from support.databases import plain_engine

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


def new_base():
    """Make a base for the models of one test."""

    class OwnBase(DeclarativeBase):
        pass

    return OwnBase


def show(request):
    """Show an author."""
    return Response(request.sqa_session.get_or_404(Author, request.matchdict["id"]).name)


def wrong(request):
    """Change an author, and then look for an author that does not exist."""
    author = request.sqa_session.get_or_404(Author, 1)
    author.name = "changed"
    request.sqa_session.get_or_404(Author, request.matchdict["id"], description="No <such> one")


@pytest.fixture(scope="module")
def views():
    """A view that shows an author, and one that changes another author before it."""

    def add(config):
        for view in (show, wrong):
            config.add_route(view.__name__, f"/{view.__name__}/{{id}}")
            config.add_view(view, route_name=view.__name__)

    return [add]


@pytest.mark.parametrize("ident", [1, "1", (1,), ["1"], {"id": "1"}])
def test_a_row_is_found_by_its_key(session, ident):
    """The key may be a number, a part of the URL, a tuple, a list, or a dictionary."""
    assert session.get_or_404(Author, ident).name == "Ada"


@pytest.mark.parametrize("ident", [(1, 2), ("1", "2"), {"number": "2", "author_id": "1"}])
def test_a_row_is_found_by_a_composite_key(session, ident):
    """The values are in the order of the key, or in a dictionary with the attributes' names."""
    assert session.get_or_404(Note, ident).body == "two"


@pytest.mark.parametrize("ident", [3, "3", -1])
def test_a_row_that_is_not_there_is_not_found(session, ident):
    """The key is well-formed, so the database is asked. It does not have such a row."""
    with pytest.raises(HTTPNotFound):
        session.get_or_404(Author, ident)


@pytest.mark.parametrize("ident", HOSTILE, ids=ascii)
def test_what_cannot_be_a_key_never_reaches_the_database(session, statements, ident):
    """MariaDB would return row 1, and PostgreSQL would raise an error."""
    with pytest.raises(HTTPNotFound):
        session.get_or_404(Author, ident)
    with pytest.raises(HTTPNotFound):
        session.get_or_404(Note, (1, ident))

    assert statements == []


def test_one_statement_finds_a_row_and_none_finds_it_again(session, statements):
    """The text and the number name the same row, which the session then has in memory."""
    found = session.get_or_404(Author, "1")

    assert session.get_or_404(Author, 1) is found
    assert len(statements) == 1


def test_options_reach_the_session(session, statements):
    """Eager loads, locks, and all other options of Session.get() work."""
    options = [joinedload(Author.notes)]
    found = session.get_or_404(Author, "1", options=options)
    bind = {"bind": session.connection()}

    assert [note.body for note in found.notes] == ["one", "two", "three"]
    assert session.get_or_404(Author, "2", bind_arguments=bind).name == "Bob"
    assert session.get_or_404(Note, (1, 1), with_for_update=True)
    assert len(statements) == 3


@pytest.mark.parametrize("entity", [str, aliased(Author)], ids=["str", "alias"])
def test_what_is_not_mapped_is_an_error_and_no_404(session, entity):
    """SQLAlchemy raises an error, because the application is wrong and not the visitor."""
    with pytest.raises((ArgumentError, NoInspectionAvailable)):
        session.get_or_404(entity, 1)


def test_letters_that_a_column_cannot_hold_are_not_found(session):
    """MariaDB would raise an error if it compared the column with such letters."""

    class Tag(new_base()):
        __tablename__ = "tag"
        name: Mapped[str] = mapped_column(String(20), primary_key=True)
        __table_args__ = {"mysql_charset": "latin1"}  # noqa: RUF012 - SQLAlchemy's way

    Tag.metadata.create_all(session.connection())
    with pytest.raises(HTTPNotFound):
        session.get_or_404(Tag, "Ŕ")

    assert session.scalar(select(1)) == 1


def test_the_database_judges_values_of_a_type_that_it_alone_knows(postgresql):
    """A network address is found or not found. Text that is not an address is not found."""

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
        # The flush before the look-up fails: that is the application's mistake.
        session.add(Host(address="nonsense too"))
        with pytest.raises(DataError):
            get_or_404(session, Host, "10.0.0.2")


def test_other_errors_of_the_database_stay_errors(session):
    """If the table does not exist, the error is not turned into a 404."""

    class Missing(new_base()):
        __tablename__ = "missing"
        id: Mapped[int] = mapped_column(primary_key=True)

    with pytest.raises(Exception, match="missing") as raised:
        session.get_or_404(Missing, 1)

    assert not isinstance(raised.value, HTTPNotFound)


def test_a_view_answers_with_the_row_or_a_404_that_keeps_nothing(app):
    """A 404 rolls back, and the visitor sees the view's description."""
    client = TestApp(app)
    assert client.get("/show/1").text == "Ada"
    client.get("/show/1abc", status=404)
    answer = client.get("/wrong/9", status=404, headers={"Accept": "text/html"})

    assert "No &lt;such&gt; one" in answer.text
    assert client.get("/show/1").text == "Ada"


def test_the_not_found_view_of_an_application_is_called(sqlite, serve):
    """The not-found view gets the description, and can use the session."""

    def missing(error, request):
        return Response(f"{error.detail}, {request.sqa_session.scalar(select(42))}", status=404)

    def view(request):
        request.sqa_session.one_or_404(select(1).where(literal_column("1") == 0), description="No")

    app = serve(sqlite.url, with_view(view), lambda config: config.add_notfound_view(missing))

    assert TestApp(app).get("/", status=404).text == "No, 42"


def test_every_session_of_the_package_has_the_look_ups(app):
    """Sessions of a request, a thread and a scope have them, and the thread's plain session."""
    threads = sqa.Session(app)
    with session_scope(app) as scoped, threads:
        for session in (scoped, threads, threads()):
            assert session.get_or_404(Author, "1").name == "Ada"
            assert session.first_or_404(select(Author.name).order_by(Author.id)) == "Ada"
            assert session.one_or_404(select(Author).where(Author.id == 2)).name == "Bob"
        assert isinstance(scoped, SqaSession)
        assert isinstance(threads(), SqaSession)


def test_a_session_class_may_have_look_ups_of_its_own(sqlite, serve):
    """If the class is derived from SqaSession, its own methods are used."""

    class Own(SqaSession):
        def get_or_404(self, entity, ident, **options):
            return "mine"

    app = serve(sqlite.url, **{"sqa.session.class_": Own})
    with session_scope(app) as session:
        assert session.get_or_404(Author, 1) == "mine"


def test_the_functions_take_any_session(app):
    """For example, the plain session that a test puts into environ["sqa.session"]."""
    with Session(get_sqa(app).engine) as session:
        assert get_or_404(session, Author, "1").name == "Ada"
        assert first_or_404(session, select(Author.name).order_by(Author.id)) == "Ada"
        assert one_or_404(session, select(Author).where(Author.id == 1)).name == "Ada"
        with pytest.raises(HTTPNotFound):
            get_or_404(session, Author, "1abc")
    with Session() as unbound:
        bind = {"bind": get_sqa(app).engine}
        assert get_or_404(unbound, Author, "1", bind_arguments=bind).name == "Ada"
