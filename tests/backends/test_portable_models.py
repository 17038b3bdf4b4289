"""The same models work on each database, with and without their application's schema."""

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import (
    delete,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from support.places import PLACES, places
from support.portable_app import TABLES, models


def test_objects_and_their_relationships_are_stored(made, place):
    """This includes objects of a subclass with its own table."""
    with Session(made.engine) as session:
        session.add(made.User(name="ann", posts=[made.Post(title="a"), made.Post(title="b")]))
        session.add(made.Admin(name="bob", level=7))
        session.commit()
        [ann, bob] = session.scalars(select(made.User).order_by(made.User.name))
        titles = session.scalars(select(made.Post.title).join(made.User).order_by(made.Post.title))

        assert [post.title for post in ann.posts] == list(titles) == ["a", "b"]
        assert (type(bob), bob.level) == (made.Admin, 7)
    assert place.rows("users", "name, kind") == [("ann", "user"), ("bob", "admin")]
    assert place.rows("admins", "level") == [(7,)]
    assert place.rows("posts", "title") == [("a",), ("b",)]


def test_objects_are_changed_and_deleted(made, place):
    """UPDATE and DELETE by the ORM and by Core find the tables too."""
    with Session(made.engine) as session:
        ann, bob = made.User(name="ann"), made.User(name="bob")
        session.add_all([ann, bob, made.User(name="cid"), made.User(name="dan")])
        session.commit()
        ann.name = "eve"
        session.delete(bob)
        session.execute(update(made.User).where(made.User.name == "cid").values(name="fay"))
        session.execute(delete(made.User.__table__).where(made.User.name == "dan"))
        session.commit()

    assert place.rows("users", "name") == [("eve",), ("fay",)]


def test_a_foreign_key_is_enforced(made, place):
    """The foreign key refers to a table in the same schema."""
    with Session(made.engine) as session:
        session.add(made.Post(title="orphan", user_id=77))
        with pytest.raises(IntegrityError):
            session.flush()

    assert place.rows("posts") == []


def test_a_name_that_has_to_be_quoted_works(named, place):
    """A table with a hyphen, a column named like a keyword, a value with a percent sign."""
    with named.engine.begin() as connection:
        connection.execute(insert(named.odd), [{"order": "50 %"}, {"order": "first"}])
        found = connection.scalars(select(named.odd.c.order).order_by(named.odd.c.order)).all()

    assert found == ["50 %", "first"]


def test_raw_sql_finds_the_tables_with_the_schema_and_without(made, place):
    """Raw SQL reads and writes with the schema's name and without it."""
    with made.engine.begin() as connection:
        connection.execute(text("INSERT INTO users (id, name, kind) VALUES (1, 'ann', 'user')"))
        connection.execute(
            text(f"INSERT INTO {place.name}.users (id, name, kind) VALUES (2, 'bob', 'user')")
        )
        bare = connection.execute(text("SELECT name FROM users ORDER BY id")).scalars().all()
        qualified = connection.scalar(text(f"SELECT count(*) FROM {place.name}.users"))

    assert (bare, qualified) == (["ann", "bob"], 2)
    assert place.rows("users", "name") == [("ann",), ("bob",)]


def test_a_rollback_undoes_everything(named, place):
    """Rows that the ORM and raw SQL have written are gone."""
    with Session(named.engine) as session:
        session.add(named.User(name="ann"))
        session.flush()
        session.execute(text("UPDATE users SET name = 'eve'"))
        session.rollback()

    assert place.rows("users") == []


def test_a_savepoint_undoes_its_own_part(named, place):
    """The work before and after the savepoint is stored."""
    with Session(named.engine) as session:
        session.add(named.User(name="before"))
        session.flush()
        savepoint = session.begin_nested()
        session.add(named.User(name="inside"))
        session.flush()
        session.add(named.User(name="before"))
        with pytest.raises(IntegrityError):
            session.flush()
        savepoint.rollback()
        session.add(named.User(name="after"))
        session.commit()

    assert place.rows("users", "name") == [("after",), ("before",)]


def test_tables_are_dropped_from_where_they_are(made, place):
    """drop_all() finds every table and leaves none."""
    made.Base.metadata.drop_all(made.engine)

    assert inspect(made.engine).get_table_names(schema=place.name) == []


def test_a_temporary_table_belongs_to_its_connection(named, place):
    """It needs no schema, and other connections do not see it."""
    with named.engine.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE scratch (id INTEGER)"))
        connection.execute(text("INSERT INTO scratch VALUES (1)"))
        assert connection.scalar(text("SELECT count(*) FROM scratch")) == 1
        connection.execute(text("DROP TABLE scratch"))
        connection.commit()

    assert sorted(inspect(named.engine).get_table_names(schema=place.name)) == TABLES


def application(place, schema):
    """An application that adds a user, lists users, and uses the session too late."""
    model = models(schema)

    def add(request):
        request.sqa_session.add(model.User(name=request.params["name"]))
        return Response(status=int(request.params.get("status", 200)))

    def names(request):
        return Response(",".join(request.sqa_session.scalars(select(model.User.name))))

    def late(request):
        request.add_finished_callback(
            lambda request: request.sqa_session.execute(text("UPDATE users SET name = 'late'"))
        )
        return Response()

    with Configurator(settings=dict(place.settings)) as config:
        config.include("pyramid_aalam_sqa")
        for view in (add, names, late):
            config.add_view(view, name=view.__name__)
    app = config.make_wsgi_app()
    place.engines.append(get_sqa(app).engine)
    model.Base.metadata.create_all(get_sqa(app).engine)
    return TestApp(app)


@pytest.fixture(params=PLACES)
def two_places(request, tmp_path):
    """Databases of two applications, on the same kind of server."""
    first, second = places(request.param, request), places(request.param, request)
    both = [next(first), next(second)]
    yield both
    for place, rest in zip(both, (first, second), strict=True):
        place.dispose()
        assert list(rest) == []


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.sweep(4)
def test_two_applications_live_side_by_side_in_one_process(two_places, bare):
    """Both have tables of the same names, and each sees only its own rows."""
    apps = [application(place, None if bare else place.name) for place in two_places]
    for index, app in enumerate(apps):
        app.get(f"/add?name=stored{index}")
        app.get(f"/add?name=refused{index}&status=409", status=409)

    for index, (app, place) in enumerate(zip(apps, two_places, strict=True)):
        assert app.get("/names").text == f"stored{index}"
        assert place.rows("users", "name") == [(f"stored{index}",)]


def test_a_write_after_the_transaction_is_refused(place):
    """The late write is not stored, and the next request can write."""
    app = application(place, place.name)
    app.get("/add?name=ann")
    with pytest.raises(Exception, match="can only read here"):
        app.get("/late")
    app.get("/add?name=bob")

    assert place.rows("users", "name") == [("ann",), ("bob",)]
