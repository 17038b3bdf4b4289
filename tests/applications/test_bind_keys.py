"""Which database a model, a table or a statement belongs to."""

import os
import subprocess
import sys

import pytest
from pyramid.response import Response
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    joinedload,
    mapped_column,
    registry,
    relationship,
)
from sqlalchemy.schema import CreateTable
from webtest import TestApp

from pyramid_aalam_sqa import (
    BindError,
    Session,
    create_all,
    get_sqa,
    reflect,
    session_scope,
)
from support.apps import with_view
from support.bind_files import BIND, files
from support.bound import AuditBase, Entry, do, serving
from support.databases import Database, plain_engine
from support.processes import QUIET, TRACED


def test_an_unknown_key_of_a_model_names_the_known_ones(tmp_path):
    """The error is raised when the model is used, in each way to use it."""

    class Odd(DeclarativeBase):
        __bind_key__ = "odd"

    class Thing(Odd):
        __tablename__ = "thing"
        id: Mapped[int] = mapped_column(primary_key=True)

    with serving(files(tmp_path)) as client:

        def use(request):
            for act in (
                lambda: request.sqa_session.execute(select(Thing.__table__)),
                lambda: request.sqa_session.get(Thing, 1),
                lambda: create_all(request, Odd),
                lambda: [request.sqa_session.add(Thing()), request.sqa_session.flush()],
            ):
                with pytest.raises(BindError, match="no bind 'odd', only: audit, default, log"):
                    act()
            request.sqa_session.rollback()

        do(client, use)


def test_a_class_that_is_mapped_later_gives_its_key_to_a_table_that_was_used(tmp_path):
    """The key that was found before is looked up again."""
    table = Table("late", MetaData(), Column("id", Integer, primary_key=True))
    mapping = registry()

    class Late:
        __bind_key__ = "audit"

    with serving(files(tmp_path)) as client:
        statement = select(table)

        def where(request):
            return request.sqa_session.get_bind(clause=statement).url.database

        assert do(client, where).text.endswith("default.sqlite")
        mapping.map_imperatively(Late, table)
        assert do(client, where).text.endswith("audit.sqlite")
        assert do(client, lambda request: request.sqa_session.get_bind(Late)).text.count("audit")


def test_a_family_of_classes_in_two_databases_is_refused(tmp_path):
    """A class and its subclasses must be in one database: a flush uses one connection."""

    class Family(DeclarativeBase):
        pass

    class Parent(Family):
        __tablename__ = "parent"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "parent"}  # noqa: RUF012
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]

    class Child(Parent):
        __tablename__ = "child"
        __bind_key__ = "audit"
        __mapper_args__ = {"concrete": True, "polymorphic_identity": "child"}  # noqa: RUF012
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]

    with serving(files(tmp_path)) as client:

        def use(request):
            session = request.sqa_session
            session.add(Child(kind="child"))
            for write in (
                session.flush,
                lambda: session.bulk_insert_mappings(Child, [{"kind": "child"}]),
                lambda: session.connection(bind_arguments={"mapper": Child}),
            ):
                with pytest.raises(BindError, match=r"child \(audit\) and parent \(default\)"):
                    write()
                session.rollback()

        do(client, use)


def test_a_table_of_two_classes_with_two_keys_is_refused(tmp_path):
    """The package cannot know which of the two keys is meant."""

    class Twins(DeclarativeBase):
        pass

    table = Table("twin", Twins.metadata, Column("id", Integer, primary_key=True))

    class One(Twins):
        __table__ = table
        __bind_key__ = "log"

    class Other(Twins):
        __table__ = table
        __bind_key__ = "audit"

    with serving(files(tmp_path)) as client:

        def use(request):
            for statement in (select(One), select(Other), select(table)):
                with pytest.raises(BindError, match=r"'twin' has classes .* audit and log: write"):
                    request.sqa_session.execute(statement)

        do(client, use)


def test_links_without_the_key_are_not_written_to_the_wrong_database(tmp_path):
    """The table of a many-to-many relationship needs a key too. The error says so."""

    class Linked(DeclarativeBase):
        __bind_key__ = "audit"

    links = Table("links", Linked.metadata, Column("a", Integer), Column("b", Integer))

    class Node(Linked):
        __tablename__ = "node"
        id: Mapped[int] = mapped_column(primary_key=True)
        others: Mapped[list["Node"]] = relationship(
            secondary=links,
            primaryjoin=lambda: Node.id == links.c.a,
            secondaryjoin=lambda: Node.id == links.c.b,
            foreign_keys=lambda: [links.c.a, links.c.b],
        )

    with serving(files(tmp_path)) as client:
        create_all(client.app, Linked)

        def link(request):
            request.sqa_session.add(Node(id=1, others=[Node(id=2)]))
            with pytest.raises(
                BindError, match=r"links is of the bind default, .* audit"
            ) as caught:
                request.sqa_session.flush()
            assert "info=" in str(caught.value)
            request.sqa_session.rollback()
            request.sqa_session.add(Node(id=3))
            with pytest.raises(BindError, match=r"links \(default\)"):
                request.sqa_session.get(Node, 3).others  # noqa: B018 - it is loaded

        do(client, link)
    assert Database(f"sqlite:///{tmp_path}/audit.sqlite").rows("SELECT id FROM node") == [(3,)]


