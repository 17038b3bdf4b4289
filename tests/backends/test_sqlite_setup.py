"""SQLite: real transactions, waits, how files are made and opened, databases in memory."""
# ruff: noqa: PLR0913, PLR0917 - a table of cases has as many columns as it needs

import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pyramid_aalam_sqa.backends import backend_of
from support.engines import ask
from support.processes import QUIET


@pytest.mark.parametrize(
    ("key", "value", "pragma", "expected"),
    [
        (None, None, "foreign_keys", 1),
        (None, None, "journal_mode", "wal"),
        (None, None, "busy_timeout", 10_000),
        ("sqa.sqlite.foreign_keys", "false", "foreign_keys", 0),
        ("sqa.sqlite.journal_mode", "truncate", "journal_mode", "truncate"),
        ("sqa.sqlite.journal_mode", "memory", "journal_mode", "memory"),
        ("sqa.lock_timeout", "0.5", "busy_timeout", 500),
        ("sqa.lock_timeout", "1000000", "busy_timeout", 1_000_000_000),
        ("sqlalchemy.connect_args.timeout", "3", "busy_timeout", 3000),
        ("sqlalchemy.isolation_level", "READ UNCOMMITTED", "read_uncommitted", 1),
    ],
)
def test_the_defaults_of_sqlite_and_how_to_change_them(make, sqlite, key, value, pragma, expected):
    """SQLite reports each value."""
    engine = make(sqlite.url, {key: value} if key else {})

    assert ask(engine, f"PRAGMA {pragma}") == expected


def test_sqlite_refuses_a_row_that_refers_to_nothing(make, sqlite):
    """SQLite checks foreign keys only because the engine turns that on."""
    sqlite.run("CREATE TABLE a (id INTEGER PRIMARY KEY)", "CREATE TABLE b (a REFERENCES a (id))")
    with (
        make(sqlite.url).connect() as connection,
        pytest.raises(IntegrityError, match="FOREIGN KEY"),
    ):
        connection.execute(text("INSERT INTO b VALUES (7)"))


@pytest.mark.parametrize("level", ["", "IMMEDIATE"])
def test_ddl_is_inside_the_transaction(make, sqlite, level):
    """A rollback removes the table and its rows."""
    with make(
        sqlite.url, {"sqlalchemy.connect_args.isolation_level": level} if level else {}
    ).connect() as connection:
        connection.execute(text("CREATE TABLE note (body INTEGER)"))
        connection.execute(text("INSERT INTO note VALUES (1)"))
        connection.rollback()

    assert sqlite.rows("SELECT name FROM sqlite_master") == []


def test_a_savepoint_is_inside_the_transaction(make, sqlite):
    """A rollback to the savepoint keeps the work before it; a full rollback removes all."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    with make(sqlite.url).connect() as connection:
        with connection.begin_nested() as savepoint:
            connection.execute(text("INSERT INTO note VALUES (1)"))
            savepoint.rollback()
        with connection.begin_nested():
            connection.execute(text("INSERT INTO note VALUES (2)"))
        assert connection.execute(text("SELECT body FROM note")).all() == [(2,)]
        connection.rollback()

    assert sqlite.rows("SELECT * FROM note") == []


def test_reads_are_inside_the_transaction(make, sqlite):
    """Two reads of one transaction see the same rows, although another connection wrote between."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    with make(sqlite.url).connect() as connection:
        before = connection.execute(text("SELECT count(*) FROM note")).scalar()
        sqlite.run("INSERT INTO note VALUES (1)")
        after = connection.execute(text("SELECT count(*) FROM note")).scalar()

    assert (before, after) == (0, 0)


