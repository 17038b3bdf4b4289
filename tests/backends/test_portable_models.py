"""The same models, with their application's schema or without any, on each database."""

import importlib
import io
import re
import sqlite3
import sys
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid_retry import IRetryableError
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    delete,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from sqlalchemy.orm import Session
from webtest import TestApp

from pyramid_aalam_sqa import SettingError, get_sqa
from support.databases import plain_engine
from support.places import PLACES, in_a_file, places
from support.portable_app import models
from support.threads import together


@pytest.fixture(params=PLACES)
def place(request):
    """The test runs on each."""
    for place in places(request.param, request):
        yield place
        place.dispose()


@pytest.fixture
def file(tmp_path):
    """An SQLite file, for what only SQLite can do wrong."""
    place = in_a_file(tmp_path)
    yield place
    place.dispose()


def created(place, schema):
    """The models of an application and its engine; the tables are there."""
    model = models(schema)
    model.engine = place.engine()
    model.Base.metadata.create_all(model.engine)
    return model


@pytest.fixture
def named(place):
    """Models that say in which schema they are."""
    return created(place, place.name)


@pytest.fixture(params=["named", "bare"])
def made(request, place):
    """Models that say it, and models that do not."""
    return created(place, place.name if request.param == "named" else None)


def test_objects_and_their_relationships_are_stored(made, place):
    """ORM, joined tables of a subclass too."""
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
    """It refers into the schema of its own table."""
    with Session(made.engine) as session:
        session.add(made.Post(title="orphan", user_id=77))
        with pytest.raises(IntegrityError):
            session.flush()

    assert place.rows("posts") == []


def test_a_name_that_has_to_be_quoted_works(named, place):
    """A hyphen in the table, a keyword as the column, a percent sign in the value."""
    with named.engine.begin() as connection:
        connection.execute(insert(named.odd), [{"order": "50 %"}, {"order": "first"}])
        found = connection.scalars(select(named.odd.c.order).order_by(named.odd.c.order)).all()

    assert found == ["50 %", "first"]


def test_raw_sql_finds_the_tables_with_the_schema_and_without(made, place):
    """To read and to write, as on a server where the application's database is the current one."""
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
    """Rows of the ORM and of raw SQL."""
    with Session(named.engine) as session:
        session.add(named.User(name="ann"))
        session.flush()
        session.execute(text("UPDATE users SET name = 'eve'"))
        session.rollback()

    assert place.rows("users") == []


def test_a_savepoint_undoes_its_own_part(named, place):
    """What was before it and after it is stored."""
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


TABLES = ["admins", "posts", "table-1", "users"]


def test_the_tables_are_seen_under_their_schema(named, place):
    """Their columns, indexes, and foreign keys that refer into the schema."""
    inspector = inspect(named.engine)

    assert sorted(inspector.get_table_names(schema=place.name)) == TABLES
    assert place.name in inspector.get_schema_names()
    assert inspector.has_table("posts", schema=place.name)
    columns = inspector.get_columns("posts", schema=place.name)
    assert [column["name"] for column in columns] == ["id", "title", "user_id"]
    indexes = inspector.get_indexes("posts", schema=place.name)
    assert "ix_posts_title" in [index["name"] for index in indexes]
    [key] = inspector.get_foreign_keys("posts", schema=place.name)
    assert (key["referred_schema"], key["referred_table"]) == (place.name, "users")
    assert inspector.get_pk_constraint("users", schema=place.name)["constrained_columns"] == ["id"]


def test_the_tables_are_seen_without_a_schema(made, place):
    """The application's database is the current one."""
    inspector = inspect(made.engine)

    assert inspector.default_schema_name == place.name
    assert sorted(inspector.get_table_names()) == TABLES
    assert inspector.has_table("posts")
    assert not inspector.has_table("nothing")
    assert len(inspector.get_columns("posts")) == 3
    assert "ix_posts_title" in [index["name"] for index in inspector.get_indexes("posts")]
    assert inspector.get_foreign_keys("posts")[0]["referred_table"] == "users"
    assert inspector.get_unique_constraints("users")[0]["column_names"] == ["name"]


def test_views_are_seen_and_read(named, place):
    """With their definition."""
    with named.engine.begin() as connection:
        connection.execute(text(f"CREATE VIEW {place.name}.names AS SELECT name FROM users"))
    inspector = inspect(named.engine)

    assert inspector.get_view_names() == inspector.get_view_names(schema=place.name) == ["names"]
    assert "name" in inspector.get_view_definition("names")
    assert place.rows("names") == []


