"""What the tests of the settings share."""

import logging
import sys

import pytest

from support.settings_app import SQLITE, start


@pytest.fixture(autouse=True)
def _quiet_again():
    """``echo`` gives SQLAlchemy's logger a handler for good."""
    logger = logging.getLogger("sqlalchemy")
    handlers = list(logger.handlers)
    yield
    logger.handlers[:] = handlers


@pytest.fixture
def engine():
    """Make the engine of settings as an application does; dispose it in the end."""
    started = []

    def engine(url=SQLITE, **options):
        given = {f"sqlalchemy.{name}": value for name, value in options.items()}
        started.append(start({"sqlalchemy.url": url, **given}))
        return started[-1].engine

    yield engine
    for sqa in started:
        sqa.engine.echo = sqa.engine.pool.echo = False
        sqa.dispose()


@pytest.fixture
def only_our_drivers(monkeypatch):
    """Only this package's own drivers are installed, none that an application may add."""
    for name in ("MySQLdb", "psycopg2", "mysql", "mariadb", "pg8000"):
        monkeypatch.setitem(sys.modules, name, None)
