"""Further databases as they are declared: settings, directives, engines, tables."""

import pytest
from pyramid import testing
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationExecutionError
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    declarative_base,
    mapped_column,
    registry,
    relationship,
)
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from pyramid_aalam_sqa import (
    BindError,
    Session,
    SettingError,
    create_all,
    drop_all,
    engine_from_settings,
    get_sqa,
    init_engine,
    reflect,
)
from pyramid_aalam_sqa.settings.reader import read_settings
from support import bound
from support.bound import KEYS, AuditBase, Author, Base, Entry, Line, do, serving
from support.databases import Database, plain_engine

URL = "mysql+pymysql://me:secret@here/one"
BIND = "sqlalchemy.binds.audit."


def read(section=None, **settings):
    given = {"sqlalchemy.url": URL, f"{BIND}url": "mysql+pymysql://me:secret@there/two"}
    return read_settings({**given, **{k: v for k, v in settings.items() if v is not None}}, section)


def refused(section=None, **settings):
    with pytest.raises(SettingError) as caught:
        read(section, **settings)
    assert "secret" not in str(caught.value)
    return str(caught.value)


def files(tmp_path, keys=KEYS):
    settings = {f"sqlalchemy.binds.{key}.url": f"sqlite:///{tmp_path}/{key}.sqlite" for key in keys}
    settings["sqlalchemy.url"] = settings.pop("sqlalchemy.binds.default.url")
    return settings


# Settings. ------------------------------------------------------------------------------------


def test_a_bind_has_its_own_options_and_inherits_the_others():
    """Those of the driver's connect() one by one."""
    given = {
        "sqlalchemy.pool_size": "7",
        "sqlalchemy.echo": "false",
        "sqlalchemy.connect_args.read_timeout": "11",
        "sqlalchemy.connect_args.write_timeout": "12",
        f"{BIND}echo": "true",
        f"{BIND}connect_args.write_timeout": "13",
    }
    settings = read(**given)

    assert settings.binds["audit"].options == {
        "pool_size": 7,
        "echo": True,
        "connect_args": {"read_timeout": 11, "write_timeout": 13},
    }
    assert settings.database.options["connect_args"] == {"read_timeout": 11, "write_timeout": 12}
    assert settings.binds["audit"].url.host == "there"


def test_a_bind_inherits_neither_the_address_nor_what_only_another_driver_knows():
    """Else it would ask the default database, or not start."""
    given = {
        "sqlalchemy.connect_args.unix_socket": "/run/here",
        "sqlalchemy.connect_args.user": "me",
        "sqlalchemy.connect_args.read_timeout": "11",
        "sqlalchemy.isolation_level": "READ COMMITTED",
        "sqlalchemy.creator": "builtins:print",
        "sqlalchemy.logging_name": "one",
        "sqlalchemy.pool_size": "7",
        "sqlalchemy.binds.file.url": "sqlite:///two.sqlite",
        "sqlalchemy.binds.memory.url": "sqlite://",
        "sqlalchemy.binds.plain.url": URL,
        "sqlalchemy.binds.plain.poolclass": "NullPool",
    }
    binds = read(**given).binds

    assert binds["audit"].options == {
        "pool_size": 7,
        "isolation_level": "READ COMMITTED",
        "connect_args": {"read_timeout": 11},
    }
    assert binds["file"].options == {"pool_size": 7}
    assert binds["memory"].options == {}
    assert binds["plain"].options["poolclass"] is NullPool
    assert "pool_size" not in binds["plain"].options


def test_only_an_address_to_inherit_is_nothing_to_inherit():
    """There are no empty connect_args."""
    binds = read(**{"sqlalchemy.connect_args.host": "here"}).binds

    assert binds["audit"].options == {}