def test_metadata_is_reflected_with_its_schema(named, place):
    """All tables, and what one refers to."""
    everything, one = MetaData(), MetaData()
    everything.reflect(named.engine, schema=place.name)
    posts = Table("posts", one, schema=place.name, autoload_with=named.engine)

    assert sorted(everything.tables) == [f"{place.name}.{table}" for table in TABLES]
    [key] = posts.c.user_id.foreign_keys
    assert key.column.table.fullname == f"{place.name}.users"
    with named.engine.connect() as connection:
        assert connection.execute(select(posts.join(key.column.table))).all() == []


def test_metadata_is_reflected_without_a_schema(named, place):
    """What comes of it can be used as it is."""
    everything, one = MetaData(), MetaData()
    everything.reflect(named.engine)
    posts = Table("posts", one, autoload_with=named.engine)

    assert set(TABLES) <= set(everything.tables)
    [key] = posts.c.user_id.foreign_keys
    assert key.column.table.name == "users"
    with named.engine.connect() as connection:
        assert connection.execute(select(posts.join(key.column.table))).all() == []


def test_tables_are_dropped_from_where_they_are(made, place):
    """And are found before: nothing is left."""
    made.Base.metadata.drop_all(made.engine)

    assert inspect(made.engine).get_table_names(schema=place.name) == []


def test_a_temporary_table_belongs_to_its_connection(named, place):
    """It needs no schema, and nobody else sees it."""
    with named.engine.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE scratch (id INTEGER)"))
        connection.execute(text("INSERT INTO scratch VALUES (1)"))
        assert connection.scalar(text("SELECT count(*) FROM scratch")) == 1
        connection.execute(text("DROP TABLE scratch"))
        connection.commit()

    assert sorted(inspect(named.engine).get_table_names(schema=place.name)) == TABLES


# Applications.


def application(place, schema):
    """An application that adds a user, lists the users, and touches the database late."""
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
    """Two applications' databases of one kind."""
    first, second = places(request.param, request), places(request.param, request)
    both = [next(first), next(second)]
    yield both
    for place, rest in zip(both, (first, second), strict=True):
        place.dispose()
        assert list(rest) == []


@pytest.mark.parametrize("bare", [False, True])
def test_two_applications_live_side_by_side_in_one_process(two_places, bare):
    """The same tables in both, and each has its own rows."""
    apps = [application(place, None if bare else place.name) for place in two_places]
    for index, app in enumerate(apps):
        app.get(f"/add?name=stored{index}")
        app.get(f"/add?name=refused{index}&status=409", status=409)

    for index, (app, place) in enumerate(zip(apps, two_places, strict=True)):
        assert app.get("/names").text == f"stored{index}"
        assert place.rows("users", "name") == [(f"stored{index}",)]


def test_a_write_after_the_transaction_is_refused(place):
    """Whatever database it is, nothing of it is stored, and the next request can write."""
    app = application(place, place.name)
    app.get("/add?name=ann")
    with pytest.raises(Exception, match="can only read here"):
        app.get("/late")
    app.get("/add?name=bob")

    assert place.rows("users", "name") == [("ann",), ("bob",)]


# What only SQLite can do wrong: its main database is an empty one in memory.


def test_nothing_is_made_where_it_would_be_lost(file):
    """Two connections and the file have the same tables."""
    model = models(None)
    engine = file.engine()
    model.Base.metadata.create_all(engine)
    with engine.connect() as one, engine.connect() as other:
        for connection in (one, other):
            main = connection.execute(text("SELECT count(*) FROM main.sqlite_master"))
            assert main.scalar() == 0
            assert connection.scalar(text("SELECT count(*) FROM users")) == 0

    assert (
        sorted(inspect(plain_engine(file.settings["sqlalchemy.url"])).get_table_names()) == TABLES
    )


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE lost (id INTEGER)",
        "CREATE TABLE main.lost (id INTEGER)",
        "CREATE TABLE lost AS SELECT 1",
        "CREATE VIEW lost AS SELECT 1",
        "CREATE VIRTUAL TABLE lost USING fts5(body)",
        "CREATE VIRTUAL TABLE lost USING fts5vocab(users, 'row')",
        "CREATE INDEX lost ON users (name)",
        "CREATE TRIGGER lost AFTER INSERT ON users BEGIN SELECT 1; END",
        "ATTACH DATABASE '{neighbour}' AS neighbour",
        "ATTACH DATABASE '{neighbour}' || '' AS neighbour",
        "ATTACH DATABASE ':memory:' AS neighbour",
        "DETACH DATABASE {name}",
        "VACUUM {name} INTO '{neighbour}'",
    ],
)
def test_what_would_be_lost_or_reach_another_file_is_refused(file, tmp_path, statement):
    """The error says what to write, and the session goes on."""
    model = models(file.name)
    engine = file.engine(**{"sqlalchemy.isolation_level": "AUTOCOMMIT"})
    model.Base.metadata.create_all(engine)
    neighbour = tmp_path / "neighbour.sqlite"
    sql = statement.format(neighbour=neighbour, name=file.name)
    with engine.connect() as connection:
        with pytest.raises((DatabaseError, OperationalError)) as caught:
            connection.exec_driver_sql(sql)

        assert f"write CREATE TABLE {file.name}.<table>" in caught.value.__notes__[0]
        assert connection.scalar(text("SELECT count(*) FROM users")) == 0
    assert not neighbour.exists()


