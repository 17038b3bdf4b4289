"""Engines with a connection budget, and a check that the budget is empty after each test."""

import gc
import itertools

import pytest
from sqlalchemy.engine import make_url

from pyramid_aalam_sqa.engines.pool import BUDGET
from support.budget import MADE, budgeted


@pytest.fixture
def exact():
    """At the end of every test, no connection is open and no thread waits."""
    assert len(BUDGET) == 0
    yield
    for engine in list(MADE):
        engine.dispose()
    gc.collect()
    assert len(BUDGET) == 0
    assert BUDGET.waiting == 0


@pytest.fixture
def files(tmp_path):
    """Make engines of SQLite files."""
    numbers = itertools.count()

    def files(count, limit, **options):
        urls = [f"sqlite:///{tmp_path}/{next(numbers)}.sqlite" for _ in range(count)]
        return [budgeted(url, limit, **options) for url in urls]

    return files


@pytest.fixture(scope="module")
def six(mariadb_server):
    """Six databases. Each has its own account."""
    names = [f"budget{number}" for number in range(6)]
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute(f"CREATE USER {name} IDENTIFIED BY 'secret'")
            cursor.execute(f"GRANT ALL ON {name}.* TO {name}")
    url = make_url(mariadb_server.url())
    yield [
        url.set(username=name, password="secret", database=name).render_as_string(
            hide_password=False
        )
        for name in names
    ]
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"DROP DATABASE {name}")
            cursor.execute(f"DROP USER {name}")
