"""Applications with one connection, so that each request gets the connection of the last one."""

import pytest

from support.late_use import make_tables, serve_on
from support.models import BODIES


@pytest.fixture
def serve_seeded(database):
    """Make clients of applications with one connection and one note in the database."""
    make_tables(database)
    return lambda *setups, **settings: serve_on(database, *setups, **settings)


@pytest.fixture
def bodies(database):
    """Return what others see of the notes."""
    return lambda: [row[0] for row in database.rows(BODIES)]
