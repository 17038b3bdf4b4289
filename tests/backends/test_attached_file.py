"""SQLite under a schema name: the main database is empty and in memory, the file is attached."""

import sqlite3
import threading

import pytest
from pyramid_retry import IRetryableError
from sqlalchemy import (
    inspect,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from pyramid_aalam_sqa import SettingError
from support.databases import plain_engine
from support.places import in_a_file
from support.portable_app import TABLES, models
from support.threads import together


def test_no_table_is_created_in_the_main_database_in_memory(file):
    """The main database stays empty, and all connections see the tables of the file."""
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
    """The error says what to write, and the connection can be used afterwards."""
    model = models(file.name)
    engine = file.engine()
    model.Base.metadata.create_all(engine)
    neighbour = tmp_path / "neighbour.sqlite"
    sql = statement.format(neighbour=neighbour, name=file.name)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        with pytest.raises((DatabaseError, OperationalError)) as caught:
            connection.exec_driver_sql(sql)

        assert f"write CREATE TABLE {file.name}.<table>" in caught.value.__notes__[0]
        assert connection.scalar(text("SELECT count(*) FROM users")) == 0
    assert not neighbour.exists()


def test_a_file_given_as_a_value_is_not_attached_either(file, tmp_path):
    """The guard refuses a file that is a bound parameter, whose path is not in the statement."""
    with (
        file.engine().connect() as connection,
        pytest.raises(DatabaseError, match="not authorized"),
    ):
        connection.execute(text("ATTACH :path AS other"), {"path": f"{tmp_path}/other.sqlite"})

    assert not (tmp_path / "other.sqlite").exists()


def test_an_error_about_a_missing_table_gets_no_advice(file):
    """The error for a missing table is left as it is."""
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
    """This is true for maintenance, definitions with the schema, and temporary objects."""
    models(None).Base.metadata.create_all(file.engine())
    with (
        file.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        connection.execute(text(statement.format(name=file.name))) as result,
    ):
        assert result


def test_vacuum_makes_the_file_smaller(file):
    """VACUUM with the schema's name works on the file, not on the empty main database."""
    with file.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE TABLE {file.name}.big (body)")
        connection.exec_driver_sql("INSERT INTO big VALUES (zeroblob(1000000))")
        connection.exec_driver_sql("DELETE FROM big")
        connection.exec_driver_sql(f"VACUUM {file.name}")

        assert connection.scalar(text(f"PRAGMA {file.name}.page_count")) < 10


def test_data_that_looks_like_a_question_about_tables_stays_as_it_is(file):
    """Only statements of SQLAlchemy's reflection are rewritten, never values."""
    written = "SELECT name FROM sqlite_master; PRAGMA main.table_info(x)"
    with file.engine().begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {file.name}.note (body)")
        connection.exec_driver_sql(f"INSERT INTO note VALUES ('{written}')")

        assert connection.exec_driver_sql(f"SELECT '{written}'").scalar() == written
    assert file.rows("note") == [(written,)]


@pytest.mark.parametrize(("mode", "found"), [(None, "wal"), ("truncate", "truncate")])
def test_the_file_has_the_journal_mode_that_was_set(file, mode, found):
    """The journal mode is set on the attached file, not on the empty main database."""
    settings = {"sqa.sqlite.journal_mode": mode} if mode else {}
    with file.engine(**settings).connect() as connection:
        assert connection.scalar(text(f"PRAGMA {file.name}.journal_mode")) == found
        assert connection.scalar(text("PRAGMA main.journal_mode")) == "memory"


def test_an_attached_file_becomes_a_wal_although_another_writes_to_it(file):
    """SQLite does not wait for this lock, so the package asks again."""
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
    """Each thread has an engine of its own, and attaching the file opens and reads it."""
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
    """The folder of an attached file is made too."""
    place = in_a_file(tmp_path / "var" / "lib")
    models(place.name).Base.metadata.create_all(place.engine())

    assert len(place.rows("users")) == 0
    place.dispose()


def test_a_file_that_cannot_be_opened_is_an_error_and_leaves_no_connection(file, tmp_path):
    """The error has the code of a database that cannot be reached, and the connection is closed."""
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
def test_a_file_that_is_opened_read_only_cannot_be_written(file, how):
    """The parameters of the URI hold for the attached file."""
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
    """The next connection finds the rows, with the schema's name and without it."""
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
    """Reads see one snapshot of the attached file, and a rollback removes a new table."""
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
    """A write lock that another holds, and a snapshot older than another's write."""
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
    """schema_translate_map is completed; the application's own entry for None wins."""
    plain = {"logging_token": "shop", "schema_translate_map": {"old": file.name}}
    own = {"schema_translate_map": {None: "main"}}
    kept = file.engine(**{"sqlalchemy.execution_options": plain}).get_execution_options()
    chosen = file.engine(**{"sqlalchemy.execution_options": own}).get_execution_options()

    assert kept["logging_token"] == "shop"
    assert kept["schema_translate_map"] == {None: file.name, "old": file.name}
    assert chosen["schema_translate_map"] == {None: "main"}


def test_connections_made_by_the_application_must_have_the_schema(file, tmp_path):
    """Without the attached file the error says what to do; with it the models work."""

    def attaching():
        connection = sqlite3.connect(":memory:")
        connection.execute(f'ATTACH ? AS "{file.name}"', [f"{tmp_path}/own.sqlite"])
        return connection

    with pytest.raises(SettingError, match=f"sqlalchemy.creator.*ATTACH the file AS {file.name}"):
        file.engine(**{"sqlalchemy.creator": lambda: sqlite3.connect(":memory:")}).connect()
    engine = file.engine(**{"sqlalchemy.creator": attaching})
    models(file.name).Base.metadata.create_all(engine)
    assert sorted(inspect(engine).get_table_names()) == TABLES