def test_an_insert_of_many_cannot_be_sent_where_it_would_not_go(tmp_path):
    """SQLAlchemy turns insert(Model) with many rows into a flush, which ignores bind_arguments."""
    from sqlalchemy import insert

    with serving(files(tmp_path)) as client:
        create_all(client.app, AuditBase)

        def use(request):
            session = request.sqa_session
            with pytest.raises(BindError, match=r"to audit: write insert\(Entry.__table__\)"):
                session.execute(insert(Entry), [{"name": "x"}], bind_arguments={"bind_key": "log"})
            session.execute(
                insert(Entry),
                [{"name": "y", "kind": "entry"}],
                bind_arguments={"bind_key": "audit"},
            )

        do(client, use)
    assert Database(f"sqlite:///{tmp_path}/audit.sqlite").rows("SELECT name FROM entry") == [("y",)]


def test_ddl_finds_its_way_and_other_objects_are_refused(tmp_path):
    """CREATE TABLE goes to the table's database. SQLAlchemy refuses what it cannot execute."""
    from sqlalchemy import DDL
    from sqlalchemy.exc import ArgumentError, SADeprecationWarning
    from sqlalchemy.schema import CreateIndex, Index

    table = Table("made", MetaData(info={"bind_key": "log"}), Column("n", Integer))
    index = Index("made_n", table.c.n)
    with serving(files(tmp_path)) as client:

        def make(request):
            session = request.sqa_session
            session.execute(CreateTable(table))
            session.execute(CreateIndex(index))
            session.execute(DDL("CREATE TABLE of_the_default (n INTEGER)"))
            with pytest.raises(ArgumentError):
                session.execute("SELECT 1")
            # SQLAlchemy 2.0 only warns of it.
            with pytest.raises((ArgumentError, SADeprecationWarning)):
                session.scalars(session.query(Entry.id))

        create_all(client.app, AuditBase)
        do(client, make)
        engines = get_sqa(client.app).engines
        assert "made" in inspect(engines["log"]).get_table_names()
        assert inspect(engines["default"]).get_table_names() == ["of_the_default"]


def test_a_sequence_is_in_the_database_of_its_metadata(postgresql, tmp_path):
    """This is true for a sequence alone, and for one that is a column's default."""
    from sqlalchemy import Sequence

    numbers = Sequence("numbers", metadata=MetaData(info={"bind_key": "audit"}), start=7)
    settings = {"sqlalchemy.url": f"sqlite:///{tmp_path}/x.sqlite", f"{BIND}url": postgresql.url}
    postgresql.run("CREATE SEQUENCE numbers START 7")
    with serving(settings) as client:
        asked = do(
            client,
            lambda request: (
                request.sqa_session.scalar(select(numbers.next_value())),
                request.sqa_session.scalar(numbers.next_value()),
                request.sqa_session.scalar(numbers),
            ),
        )
    assert asked.text == "(7, 8, 9)"


# An application without binds.


class Unbound(DeclarativeBase):
    """Models with a key that no application of these tests declares, and one without a key."""


class Plain(Unbound):
    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)
    stray: Mapped[list["Stray"]] = relationship(
        lambda: Stray,
        primaryjoin=lambda: Plain.id == Stray.plain_id,
        foreign_keys=lambda: Stray.plain_id,
        viewonly=True,
    )


class Stray(Unbound):
    __tablename__ = "stray"
    __bind_key__ = "nowhere"
    id: Mapped[int] = mapped_column(primary_key=True)
    plain_id: Mapped[int | None]


stray_table = Table(
    "stray_table", MetaData(info={"bind_key": "nowhere"}), Column("id", Integer, primary_key=True)
)


def everything_in(url):
    """Make all tables in the default database, so that a misdirected statement succeeds there."""
    engine = plain_engine(url)
    Unbound.metadata.create_all(engine)
    stray_table.create(engine)


