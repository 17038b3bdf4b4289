"""Missing tables are created once. An account that may not create them gets a clear error."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from pyramid_aalam_sqa.backends.backend import Backend
from pyramid_aalam_sqa.backends.mysql import lock_name
from pyramid_aalam_sqa.backends.registry import backend_for
from pyramid_aalam_sqa.engines.tables import create_tables
from pyramid_aalam_sqa.exceptions import ProvisioningError
from pyramid_aalam_sqa.settings.reader import read_settings
from support.databases import plain_engine
from support.places import PLACES, places
from support.portable_app import WORKERS, models
from support.processes import HERE, QUIET

TABLES = ["admins", "posts", "table-1", "users"]


@pytest.fixture(params=["file", "mariadb", "postgresql"])
def place(request):
    """The test runs on each database. It has no tables."""
    for place in places(request.param, request):
        yield place
        place.dispose()


def there(place):
    return sorted(inspect(place.engine()).get_table_names(schema=place.name))


@pytest.mark.parametrize("bare", [False, True])
def test_what_is_missing_is_created_and_what_is_there_is_kept(place, bare):
    """Rows are kept. The caller gets the names of the tables that were created."""
    model = models(None if bare else place.name)
    engine = place.engine()
    model.User.__table__.create(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO users (id, name, kind) VALUES (1, 'ann', 'user')"))
    made = create_tables(engine, model.Base.metadata, place.name)

    assert sorted(made) == ["admins", "posts", "table-1"]
    assert there(place) == TABLES
    assert place.rows("users", "name") == [("ann",)]
    assert create_tables(engine, model.Base.metadata, place.name) == []


@pytest.mark.parametrize("place", ["mariadb"], indirect=True)
def test_a_table_that_appears_meanwhile_is_left_to_the_one_that_makes_it(place):
    """As on Galera, where the lock keeps out the workers of its own node alone."""
    metadata = MetaData()
    for name in ("first", "second", "third"):
        Table(name, metadata, Column("id", Integer, primary_key=True), schema=place.name)

    @event.listens_for(metadata.tables[f"{place.name}.second"], "before_create")
    def make_it_before(table, *_, **_options):
        outside = plain_engine(place.engine().url)
        if not inspect(outside).has_table("second", schema=place.name):
            with outside.begin() as connection:
                connection.execute(text(f"CREATE TABLE {place.name}.second (id INT)"))

    made = create_tables(place.engine(), metadata, place.name)

    assert sorted(made) == there(place) == ["first", "second", "third"]


@pytest.mark.parametrize("place", ["mariadb"], indirect=True)
def test_a_table_that_the_account_cannot_see_is_the_servers_error(place, monkeypatch):
    """It is not tried again without end."""
    monkeypatch.setattr("pyramid_aalam_sqa.engines.tables.PAUSE", 0)
    metadata = MetaData()
    Table("hidden", metadata, Column("id", Integer, primary_key=True), schema=place.name)
    metadata.create_all(place.engine())
    hidden = place.engine()
    hidden.dialect.has_table = lambda *_, **_options: False

    with pytest.raises(DBAPIError, match="1050"):
        create_tables(hidden, metadata, place.name)


@pytest.mark.parametrize("place", ["memory"], indirect=True)
def test_tables_are_created_in_memory(place):
    """The one connection is used, and given back."""
    create_tables(place.engine(), models(place.name).Base.metadata, place.name)

    assert there(place) == TABLES


def test_the_table_of_another_application_is_none_of_ours(place):
    """The metadata may contain it, because the application reads it."""
    metadata = MetaData()
    Table("theirs", metadata, Column("id", Integer), schema="portal_theirs")
    Table("ours", metadata, Column("id", Integer), schema=place.name)

    assert create_tables(place.engine(), metadata, place.name) == ["ours"]


def test_a_view_stands_in_for_its_table(place):
    """If a view has the table's name, the table is not created."""
    engine = place.engine()
    with engine.begin() as connection:
        connection.execute(text(f"CREATE VIEW {place.name}.users AS SELECT 1 AS id"))
    metadata = MetaData()
    Table("users", metadata, Column("id", Integer), schema=place.name)

    assert create_tables(engine, metadata, place.name) == []


def test_autocommit_changes_nothing(place):
    """The lock is held, and the connection goes back to the pool as it was."""
    engine = place.engine().execution_options(isolation_level="AUTOCOMMIT")
    create_tables(engine, models(place.name).Base.metadata, place.name)
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO users (id, name, kind) VALUES (1, 'ann', 'user')"))

        assert place.rows("users", "name") == [("ann",)]


# Many at once.


@pytest.mark.sweep(1)
def test_forty_workers_that_start_at_once_all_start(place):
    """Each has its own engine, and no worker gets an error."""
    given = json.dumps({"sqa.mysql.tls": "off", **place.settings})
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *QUIET, HERE / "support" / "portable_app.py", given, place.name],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.stderr == ""
    assert json.loads(done.stdout) == [0] * WORKERS
    assert len(there(place)) == len(TABLES) + 3


