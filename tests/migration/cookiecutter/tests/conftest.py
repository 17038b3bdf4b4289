"""The application of the tests: pyramid_aalam_sqa.testing has all other fixtures."""

from pathlib import Path

import pytest
from myapp import main

from pyramid_aalam_sqa import get_sqa


def pytest_addoption(parser):
    """Another ini file is another database."""
    parser.addoption("--ini", default="testing.ini", metavar="INI_FILE")


@pytest.fixture(scope="session")
def sqa_app(pytestconfig, sqa_database):
    """The application, on a database whose tables Alembic has just made."""
    ini = Path(pytestconfig.option.ini).resolve()
    app = main({}, **sqa_database(ini, alembic=ini))
    yield app
    get_sqa(app).dispose()
