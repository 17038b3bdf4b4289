"""No statement, of any shape, is sent to the engine of another database."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, exists, func, insert, literal, select, union_all, update
from sqlalchemy.orm import aliased

from pyramid_aalam_sqa import BindError, get_sqa
from support import bound
from support.bound import KEYS, do, serving
from support.databases import Database

MODELS = {"default": bound.Author, "audit": bound.Entry, "log": bound.Line}
WORDS = {"author": "default", "entry": "audit", "line": "log"}


def subject(key, form):
    """Return the table or entity that is selected from, and its two columns."""
    model = MODELS[key]
    if form == "core":
        return model.__table__, model.__table__.c
    if form == "alias":
        part = model.__table__.alias()
        return part, part.c
    if form == "aliased":
        part = aliased(model)
        return part, part
    return model, model


subjects = st.tuples(st.sampled_from(KEYS), st.sampled_from(["core", "alias", "orm", "aliased"]))


def plain(one):
    source, columns = subject(*one)
    return select(columns.name).select_from(source)


def one_column(statement):
    return select(literal("x")).select_from(statement.subquery())


def with_another(statement, form, other):
    """Return *statement* with *other*, a statement of one column, as a part of it."""
    if form == "exists":
        return statement.where(exists(other))
    if form == "in":
        return statement.where(func.coalesce(literal("x"), "").in_(other))
    if form == "scalar":
        return statement.add_columns(other.limit(1).scalar_subquery())
    if form == "cte":
        part = other.cte()
        return statement.add_columns(part.c[0])
    if form == "subquery":
        part = other.subquery()
        return statement.join(part, literal(1) == 1)
    return select(union_all(one_column(statement), other).subquery())


def change(one, form, other):
    table = MODELS[one[0]].__table__
    where = func.coalesce(literal("x"), "").in_(other)
    if form == "insert":
        return insert(table).from_select(["name"], other)
    if form == "delete":
        return delete(table if one[1] == "core" else MODELS[one[0]]).where(where)
    return update(table if one[1] == "core" else MODELS[one[0]]).where(where).values(name="x")


parts = st.recursive(
    subjects.map(lambda one: (plain(one), {one[0]})),
    lambda inner: st.tuples(
        inner, st.sampled_from(["exists", "in", "scalar", "cte", "subquery", "union"]), inner
    ).map(
        lambda them: (
            with_another(them[0][0], them[1], one_column(them[2][0])),
            them[0][1] | them[2][1],
        )
    ),
    max_leaves=4,
)
changes = st.tuples(subjects, st.sampled_from(["insert", "update", "delete"]), subjects).map(
    lambda them: (change(them[0], them[1], plain(them[2])), {them[0][0], them[2][0]})
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("property")
    place = bound.Place([Database(f"sqlite:///{folder}/{key}.sqlite") for key in KEYS])
    # Cartesian products are meant here.
    with serving(place.settings | {"sqlalchemy.enable_from_linting": "false"}) as client:
        yield client
    place.close()


@pytest.fixture(scope="module")
def sent(client):
    """Return the databases to which each word that names a table was sent."""
    found = []

    def listen(key):
        def note(connection, cursor, statement, *_):
            found.extend((key, WORDS[word]) for word in WORDS if word in statement)

        return note

    for key, engine in get_sqa(client.app).engines.items():
        event.listen(engine, "before_cursor_execute", listen(key))
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=st.one_of(parts, changes))
@pytest.mark.deep
def test_no_statement_reaches_the_wrong_database(client, sent, asked):
    """It is sent where all its tables are. With tables of two databases it is not sent."""
    statement, keys = asked
    sent.clear()

    def ask(request):
        try:
            request.sqa_session.execute(statement)
        except BindError:
            return "refused"

    told = do(client, ask, status=400, expect_errors=True).text

    assert (told == "refused") == (len(keys) > 1)
    assert all(here == of_table for here, of_table in sent)
    assert bool(sent) == (len(keys) == 1)
