"""What several test modules of this room use: an application's name, package and database."""

import itertools
import os

import pytest
from pyramid import threadlocal

from pyramid_aalam_sqa.applications import directory
from support import portal
from support.applications import mariadb_application
from support.databases import Database

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def _alone():
    """No application of another test is in the process, nor is a request of one going on."""
    threadlocal.manager.clear()
    directory.forget_all()


@pytest.fixture
def code():
    """The code of an application that no other test has."""
    return f"p{os.getpid()}a{next(_numbers)}"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A name to write an application's package under, importable from the test's folder."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"shop{next(_numbers)}"
    yield name
    portal.forget(name)


@pytest.fixture(params=["sqlite", "mariadb"])
def place(request, tmp_path, code):
    """Yield a URL without a database, and a function for what others see of a table there."""

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
