"""With renderer="json", rows, models, pages and their values are rendered."""

import enum
import json
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from pyramid.config import Configurator
from pyramid.renderers import JSON, json_renderer_factory, render
from sqlalchemy import (
    Date,
    DateTime,
    Enum,
    ForeignKey,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Uuid,
    event,
    select,
    text,
)
from sqlalchemy.ext.associationproxy import association_proxy
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    attribute_keyed_dict,
    deferred,
    load_only,
    mapped_column,
    relationship,
)
from webtest import TestApp

from pyramid_aalam_sqa import add_json_adapters, get_sqa


class Base(DeclarativeBase):
    """The models of this module."""


class Color(enum.Enum):
    """An enum, which Python's JSON does not know."""

    RED = "red"


class Plant(Base):
    """A model with columns of all kinds. One is private, and one is deferred."""

    __tablename__ = "plant"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10), default="plant")
    name: Mapped[str | None] = mapped_column("label", String(20))
    price: Mapped[Decimal | None] = mapped_column(Numeric(6, 2))
    bought: Mapped[date | None] = mapped_column(Date)
    seen: Mapped[datetime | None] = mapped_column(DateTime)
    code: Mapped[UUID | None] = mapped_column(Uuid)
    picture: Mapped[bytes | None] = mapped_column(LargeBinary)
    color: Mapped[Color | None] = mapped_column(Enum(Color))
    pots: Mapped[int] = mapped_column(server_default="3")
    story: Mapped[str | None] = deferred(mapped_column(String(99)))
    _secret: Mapped[str | None] = mapped_column("secret", String(20))
    seeds: Mapped[list["Seed"]] = relationship()
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "plant"}  # noqa: RUF012 - SQLAlchemy's way


class Tree(Plant):
    """A subclass that has a column in its own table."""

    __tablename__ = "tree"
    id: Mapped[int] = mapped_column(ForeignKey(Plant.id), primary_key=True)
    height: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "tree"}  # noqa: RUF012 - as above


class Seed(Base):
    """A model that chooses its JSON columns."""

    __tablename__ = "seed"
    __json_columns__ = ("id", "label")
    id: Mapped[int] = mapped_column(primary_key=True)
    plant_id: Mapped[int] = mapped_column(ForeignKey(Plant.id))

    @property
    def label(self):
        return f"seed {self.id}"


class Careless(Base):
    """A model whose __json_columns__ lacks a comma."""

    __tablename__ = "careless"
    __json_columns__ = "id"
    id: Mapped[int] = mapped_column(primary_key=True)


ROSE = {
    "id": 1,
    "kind": "plant",
    "name": "Rose",
    "price": "12.50",
    "bought": "2026-02-28",
    "seen": "2026-02-28T01:02:03",
    "code": "c7f9a8d2-3b1e-4f60-9a51-0d2b6c8e7f10",
    "picture": "AP8=",
    "color": "red",
    "pots": 3,
}


def store(session):
    rose = Plant(
        id=1,
        name="Rose",
        price=Decimal("12.50"),
        bought=date(2026, 2, 28),
        seen=datetime(2026, 2, 28, 1, 2, 3),  # noqa: DTZ001 - a column without
        code=UUID(ROSE["code"]),
        picture=b"\x00\xff",
        color=Color.RED,
        story="long",
        _secret="hidden",
        seeds=[Seed(id=1)],
    )
    session.add_all([rose, Tree(id=2, height=7)])


@contextmanager
def serving(url):
    """Yield a function that returns what a view with renderer="json" answers.

    Its further arguments are called with the Configurator before the include.
    """
    apps = []

    def serve(view, *before_include):
        with Configurator(settings={"sqlalchemy.url": url}) as config:
            for setup in before_include:
                setup(config)
            config.include("pyramid_aalam_sqa")
            config.add_view(view, renderer="json")
        apps.append(config.make_wsgi_app())
        engine = get_sqa(config).engine
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            store(session)
            session.commit()
        return TestApp(apps[-1]).get("/")

    yield serve
    for app in apps:
        get_sqa(app).dispose()


@pytest.fixture
def serve(sqlite):
    """Serve on SQLite."""
    with serving(sqlite.url) as serve:
        yield serve


@pytest.fixture
def serve_any(any_database):
    """Serve on each database."""
    with serving(any_database.url) as serve:
        yield serve


def dumps(value):
    """Return JSON as the renderer writes it, without an application."""
    return json.loads(add_json_adapters(JSON())(None)(value, {}))