WAYS = {
    "an object": lambda session: [session.add(Stray(id=1)), session.flush()],
    "an insert of the class": lambda session: session.execute(insert(Stray).values(id=1)),
    "an insert of a table": lambda session: session.execute(insert(stray_table).values(id=1)),
    "an update": lambda session: session.execute(update(Stray).values(plain_id=2)),
    "a bulk insert": lambda session: session.bulk_insert_mappings(Stray, [{"id": 1}]),
    "the connection": lambda session: session.connection().execute(
        insert(stray_table).values(id=1)
    ),
    "a read": lambda session: session.scalars(select(Stray)).all(),
    "an eager load": lambda session: session.scalars(
        select(Plain).options(joinedload(Plain.stray))
    ).all(),
    "a subquery": lambda session: session.scalar(
        select(Plain.id).where(Plain.id.in_(select(stray_table.c.id)))
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.sweep(12)
def test_a_key_that_is_not_declared_is_an_error_in_an_application_without_binds(
    any_database, serve, way
):
    """No statement for such a key is sent to the default database."""
    everything_in(any_database.url)

    def view(request):
        request.sqa_session.add(Plain(id=1))
        request.sqa_session.flush()
        WAYS[way](request.sqa_session)
        return Response()

    client = TestApp(serve(any_database.url, with_view(view)))
    with pytest.raises(BindError, match="There is no bind 'nowhere', only: default"):
        client.get("/")

    for table in ("plain", "stray", "stray_table"):
        assert any_database.rows(f"SELECT * FROM {table}") == []


def test_such_a_key_is_an_error_in_a_read_only_request_too(any_database, serve):
    """A row of another table of the same name would be read."""
    everything_in(any_database.url)

    def view(request):
        return Response(str(request.sqa_session.scalars(select(stray_table)).all()))

    def setup(config):
        config.add_route("it", "/", sqa_read_only=True)
        config.add_view(view, route_name="it")

    client = TestApp(serve(any_database.url, setup))
    with pytest.raises(BindError, match="There is no bind 'nowhere', only: default"):
        client.get("/")


def test_such_a_key_is_an_error_outside_requests_too(sqlite, serve):
    """It is one in thread sessions, in a scope, on a connection, and for create_all()."""
    app = serve(sqlite.url)
    with pytest.raises(BindError, match="no bind 'nowhere'"):
        create_all(app, Unbound)
    with pytest.raises(BindError, match="no bind 'nowhere'"):
        reflect(app, stray_table.metadata)
    assert sqlite.rows("SELECT name FROM sqlite_master") == []
    everything_in(sqlite.url)
    with Session(app) as session, pytest.raises(BindError, match="no bind 'nowhere'"):
        WAYS["an object"](session)
    with session_scope(app) as session, pytest.raises(BindError, match="no bind 'nowhere'"):
        WAYS["an insert of a table"](session)
    with (
        get_sqa(app).engine.begin() as connection,
        pytest.raises(BindError, match="no bind 'nowhere'"),
    ):
        connection.execute(insert(stray_table).values(id=1))

    assert sqlite.rows("SELECT * FROM stray") == sqlite.rows("SELECT * FROM stray_table") == []


def test_models_without_a_key_work_beside_those_that_have_one(sqlite, serve):
    """This includes classes and tables that are made while the application serves."""
    app = serve(sqlite.url)
    create_all(app, Plain.__table__.metadata, bind_key="default")
    late = Table("late", MetaData(), Column("id", Integer, primary_key=True))
    create_all(app, late.metadata)
    with session_scope(app) as session:
        session.add(Plain(id=1))
        session.execute(insert(late).values(id=1))
    mapping = registry()
    mapping.map_imperatively(type("Late", (), {"__bind_key__": "nowhere"}), late)
    with session_scope(app) as session, pytest.raises(BindError, match="no bind 'nowhere'"):
        session.execute(insert(late).values(id=2))

    assert sqlite.rows("SELECT id FROM plain") == sqlite.rows("SELECT id FROM late") == [(1,)]


def test_a_key_is_an_error_though_the_application_was_there_before_the_model(tmp_path):
    """Most applications import their models after the include."""
    code = f"""
from pyramid.config import Configurator
from sqlalchemy import Column, Integer, MetaData, Table, insert
from pyramid_aalam_sqa import BindError, get_sqa

with Configurator(settings={{"sqlalchemy.url": "sqlite:///{tmp_path}/early.sqlite"}}) as config:
    config.include("pyramid_aalam_sqa")
table = Table("t", MetaData(info={{"bind_key": "nowhere"}}), Column("id", Integer))
with get_sqa(config).engine.begin() as connection:
    connection.exec_driver_sql("CREATE TABLE t (id INTEGER)")
    try:
        connection.execute(insert(table).values(id=1))
    except BindError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, *QUIET, "-c", code],
        env={**os.environ, **TRACED},
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout == "There is no bind 'nowhere', only: default.\n"


def test_an_engine_that_another_application_shares_serves_the_keys_of_that_one(tmp_path, serve):
    """One application has no binds. Its database is a bind of the other application."""
    shared = plain_engine(f"sqlite:///{tmp_path}/shared.sqlite")
    stray_table.create(shared)
    one = serve(shared.url, **{"sqlalchemy.engine": shared, "sqlalchemy.url": shared.url})
    settings = {"sqlalchemy.binds.nowhere.engine": shared}
    other = serve(f"sqlite:///{tmp_path}/other.sqlite", **settings)

    with session_scope(other) as session:
        session.execute(insert(stray_table).values(id=1))
    with pytest.raises(BindError, match="no bind 'nowhere'"), session_scope(one) as session:
        session.execute(insert(stray_table).values(id=2))

    assert Database(str(shared.url)).rows("SELECT id FROM stray_table") == [(1,)]
