"""A lazy load that is repeated for the rows of one query is found, named and cured."""

import logging
import pickle
import re

import pytest
import sqlalchemy.orm
from pyramid.response import Response
from sqlalchemy import insert, select
from sqlalchemy.orm import (
    Session,
    joinedload,
    selectinload,
    sessionmaker,
    subqueryload,
    undefer,
)
from webtest import TestApp

from pyramid_aalam_sqa import SettingError, get_sqa
from pyramid_aalam_sqa.debugging import NPlusOneError, recorded
from support import bound, shop
from support.apps import with_view
from support.shop import Base, Product, Shelf, fill

LOG = "pyramid_aalam_sqa.debugging"


# What is found does not depend on the database: the demo's list is tried on all three.
SERVERS = [pytest.param(name, marks=pytest.mark.deep) for name in ("mariadb", "postgresql")]


@pytest.fixture(params=["sqlite", *SERVERS])
def factory(request, serve):
    """Sessions on a shop with three shelves."""
    app = serve(request.getfixturevalue(request.param).url)
    engine = get_sqa(app).engine
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        fill(session)
        session.commit()
    return sessionmaker(engine)


@pytest.fixture
def small(sqlite, serve):
    """The same on SQLite alone."""
    app = serve(sqlite.url, **{"sqlalchemy.binds.other.url": f"{sqlite.url}.other"})
    Base.metadata.create_all(get_sqa(app).engine)
    with Session(get_sqa(app).engine) as session:
        fill(session)
        session.commit()
    return app


def one_to_many(session, *options):
    for shelf in session.scalars(select(Shelf).options(*options)):
        shelf.products  # noqa: B018 - read as a template reads it


def many_to_one(session, *options):
    for product in session.scalars(select(Product).options(*options)).all():
        product.shelf  # noqa: B018 - as above


def many_to_many(session, *options):
    for product in session.scalars(select(Product).options(*options)).all():
        product.tags  # noqa: B018 - as above


def self_referential(session, *options):
    for shelf in session.scalars(select(Shelf).options(*options)).all():
        shelf.below  # noqa: B018 - as above


def polymorphic(session, *options):
    for product in session.scalars(select(Product).options(*options)).all():
        getattr(product, "author", None)


def deferred_column(session, *options):
    for product in session.scalars(select(Product).options(*options)).all():
        product.text  # noqa: B018 - as above


def deferred_group(session, *options):
    for product in session.scalars(select(Product).options(*options)).all():
        product.blurb  # noqa: B018 - as above
        product.review  # noqa: B018 - as above


def behind_a_property(session, *options):
    for shelf in session.scalars(select(Shelf).options(*options)).all():
        shelf.size  # noqa: B018 - as above


def through_an_association_proxy(session, *options):
    for shelf in session.scalars(select(Shelf).options(*options)).all():
        list(shelf.product_names)


def in_two_loops(session, *options):
    shelves = session.scalars(select(Shelf).options(*options)).all()
    names = [shelf.name for shelf in shelves]
    for shelf, _name in zip(shelves, names, strict=True):
        shelf.products  # noqa: B018 - as above


def one_level_below(session, *options):
    shelves = session.scalars(select(Shelf).options(selectinload(Shelf.products), *options)).all()
    for shelf in shelves:
        for product in shelf.products:
            product.tags  # noqa: B018 - as above


GUILTY = {
    one_to_many: ("Shelf.products", 3),
    many_to_one: ("Product.shelf", 3),
    many_to_many: ("Product.tags", 6),
    self_referential: ("Shelf.below", 3),
    polymorphic: ("Book.author", 3),
    deferred_column: ("Product.text", 6),
    deferred_group: ("Product.blurb", 6),
    behind_a_property: ("Shelf.products", 3),
    through_an_association_proxy: ("Shelf.products", 3),
    in_two_loops: ("Shelf.products", 3),
    one_level_below: ("Product.tags", 6),
}


def follow(advice):
    """Return the option that *advice*, text of a warning, tells to add."""
    names = {**vars(bound), **vars(shop)}
    return eval(advice, {**vars(sqlalchemy.orm), **names})