# The lock.


@contextmanager
def held(place, engine, **options):
    """Hold the lock of a worker that creates tables, on a connection with *options*."""
    holder = place.engine().execution_options(**options)
    dialect = backend_for(engine.url, read_settings(place.settings).sqa_options, place.name)
    with holder.connect() as connection, dialect.table_lock(connection, place.name):
        yield connection


@pytest.mark.parametrize("place", PLACES, indirect=True)
@pytest.mark.parametrize("holder", [{}, {"isolation_level": "AUTOCOMMIT"}])
@pytest.mark.sweep(4)
def test_waiting_for_another_worker_ends_in_one_clear_error(place, monkeypatch, holder):
    """The error names the database. After the other worker has ended, creating works."""
    monkeypatch.setattr(Backend, "TABLE_LOCK_TIMEOUT", 0.1)
    engine = place.engine(**{"sqa.lock_timeout": "0.1"})
    metadata = models(place.name).Base.metadata
    with held(place, engine, **holder), pytest.raises(ProvisioningError) as caught:
        create_tables(engine, metadata, place.name)
    create_tables(engine, metadata, place.name)

    assert str(caught.value) == (
        f"Another process has been creating the tables of {place.name} for 0.1 seconds: "
        "find out what it waits for, then start again."
    )
    assert there(place) == TABLES


def test_a_process_does_not_wait_when_nothing_is_missing(place, monkeypatch):
    """At most starts nothing is missing, so the lock is not taken."""
    monkeypatch.setattr(Backend, "TABLE_LOCK_TIMEOUT", 0.1)
    engine = place.engine(**{"sqa.lock_timeout": "0.1"})
    metadata = models(place.name).Base.metadata
    create_tables(engine, metadata, place.name)
    with held(place, engine):
        assert create_tables(engine, metadata, place.name) == []


@pytest.mark.sweep(2)
def test_one_who_waits_goes_on_when_the_other_is_done(place, monkeypatch):
    """The second worker then finds that all tables exist."""
    metadata = models(place.name).Base.metadata
    waiter = place.engine(**{"sqa.lock_timeout": "0.1"})
    dialect = type(backend_for(waiter.url, read_settings({}).sqa_options))
    take, answers, has_asked = dialect.take_table_lock, [], threading.Event()

    def note(self, connection, name):
        answers.append(take(self, connection, name))
        has_asked.set()
        return answers[-1]

    def wait():
        answers.append(create_tables(waiter, metadata, place.name))

    thread = threading.Thread(target=wait)
    with held(place, waiter) as connection:
        monkeypatch.setattr(dialect, "take_table_lock", note)
        thread.start()
        assert has_asked.wait(30)
        metadata.create_all(connection)
    thread.join()

    assert answers[0] is False
    assert answers[-2:] == [True, []]
    assert there(place) == TABLES


def test_a_failure_releases_the_lock_and_keeps_its_error(place):
    """The connection goes back without the lock, and the next worker can create."""
    engine = place.engine(**{"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0"})
    broken = MetaData()
    Table("broken", broken, Column("id", Integer, server_default=text("no such thing")))
    with pytest.raises(DBAPIError, match="such"):
        create_tables(engine, broken, place.name)
    with held(place, engine):
        pass
    create_tables(engine, models(place.name).Base.metadata, place.name)

    assert there(place) == TABLES


@pytest.mark.parametrize("place", ["mariadb"], indirect=True)
@pytest.mark.parametrize("notices", [True, False])
def test_a_lock_that_cannot_be_released_ends_with_its_connection(place, notices):
    """The connection is killed inside the block, noticed by a statement there or not."""
    engine = place.engine()

    def create(connection):
        number = connection.scalar(text("SELECT CONNECTION_ID()"))
        with plain_engine(engine.url).connect() as administrator:
            administrator.execute(text(f"KILL {number}"))
        if notices:
            connection.execute(text("SELECT 1"))
        raise ZeroDivisionError

    with engine.connect() as connection:
        with pytest.raises(DBAPIError if notices else ZeroDivisionError):
            locked(place, engine, connection, create)
        assert connection.invalidated
    with held(place, engine):
        pass


@pytest.mark.parametrize("place", ["mariadb"], indirect=True)
def test_a_release_that_fails_ends_the_connection(place):
    """Otherwise the pool would lend a connection that has the lock."""
    engine = place.engine()

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def interrupt(_connection, _cursor, statement, parameters, *_):
        refused = "RELEASE_LOCK" in statement
        return ("KILL QUERY CONNECTION_ID()", ()) if refused else (statement, parameters)

    with engine.connect() as connection:
        locked(place, engine, connection, lambda connection: None)

        assert connection.invalidated
    with held(place, engine):
        pass