def test_the_section_takes_binds_too():
    """The application's own line wins."""
    section = {"binds.audit.pool_size": "3", "binds.log.url": "sqlite:///log.sqlite"}
    settings = read(section, **{f"{BIND}pool_size": "4"})

    assert settings.binds["audit"].options == {"pool_size": 4}
    assert str(settings.binds["log"].url) == "sqlite:///log.sqlite"
    assert refused({"binds.log.url": "nonsense"}).startswith("[sqlalchemy] binds.log.url: ")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (f"{BIND}pool_sise", "5", "did you mean sqlalchemy.binds.audit.pool_size?"),
        (f"{BIND}pool_size", "many", "sqlalchemy.binds.audit.pool_size = 'many': write a whole"),
        (f"{BIND}pool_size", "", "sqlalchemy.binds.audit.pool_size is blank"),
        (f"{BIND}url", "nonsense", "sqlalchemy.binds.audit.url: this is no database URL"),
        (f"{BIND}url", None, ""),
        ("sqlalchemy.binds.log.pool_size", "5", "sqlalchemy.binds.log.url is missing"),
        ("sqlalchemy.binds.log", "sqlite://", "There is no setting sqlalchemy.binds.log"),
        ("sqlalchemy.binds.Log.url", "sqlite://", "'Log' is no key for a bind"),
        ("sqlalchemy.binds.1.url", "sqlite://", "'1' is no key for a bind"),
        ("sqlalchemy.binds.default.url", "sqlite://", "'default' is no key for a bind"),
        ("sqlalchemy.binds..url", "sqlite://", "'' is no key for a bind"),
        (f"{BIND}isolation_level", "SOME", "sqlalchemy.binds.audit.isolation_level = 'SOME'"),
        ("sqa.commit_order", "audit nobody", "sqa.commit_order: 'nobody'"),
        ("sqa.commit_order", "audit audit", "sqa.commit_order: 'audit' is there twice"),
        ("sqa.commit_order", "", "sqa.commit_order is blank"),
    ],
)
def test_what_is_wrong_with_a_bind_names_its_key(key, value, said):
    """The whole key, and what to write."""
    if value is None:
        assert read(**{key: value}).binds
        return

    assert said in refused(**{key: value})


def test_a_bind_needs_a_default_database():
    """What has no bind key has to be somewhere."""
    with pytest.raises(SettingError, match=r"write sqlalchemy\.url too"):
        read_settings({f"{BIND}url": "sqlite://"})


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        (None, ["audit", "log", "default"]),
        ("log", ["log", "audit", "default"]),
        ("default", ["default", "audit", "log"]),
        ("log default audit", ["log", "default", "audit"]),
    ],
)
def test_the_order_of_the_commits_is_fixed(tmp_path, order, wanted):
    """That of the ini file, the default database last, unless sqa.commit_order says another."""
    settings = files(tmp_path) | ({"sqa.commit_order": order} if order else {})
    said = []
    with serving(settings) as client:
        create_all(client.app, Base)
        create_all(client.app, AuditBase)
        for key, engine in get_sqa(client.app).engines.items():
            event.listen(engine, "commit", lambda connection, key=key: said.append(key))

        def write(request):
            request.sqa_session.add_all([Author(name="x"), Line(name="x"), Entry(name="x")])

        do(client, write)
        with Session(client.app) as session:
            session.add_all([Author(name="x"), Line(name="x"), Entry(name="x")])
            session.commit()

        assert list(get_sqa(client.app).engines) == wanted
    assert said == wanted * 2


# Engines and directives. ----------------------------------------------------------------------


def test_what_is_wrong_with_an_engine_names_the_bind(tmp_path):
    """When it is made, and when it connects."""
    bad = {
        f"{BIND}pool_size": "5",
        f"{BIND}poolclass": "NullPool",
        "sqlalchemy.url": "sqlite://",
        f"{BIND}url": "sqlite:///x",
    }
    with pytest.raises(SettingError, match=r"sqlalchemy\.binds\.audit\.pool_size: "):
        engine_from_settings(bad)
    with pytest.raises(SettingError, match=r"sqlalchemy\.binds\.audit\.url: one of"):
        engine_from_settings(
            {"sqlalchemy.url": "sqlite://", f"{BIND}url": "sqlite:///x?timeout=soon"}
        )
    with pytest.raises(SettingError, match=r"sqlalchemy\.binds\.audit\.connect_args\.tiemout"):
        engine_from_settings(
            {"sqlalchemy.url": "sqlite://", f"{BIND}url": URL, f"{BIND}connect_args.tiemout": "1"}
        )
    (tmp_path / "file").touch()
    settings = {"sqlalchemy.url": "sqlite://", f"{BIND}url": f"sqlite:///{tmp_path}/file/x.sqlite"}
    with serving(settings) as client, pytest.raises(SettingError, match=r"binds\.audit\.url: the"):
        get_sqa(client.app).engines["audit"].connect()