def test_a_file_given_as_a_value_is_not_attached_either(file, tmp_path):
    """As a bound parameter it is in no statement."""
    with (
        file.engine().connect() as connection,
        pytest.raises(DatabaseError, match="not authorized"),
    ):
        connection.execute(text("ATTACH :path AS other"), {"path": f"{tmp_path}/other.sqlite"})

    assert not (tmp_path / "other.sqlite").exists()


def test_an_error_of_the_applications_own_has_no_note(file):
    """A table that is simply not there."""
    with file.engine().connect() as connection, pytest.raises(OperationalError) as caught:
        connection.execute(text("SELECT * FROM nothing"))

    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE {name}.kept (id INTEGER)",
        "CREATE INDEX {name}.kept ON users (name)",
        "CREATE TRIGGER {name}.kept AFTER INSERT ON users BEGIN SELECT 1; END",
        "ALTER TABLE users ADD COLUMN kept INTEGER",
        "VACUUM",
        "VACUUM {name}",
        "ANALYZE",
        "REINDEX",
        "PRAGMA optimize",
        "PRAGMA {name}.integrity_check",
        "CREATE TEMPORARY VIEW own AS SELECT * FROM users",
        "CREATE TEMPORARY TRIGGER own AFTER INSERT ON users BEGIN SELECT 1; END",
    ],
)
def test_what_belongs_to_the_file_or_the_connection_is_allowed(file, statement):
    """Maintenance, definitions with the name, and the temporary schema."""
    models(None).Base.metadata.create_all(file.engine())
    with (
        file.engine(**{"sqlalchemy.isolation_level": "AUTOCOMMIT"}).connect() as connection,
        connection.execute(text(statement.format(name=file.name))) as result,
    ):
        assert result


def test_vacuum_makes_the_file_smaller(file):
    """With the name; alone it would be about the empty main database."""
    engine = file.engine(**{"sqlalchemy.isolation_level": "AUTOCOMMIT"})
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {file.name}.big (body)")
        connection.exec_driver_sql("INSERT INTO big VALUES (zeroblob(1000000))")
        connection.exec_driver_sql("DELETE FROM big")
        connection.exec_driver_sql(f"VACUUM {file.name}")

        assert connection.scalar(text(f"PRAGMA {file.name}.page_count")) < 10


def test_data_that_looks_like_a_question_about_tables_stays_as_it_is(file):
    """Only what SQLAlchemy itself asks is asked of the file instead."""
    written = "SELECT name FROM sqlite_master; PRAGMA main.table_info(x)"
    with file.engine().begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {file.name}.note (body)")
        connection.exec_driver_sql(f"INSERT INTO note VALUES ('{written}')")

        assert connection.exec_driver_sql(f"SELECT '{written}'").scalar() == written
    assert file.rows("note") == [(written,)]


@pytest.mark.parametrize(("mode", "found"), [(None, "wal"), ("truncate", "truncate")])
def test_the_file_has_the_journal_mode_that_was_set(file, mode, found):
    """Not the empty main database."""
    settings = {"sqa.sqlite.journal_mode": mode} if mode else {}
    with file.engine(**settings).connect() as connection:
        assert connection.scalar(text(f"PRAGMA {file.name}.journal_mode")) == found
        assert connection.scalar(text("PRAGMA main.journal_mode")) == "memory"


def test_a_file_that_somebody_writes_to_becomes_a_wal_all_the_same(file):
    """SQLite does not wait here, but answers "database is locked" at once."""
    plain = make_url(file.settings["sqlalchemy.url"]).database
    writer = sqlite3.connect(plain, isolation_level=None, check_same_thread=False)
    writer.execute("CREATE TABLE note (body INTEGER)")
    writer.execute("BEGIN IMMEDIATE")
    end = threading.Timer(0.2, writer.execute, ["COMMIT"])
    end.start()
    with file.engine().connect() as connection:
        found = connection.scalar(text(f"PRAGMA {file.name}.journal_mode"))
    end.join()
    writer.close()

    assert found == "wal"


