"""What one visitor sets on a pooled connection, and what the next visitor sees of it."""

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import BrokenTransactionError
from support.apps import with_view

CHANGES = ["SET @seen = 'mine'", "SET SESSION sql_mode = ''", "SELECT GET_LOCK('sqa', 0)"]
STATE = "SELECT @seen IS NULL, @@sql_mode <> ''"


def change(request):
    for statement in request.params.getall("sql"):
        request.sqa_session.execute(text(statement))
    return Response()


def look(request):
    return Response(str(tuple(request.sqa_session.execute(text(STATE)).one())))


def write(request):
    request.sqa_session.execute(text("INSERT INTO note VALUES (1)"))
    return Response(status=500)


@pytest.fixture
def visitor_of(serve):
    """Make clients of applications with one connection, which all visitors use in turn."""
    views = [with_view(view, name=view.__name__) for view in (change, look, write)]

    def visitor_of(database, *setups, **settings):
        settings = {"sqlalchemy.pool_size": "1", **settings}
        return TestApp(serve(database.url, *views, *setups, **settings))

    return visitor_of


def test_with_reset_connection_nothing_of_a_visitor_is_left(visitor_of, mariadb):
    """User variables, modes and locks end with the request that has set them."""
    client = visitor_of(mariadb, **{"sqa.reset_connection": "true"})
    clean = client.get("/look").text
    client.get("/change", {"sql": CHANGES})

    assert client.get("/look").text == clean == "(1, 1)"
    # The server takes a moment to notice that a connection is closed.
    assert mariadb.scalar("SELECT GET_LOCK('sqa', 10)") == 1


def change_behind(request):
    """Send statements on a cursor of the driver, without SQLAlchemy."""
    cursor = request.sqa_session.connection().connection.cursor()
    for statement in request.params.getall("sql"):
        cursor.execute(statement)
    return Response()


@pytest.mark.parametrize(("switch", "seen"), [("false", "(0, 0)"), ("true", "(1, 1)")])
def test_what_the_driver_was_told_behind_sqlalchemy_needs_the_switch(
    visitor_of, mariadb, switch, seen
):
    """Listeners do not see such a statement, so only sqa.reset_connection helps."""
    behind = with_view(change_behind, name="behind")
    client = visitor_of(mariadb, behind, **{"sqa.reset_connection": switch})
    client.get("/behind", {"sql": CHANGES})

    assert client.get("/look").text == seen


def test_autocommit_is_always_reset(visitor_of, mariadb):
    """Otherwise the rollback of the next request would have no effect."""
    mariadb.run("CREATE TABLE note (id INTEGER)")
    client = visitor_of(mariadb)
    with pytest.raises(BrokenTransactionError, match="SET autocommit"):
        client.get("/change", {"sql": ["SET autocommit = 1"]})
    client.get("/write", status=500)

    assert mariadb.rows("SELECT * FROM note") == []


def test_an_isolation_level_chosen_for_one_transaction_is_always_reset(visitor_of, mariadb):
    """SQLAlchemy resets a level that was chosen through SQLAlchemy."""

    def serializable(request):
        request.sqa_session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        return level(request)

    def level(request):
        return Response(request.sqa_session.scalar(text("SELECT @@tx_isolation")))

    setups = [with_view(view, name=view.__name__) for view in (serializable, level)]
    client = visitor_of(mariadb, *setups)

    assert client.get("/serializable").text == "SERIALIZABLE"
    assert client.get("/level").text == "READ-COMMITTED"


def test_on_sqlite_a_temporary_table_ends_with_its_request(visitor_of, sqlite):
    """The setting sqa.reset_connection works for a file too."""
    client = visitor_of(sqlite, **{"sqa.reset_connection": "true"})
    for _ in range(2):
        client.get("/change", {"sql": ["CREATE TEMPORARY TABLE mine (id INTEGER)"]})


def test_a_database_in_memory_cannot_be_reset():
    """It exists only in its one connection. The error is raised at start-up."""
    config = Configurator(settings={"sqlalchemy.url": "sqlite://", "sqa.reset_connection": "true"})
    config.include("pyramid_aalam_sqa")

    with pytest.raises(ConfigurationError, match=r"sqa\.reset_connection"):
        config.make_wsgi_app()
