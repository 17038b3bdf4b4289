"""Several databases in one application: each statement is sent to its tables' database."""

import itertools
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
from sqlalchemy import (
    bindparam,
    column,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    table,
    text,
    union,
    union_all,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.orm import (
    Bundle,
    aliased,
    contains_eager,
    joinedload,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    with_polymorphic,
)

from pyramid_aalam_sqa import BindError, get_sqa
from support import bound
from support.bound import (
    KEYS,
    Author,
    Book,
    Detail,
    Entry,
    Line,
    Tag,
    author,
    do,
    entry,
    entry_tag,
    line,
    mark,
    serving,
    stamp,
    tag,
)
from support.databases import Database, own_database
from support.processes import PATHS

_numbers = itertools.count(1)
PLACES = ["sqlite", "mariadb+mariadb", "mariadb+postgresql"]


@pytest.fixture(scope="module", params=PLACES)
def place(request, tmp_path_factory):
    """Three databases. The databases of the binds are on another server."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            folder = tmp_path_factory.mktemp("binds")
            databases = [Database(f"sqlite:///{folder}/{key}.sqlite") for key in KEYS]
        else:
            other = {
                "mariadb+mariadb": "second_mariadb_server",
                "mariadb+postgresql": "postgresql_server",
            }[request.param]
            urls = [request.getfixturevalue("mariadb_url")]
            urls += [request.getfixturevalue(other).url()] * 2
            databases = [stack.enter_context(own_database(url)) for url in urls]
        place = bound.Place(databases)
        stack.callback(place.close)
        yield place


@pytest.fixture(scope="module")
def client(place):
    with serving(place.settings) as client:
        yield client


# Reading. -------------------------------------------------------------------------------------

names = select(entry.c.name)
tree = names.add_columns(literal(1).label("n")).cte("tree", recursive=True)
tree = tree.union_all(
    select(entry.c.name, tree.c.n + 1).join(tree, literal(1) == 1).where(tree.c.n < 2)
)
Other = aliased(Entry)
Poly = with_polymorphic(Entry, [Detail])

STATEMENTS = {
    "orm": (select(Entry.name), "audit"),
    "orm entity": (select(Entry), "audit"),
    "core": (names, "audit"),
    "core of a MetaData": (select(stamp.c.name), "audit"),
    "core of a Table": (select(mark.c.name), "log"),
    "core of an abstract base": (select(line.c.name), "log"),
    "orm of an abstract base": (select(Line.name), "log"),
    "orm of the default": (select(Author.name), "default"),
    "core of the default": (select(author.c.name), "default"),
    "core join": (select(tag.c.name).join(entry_tag).join(entry), "audit"),
    "orm join": (select(Tag.name).join(Entry.tags.of_type(Tag)), "audit"),
    "orm outer join": (select(Author.name).outerjoin(Author.books), "default"),
    "implicit join": (select(entry.c.name).where(entry.c.id == stamp.c.id), "audit"),
    "select_from": (select(func.max(column("name"))).select_from(entry), "audit"),
    "orm select_from": (select(func.max(column("name"))).select_from(Entry), "audit"),
    "subquery": (select(names.subquery().c.name), "audit"),
    "orm subquery": (select(aliased(Entry, select(Entry).subquery())), "audit"),
    "scalar subquery": (select(names.limit(1).scalar_subquery()), "audit"),
    "subquery in where": (select(stamp.c.name).where(stamp.c.id.in_(select(entry.c.id))), "audit"),
    "exists": (
        select(literal("audit")).where(exists(select(entry.c.id).where(entry.c.name == "audit"))),
        "audit",
    ),
    "any": (select(Entry.name).where(Entry.tags.any(Tag.name == "audit")), "audit"),
    "cte": (select(names.cte().c.name), "audit"),
    "recursive cte": (select(tree.c.name).distinct(), "audit"),
    "added cte": (select(text("n.name")).select_from(text("n")).add_cte(names.cte("n")), "audit"),
    "alias": (select(entry.alias().c.name), "audit"),
    "aliased": (select(Other.name), "audit"),
    "union": (union(names, select(stamp.c.name)), "audit"),
    "union of orm columns": (union_all(select(Entry.name), select(Entry.name)), "audit"),
    "union in from": (select(union(select(Entry.name), names).subquery().c.name), "audit"),
    "orm from union": (select(Entry).from_statement(union(select(Entry), select(Entry))), "audit"),
    "function": (func.max(entry.c.name), "audit"),
    "bundle": (select(Bundle("b", Entry.name)), "audit"),
    "window": (select(Entry.name, func.row_number().over(order_by=Entry.id)), "audit"),
    "order by a subquery": (
        select(stamp.c.name).order_by(select(entry.c.id).limit(1).scalar_subquery()),
        "audit",
    ),
    "group by": (select(Entry.name, func.count()).group_by(Entry.name), "audit"),
    "joined inheritance": (select(Detail), "audit"),
    "column of the parent": (select(Detail.name), "audit"),
    "with_polymorphic": (select(Poly), "audit"),
    "selectin_polymorphic": (select(Entry).options(selectin_polymorphic(Entry, [Detail])), "audit"),
    "joinedload": (select(Entry).options(joinedload(Entry.tags)), "audit"),
    "contains_eager": (select(Entry).join(Entry.tags).options(contains_eager(Entry.tags)), "audit"),
    "from_statement": (select(Entry).from_statement(text("SELECT * FROM entry")), "audit"),
    "text with columns": (text("SELECT name FROM entry").columns(entry.c.name), "audit"),
    "text": (text("SELECT name FROM entry"), "default"),
    "a table without MetaData": (select(table("entry", column("name")).c.name), "default"),
    "for update": (select(Entry.name).with_for_update(), "audit"),
}


def first(row):
    found = row[0]
    return getattr(found, "name", found[0] if isinstance(found, tuple) else found)


def name_of(value):
    return value if isinstance(value, str) else first((value,))


READS = {
    "get": (lambda session: session.get(Entry, 1).name, "audit"),
    "get of a subclass": (lambda session: session.get(Detail, 1).more, "audit"),
    "query": (lambda session: session.query(Entry).one().name, "audit"),
    "query of a column": (lambda session: session.query(Entry.name).scalar(), "audit"),
    "count": (
        lambda session: "audit" * session.query(Entry).filter_by(name="audit").count(),
        "audit",
    ),
    "text": (
        lambda session: session.scalar(
            text("SELECT name FROM entry"), bind_arguments={"bind_key": "log"}
        ),
        "log",
    ),
    "bind_key for the default": (
        lambda session: session.scalar(names, bind_arguments={"bind_key": "default"}),
        "default",
    ),
    "mapper of text": (
        lambda session: session.scalar(
            text("SELECT name FROM entry"), bind_arguments={"mapper": Entry}
        ),
        "audit",
    ),
    "bind": (
        lambda session: session.scalar(
            names, bind_arguments={"bind": session.get_bind(bind_key="log")}
        ),
        "log",
    ),
    "connection": (
        lambda session: session.connection(bind_arguments={"bind_key": "log"}).scalar(names),
        "log",
    ),
    "connection of a mapper": (
        lambda session: session.connection(bind_arguments={"mapper": Entry}).scalar(
            select(author.c.name)
        ),
        "audit",
    ),
    "connection of the default": (lambda session: session.connection().scalar(names), "default"),
    "lazy load across": (lambda session: session.get(Author, 1).entries[0].name, "audit"),
    "lazy load": (lambda session: session.get(Entry, 1).tags[0].name, "audit"),
    "selectinload across": (
        lambda session: (
            session.scalar(select(Author).options(selectinload(Author.entries))).entries[0].name
        ),
        "audit",
    ),
    "refresh": (
        lambda session: (one := session.get(Entry, 1), session.refresh(one))[0].name,
        "audit",
    ),
    "expired": (
        lambda session: (session.get(Entry, 1), session.expire_all())[0].name,
        "audit",
    ),
    "in parts": (
        lambda session: (
            next(
                session.execute(select(Entry), execution_options={"yield_per": 2})
                .scalars()
                .partitions()
            )[0].name
        ),
        "audit",
    ),
    "merge": (lambda session: session.merge(Line(id=1)).name, "log"),
}


@pytest.mark.sweep(2)
def test_every_way_of_reading_asks_the_database_of_the_tables(place, client):
    """Each database has another row in the same table, so the answer shows which one was asked."""
    wanted = {name: expected for name, (_, expected) in [*STATEMENTS.items(), *READS.items()]}

    def read_all(request, found={}):  # noqa: B006 - filled on purpose
        session = request.sqa_session
        for name, (statement, _) in STATEMENTS.items():
            session.expunge_all()
            found[name] = {
                name_of(session.scalar(statement)),
                name_of(session.scalars(statement).first()),
                first(session.execute(statement).first()),
            }
        for name, (read, _) in READS.items():
            session.expunge_all()
            found[name] = {read(session)}
        request.environ["found"].update(found)

    found = {}
    client.get("/", extra_environ={"sqa.act": read_all, "found": found})

    assert found == {name: {key} for name, key in wanted.items()}


# Writing. -------------------------------------------------------------------------------------


def add(session, name):
    session.add(Entry(name=name))


def add_of_a_subclass(session, name):
    session.add(Detail(name=name, more=name))


def add_of_an_abstract_base(session, name):
    session.add(Line(name=name))


def add_to_the_default(session, name):
    session.add(Author(name=name))


def add_by_cascade(session, name):
    one = session.get(Entry, 1)
    one.tags.append(Tag(name=name))


def add_all_at_once(session, name):
    session.add_all([Entry(name=name), Line(name=name), Book(name=name)])


def add_across(session, name):
    parent = Author(name=name, entries=[Entry(name=name)])
    session.add(parent)


def core_insert(session, name):
    session.execute(insert(entry).values(name=name, kind="entry"))


def core_insert_of_a_metadata(session, name):
    session.execute(stamp.insert(), {"name": name})


def core_insert_of_a_table(session, name):
    session.execute(mark.insert(), [{"name": name}])


def insert_rows(session, name):
    session.execute(stamp.insert().values([{"name": name}]))


def insert_from_select(session, name):
    session.execute(
        insert(stamp).from_select(["name"], select(literal(name)).where(entry.c.id == 1))
    )


def insert_a_subquery(session, name):
    part = select(literal(name)).where(entry.c.id == 1).scalar_subquery()
    session.execute(insert(stamp).values(name=part))


def insert_rows_of_subqueries(session, name):
    part = select(literal(name)).where(entry.c.id == 1).scalar_subquery()
    session.execute(insert(stamp).values([{"name": part}]))


def orm_insert(session, name):
    session.execute(insert(Line).values(name=name))


def orm_insert_of_many(session, name):
    session.execute(insert(Entry), [{"name": name, "kind": "entry"}])


def orm_insert_of_many_elsewhere(session, name):
    session.execute(insert(Entry.__table__), [{"name": name}], bind_arguments={"bind_key": "log"})


def bulk_insert(session, name):
    session.bulk_insert_mappings(Entry, [{"name": name, "kind": "entry"}])


def bulk_save(session, name):
    session.bulk_save_objects([Line(name=name)])


def bulk_update(session, name):
    one = Line(name="before")
    session.add(one)
    session.flush()
    session.bulk_update_mappings(Line, [{"id": one.id, "name": name}])


def change(session, name):
    one = Line(name="before")
    session.add(one)
    session.flush()
    one.name = name


def merge(session, name):
    session.merge(Line(name=name))


def orm_update(session, name):
    session.add(Line(name="b" + name))
    session.execute(update(Line).where(Line.name == "b" + name).values(name=name))


def orm_update_fetching(session, name):
    session.add(Line(name="b" + name))
    statement = update(Line).where(Line.name == "b" + name).values(name=name)
    session.execute(statement, execution_options={"synchronize_session": "fetch"})


def orm_update_by_primary_key(session, name):
    one = Line(name="before")
    session.add(one)
    session.flush()
    session.execute(update(Line), [{"id": one.id, "name": name}])


def core_update(session, name):
    session.execute(stamp.insert(), {"name": "b" + name})
    session.execute(
        update(stamp).where(stamp.c.name == bindparam("old")).values(name=name), {"old": "b" + name}
    )


def core_update_with_a_subquery(session, name):
    session.execute(stamp.insert(), {"name": "b" + name})
    known = select(entry.c.id).where(entry.c.id == 1)
    session.execute(
        update(stamp).where(stamp.c.name == "b" + name, exists(known)).values(name=name)
    )


def query_update(session, name):
    session.add(Line(name="b" + name))
    session.flush()
    session.query(Line).filter_by(name="b" + name).update({"name": name})


def deletes(session, name):
    session.add_all(
        [Line(name=name), Line(name=name + "1"), Line(name=name + "2"), Line(name=name + "3")]
    )
    session.flush()
    session.execute(delete(Line).where(Line.name == name + "1"))
    session.execute(delete(line).where(line.c.name == name + "2"))
    session.delete(session.scalar(select(Line).where(Line.name == name + "3")))


def text_insert(session, name):
    session.execute(
        text("INSERT INTO stamp (name) VALUES (:name)"),
        {"name": name},
        bind_arguments={"bind_key": "log"},
    )


def on_the_connection(session, name):
    connection = session.connection(bind_arguments={"bind_key": "audit"})
    connection.exec_driver_sql(f"INSERT INTO line (name) VALUES ('{name}')")


def in_a_savepoint(session, name):
    with session.begin_nested():
        session.add_all([Entry(name=name), Line(name=name)])
    session.flush()
    nested = session.begin_nested()
    session.add_all([Entry(name="b" + name), Line(name="b" + name)])
    session.flush()
    nested.rollback()


WRITES = {
    add: {"audit"},
    add_of_a_subclass: {"audit"},
    add_of_an_abstract_base: {"log"},
    add_to_the_default: {"default"},
    add_by_cascade: {"audit"},
    add_all_at_once: {"audit", "log", "default"},
    add_across: {"default", "audit"},
    core_insert: {"audit"},
    core_insert_of_a_metadata: {"audit"},
    core_insert_of_a_table: {"log"},
    insert_rows: {"audit"},
    insert_from_select: {"audit"},
    insert_a_subquery: {"audit"},
    insert_rows_of_subqueries: {"audit"},
    orm_insert: {"log"},
    orm_insert_of_many: {"audit"},
    orm_insert_of_many_elsewhere: {"log"},
    bulk_insert: {"audit"},
    bulk_save: {"log"},
    bulk_update: {"log"},
    change: {"log"},
    merge: {"log"},
    orm_update: {"log"},
    orm_update_fetching: {"log"},
    orm_update_by_primary_key: {"log"},
    core_update: {"audit"},
    core_update_with_a_subquery: {"audit"},
    query_update: {"log"},
    deletes: {"log"},
    text_insert: {"log"},
    on_the_connection: {"audit"},
    in_a_savepoint: {"audit", "log"},
}


@pytest.mark.sweep(2)
def test_every_way_of_writing_goes_to_the_database_of_the_tables(place, client):
    """An independent connection finds the row there, and in no other database."""
    found = {}
    for write in WRITES:
        name = f"row-{next(_numbers)}"
        do(client, lambda request, write=write, name=name: write(request.sqa_session, name))
        found[write.__name__] = place.names().get(name)

    assert found == {write.__name__: keys for write, keys in WRITES.items()}


def test_a_link_between_two_objects_is_in_their_database(place, client):
    """The row of a many-to-many relationship does not belong to an object."""
    name = f"row-{next(_numbers)}"

    def link(request):
        one = Entry(name=name, tags=[Tag(name=name)])
        request.sqa_session.add(one)
        request.sqa_session.flush()
        return f"{one.id} {one.tags[0].id}"

    link_ids = tuple(map(int, do(client, link).text.split()))

    assert [link_ids in place.rows(entry_tag, key) for key in KEYS] == [False, True, False]


def test_what_fails_is_in_no_database(place, client):
    """Each error status undoes all that was written, in all databases."""
    before = place.everything()

    def write(request):
        add_all_at_once(request.sqa_session, "failed")
        for key in KEYS:
            request.sqa_sessions[key].add(Line(name="failed"))

    def fail(request):
        write(request)
        request.sqa_session.flush()
        raise ZeroDivisionError

    for status in (400, 404, 500, 503):
        do(client, write, status=status, expect_errors=True)
    with pytest.raises(ZeroDivisionError):
        do(client, fail)

    assert place.everything() == before
    assert checked_out(client) == 0


# Two databases in one statement. --------------------------------------------------------------

TWO = {
    "join": select(Author).join(Entry, Author.id == Entry.author_id),
    "core join": select(author).join(entry, author.c.id == entry.c.author_id),
    "relationship": select(Author).join(Author.entries),
    "joinedload": select(Author).options(joinedload(Author.entries)),
    "subqueryload": select(Author).options(subqueryload(Author.entries)),
    "columns": select(Author.name, Entry.name),
    "subquery": select(Author).where(Author.id.in_(select(Entry.author_id))),
    "exists": select(Author).where(Author.entries.any()),
    "union": union(select(Author.name), select(Entry.name)),
    "cte": select(author.c.name).add_cte(select(entry.c.id).cte("c")),
    "recursive": select(tree.c.name).join(author, literal(1) == 1),
    "scalar": select(Author.name, select(Entry.name).limit(1).scalar_subquery()),
    "insert from select": insert(author).from_select(["name"], select(entry.c.name)),
    "update": update(author).values(name=select(entry.c.name).limit(1).scalar_subquery()),
    "update from": update(Author).where(Author.id == Entry.author_id).values(name="x"),
    "delete using": delete(author).where(author.c.id == entry.c.author_id),
    "rows": insert(author).values([{"name": select(entry.c.name).limit(1).scalar_subquery()}]),
}


def test_a_statement_over_two_databases_names_both(place, client):
    """The statement is not sent to any database. The error names both."""
    before = place.everything()
    said = {}

    def ask(request):
        for name, statement in TWO.items():
            with pytest.raises(BindError) as caught:
                request.sqa_session.execute(statement).all()
            said[name] = [
                str(caught.value).count(part) > 0
                for part in ("author", "default", "entry", "audit")
            ]
        # Nothing is broken by it.
        request.sqa_session.add(Line(name="after"))

    do(client, ask)

    assert said == {name: [True] * 4 for name in TWO}
    after = place.everything()
    assert {row[1][1] for row in after["log"] - before["log"]} == {"after"}
    assert (after["default"], after["audit"]) == (before["default"], before["audit"])


def checked_out(client):
    return sum(engine.pool.checkedout() for engine in get_sqa(client.app).engines.values())


# Two databases of one server. -----------------------------------------------------------------


@pytest.mark.deep
def test_what_is_killed_between_two_schemas_of_one_bind_is_in_neither(mariadb_url):
    """There is one connection and one COMMIT.

    If the process is killed, both rows are stored or none.
    """
    from support import schemas_app

    with own_database(mariadb_url) as one, own_database(mariadb_url) as two:
        for database in (one, two):
            database.run("CREATE TABLE note (id INTEGER PRIMARY KEY)")
        names = [make_url(database.url).database for database in (one, two)]
        command = [sys.executable, schemas_app.__file__, mariadb_url, *names]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)

        assert done.stdout.splitlines() == [f"{point} 9" for point in schemas_app.POINTS]
        for database in (one, two):
            assert database.rows("SELECT id FROM note") == [(len(schemas_app.POINTS) - 1,)]