def test_a_writer_waits_for_another_as_long_as_is_set(make, sqlite):
    """A second writer gives up after sqa.lock_timeout."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    engine = make(sqlite.url, {"sqa.lock_timeout": "0.3"})
    with engine.connect() as first, engine.connect() as second:
        first.execute(text("INSERT INTO note VALUES (1)"))
        started = time.monotonic()
        with pytest.raises(OperationalError, match="database is locked"):
            second.execute(text("INSERT INTO note VALUES (2)"))

        assert 0.2 < time.monotonic() - started < 2


def test_the_write_lock_can_be_taken_at_the_beginning(make, sqlite):
    """connect_args.isolation_level = IMMEDIATE makes BEGIN take the write lock."""
    engine = make(
        sqlite.url,
        {"sqlalchemy.connect_args.isolation_level": "IMMEDIATE", "sqa.lock_timeout": "0"},
    )
    with engine.connect() as first, engine.connect() as second:
        first.execute(text("SELECT 1"))

        with pytest.raises(OperationalError, match="database is locked"):
            second.execute(text("SELECT 1"))


def test_the_folder_of_the_file_is_made(make, tmp_path):
    """SQLite would refuse to open a file in a folder that does not exist."""
    ask(make(f"sqlite:///{tmp_path}/var/lib/app.sqlite"), "SELECT 1")

    assert (tmp_path / "var" / "lib" / "app.sqlite").is_file()


def test_a_relative_path_is_relative_to_where_the_process_runs(make, tmp_path, monkeypatch):
    """SQLAlchemy resolves it in the same way."""
    monkeypatch.chdir(tmp_path)
    ask(make("sqlite:///app.sqlite"), "SELECT 1")

    assert (tmp_path / "app.sqlite").is_file()


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("how", ["mode=ro", "immutable=1"])
def test_a_read_only_file_can_be_read(make, tmp_path, journal, how):
    """The journal mode that the file was left in does not matter."""
    path = tmp_path / "read-only.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE note AS SELECT 7 AS body")
    connection.close()
    engine = make(f"sqlite:///file:{path}?{how}&uri=true")

    assert ask(engine, "SELECT body FROM note") == 7
    with pytest.raises(OperationalError, match="readonly"):
        ask(engine, "DELETE FROM note")


def test_a_file_that_stays_locked_is_given_up_in_time(make, sqlite):
    """Another connection holds the file exclusively."""
    holder = sqlite3.connect(make_url(sqlite.url).database, isolation_level=None)
    holder.execute("CREATE TABLE note (body INTEGER)")
    holder.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    with pytest.raises(OperationalError, match="database is locked"):
        ask(make(sqlite.url, {"sqa.lock_timeout": "0.3"}), "SELECT 1")
    waited = time.monotonic() - started
    holder.close()

    assert waited < 2


def test_a_file_becomes_a_wal_although_another_writes_to_it(make, sqlite):
    """SQLite does not wait for this lock, so the package asks again."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    path = make_url(sqlite.url).database
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    end = threading.Timer(0.2, writer.execute, ["COMMIT"])
    end.start()
    found = ask(make(sqlite.url), "PRAGMA journal_mode")
    end.join()
    writer.close()

    assert found == "wal"


def test_many_threads_may_open_a_new_file_at_once(make, tmp_path):
    """Each thread has an engine of its own, as several applications in one process have."""
    at_once = 16

    def open_it(engine, barrier):
        barrier.wait()
        return ask(engine, "PRAGMA journal_mode")

    with ThreadPoolExecutor(at_once) as threads:
        for number in range(20):
            url = f"sqlite:///{tmp_path}/{number}.sqlite"
            barrier = threading.Barrier(at_once)
            tries = [threads.submit(open_it, make(url), barrier) for _ in range(at_once)]

            assert [found.result() for found in tries] == ["wal"] * at_once


OPENER = """
import sys, time
from sqlalchemy import text
from pyramid_aalam_sqa import engine_from_settings

folder, start = sys.argv[1], float(sys.argv[2])
for number in range(40):
    engine = engine_from_settings({"sqlalchemy.url": f"sqlite:///{folder}/{number}.sqlite"})
    time.sleep(max(0, start + number / 100 - time.time()))
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    engine.dispose()
"""


@pytest.mark.deep
def test_many_processes_may_open_a_new_file_at_once(tmp_path):
    """The workers of a new installation all open the file for the first time."""
    arguments = [sys.executable, *QUIET, "-c", OPENER, str(tmp_path), str(time.time() + 2)]
    workers = [subprocess.Popen(arguments, stderr=subprocess.PIPE) for _ in range(4)]
    told = [worker.communicate()[1].decode() for worker in workers]

    assert told == [""] * 4


IN_MEMORY = [
    "sqlite://",
    "sqlite:///",
    "sqlite:///:memory:",
    "sqlite:///file::memory:?uri=true",
    "sqlite:///file:shared?mode=memory&uri=true",
    "sqlite:///file:shared?mode=memory&cache=shared&uri=true",
]


@pytest.mark.parametrize("poolclass", [None, "QueuePool"])
@pytest.mark.parametrize("url", IN_MEMORY)
def test_a_database_in_memory_is_one_for_all_threads(make, tmp_path, monkeypatch, url, poolclass):
    """All threads see the same rows, and no file is made."""
    monkeypatch.chdir(tmp_path)
    engine = make(url, {"sqlalchemy.poolclass": poolclass} if poolclass else {})
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE note (body INTEGER)"))

    def write(number):
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO note VALUES (:body)"), {"body": number})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(20)))

    assert ask(engine, "SELECT count(*) FROM note") == 20
    assert list(tmp_path.iterdir()) == []


def test_a_second_connection_to_memory_waits_for_the_first(make):
    """A second connection would open another, empty database."""
    engine = make("sqlite://", pool_timeout="0.1")
    with engine.connect(), pytest.raises(PoolTimeoutError):
        engine.connect()


def test_an_error_that_does_not_tell_whether_a_file_takes_writes_is_raised(make, sqlite):
    """It is neither a file in use nor one that is read-only."""
    engine = make(sqlite.url)
    connection = sqlite3.connect(make_url(sqlite.url).database, isolation_level=None)
    assert backend_of(engine).refuses_writes(connection) is False
    connection.execute("BEGIN")
    with pytest.raises(sqlite3.OperationalError, match="within a transaction"):
        backend_of(engine).refuses_writes(connection)
    connection.close()