def test_many_threads_may_open_a_new_file_at_once(file, tmp_path):
    """Each with an engine of its own: to attach it is to open it, and to read it."""
    found = []
    for number in range(5):
        url = f"sqlite:///{tmp_path}/{number}.sqlite"
        engines = [file.engine(**{"sqlalchemy.url": url}) for _ in range(16)]

        def open_it(index, engines=engines):
            with engines[index].connect() as connection:
                found.append(connection.scalar(text(f"PRAGMA {file.name}.journal_mode")))

        together(16, open_it)

    assert found == ["wal"] * 5 * 16


def test_the_folder_of_the_file_is_made(tmp_path):
    """As without a name."""
    place = in_a_file(tmp_path / "var" / "lib")
    models(place.name).Base.metadata.create_all(place.engine())

    assert len(place.rows("users")) == 0
    place.dispose()


def test_a_file_that_cannot_be_opened_is_an_error_and_leaves_no_connection(file, tmp_path):
    """It is the error that any database gives that cannot be reached."""
    (tmp_path / f"{file.name}.sqlite").mkdir()
    made = []

    class Noted(sqlite3.Connection):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(self)

    with pytest.raises(OperationalError, match="unable to open") as caught:
        file.engine(**{"sqlalchemy.connect_args": {"factory": Noted}}).connect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].execute("SELECT 1")

    assert caught.value.orig.sqlite_errorcode == sqlite3.SQLITE_CANTOPEN


@pytest.mark.parametrize("how", ["mode=ro", "immutable=1"])
def test_a_file_that_is_opened_to_be_read_only_is(file, how):
    """The parameters of the URI count for the attached file."""
    models(None).Base.metadata.create_all(file.engine())
    file.dispose()
    path = make_url(file.settings["sqlalchemy.url"]).database
    url = f"sqlite:///file:{path}?{how}&uri=true"
    with file.engine(**{"sqlalchemy.url": url}).connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM users")) == 0
        with pytest.raises(OperationalError, match="readonly"):
            connection.execute(text("DELETE FROM users"))


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"]
)
def test_a_database_in_memory_is_kept_for_all_threads(file, url):
    """From one connection to the next, under the name and without it."""
    engine = file.engine(**{"sqlalchemy.url": url})
    model = models(file.name)
    model.Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(model.User(name="ann"))
        session.commit()

    with engine.connect() as connection:
        assert connection.scalar(text(f"SELECT name FROM {file.name}.users")) == "ann"
        assert connection.scalar(text("SELECT name FROM users")) == "ann"


def test_ddl_and_reads_are_inside_the_transaction(file):
    """The BEGIN is real for the attached file: a table made and rolled back is gone."""
    models(file.name).Base.metadata.create_all(file.engine())
    with file.engine().connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM users")) == 0
        with plain_engine(file.settings["sqlalchemy.url"]).begin() as other:
            other.execute(text("INSERT INTO users (name, kind) VALUES ('ann', 'user')"))
        assert connection.scalar(text("SELECT count(*) FROM users")) == 0
        connection.rollback()
        connection.execute(text(f"CREATE TABLE {file.name}.note (body INTEGER)"))
        connection.rollback()

    assert "note" not in inspect(file.engine()).get_table_names()


def test_a_busy_file_is_still_a_conflict_that_is_tried_again(file):
    """The write lock of the attached file, and a snapshot that somebody has overtaken."""
    model = models(file.name)
    engine = file.engine(**{"sqa.lock_timeout": "0.05"})
    model.Base.metadata.create_all(engine)
    change = text("INSERT INTO users (name, kind) VALUES ('eve', 'user')")
    with engine.connect() as reader, engine.connect() as writer:
        reader.execute(text("SELECT * FROM users")).all()
        writer.execute(change)
        with pytest.raises(OperationalError, match="locked") as locked:
            reader.execute(change)
        writer.commit()
        with pytest.raises(OperationalError, match="locked") as overtaken:
            reader.execute(change)

    codes = [error.value.orig.sqlite_errorcode for error in (locked, overtaken)]
    assert codes == [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_SNAPSHOT]
    assert all(IRetryableError.providedBy(error.value) for error in (locked, overtaken))


