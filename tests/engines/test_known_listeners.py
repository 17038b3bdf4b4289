"""A session knows from its class who listens to its events, and hears what listens to it alone."""

import gc
from inspect import isfunction
from weakref import ref

import pytest
from pyramid import threadlocal
from pyramid.response import Response
from sqlalchemy import event, inspect, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.event.base import _Dispatch
from sqlalchemy.orm import Session, SessionEvents
from transaction import TransactionManager
from webtest import TestApp

from pyramid_aalam_sqa import engine_from_settings, get_sqa
from pyramid_aalam_sqa.applications import directory
from pyramid_aalam_sqa.backends import backend_of
from pyramid_aalam_sqa.engines import known_listeners
from pyramid_aalam_sqa.sessions import BindSession, JoinedSession, MultiBindSession
from support.apps import make_app, with_view
from support.models import Base, Note

EVENTS = [
    name for name, value in vars(SessionEvents).items() if name[0] != "_" and isfunction(value)
]


class OwnSession(Session):
    """The session class of an application."""


def kind(shortcuts):
    return {"sqa.shortcuts": shortcuts, "sqa.session.class_": OwnSession}


@pytest.fixture(params=["true", "false"], ids=["shortcuts", "plain"])
def make_session(serve, request, sqlite):
    """Make a session, with shortcuts or without."""
    sqa = get_sqa(serve(sqlite.url, **kind(request.param)))
    Base.metadata.create_all(sqa.engine)
    with_sessions = []

    def make_session():
        with_sessions.append(sqa.session(TransactionManager(explicit=True)))
        return with_sessions[-1]

    yield make_session
    for session in with_sessions:
        session.close()


def heard_by(session, name):
    """The functions that *session* calls when the event *name* comes."""
    return list(getattr(session.dispatch, name))


def test_a_listener_of_one_session_is_called_by_that_one_alone(make_session):
    """Each event, with shortcuts and without; a listener that is removed is not called."""

    def listener(*_):
        raise AssertionError

    one, other = make_session(), make_session()
    for name in EVENTS:
        before = len(heard_by(one, name))

        event.listen(one, name, listener)

        assert event.contains(one, name, listener)
        assert not event.contains(other, name, listener)
        calls = [len(heard_by(each, name)) for each in (one, other, make_session())]
        assert (name, *calls) == (name, before + 1, before, before)
        event.remove(one, name, listener)
        assert (name, len(heard_by(one, name))) == (name, before)


@pytest.mark.parametrize("target", [OwnSession, Session], ids=["own class", "SQLAlchemy's class"])
def test_a_listener_of_the_class_is_called_by_sessions_of_before_too(make_session, target):
    """It is added after the first session was made, and called when that one flushes."""
    flushed = []

    def listener(session, *_):
        flushed.append(session)

    before = make_session()
    before.tm.begin()
    before.add(Note(body="one"))
    event.listen(target, "before_flush", listener)
    try:
        after = make_session()
        after.tm.begin()
        after.add(Note(body="two"))
        before.flush()
        before.tm.abort()
        after.flush()
        after.tm.abort()
    finally:
        event.remove(target, "before_flush", listener)

    assert flushed == [before, after]


def test_a_listener_that_is_called_once_is_called_once(make_session):
    """SQLAlchemy removes it by itself."""
    calls = []
    session = make_session()
    event.listen(session, "after_begin", lambda *_: calls.append(1), once=True)

    for _ in range(2):
        session.tm.begin()
        session.connection()
        session.tm.abort()

    assert calls == [1]


@pytest.mark.parametrize("base", [JoinedSession, MultiBindSession, BindSession])
def test_all_that_a_session_asks_is_an_attribute_of_the_class(base):
    """If this fails, SQLAlchemy has changed: look at engines/listeners.py again."""
    listeners = known_listeners(base)

    own = object.__new__(base).dispatch
    assert listeners is not None
    assert {name: vars(listeners)[name] for name in EVENTS} == {
        name: getattr(own, name) for name in EVENTS
    }
    assert set(_Dispatch.__slots__) - {"__dict__"} <= vars(listeners).keys()


def test_a_session_with_another_dispatch_object_keeps_it():
    """SQLAlchemy may make it in another way in a version to come."""

    class OtherSession(Session):
        dispatch = property(lambda _: object())

    assert known_listeners(OtherSession) is None


@pytest.fixture(params=["true", "false"], ids=["shortcuts", "plain"])
def engine(request, sqlite):
    """An engine of the package, with shortcuts or without."""
    engine = engine_from_settings({"sqlalchemy.url": sqlite.url, **kind(request.param)})
    yield engine
    engine.dispose()


@pytest.mark.parametrize("of", ["connection", "engine", "class", "child"])
def test_a_statement_is_heard_by_those_who_listen_to_its_connection(engine, of):
    """One connection alone, each one of an engine, each one at all, or with other options."""
    heard = []

    def listener(connection, *_):
        heard.append(connection)

    with engine.connect() as before, engine.connect() as other:
        child = engine.execution_options(logging_token="child").connect()
        targets = {"connection": before, "engine": engine, "class": Engine, "child": child}
        event.listen(targets[of], "before_cursor_execute", listener)
        try:
            with engine.connect() as after:
                for each in (before, other, after, child):
                    each.execute(text("SELECT 1"))
                expected = {
                    "connection": [before],
                    "engine": [before, other, after, child],
                    "class": [before, other, after, child],
                    "child": [child],
                }
        finally:
            event.remove(targets[of], "before_cursor_execute", listener)
            child.close()

    assert heard == expected[of]


def test_a_connection_is_made_as_sqlalchemy_makes_it(engine):
    """It is a Connection, and inspect() knows it. If this fails, look at engines/listeners.py."""
    with engine.connect() as connection:
        assert isinstance(connection, Connection)
        assert inspect(connection).has_table("note") is False
        quick = type(connection) is not Connection
    assert quick == backend_of(engine).sqa_options["shortcuts"]


def test_what_a_session_class_listens_to_in_its_constructor_is_heard(serve, sqlite):
    """The constructor of the application's class runs when the session knows its listeners."""
    heard = []

    class ListeningSession(Session):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            event.listen(self, "after_begin", lambda *_: heard.append("after_begin"))
            event.listen(self, "before_commit", lambda *_: heard.append("before_commit"))

    def view(request):
        request.sqa_session.connection()
        return Response()

    app = serve(sqlite.url, with_view(view), **{"sqa.session.class_": ListeningSession})
    TestApp(app).get("/")

    assert heard == ["after_begin", "before_commit"]


def test_a_session_class_is_collected_with_its_application(sqlite):
    """Nothing in the process keeps what is known of the listeners of its sessions."""

    def own_class():
        own = type("CollectedSession", (Session,), {})
        app = make_app(sqlite.url, **{"sqa.session.class_": own})
        session = get_sqa(app).session(TransactionManager(explicit=True))
        session.connection()
        session.close()
        get_sqa(app).dispose()
        directory.forget_all()
        return ref(own)

    left = own_class()
    threadlocal.manager.clear()
    for _ in range(3):
        # Each collection frees what the finalizers of the one before have let go.
        gc.collect()

    assert left() is None
