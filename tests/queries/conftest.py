"""Databases and sessions that the tests of look-ups share."""

import pytest
from sqlalchemy import event

from pyramid_aalam_sqa import SqaSession, get_sqa
from support.apps import application
from support.authors import fill
from support.databases import own_database


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def module_url(request, tmp_path_factory):
    """The URL of a database of each kind, for all tests of a module."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('queries')}/test.sqlite"
        return
    server_url = (
        request.getfixturevalue("mariadb_url")
        if request.param == "mariadb"
        else request.getfixturevalue("postgresql_server").url()
    )
    with own_database(server_url) as database:
        yield database.url


@pytest.fixture(scope="module")
def app(module_url, views):
    """An application on each database. It has two authors and four notes."""
    fill(module_url)
    with application(module_url, *views) as app:
        yield app


@pytest.fixture(scope="module")
def views():
    """The views of the application. A module may replace them."""
    return []


@pytest.fixture
def session(app):
    """The session of a script. What a test writes is rolled back."""
    with SqaSession(get_sqa(app).engine) as session:
        yield session


@pytest.fixture
def statements(app):
    """The statements that are sent to the database."""
    seen = []

    def sent(connection, cursor, statement, *_):
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    engine = get_sqa(app).engine
    event.listen(engine, "before_cursor_execute", sent)
    yield seen
    event.remove(engine, "before_cursor_execute", sent)
