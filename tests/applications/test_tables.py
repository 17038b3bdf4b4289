"""Tables are created, dropped and reflected in their own databases."""

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    inspect,
    select,
)
from sqlalchemy.orm import (
    declarative_base,
)

from pyramid_aalam_sqa import (
    BindError,
    Session,
    create_all,
    drop_all,
    get_sqa,
    init_engine,
    reflect,
)
from support import bound
from support.bind_files import ALL, files, names_in
from support.bound import KEYS, AuditBase, Base, Entry, do, serving
from support.databases import plain_engine


def test_each_table_is_created_and_dropped_in_its_own_database(tmp_path):
    """It works for all databases or for one. Existing tables are not changed."""
    with serving(files(tmp_path)) as client:
        create_all(client.app, Base, bind_key="log")
        assert names_in(client) == {"default": set(), "audit": set(), "log": ALL["log"]}
        for base in (Base, AuditBase.registry, bound.audit_metadata, Base):
            create_all(get_sqa(client.app), base)
        assert names_in(client) == ALL
        do(client, lambda request: drop_all(request, Base.metadata, bind_key="default"))
        assert names_in(client) == {**ALL, "default": set()}
        drop_all(client.app, AuditBase, checkfirst=True)
        drop_all(client.app, Base)
        assert names_in(client) == {"default": set(), "audit": {"stamp"}, "log": set()}
        for function in (create_all, drop_all, reflect):
            with pytest.raises(BindError, match="only: audit, default, log"):
                function(client.app, Base, bind_key="nobody")
            with pytest.raises(BindError, match="cannot have tables"):
                function(client.app, object())


def test_a_base_with_a_metadata_for_each_database_is_created_whole(tmp_path):
    """Abstract bases may have their own MetaData. Old-style bases work too."""
    Old = declarative_base()  # noqa: N806 - a class

    class Far(Old):
        __abstract__ = True
        metadata = MetaData(info={"bind_key": "audit"})

    class Here(Old):
        __tablename__ = "here"
        id = Column(Integer, primary_key=True)

    class There(Far):
        __tablename__ = "there"
        id = Column(Integer, primary_key=True)

    with serving(files(tmp_path)) as client:
        create_all(client.app, Old)

        assert names_in(client) == {"default": {"here"}, "audit": {"there"}, "log": set()}
        do(client, lambda request: request.sqa_session.add_all([Here(), There()]))


def test_an_application_without_binds_creates_all_in_its_database(tmp_path):
    """The same functions work without binds."""
    with serving({"sqlalchemy.url": f"sqlite:///{tmp_path}/one.sqlite"}) as client:
        table = Table("one", MetaData(), Column("id", Integer, primary_key=True))
        create_all(client.app, table.metadata)
        assert names_in(client) == {"default": {"one"}}
        found = MetaData()
        reflect(client.app, found)
        drop_all(client.app, found)
        assert names_in(client) == {"default": set()}


def test_reflected_tables_know_their_database(tmp_path):
    """Statements on them go to that database, even if their MetaData has another key."""
    with serving(files(tmp_path)) as client:
        create_all(client.app, Base)
        create_all(client.app, AuditBase)
        mixed = MetaData()
        Table("line", mixed, Column("id", Integer, primary_key=True), info={"bind_key": "log"})
        reflect(client.app, mixed)
        reflect(client.app, mixed, bind_key="audit")
        own = MetaData(info={"bind_key": "audit"})
        reflect(client.app, own)
        found = {key: set() for key in KEYS}
        for metadata in (mixed, own):
            for table in metadata.tables.values():
                with Session(client.app) as session:
                    where = session.get_bind(clause=select(table))
                found[next(k for k, e in get_sqa(client.app).engines.items() if e is where)].add(
                    table.name
                )

        assert found == {**ALL, "audit": ALL["audit"] - {"stamp"}}
        assert mixed.tables["entry"].info == {"bind_key": "audit"}
        assert own.tables["entry"].info == {}


def test_init_engine_creates_the_tables_of_each_database(tmp_path):
    """The entry point does it before the application serves requests."""
    settings = files(tmp_path) | {"sqa.provider": "aalam", "sqa.app": f"binds{id(tmp_path)}"}
    name = f"aalam_{settings['sqa.app']}"
    for base in (Base, AuditBase):
        engine = init_engine(name, base, create_tables=True, settings=settings)
    stamp_free = {**ALL, "audit": ALL["audit"] - {"stamp"}}
    with Session(name, bind_key="audit") as session:
        session.add(Entry(name="x"))
        session.commit()

    assert engine.url.database.endswith("default.sqlite")
    for key, tables in stamp_free.items():
        eyes = plain_engine(f"sqlite:///{tmp_path}/{key}.sqlite")
        assert set(inspect(eyes).get_table_names()) == tables
