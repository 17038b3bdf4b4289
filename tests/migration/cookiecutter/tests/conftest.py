"""The fixtures of the cookiecutter: one doomed transaction for a test and its requests."""

from pathlib import Path

import alembic.command
import alembic.config
import pytest
import transaction
import webtest
from myapp import main, models
from myapp.models.meta import Base
from pyramid.paster import get_appsettings
from pyramid.scripting import prepare
from pyramid.testing import DummyRequest, testConfig

from pyramid_aalam_sqa import engine_from_settings


def pytest_addoption(parser):
    """Another ini file is another database."""
    parser.addoption("--ini", default="testing.ini", metavar="INI_FILE")


@pytest.fixture(scope="session")
def ini_file(request):
    return str(Path(request.config.option.ini).resolve())


@pytest.fixture(scope="session")
def app_settings(ini_file):
    return get_appsettings(ini_file)


@pytest.fixture(scope="session")
def dbengine(app_settings, ini_file):
    """The engine of all tests, whose tables Alembic has just made."""
    engine = engine_from_settings(app_settings)
    alembic_config = alembic.config.Config(ini_file)
    Base.metadata.drop_all(engine)
    alembic.command.stamp(alembic_config, None, purge=True)
    alembic.command.upgrade(alembic_config, "head")
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def app(app_settings, dbengine):
    """The application, on the tests' engine."""
    return main({}, **{**app_settings, "sqlalchemy.engine": dbengine})


@pytest.fixture
def tm():
    """A transaction that cannot be committed."""
    tm = transaction.TransactionManager(explicit=True)
    tm.begin()
    tm.doom()
    yield tm
    tm.abort()


@pytest.fixture
def dbsession(app, tm):
    """The test's session, which its requests share."""
    return models.get_tm_session(app, tm)


@pytest.fixture
def environ(tm, dbsession):
    """What makes a request take part in the test's transaction."""
    return {"tm.active": True, "tm.manager": tm, "sqa.session": dbsession}


@pytest.fixture
def testapp(app, environ):
    """A browser."""
    return webtest.TestApp(app, extra_environ={"HTTP_HOST": "example.com", **environ})


@pytest.fixture
def app_request(app, environ):
    """A request that has all the application gives one."""
    with prepare(registry=app.registry) as env:
        request = env["request"]
        request.host = "example.com"
        request.environ.update(environ)
        yield request


@pytest.fixture
def dummy_request(tm, dbsession):
    """A request that has only what is put on it."""
    return DummyRequest(host="example.com", dbsession=dbsession, tm=tm)


@pytest.fixture
def dummy_config(dummy_request):
    """A configurator, for views that look at the registry."""
    with testConfig(request=dummy_request) as config:
        yield config
