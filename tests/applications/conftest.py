"""What several test modules of this room use: an application's name, package and database."""

import itertools
import os

import pytest

from support import portal
from support.applications import mariadb_application
from support.databases import Database

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def _alone(alone):
    """Each test of this room begins so."""


@pytest.fixture
def code():
    """The application code of one test; other tests do not have it."""
    return f"p{os.getpid()}a{next(_numbers)}"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package name for an application's code, importable from the test's folder."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"shop{next(_numbers)}"
    yield name
    portal.forget(name)


@pytest.fixture(params=["sqlite", "mariadb"])
def place(request, tmp_path, code):
    """Yield a URL without a database, and a function that returns a table as others see it."""

    def look(database, table):
        return lambda column, name: [
            row[0] for row in database.rows(f"SELECT {column} FROM {table(name)} ORDER BY id")
        ]

    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/data/app.sqlite"
        yield url, look(Database(url), lambda name: f'"{name}"')
        return
    with mariadb_application(request.getfixturevalue("mariadb_url"), code) as (server, url):
        yield url, look(server, lambda name: f"aalam_{code}.`{name}`")
