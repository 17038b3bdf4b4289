"""What the watcher costs an engine, and what it leaves on a connection that goes back."""

import sqlite3
import weakref

import pytest
from pyramid.response import Response
from sqlalchemy import Engine, create_engine, event, text
from webtest import TestApp

from pyramid_aalam_sqa import engine_from_settings, get_sqa
from pyramid_aalam_sqa.engines.transaction import MANY_CURSORS
from support.apps import with_view
from support.bound import KEYS


@pytest.fixture
def no_listener_on_the_class(monkeypatch):
    """pyramid_debugtoolbar listens on all engines of the process, once a test has imported it."""
    monkeypatch.setattr(Engine, "_has_events", False)


def is_watched_for_free(engine):
    """Whether SQLAlchemy asks nobody at the steps of a connection of *engine*."""
    return not engine._has_events  # noqa: SLF001 - it has no public name


@pytest.mark.usefixtures("no_listener_on_the_class")
def test_no_engine_has_a_listener_that_makes_each_connection_slower(serve, any_database):
    """All that the package knows of an engine it knows from its dialect and its pool."""
    app = serve(any_database.url, with_view(lambda request: Response()))

    assert is_watched_for_free(get_sqa(app).engine)


@pytest.mark.usefixtures("no_listener_on_the_class")
def test_neither_has_an_engine_of_an_application_with_binds(serve, tmp_path):
    """Tables with a bind key have been declared in this process."""
    settings = {
        f"sqlalchemy.binds.{key}.url": f"sqlite:///{tmp_path}/{key}"
        for key in KEYS
        if key != "default"
    }
    app = serve(f"sqlite:///{tmp_path}/default", **settings)

    assert all(map(is_watched_for_free, get_sqa(app).engines.values()))
    assert is_watched_for_free(engine_from_settings({"sqlalchemy.url": "sqlite://"}))


@pytest.mark.usefixtures("no_listener_on_the_class")
def test_an_engine_with_one_listener_is_slower():
    """SQLAlchemy still marks an engine in this way; if not, the tests above prove nothing."""
    engine = create_engine("sqlite://")
    assert is_watched_for_free(engine)

    event.listen(engine, "commit", print)
    assert not is_watched_for_free(engine)


def test_a_cursor_that_was_not_read_to_its_end_is_closed(serve, sqlite):
    """The next one on the connection sees what others have stored, and can write."""
    kept = []
    sqlite.run("CREATE TABLE note (body INTEGER)", "INSERT INTO note VALUES (1), (2)")

    def leave(request):
        connection = request.sqa_session.connection()
        result = connection.execute(text("SELECT body FROM note"))
        # Another transaction of the same connection, as a raw one may have.
        kept.extend([result.cursor, result.fetchone()])
        return Response()

    def write(request):
        request.sqa_session.execute(text("INSERT INTO note VALUES (3)"))
        return Response()

    settings = {"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0"}
    client = TestApp(
        serve(sqlite.url, with_view(leave, name="leave"), with_view(write), **settings)
    )
    client.get("/leave")
    sqlite.run("INSERT INTO note VALUES (9)")
    client.get("/")

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        kept[0].fetchone()
    assert sqlite.scalar("SELECT count(*) FROM note") == 4


def test_a_cursor_of_an_earlier_transaction_is_closed_too(serve, sqlite):
    """One connection may have several transactions before it goes back."""
    sqlite.run("CREATE TABLE note (body INTEGER)", "INSERT INTO note VALUES (1), (2)")
    engine = get_sqa(serve(sqlite.url)).engine
    with engine.connect() as connection:
        result = connection.execute(text("SELECT body FROM note"))
        result.fetchone()
        cursor = result.cursor
        connection.commit()
        connection.execute(text("SELECT 1"))

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        cursor.fetchone()


def test_a_connection_whose_cursor_cannot_be_closed_is_thrown_away(serve, sqlite):
    """The pool gets its place back."""
    engine = get_sqa(serve(sqlite.url)).engine
    with engine.connect() as connection:
        before = connection.connection.dbapi_connection
        transaction = connection.execute(text("SELECT 1")).context.root_connection
        watched = transaction.connection.info["sqa.transaction"]

        class Stubborn:
            def close(self):
                raise sqlite3.OperationalError

        stubborn = Stubborn()
        watched.cursors.append(weakref.ref(stubborn))

    assert engine.pool.checkedout() == 0
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection is not before


def test_cursors_that_are_gone_are_not_kept_noted(serve, sqlite):
    """A request of many statements notes few of them."""
    engine = get_sqa(serve(sqlite.url)).engine
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT 1"))
        for _ in range(3 * MANY_CURSORS):
            connection.execute(text("SELECT 1")).all()
        noted = connection.connection.info["sqa.transaction"].cursors
        cursors = {reference() for reference in noted}

    assert len(noted) <= MANY_CURSORS + 1
    assert kept.cursor is None or kept.cursor in cursors


def test_a_listener_may_send_statements_before_a_transaction_begins(serve, sqlite):
    """They belong to no transaction, so they do not change what becomes of the next one."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    engine = get_sqa(serve(sqlite.url)).engine
    seen = []

    def look(connection):
        seen.append(connection.exec_driver_sql("PRAGMA foreign_keys").scalar())

    event.listen(engine, "begin", look)
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO note VALUES (1)"))
        connection.commit()
        connection.execute(text("INSERT INTO note VALUES (2)"))

    assert seen == [1, 1]
    assert sqlite.rows("SELECT body FROM note") == [(1,)]


def test_a_pool_that_commits_what_comes_back_still_does(serve, sqlite):
    """With pool_reset_on_return="commit", as the creator of the engine has asked for."""
    sqlite.run("CREATE TABLE note (body INTEGER)")
    engine = create_engine(sqlite.url, pool_reset_on_return="commit")
    serve("sqlite://", **{"sqlalchemy.engine": engine})
    raw = engine.raw_connection()
    raw.cursor().execute("BEGIN")
    raw.cursor().execute("INSERT INTO note VALUES (1)")
    raw.close()
    engine.dispose()

    assert sqlite.rows("SELECT body FROM note") == [(1,)]