def test_the_applications_own_execution_options_are_kept(file):
    """Its own map of schemas too, and what it says of models without a schema wins."""
    plain = {"logging_token": "shop", "schema_translate_map": {"old": file.name}}
    own = {"schema_translate_map": {None: "main"}}
    kept = file.engine(**{"sqlalchemy.execution_options": plain}).get_execution_options()
    chosen = file.engine(**{"sqlalchemy.execution_options": own}).get_execution_options()

    assert kept["logging_token"] == "shop"
    assert kept["schema_translate_map"] == {None: file.name, "old": file.name}
    assert chosen["schema_translate_map"] == {None: "main"}


def test_connections_made_by_the_application_must_have_the_schema(file, tmp_path):
    """Else each model would be missing in its own words; with it they work."""

    def attaching():
        connection = sqlite3.connect(":memory:")
        connection.execute(f'ATTACH ? AS "{file.name}"', [f"{tmp_path}/own.sqlite"])
        return connection

    with pytest.raises(SettingError, match=f"sqlalchemy.creator.*ATTACH the file AS {file.name}"):
        file.engine(**{"sqlalchemy.creator": lambda: sqlite3.connect(":memory:")}).connect()
    engine = file.engine(**{"sqlalchemy.creator": attaching})
    models(file.name).Base.metadata.create_all(engine)
    assert sorted(inspect(engine).get_table_names()) == TABLES


# PostgreSQL.


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_only_the_applications_schema_is_searched(place):
    """A table of that name in public is not found where the application's is missing."""
    with place.engine().connect() as connection:
        assert connection.scalar(text("SHOW search_path")) == f'"{place.name}"'
        assert connection.scalar(text("SELECT current_schema()")) == place.name


# Alembic, with the env.py that the documentation shows.

NOTES = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    __table_args__ = {{"schema": "{name}"}}


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
"""
INI = "[app:main]\nuse = call:support.rule_app:main\n"
REVISION = """
revision, down_revision = ${repr(up_revision)}, ${repr(down_revision)}
from alembic import op
import sqlalchemy as sa
def upgrade():
    ${upgrades if upgrades else "pass"}
"""


@pytest.fixture
def alembic(place, tmp_path, monkeypatch):
    """Return what runs a command of Alembic on the models of a module, which may be changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    lines = "".join(f"{key} = {value}\n" for key, value in place.settings.items())
    (tmp_path / "development.ini").write_text(INI + lines)
    page = (Path(__file__).parents[2] / "docs" / "schemas.md").read_text()
    [env] = re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    scripts = tmp_path / "migrations"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text(env.replace("aalam_base", place.name))
    (scripts / "script.py.mako").write_text(REVISION)
    config = Config(output_buffer=io.StringIO(), stdout=io.StringIO())
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")

    def run(command, models, *args, **options):
        (tmp_path / "notes.py").write_text("from sqlalchemy import ForeignKey\n" + models)
        sys.modules.pop("notes", None)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return command(config, *args, **options)
        finally:
            sys.dont_write_bytecode = before

    yield run
    sys.modules.pop("notes", None)


@pytest.mark.parametrize("place", ["file", "mariadb", "postgresql"], indirect=True)
def test_alembic_finds_no_difference_and_then_the_new_column(alembic, place):
    """Tables with their foreign keys are made and found, and one column more is one column more."""
    old = NOTES.format(name=place.name)
    new = old + "    body: Mapped[str | None]\n".replace("str | None", "int | None")
    alembic(command.revision, old, "first", autogenerate=True, rev_id="1")
    alembic(command.upgrade, old, "head")
    alembic(command.check, old)
    second = alembic(command.revision, new, "second", autogenerate=True, rev_id="2")
    alembic(command.upgrade, new, "head")
    alembic(command.check, new)
    written = Path(second.path).read_text()

    assert (written.count("op."), written.count("add_column")) == (1, 1)
    assert place.rows("note", "id, user_id, body") == []
    assert place.rows("alembic_version") == [("2",)]
    with pytest.raises(CommandError, match="New upgrade operations"):
        alembic(command.check, old)


def test_models_without_a_schema_need_nothing_of_alembic(place):
    """Its usual way finds no difference, and then the new column."""
    model = models(None)
    engine = place.engine()
    model.Base.metadata.create_all(engine)
    with engine.connect() as connection:
        same = compare_metadata(MigrationContext.configure(connection), model.Base.metadata)
        model.odd.append_column(Column("more", Integer))
        [found] = compare_metadata(MigrationContext.configure(connection), model.Base.metadata)

    assert same == []
    assert found[0] == "add_column"