@pytest.mark.parametrize("shape", GUILTY, ids=lambda shape: shape.__name__)
def test_each_shape_is_found_and_its_advice_cures_it(shape, factory):
    """One finding, with attribute, count and line; with the option that it names, none."""
    attribute, count = GUILTY[shape]
    with factory() as session, recorded(session) as statements:
        shape(session)
    [found] = statements.n_plus_one
    assert (found.attribute, found.count) == (attribute, count)
    inside = {behind_a_property: ("size", shop.__file__)}
    function, file = inside.get(shape, (shape.__name__, __file__))
    assert (found.line.function, found.line.file) == (function, file)
    assert {each.lazy_load for each in statements if each.lazy_load} == {attribute}

    with factory() as session, recorded(session) as cured:
        shape(session, follow(found.option))
    assert cured.n_plus_one == []
    assert cured.count < statements.count


def nested_loops(session, *options):
    for shelf in session.scalars(select(Shelf).options(*options)).all():
        for product in shelf.products:
            product.tags  # noqa: B018 - as above


def one_below_each(session, *options):
    for shelf in session.scalars(select(Shelf).options(*options)).all():
        shelf.products[0].tags  # noqa: B018 - as above


def deferred_below_each(session, *options):
    for shelf in session.scalars(select(Shelf).options(*options)).all():
        shelf.products[0].text  # noqa: B018 - as above


@pytest.mark.parametrize(
    ("shape", "count", "option"),
    [
        (nested_loops, 6, "selectinload(Shelf.products).selectinload(Product.tags)"),
        (one_below_each, 3, "selectinload(Shelf.products).selectinload(Product.tags)"),
        (deferred_below_each, 3, "selectinload(Shelf.products).undefer(Product.text)"),
    ],
)
def test_below_a_lazy_load_the_advice_is_for_the_query_at_the_beginning(
    shape, count, option, factory
):
    """The application has written no other. The longer advice cures the upper load too."""
    with factory() as session, recorded(session) as statements:
        shape(session)
    above, below = statements.n_plus_one
    assert (above.attribute, above.count) == ("Shelf.products", 3)
    assert (below.count, below.queries, below.option) == (count, 1, option)

    with factory() as session, recorded(session, n_plus_one="raise") as cured:
        shape(session, follow(below.option))
    assert cured.n_plus_one == []


def test_a_query_that_is_repeated_is_one_finding(factory, caplog):
    """A function with N+1 that is called ten times is one line of the log, and one advice."""
    with factory() as session, recorded(session, n_plus_one="log") as statements:
        for _ in range(10):
            one_to_many(session)
            session.expunge_all()

    [found] = statements.n_plus_one
    assert (found.rows, found.option) == ("30 rows of 10 queries", "selectinload(Shelf.products)")
    [record] = caplog.records
    assert record.getMessage().startswith(
        "thread MainThread: N+1: Shelf.products was loaded for 30"
    )


def test_objects_that_were_loaded_lazily_can_be_pickled(factory):
    """They know which lazy load has loaded them, and a cache may keep them."""
    with factory() as session, recorded(session):
        [product, _] = session.get(Shelf, 1).products
    copy = pickle.loads(pickle.dumps(product))

    assert copy.name == product.name


def a_single_object(session):
    session.get(Shelf, 1).products  # noqa: B018 - as above


def two_objects_of_two_queries(session):
    for number in (1, 2):
        session.get(Shelf, number).products  # noqa: B018 - as above


def selectin(session):
    one_to_many(session, selectinload(Shelf.products))


def joined(session):
    for shelf in session.scalars(select(Shelf).options(joinedload(Shelf.products))).unique():
        shelf.products  # noqa: B018 - as above


def subquery(session):
    one_to_many(session, subqueryload(Shelf.products))


def one_parent_in_the_identity_map(session):
    shelf = session.get(Shelf, 1)
    for product in session.scalars(select(Product).where(Product.shelf_id == 1)):
        assert product.shelf is shelf


def all_with_the_same_parent(session):
    for product in session.scalars(select(Product).where(Product.shelf_id == 1)).all():
        product.shelf  # noqa: B018 - as above


def only_the_first_row(session):
    session.scalars(select(Shelf)).all()[0].products  # noqa: B018 - as above


def objects_just_made(session):
    shelves = [Shelf(name="new") for _ in range(3)]
    session.add_all(shelves)
    session.flush()
    for shelf in shelves:
        session.expire(shelf, ["products"])
        shelf.products  # noqa: B018 - as above


def one_object_again_and_again(session):
    shelf = session.scalars(select(Shelf)).all()[0]
    for _ in range(3):
        session.expire(shelf, ["products"])
        shelf.products  # noqa: B018 - as above


