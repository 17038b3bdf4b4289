"""The libraries that the tests of pages read."""

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from support.databases import plain_engine
from support.paged import library, opened


@pytest.fixture
def session(any_database):
    """The library on each of the three databases."""
    with opened(plain_engine(any_database.url), *library()) as session:
        yield session


@pytest.fixture
def shelf():
    """The library in SQLite's memory, for tests of what is the same on every database."""
    with opened(create_engine("sqlite://", poolclass=StaticPool), *library()) as session:
        yield session