def test_views_return_models_rows_and_lists_of_them(serve_any):
    """The text and the content type are the same on each database."""

    def view(request):
        session = request.sqa_session
        return {
            "model": session.get(Plant, 1),
            "rows": session.execute(select(Plant.name, Plant.price).where(Plant.id == 1)).all(),
            "mapping": session.execute(select(Plant.id)).mappings().first(),
            "both": session.execute(select(Seed, Seed.plant_id)).first(),
        }

    answer = serve_any(view)

    assert answer.content_type == "application/json"
    assert answer.json == {
        "model": ROSE,
        "rows": [{"name": "Rose", "price": "12.50"}],
        "mapping": {"id": 1},
        "both": {"Seed": {"id": 1, "label": "seed 1"}, "plant_id": 1},
    }


def test_a_page_is_its_rows_and_its_place(serve):
    """A view can return a page as it is."""

    def view(request):
        return request.sqa_paginate(select(Seed).order_by(Seed.id))

    answer = serve(view).json

    assert answer["items"] == [{"id": 1, "label": "seed 1"}]
    assert (answer["page"], answer["total"]) == (1, 1)


def test_a_model_costs_no_statement_of_its_own(serve):
    """Columns that were not loaded are left out. Columns that were loaded later are shown."""
    statements = []

    def view(request):
        session = request.sqa_session
        some = session.scalars(select(Plant).options(load_only(Plant.name)).filter_by(id=1)).one()
        shown = render("json", some, request)
        some.price  # noqa: B018 - loads it
        event.listen(session.get_bind(), "before_cursor_execute", lambda *_: statements.append(_))
        return [json.loads(shown), some]

    assert serve(view).json == [
        {"id": 1, "kind": "plant", "name": "Rose"},
        {"id": 1, "kind": "plant", "name": "Rose", "price": "12.50"},
    ]
    assert statements == []


def test_a_row_that_was_just_stored_is_shown_whole(serve_any):
    """After the flush it has the database's defaults. Before, it has what Python has set."""

    def view(request):
        plant = Plant(id=5, name="New")
        before = json.loads(render("json", plant, request))
        request.sqa_session.add(plant)
        request.sqa_session.flush()
        return [before, plant]

    before, after = serve_any(view).json

    assert (before["name"], before["pots"], before["price"]) == ("New", None, None)
    assert (after["id"], after["name"], after["pots"]) == (5, "New", 3)


def test_a_new_object_is_shown_with_its_null_columns(serve_any):
    """The INSERT did not name them, so SQLAlchemy did not load them. No statement is sent."""

    def view(request):
        plant = Plant(id=5, name="New")
        request.sqa_session.add(plant)
        request.sqa_session.flush()
        request.sqa_session.refresh(plant, ["pots"])
        sent = []
        connection = request.sqa_session.connection()
        event.listen(connection, "before_cursor_execute", lambda *args: sent.append(args[2]))
        return [json.loads(render("json", plant, request)), sent]

    shown, sent = serve_any(view).json

    assert shown == {**dict.fromkeys(ROSE), "id": 5, "kind": "plant", "name": "New", "pots": 3}
    assert sent == []


def test_a_column_whose_loading_was_deferred_is_not_shown_for_a_new_object_either(serve):
    """A column that a query has left out is not shown either."""

    def view(request):
        request.sqa_session.add(Plant(id=5, name="New"))
        request.sqa_session.flush()
        request.sqa_session.expunge_all()
        statement = select(Plant).where(Plant.id == 5).options(load_only(Plant.id))
        return request.sqa_session.scalars(statement).one()

    assert serve(view).json == {"id": 5, "kind": "plant"}


def test_a_resource_has_one_shape_when_it_is_made_and_when_it_is_read(serve):
    """A deferred column is in neither answer, although the object that was made has it."""

    def view(request):
        plant = Plant(id=5, name="New", story="Once upon a time")
        request.sqa_session.add(plant)
        request.sqa_session.flush()
        made = json.loads(render("json", plant, request))
        request.sqa_session.expire_all()
        request.sqa_session.expunge_all()
        return [made, request.sqa_session.get(Plant, 5)]

    made, read = serve(view).json

    assert made.keys() == read.keys() == ROSE.keys()