def expired_objects(session):
    shelves = session.scalars(select(Shelf)).all()
    session.expire_all()
    for shelf in shelves:
        shelf.name  # noqa: B018 - as above


def a_query_in_a_loop(session):
    for number in (1, 2, 3):
        session.scalars(select(Product).where(Product.shelf_id == number)).all()


def refreshed_objects(session):
    for shelf in session.scalars(select(Shelf)).all():
        session.refresh(shelf)


def a_walk_to_the_top(session):
    # Longer than what is followed of lazy loads below lazy loads.
    for number in range(4, 12):
        session.execute(insert(Shelf).values(id=number, name="high", above_id=number - 1))
    shelf = session.get(Shelf, 11)
    while shelf is not None:
        shelf = shelf.above


def one_row_of_one_row(session):
    for number in (1, 2):
        for product in session.get(Shelf, number).products[:1]:
            product.tags  # noqa: B018 - as above


def undeferred(session):
    deferred_column(session, undefer(Product.text))


INNOCENT = [
    a_single_object,
    two_objects_of_two_queries,
    selectin,
    joined,
    subquery,
    one_parent_in_the_identity_map,
    all_with_the_same_parent,
    only_the_first_row,
    objects_just_made,
    one_object_again_and_again,
    expired_objects,
    a_query_in_a_loop,
    refreshed_objects,
    a_walk_to_the_top,
    one_row_of_one_row,
    undeferred,
]


@pytest.mark.parametrize("shape", INNOCENT, ids=lambda shape: shape.__name__)
def test_what_is_innocent_is_not_found(shape, factory):
    """A single object never warns, nor do rows that no query has loaded together."""
    with factory() as session, recorded(session, n_plus_one="raise") as statements:
        shape(session)

    assert statements.n_plus_one == []
    assert statements.count


def test_across_databases_it_is_found_and_cured(tmp_path):
    """The parents are in one database, what is loaded in another."""
    from support.databases import Database

    files = [Database(f"sqlite:///{tmp_path}/{key}.sqlite") for key in bound.KEYS]
    place = bound.Place(files)
    files[0].run("INSERT INTO author (id, name) VALUES (2, 'default')")

    def load(request, *options):
        session = request.sqa_session
        for author in session.scalars(select(bound.Author).options(*options)).all():
            author.entries  # noqa: B018 - as above

    with bound.serving(place.settings) as client:
        with recorded(client.app) as statements:
            bound.do(client, load)
        [found] = statements.n_plus_one
        lazy = [each for each in statements if each.lazy_load]
        assert (found.attribute, found.count) == ("Author.entries", 2)
        assert {each.database for each in lazy} == {"audit"}
        assert {each.database for each in statements} == {"default", "audit"}
        with recorded(client.app, n_plus_one="raise") as cured:
            bound.do(client, lambda request: load(request, follow(found.option)))
        assert cured.n_plus_one == []
    place.close()


TEMPLATE = """{% for shelf in shelves %}{{ shelf.name }}
{% for product in shelf.products %}{{ product.name }}{% endfor %}
{% endfor %}"""


def serve_shop(serve, url, view, *setups, **settings):
    app = serve(url, *setups, with_view(view, renderer="json"), **settings)
    Base.metadata.create_all(get_sqa(app).engine)
    with Session(get_sqa(app).engine) as session:
        fill(session)
        session.commit()
    return TestApp(app)


def shelves_as_asked(request):
    """Return all shelves, with the option that the visitor has read in the log."""
    options = [follow(advice) for advice in request.params.getall("advice")]
    return request.sqa_session.scalars(select(Shelf).options(*options)).all()


def advice_of(record):
    return re.search(r"add \.options\((.*)\) to the query", record.getMessage())[1]


def shelves_with_products(request):
    return {
        "shelves": [
            {"name": shelf.name, "products": len(shelf.products)}
            for shelf in request.sqa_session.scalars(select(Shelf))
        ]
    }