def test_every_database_is_introspected(tmp_path):
    """One introspectable for each, by its key, with the password masked."""
    settings = files(tmp_path)
    settings["sqlalchemy.binds.far.url"] = URL
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.add_sqa_bind("near", "sqlite://", echo="false")
    config.commit()
    category = config.introspector.get_category("sqa databases")
    found = {
        each["introspectable"].discriminator: each["introspectable"]["url"] for each in category
    }
    get_sqa(config).dispose()

    assert found.keys() == {"default", "audit", "log", "far", "near"}
    assert found["far"] == "mysql+pymysql://me:***@here/one"
    assert found["near"] == "sqlite://"


def test_a_directive_declares_a_bind_and_wins_over_the_ini(tmp_path):
    """Before or after the include, and under a configurator that commits at once."""
    settings = files(tmp_path)
    with serving(
        settings,
        lambda config: config.add_sqa_bind("audit", f"sqlite:///{tmp_path}/other.sqlite"),
        lambda config: config.add_sqa_bind("more", "sqlite://", pool_timeout=3),
        lambda config: config.add_sqa_bind("log", pool_timeout=5),
    ) as client:
        engines = get_sqa(client.app).engines
        assert engines["audit"].url.database.endswith("other.sqlite")
        assert engines["more"].pool.timeout() == 3
        assert engines["log"].pool.timeout() == 5
        assert list(engines) == ["audit", "log", "more", "default"]

    with testing.testConfig(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.add_sqa_bind("audit", "sqlite://", pool_timeout="4")
        sqa = get_sqa(config)
        assert sqa.engines["audit"].pool.timeout() == 4
        assert str(sqa.engine_for("default").url).endswith("default.sqlite")
        sqa.dispose()


def test_two_directives_for_one_bind_conflict():
    """With file and line of both; a wrong key is an error of the configuration."""
    config = Configurator(settings={"sqlalchemy.url": "sqlite://"})
    config.include("pyramid_aalam_sqa")
    config.add_sqa_bind("audit", "sqlite://")
    config.add_sqa_bind("audit", "sqlite://")
    with pytest.raises(ConfigurationConflictError):
        config.commit()
    config = Configurator(settings={"sqlalchemy.url": "sqlite://"})
    config.include("pyramid_aalam_sqa")
    config.add_sqa_bind("Audit", "sqlite://")
    with pytest.raises(ConfigurationExecutionError, match="'Audit' is no key"):
        config.commit()


def test_binds_that_are_told_the_same_share_the_engine(tmp_path):
    """A developer has one file for all: a request would wait for itself."""
    url = f"sqlite:///{tmp_path}/all.sqlite"
    settings = {"sqlalchemy.url": url, f"{BIND}url": url, "sqlalchemy.binds.log.url": url}
    with serving(settings | {"sqa.lock_timeout": "0.1"}) as client:
        create_all(client.app, Base)
        create_all(client.app, AuditBase)

        def write(request):
            request.sqa_session.add_all([Author(name="x"), Entry(name="x"), Line(name="x")])
            request.sqa_sessions["audit"].add(Entry(name="x"))
            joined = select(Author.name).join(Author.entries)
            return len(request.sqa_session.execute(joined).all())

        assert do(client, write).status_int == 200
        assert len(set(get_sqa(client.app).engines.values())) == 1
    assert Database(url).scalar("SELECT count(*) FROM entry") == 2


def test_a_ready_engine_may_be_a_bind(tmp_path):
    """It stays its maker's."""
    ready = create_engine(f"sqlite:///{tmp_path}/ready.sqlite")
    with serving({"sqlalchemy.url": "sqlite://", f"{BIND}engine": ready}) as client:
        create_all(client.app, AuditBase)
        do(client, lambda request: request.sqa_session.add(Entry(name="x")))
        pool = ready.pool
        get_sqa(client.app).dispose()
        assert ready.pool is pool
        assert get_sqa(client.app).engines["audit"] is ready
    assert Database(str(ready.url)).scalar("SELECT name FROM entry") == "x"
    ready.dispose()


def test_an_engine_from_elsewhere_takes_part_in_the_transaction(tmp_path):
    """bind_arguments={"bind": ...} of SQLAlchemy's own: it is committed first."""
    other = plain_engine(f"sqlite:///{tmp_path}/other.sqlite")
    with other.begin() as connection:
        connection.execute(text("CREATE TABLE note (body TEXT)"))
    insert = text("INSERT INTO note VALUES ('x')")
    with serving(files(tmp_path)) as client:
        create_all(client.app, Base)

        def write(request, status=200):
            request.sqa_session.add(Author(name="x"))
            request.sqa_session.execute(insert, bind_arguments={"bind": other})

        do(client, write)
        do(client, write, status=400, expect_errors=True)
        with other.connect() as mine, mine.begin():
            # A connection that somebody else commits, or does not.
            do(
                client,
                lambda request: (
                    request.sqa_session.add(Author(name="x"))
                    or (request.sqa_session.execute(insert, bind_arguments={"bind": mine}) and None)
                ),
            )
            mine.rollback()
    stored = Database(f"sqlite:///{tmp_path}/default.sqlite").scalar("SELECT count(*) FROM author")

    assert stored == 2
    assert Database(str(other.url)).scalar("SELECT count(*) FROM note") == 1


def test_two_applications_with_the_same_keys_do_not_mix(tmp_path):
    """In one process, with the same models, at the same time."""
    with serving(files(tmp_path / "a")) as first, serving(files(tmp_path / "b")) as second:
        for client in (first, second):
            create_all(client.app, Base)
            create_all(client.app, AuditBase)

        def write(name):
            def act(request):
                request.sqa_session.add_all([Author(name=name), Entry(name=name), Line(name=name)])
                request.sqa_sessions["audit"].add(Entry(name=name))

            return act

        do(first, lambda request: [write("a")(request), do(second, write("b"))])
        with Session(second.app, bind_key="audit") as session:
            assert set(session.scalars(select(Entry.name))) == {"b"}

    for name in "ab":
        for key, table, count in (
            ("default", "author", 1),
            ("audit", "entry", 2),
            ("log", "line", 1),
        ):
            database = Database(f"sqlite:///{tmp_path}/{name}/{key}.sqlite")
            assert database.rows(f"SELECT name FROM {table}") == [(name,)] * count


def test_two_applications_may_have_one_engine_under_different_keys(tmp_path):
    """What one of them calls its default database is the other's audit."""
    shared = create_engine(f"sqlite:///{tmp_path}/shared.sqlite")
    one = {"sqlalchemy.engine": shared, f"{BIND}url": f"sqlite:///{tmp_path}/one.sqlite"}
    two = {"sqlalchemy.url": f"sqlite:///{tmp_path}/two.sqlite", f"{BIND}engine": shared}
    with serving(one) as first, serving(two) as second:
        for client in (first, second):
            create_all(client.app, AuditBase)
            create_all(client.app, Base, bind_key="default")

            def write(request):
                request.sqa_session.add_all([Author(name="x"), Entry(name="x")])
                request.sqa_session.flush()
                return request.sqa_session.scalars(select(Author.name)).all()

            assert do(client, write).text == "['x']"
    eyes = Database(str(shared.url))
    assert (
        eyes.scalar("SELECT count(*) FROM author"),
        eyes.scalar("SELECT count(*) FROM entry"),
    ) == (1, 1)
    shared.dispose()


def test_a_script_has_the_engine_of_a_bind(tmp_path):
    """Alembic has an env.py for each database."""
    settings = files(tmp_path)
    found = {
        key: engine_from_settings(settings, bind_key=key).url.database for key in (None, *KEYS)
    }

    assert found.pop(None) == found["default"]
    assert all(path.endswith(f"{key}.sqlite") for key, path in found.items())
    with pytest.raises(BindError, match="only: audit, default, log"):
        engine_from_settings(settings, bind_key="")


def test_an_order_without_a_database_is_no_error():
    """The application starts all the same, and says so when its session is touched."""
    assert read_settings({"sqa.commit_order": "default"}).databases == {}


# Keys. ----------------------------------------------------------------------------------------


def test_an_unknown_key_of_a_model_names_the_known_ones(tmp_path):
    """When the model is used, in whatever way."""

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
    """What was found before is found again."""
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
    """One flush writes to one connection."""

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
    """Nobody can know which of them is meant."""

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
    """The table of a many-to-many relationship needs one as well, and the error says so."""

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
    """SQLAlchemy makes a flush of insert(Model), whatever it was asked."""
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


def test_ddl_and_what_is_no_statement_find_their_way(tmp_path):
    """CREATE TABLE goes where the table is; SQLAlchemy refuses what it cannot execute."""
    from sqlalchemy import DDL
    from sqlalchemy.exc import ArgumentError
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
            with pytest.raises(ArgumentError):
                session.scalars(session.query(Entry.id))

        create_all(client.app, AuditBase)
        do(client, make)
        engines = get_sqa(client.app).engines
        assert "made" in inspect(engines["log"]).get_table_names()
        assert inspect(engines["default"]).get_table_names() == ["of_the_default"]


def test_a_sequence_is_in_the_database_of_its_metadata(postgresql, tmp_path):
    """Alone and as a default value."""
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


# Tables. --------------------------------------------------------------------------------------


def names_in(client):
    return {
        key: set(inspect(engine).get_table_names())
        for key, engine in get_sqa(client.app).engines.items()
    }


ALL = {key: {table.name for table in tables} for key, tables in bound.HOME.items()}


def test_each_table_is_created_and_dropped_in_its_own_database(tmp_path):
    """Of all databases or of one; what is there already is left alone."""
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
            with pytest.raises(BindError, match="has no tables"):
                function(client.app, object())


def test_a_base_with_a_metadata_for_each_database_is_created_whole(tmp_path):
    """Abstract bases with a MetaData of their own, in the old form of a base too."""
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
    """The functions are the same."""
    with serving({"sqlalchemy.url": f"sqlite:///{tmp_path}/one.sqlite"}) as client:
        table = Table("one", MetaData(), Column("id", Integer, primary_key=True))
        create_all(client.app, table.metadata)
        assert names_in(client) == {"default": {"one"}}
        found = MetaData()
        reflect(client.app, found)
        drop_all(client.app, found)
        assert names_in(client) == {"default": set()}


def test_reflected_tables_know_their_database(tmp_path):
    """Statements on them go there, whether their MetaData says it or not."""
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
    """In the entry point, before anything is served."""
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


@pytest.fixture(autouse=True)
def _short_names():
    """SQLite takes a String without a length, other databases do not."""
    assert isinstance(bound.NAME, String)


def test_what_postgresql_has_deferred_fails_before_the_first_commit(postgresql, tmp_path):
    """COMMIT would find it, when another database had committed."""
    postgresql.run(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (parent INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    )
    settings = {"sqlalchemy.url": f"sqlite:///{tmp_path}/x.sqlite", f"{BIND}url": postgresql.url}
    orphan = text("INSERT INTO child VALUES (7)")
    with serving(settings | {"sqa.commit_order": "default audit"}) as client:
        create_all(client.app, Base, bind_key="default")

        def write(request):
            request.sqa_session.add(Author(name="x"))
            request.sqa_session.execute(orphan, bind_arguments={"bind_key": "audit"})

        with pytest.raises(IntegrityError):
            do(client, write)
    assert Database(settings["sqlalchemy.url"]).rows("SELECT * FROM author") == []