@pytest.mark.parametrize(
    "name",
    ["password", "password_hash", "apiKey", "accessToken", "reset_token", "client_secret", "salt"],
)
def test_a_model_with_a_column_that_looks_secret_is_not_shown_without_a_list(name):
    """The error names the column, and says what to write. It does not show the value."""

    class Own(DeclarativeBase):
        """A base of this test."""

    columns = {"id": mapped_column(Integer, primary_key=True), name: mapped_column(String(20))}
    user = type("User", (Own,), {"__tablename__": "user", **columns})
    with pytest.raises(TypeError, match=rf"User has the column {name}.*__json_columns__") as raised:
        dumps(user(id=1, **{name: "xyzzy"}))
    assert "xyzzy" not in str(raised.value)

    user.__json_columns__ = ("id",)
    assert dumps(user(id=1, **{name: "xyzzy"})) == {"id": 1}


def test_a_secret_column_under_another_name_is_found_and_a_deferred_one_may_stay():
    """The name in the database counts as well. What is deferred is not shown anyway."""

    class Own(DeclarativeBase):
        """A base of this test."""

    class Hidden(Own):
        __tablename__ = "hidden"
        id: Mapped[int] = mapped_column(primary_key=True)
        password: Mapped[str] = deferred(mapped_column(String(20)))

    class Renamed(Own):
        __tablename__ = "renamed"
        id: Mapped[int] = mapped_column(primary_key=True)
        mark: Mapped[str] = mapped_column("password", String(20))

    assert dumps(Hidden(id=1, password="xyzzy")) == {"id": 1}
    with pytest.raises(TypeError, match="Renamed has the column mark"):
        dumps(Renamed(id=1, mark="xyzzy"))


@pytest.mark.parametrize("name", ["tokenizer", "secretary", "compass", "salted_nuts", "keyword"])
def test_a_word_that_only_contains_one_is_shown(name):
    """A secretary is not a secret."""

    class Own(DeclarativeBase):
        """A base of this test."""

    columns = {"id": mapped_column(Integer, primary_key=True), name: mapped_column(String(20))}
    thing = type("Thing", (Own,), {"__tablename__": "thing", **columns})
    assert dumps(thing(id=1, **{name: "x"})) == {"id": 1, name: "x"}


TWICE = text("SELECT 1 AS id, 2 AS id")


@pytest.mark.parametrize(
    "view",
    [
        lambda request: request.sqa_session.execute(TWICE).first(),
        lambda request: request.sqa_session.execute(TWICE).mappings().first(),
        lambda request: request.sqa_session.execute(TWICE).all(),
    ],
    ids=["row", "mapping", "rows"],
)
def test_a_row_with_two_columns_of_one_name_is_an_error_that_names_it(serve, view):
    """Otherwise JSON would have only one of the two values."""
    with pytest.raises(ValueError, match=r"two columns called 'id': .* label\(\) or AS"):
        serve(view)


def test_two_columns_that_sqlalchemy_has_named_apart_are_both_shown(serve):
    """This happens in a select() of two entities."""

    def view(request):
        statement = select(Plant.id, Seed.id).join(Seed, Seed.plant_id == Plant.id)
        return request.sqa_session.execute(statement).first()

    assert serve(view).json == {"id": 1, "id_1": 1}


class Shelf(Base):
    """A model with collections of all kinds, as relationships and as association proxies."""

    __tablename__ = "shelf"
    __json_columns__ = ("id", "names", "by_number", "as_set", "jars")
    id: Mapped[int] = mapped_column(primary_key=True)
    jar_list: Mapped[list["Jar"]] = relationship(order_by="Jar.id")
    jar_dict: Mapped[dict[int, "Jar"]] = relationship(
        collection_class=attribute_keyed_dict("id"), viewonly=True
    )
    jar_set: Mapped[set["Jar"]] = relationship(viewonly=True)
    names = association_proxy("jar_list", "name")
    by_number = association_proxy("jar_dict", "name")
    as_set = association_proxy("jar_set", "name")

    @property
    def jars(self):
        return frozenset(self.jar_set)


class Jar(Base):
    """A model that belongs to a shelf."""

    __tablename__ = "jar"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(ForeignKey(Shelf.id))
    name: Mapped[str] = mapped_column(String(20))