@pytest.mark.parametrize("place", ["file"], indirect=True)
def test_an_error_that_no_waiting_would_help_is_not_waited_for(place):
    """For example, the caller has begun a transaction without SQLAlchemy."""
    engine = place.engine()
    with engine.connect() as connection:
        connection.connection.driver_connection.execute("BEGIN")
        with pytest.raises(DBAPIError, match="within a transaction"):
            locked(place, engine, connection, None)


def locked(place, engine, connection, work):
    dialect = backend_for(engine.url, read_settings({}).sqa_options, place.name)
    with dialect.table_lock(connection, place.name):
        work(connection)


@pytest.mark.parametrize("place", ["mariadb"], indirect=True)
def test_the_lock_of_mysql_is_of_one_application(place):
    """All databases of the server share one set of lock names, of 64 characters at most."""
    engine = place.engine()
    longest = [f"aalam_{'a' * 56}{letter}" for letter in "bc"]
    with held(place, engine), plain_engine(engine.url).connect() as connection:
        statement = text("SELECT IS_USED_LOCK(:name) IS NOT NULL")
        assert connection.scalar(statement, {"name": f"sqa:{place.name}"}) == 1
        taken = [connection.scalar(text(f"SELECT GET_LOCK('{lock_name(n)}', 0)")) for n in longest]

    assert taken == [1, 1]
    assert len({lock_name(name) for name in longest}) == 2
    assert max(len(lock_name(name)) for name in longest) <= 64


def test_a_database_that_is_none_of_these_has_no_lock():
    """The block runs without a lock."""
    dialect = Backend(make_url("oracle://"), read_settings({}).sqa_options)

    class Connection:
        committed = invalidated = False

        def commit(self):
            self.committed = True

    connection = Connection()
    with dialect.table_lock(connection, "aalam_base"):
        dialect.create_schema(connection, "aalam_base")

    assert connection.committed


# What the account may do.


def runtime_account(place, request):
    """Make an account for *place* that may read and write, but not create tables."""
    kind = make_url(place.settings["sqlalchemy.url"]).get_backend_name()
    account = f"{place.name}_r"
    if kind == "sqlite":
        url = make_url(place.settings["sqlalchemy.url"])
        place.settings["sqlalchemy.url"] = f"sqlite:///file:{url.database}?mode=ro&uri=true"
        return
    if kind == "mysql":
        server = request.getfixturevalue("mariadb_url")
        grants = [
            f"CREATE USER {account} IDENTIFIED BY 'hidden'",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {place.name}.* TO {account}",
        ]
        ends = [f"DROP USER {account}"]
    else:
        server = request.getfixturevalue("postgresql_server").url()
        grants = [
            f"CREATE ROLE {account} LOGIN PASSWORD 'hidden'",
            f"GRANT USAGE ON SCHEMA {place.name} TO {account}",
            f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA {place.name} TO {account}",
        ]
        ends = [f"DROP OWNED BY {account}", f"DROP ROLE {account}"]
    engine = plain_engine(server, isolation_level="AUTOCOMMIT")
    run(engine, grants)
    request.addfinalizer(lambda: run(engine, ends))
    url = make_url(server).set(username=account, password="hidden")
    place.settings["sqlalchemy.url"] = url.render_as_string(hide_password=False)


def run(engine, statements):
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_an_account_that_may_not_create_only_reads_when_nothing_is_missing(place, request):
    """The application starts as with any other account."""
    metadata = models(place.name).Base.metadata
    create_tables(place.engine(), metadata, place.name)
    place.dispose()
    runtime_account(place, request)
    engine = place.engine()

    assert create_tables(engine, metadata, place.name) == []
    engine.dispose()


def test_an_account_that_may_not_create_is_told_what_is_missing_and_what_to_run(place, request):
    """The error is one sentence without the password."""
    metadata = models(place.name).Base.metadata
    models(place.name).User.__table__.create(place.engine())
    place.dispose()
    runtime_account(place, request)
    engine = place.engine()
    with pytest.raises(ProvisioningError) as caught:
        create_tables(engine, metadata, place.name)
    engine.dispose()

    assert str(caught.value).startswith(
        f"The account of the application may not create what is missing in {place.name} ("
    )
    assert "admins" in str(caught.value)
    assert "users" not in str(caught.value)
    assert "psqa tables" in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_schema_that_is_missing_is_created_where_that_is_allowed(place, request):
    """This is for development. Otherwise the error names the command that creates it."""
    metadata = models(place.name).Base.metadata
    server = plain_engine(request.getfixturevalue("postgresql_server").url())
    with server.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {place.name}"))
    create_tables(place.engine(), metadata, place.name)
    assert there(place) == TABLES
    place.dispose()
    runtime_account(place, request)
    with server.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {place.name} CASCADE"))
    engine = place.engine()
    with pytest.raises(ProvisioningError, match="run `psqa create`"):
        create_tables(engine, metadata, place.name)
    engine.dispose()
    with server.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {place.name}"))
