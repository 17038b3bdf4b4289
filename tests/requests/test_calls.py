"""How many functions a request calls, beyond what the same work costs without the package.

The number is exact and the same on each machine, so a change that makes each request slower fails
the test of the work that it makes slower. Where a change is worth its cost, write the new number.
The numbers are ceilings: another version of Python or of a library may call a few functions more.
"""

import gc
import sys
from io import BytesIO

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from pyramid_aalam_sqa import get_sqa
from pyramid_aalam_sqa.sessions import undeclared_keys
from support.apps import with_view
from support.models import INSERT, Base, Note

REQUESTS = 10


def get(session):
    session.get(Note, 1)


def insert(session):
    session.add(Note(body="new"))


def update(session):
    session.execute(text("UPDATE note SET body = 'other' WHERE id = 1"))


def many(session):
    for _ in range(100):
        session.execute(text("SELECT 1"))


# For each work the calls of a request beyond those of a bare view with `with Session(engine) as
# session, session.begin()`.
CEILINGS = {get: 140, insert: 130, update: 135, many: 950}
NOTHING = 80


def environ(path):
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.input": BytesIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def calls_of(app):
    """Return how many functions, of Python and of C, one request to *app* calls."""
    for _ in range(REQUESTS):
        list(app(environ("/"), lambda *_: None))
    count = 0

    def note(_frame, event, _argument):
        nonlocal count
        count += event in {"call", "c_call"}

    gc.collect()
    gc.disable()
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for _ in range(REQUESTS):
            list(app(environ("/"), lambda *_: None))
    finally:
        sys.setprofile(before)
        gc.enable()
    return count / REQUESTS


def bare_app(view):
    with Configurator() as config:
        config.add_view(view)
    return config.make_wsgi_app()


@pytest.fixture
def beyond(serve, sqlite, monkeypatch):
    """Return a function that returns what *work* costs beyond the work itself."""
    # The models of other tests have bind keys. In such a process each statement of an application
    # without binds is looked at.
    monkeypatch.setattr(undeclared_keys, "_any_key_declared", False)

    def beyond(work, **settings):
        def view(request):
            work(request.sqa_session)
            return Response()

        app = serve(sqlite.url, with_view(view), **settings)
        engine = create_engine(sqlite.url)
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(INSERT, {"body": "first"})

        def floor(request):
            with Session(engine) as session, session.begin():
                work(session)
            return Response()

        try:
            return calls_of(app) - calls_of(bare_app(floor))
        finally:
            engine.dispose()

    return beyond


@pytest.mark.parametrize(
    ("work", "ceiling"), CEILINGS.items(), ids=lambda each: getattr(each, "__name__", "")
)
def test_work_calls_no_more_functions_than_it_did(beyond, work, ceiling):
    """On SQLite, where all that is not the package's is the same."""
    assert beyond(work) <= ceiling


def test_a_request_without_a_database_calls_no_more_functions_than_it_did(serve):
    """It pays for the transaction that pyramid_tm begins, and for the look at its answer."""
    app = serve("sqlite://", with_view(lambda request: Response()))

    assert calls_of(app) - calls_of(bare_app(lambda request: Response())) <= NOTHING


def test_the_shortcuts_are_worth_it(beyond):
    """Without them a request calls more; if not, a library does by itself what they do."""
    assert beyond(get) < beyond(get, **{"sqa.shortcuts": "false"})


def test_an_application_that_never_asked_for_recording_does_not_pay_for_it(serve, monkeypatch):
    """Nothing of the room debugging is imported or wrapped."""
    # As above: the look at bind keys stands around the dialect's methods, too.
    monkeypatch.setattr(undeclared_keys, "_any_key_declared", False)
    engine = get_sqa(serve("sqlite://")).engine

    assert engine.dialect.do_execute.__module__ == "pyramid_aalam_sqa.engines.watcher"