def test_association_proxies_and_other_collections_are_shown(serve):
    """They become lists and objects. A set of models has no fixed order."""

    def view(request):
        jars = [Jar(id=1, name="salt"), Jar(id=2, name="rice")]
        request.sqa_session.add(Shelf(id=1, jar_list=jars))
        request.sqa_session.flush()
        request.sqa_session.expunge_all()
        return request.sqa_session.get(Shelf, 1)

    shown = serve(view).json
    jars = sorted(shown.pop("jars"), key=lambda jar: jar["id"])

    assert shown == {
        "id": 1,
        "names": ["salt", "rice"],
        "by_number": {"1": "salt", "2": "rice"},
        "as_set": ["rice", "salt"],
    }
    assert jars == [
        {"id": 1, "shelf_id": 1, "name": "salt"},
        {"id": 2, "shelf_id": 1, "name": "rice"},
    ]


def test_a_class_that_inherits_is_shown_with_its_own_columns(serve):
    """This is true even if the object was loaded by its base class."""

    def view(request):
        return request.sqa_session.scalars(select(Plant).where(Plant.id == 2)).one()

    shown = serve(view).json

    assert (shown["kind"], shown["height"]) == ("tree", 7)


def test_relationships_and_private_columns_are_not_shown(serve):
    """Only columns are shown, and none whose name begins with an underscore."""

    def view(request):
        plant = request.sqa_session.get(Plant, 1)
        assert plant.seeds
        return plant

    answer = serve(view)

    assert "hidden" not in answer.text
    assert "seeds" not in answer.json


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2026, 2, 28, 1, 2, 3, tzinfo=UTC), "2026-02-28T01:02:03+00:00"),
        (date(2026, 2, 28), "2026-02-28"),
        (time(1, 2, 3), "01:02:03"),
        (timedelta(minutes=1, milliseconds=500), 60.5),
        (Decimal("1E+2"), "100"),
        (Decimal("0.10"), "0.10"),
        (UUID(ROSE["code"]), ROSE["code"]),
        (Color.RED, "red"),
        (b"\x00\xff", "AP8="),
        (bytearray(b"\x00\xff"), "AP8="),
        (memoryview(b"\x00\xff"), "AP8="),
        ({"b", "a"}, ["a", "b"]),
        ({"nested": [Decimal("1.0")]}, {"nested": ["1.0"]}),
    ],
)
def test_each_value_has_a_form(value, expected):
    """Each type of value has the form that the documentation says."""
    assert dumps(value) == expected


def test_what_has_a_form_of_its_own_keeps_it():
    """If a class has __json__(), Pyramid's rule is kept: it is used."""

    class Own(Plant):
        def __json__(self, request):
            return "mine"

        __mapper_args__ = {"polymorphic_identity": "own"}  # noqa: RUF012 - as above

    assert dumps(Own()) == "mine"


@pytest.mark.parametrize("value", [object(), Plant, select(1)])
def test_what_has_none_is_refused_in_the_words_of_pyramid(value):
    """For example, a class or a statement cannot be JSON."""
    with pytest.raises(TypeError, match="is not JSON serializable"):
        dumps(value)


def test_a_forgotten_comma_is_named():
    """Otherwise each letter of the name would be taken for a column."""
    with pytest.raises(TypeError) as raised:
        dumps(Careless())

    assert str(raised.value) == "Careless.__json_columns__ is text: write ('id',)."


def mark(name):
    """Return a renderer that shows who registered it."""
    return lambda info: lambda value, system: name


def view_of_nothing(request):
    return {}


def before(config):
    config.add_renderer("json", mark("the application's"))


def before_and_done(config):
    before(config)
    config.commit()


def in_another_include(config):
    config.include(before)


@pytest.mark.parametrize("configure", [before, before_and_done, in_another_include])
def test_the_applications_own_renderer_wins(serve, configure):
    """It may be registered by the application, by an included module, or committed at once."""
    assert serve(view_of_nothing, configure).text == "the application's"


def test_a_renderer_of_ones_own_can_be_taught(serve):
    """The renderer keeps its options. Adapters that are added later replace ours."""

    def configure(config):
        renderer = add_json_adapters(JSON(indent=1))
        renderer.add_adapter(Decimal, lambda value, request: float(value))
        config.add_renderer("json", renderer)

    def view(request):
        return request.sqa_session.execute(select(Plant.id, Plant.price)).first()

    assert serve(view, configure).text == '{\n "id": 1,\n "price": 12.5\n}'


def test_other_applications_of_the_process_are_left_alone(serve):
    """Pyramid's own JSON renderer is one object for all applications. It is not changed."""
    serve(view_of_nothing)
    with pytest.raises(TypeError):
        json_renderer_factory(None)(Decimal(1), {})
