"""Applications with one connection, and applications with three databases."""

import pytest

from support import bound
from support.bound import KEYS, engines, serving
from support.databases import Database
from support.late_use import make_tables, serve_on
from support.models import BODIES


@pytest.fixture
def serve_seeded(database):
    """Make clients of applications with one connection, and one note in the database."""
    make_tables(database)
    return lambda *setups, **settings: serve_on(database, *setups, **settings)


@pytest.fixture
def bodies(database):
    """Return what others see of the notes."""
    return lambda: [row[0] for row in database.rows(BODIES)]


@pytest.fixture
def place(tmp_path):
    """Three SQLite files. In one file, two connections that write would wait for each other."""
    place = bound.Place([Database(f"sqlite:///{tmp_path}/{key}.sqlite") for key in KEYS])
    yield place
    place.close()


@pytest.fixture
def client(place):
    """A client of an application that has a bind for each file."""
    with serving(place.settings | {"sqa.lock_timeout": "0.1"}) as client:
        yield client
        assert sum(each.pool.checkedout() for each in engines(client).values()) == 0
