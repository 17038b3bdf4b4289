"""With context_factory() a view's context is the row that the URL names, or a 404."""

import pytest
from pyramid.authorization import ACLHelper, Allow, Everyone
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import String, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, joinedload, mapped_column, relationship
from sqlalchemy.schema import ForeignKey
from webtest import TestApp

from pyramid_aalam_sqa import SettingError, context_factory, get_sqa


class Base(DeclarativeBase):
    """The models of this module."""


class Book(Base):
    """A book whose __acl__ says who may see it."""

    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column(String(20))
    pages: Mapped[list["Leaf"]] = relationship(order_by="Leaf.number")

    def __acl__(self):
        return [] if self.title == "Secret" else [(Allow, Everyone, "read")]


class Leaf(Base):
    """A leaf with a composite key, which begins with the key of its book."""

    __tablename__ = "leaf"
    book_id: Mapped[int] = mapped_column(ForeignKey(Book.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    body: Mapped[str] = mapped_column(String(20))


class Policy:
    """A security policy that asks the context."""

    def permits(self, request, context, permission):
        seen.append(context.title)
        return ACLHelper().permits(context, [Everyone], permission)

    def authenticated_userid(self, request):
        return None

    identity = authenticated_userid


seen = []


def show(context, request):
    return Response(context.title)


def read(context, request):
    return Response(context.body)


def count(context, request):
    return Response(str(len(context.pages)))


def rename(context, request):
    context.title = request.params["title"]
    return Response()


def missing(error, request):
    """The application's own "not found" page, which queries the database too."""
    titles = request.sqa_session.scalars(select(Book.title).order_by(Book.id))
    return Response(f"{error.detail}: {', '.join(titles)}", status=404)


@pytest.fixture
def app(database):
    """An application with books, and leaves under two spellings of their key."""
    book = context_factory(Book, "id", description="No such book")
    whole = context_factory(Book, "id", options=[joinedload(Book.pages)])
    with Configurator(settings={"sqlalchemy.url": database.url}) as config:
        config.include("pyramid_aalam_sqa")
        config.set_security_policy(Policy())
        config.add_notfound_view(missing)
        config.add_route("book", "/books/{id}", factory=book)
        config.add_route("whole", "/whole/{id}", factory=whole)
        config.add_route(
            "leaf", "/books/{book}/{leaf}", factory=context_factory(Leaf, "book", "leaf")
        )
        config.add_route(
            "turned",
            "/leaf/{number}/of/{book_id}",
            factory=context_factory(Leaf, "number", "book_id"),
        )
        config.add_view(show, route_name="book", permission="read")
        config.add_view(rename, route_name="book", request_method="POST")
        config.add_view(count, route_name="whole")
        config.add_view(read, route_name="leaf")
        config.add_view(read, route_name="turned")
    app = config.make_wsgi_app()
    engine = get_sqa(app).engine
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Book(id=1, title="One"), Book(id=2, title="Secret")])
        session.flush()
        session.add_all(
            [Leaf(book_id=1, number=2, body="two"), Leaf(book_id=2, number=1, body="x")]
        )
        session.commit()
    seen.clear()
    yield app
    engine.dispose()


def test_the_context_is_the_row_that_the_address_names(app):
    """The view gets the row without any code of its own."""
    assert TestApp(app).get("/books/1").text == "One"


def test_the_security_policy_sees_the_row(app):
    """The policy decides by the data in the row."""
    client = TestApp(app)
    client.get("/books/1", status=200)
    client.get("/books/2", status=403)

    assert seen == ["One", "Secret"]


@pytest.mark.parametrize(
    "path",
    [
        "3",
        "1abc",
        "1.0",
        "%201",
        "1%00",
        "%D9%A1",
        "-1",
        "9" * 40,
        "id",
        "1/2/3",
        "1/2abc",
        "1/1",
        "x/2",
    ],
)
@pytest.mark.sweep(12)
def test_an_address_that_names_no_row_is_not_found(app, path):
    """This is true for every text in the URL. The security policy is not called."""
    answer = TestApp(app).get(f"/books/{path}", status=404)

    assert answer.text.endswith(": One, Secret")
    assert seen == []


def test_the_not_found_view_is_told_what_is_missing(app):
    """The view gets the description of the factory."""
    assert TestApp(app).get("/books/9", status=404).text == "No such book: One, Secret"


def test_a_composite_key_has_a_placeholder_for_each_column(app):
    """They are in the order of the key, or have the attributes' names in any order."""
    client = TestApp(app)

    assert client.get("/books/1/2").text == "two"
    assert client.get("/leaf/2/of/1").text == "two"
    client.get("/books/2/2", status=404)
    client.get("/leaf/1/of/1", status=404)


def test_one_statement_fetches_the_context_with_its_options(app):
    """With an eager load, the view does not need a second statement."""
    statements = []

    def sent(connection, cursor, statement, *_):
        statements.extend([statement] if statement.startswith("SELECT") else [])

    event.listen(get_sqa(app).engine, "before_cursor_execute", sent)

    assert TestApp(app).get("/whole/1").text == "1"
    assert len(statements) == 1


def test_what_a_view_does_to_its_context_is_stored(app, database):
    """The context is in the request's session. A 404 stores nothing."""
    TestApp(app).post("/books/1", {"title": "Uno"})
    TestApp(app).post("/books/7", {"title": "Uno"}, status=404)

    assert database.rows("SELECT title FROM book ORDER BY id") == [("Uno",), ("Secret",)]


def test_a_session_of_a_test_is_used(app):
    """A plain session in environ["sqa.session"] works, though it has no look-up methods."""
    with Session(get_sqa(app).engine) as session:
        session.add(Book(id=8, title="Unstored"))
        client = TestApp(app, extra_environ={"sqa.session": session})

        assert client.get("/books/8").text == "Unstored"


@pytest.mark.parametrize("names", [(), ("book_id",), ("book_id", "number", "body")])
def test_each_column_of_the_key_has_a_placeholder(names):
    """Otherwise the application does not start."""
    with pytest.raises(SettingError) as raised:
        context_factory(Leaf, *names)

    assert str(raised.value) == (
        f"context_factory(Leaf) names {len(names)} placeholders: write one for each column of the "
        "primary key (book_id, number)."
    )


def test_a_class_that_is_mapped_later_is_checked_later(sqlite):
    """The check is made at the first request."""

    class Late:
        pass

    factory = context_factory(Late, "id", "more")
    Base.registry.map_imperatively(Late, Book.__table__)
    with pytest.raises(SettingError, match="one for each column of the primary key"):
        factory(None)


def test_a_placeholder_that_the_route_has_not_is_named(sqlite):
    """It is an error of the application and not a 404, and names the placeholder."""
    with Configurator(settings={"sqlalchemy.url": sqlite.url}) as config:
        config.include("pyramid_aalam_sqa")
        config.add_route("book", "/books/{number}", factory=context_factory(Book, "id"))
        config.add_view(show, route_name="book")
    with pytest.raises(
        SettingError, match=r"context_factory\(Book\): the route has no .* \{id\}\."
    ):
        TestApp(config.make_wsgi_app()).get("/books/1")