def test_in_a_template_it_is_found_with_the_templates_line(serve, sqlite, tmp_path, caplog):
    """The line is that of the template, not of the Python that Jinja makes of it."""
    file = tmp_path / "shelves.jinja2"
    file.write_text(TEMPLATE)

    def view(request):
        return {"shelves": shelves_as_asked(request)}

    def setup(config):
        config.include("pyramid_jinja2")
        config.override_asset("support:pages/", f"{tmp_path}/")
        config.add_view(view, name="page", renderer="support:pages/shelves.jinja2")

    client = serve_shop(serve, sqlite.url, view, setup, **{"sqa.n_plus_one": "log"})
    guilty = client.get("/page").text

    [record] = caplog.records
    assert f"{file.name}:2 in template" in record.getMessage()
    assert record.getMessage().startswith("GET /page: N+1: Shelf.products was loaded for 3 rows")
    assert client.get("/page", {"advice": advice_of(record)}).text == guilty
    assert caplog.records == [record]


def test_in_a_json_renderer_it_is_found(serve, sqlite, caplog, monkeypatch):
    """The renderer reads the relationship after the view has returned."""
    client = serve_shop(serve, sqlite.url, shelves_as_asked, **{"sqa.n_plus_one": "log"})
    monkeypatch.setattr(Shelf, "__json_columns__", ("name", "size"), raising=False)
    guilty = client.get("/").json

    [record] = caplog.records
    assert "Shelf.products was loaded for 3 rows" in record.getMessage()
    assert "in size" in record.getMessage()
    assert client.get("/", {"advice": advice_of(record)}).json == guilty
    assert caplog.records == [record]


def test_the_log_has_one_warning_with_what_to_write(serve, sqlite, caplog):
    """Route, attribute, count, line and option; the answer is as it was."""
    client = serve_shop(serve, sqlite.url, shelves_with_products, **{"sqa.n_plus_one": "log"})

    assert len(client.get("/").json["shelves"]) == 3

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name.startswith(LOG)
    assert record.getMessage().startswith("GET /: N+1: Shelf.products was loaded for 3 rows of one")
    assert "test_n_plus_one.py" in record.getMessage()
    assert record.getMessage().endswith("add .options(selectinload(Shelf.products)) to the query.")


def test_with_raise_the_second_load_is_an_error(serve, sqlite):
    """Nothing of it is sent."""
    client = serve_shop(serve, sqlite.url, shelves_with_products, **{"sqa.n_plus_one": "raise"})

    with recorded(client.app) as statements, pytest.raises(NPlusOneError, match="selectinload"):
        client.get("/")
    assert statements.count == 2


def test_off_nothing_is_warned_of(serve, sqlite, caplog):
    """It is the default."""
    serve_shop(serve, sqlite.url, shelves_with_products).get("/")

    assert caplog.records == []


@pytest.mark.parametrize("setting", ["off", "log"])
def test_the_option_of_a_view_wins_over_the_setting(setting, serve, sqlite, caplog):
    """So that it can be introduced view by view, or be switched off for one."""

    def setup(config):
        for mode in ("off", "log", "raise"):
            config.add_view(shelves_with_products, name=mode, renderer="json", sqa_n_plus_one=mode)

    client = serve_shop(
        serve, sqlite.url, shelves_with_products, setup, **{"sqa.n_plus_one": setting}
    )
    client.get("/off")
    assert caplog.records == []
    client.get("/log")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["GET /log"]
    with pytest.raises(NPlusOneError):
        client.get("/raise")


def test_another_word_is_refused_at_start_up(serve, sqlite):
    """With what to write instead."""

    def setup(config):
        config.add_view(shelves_with_products, renderer="json", sqa_n_plus_one="warn")

    with pytest.raises(Exception, match="write off, log or raise") as caught:
        serve(sqlite.url, setup)
    assert isinstance(getattr(caught.value, "evalue", caught.value), SettingError)


def test_two_requests_are_two_questions(serve, sqlite, caplog):
    """One row in each of two requests is no N+1."""

    def view(request):
        shelf = request.sqa_session.scalars(select(Shelf)).first()
        return Response(str(len(shelf.products)))

    def setup(config):
        config.add_view(view, name="one")

    client = serve_shop(
        serve, sqlite.url, shelves_with_products, setup, **{"sqa.n_plus_one": "log"}
    )
    client.get("/one")
    client.get("/one")

    assert caplog.records == []


def test_a_recording_in_a_test_has_the_findings(small):
    """`assert statements.n_plus_one == []` in an application's own tests."""
    with Session(get_sqa(small).engine) as session, recorded(small) as statements:
        one_to_many(session)

    assert str(statements.n_plus_one[0]).startswith("N+1: Shelf.products was loaded for 3 rows")
    assert shop.Shelf is Shelf
