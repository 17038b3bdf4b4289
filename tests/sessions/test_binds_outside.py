"""Sessions of several databases outside a request's transaction, and without a request."""

import pytest
import transaction
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session as PlainSession

from pyramid_aalam_sqa import BindError, OutsideTransactionError, Session, get_sqa, session_scope
from support.apps import with_tween_above
from support.bound import KEYS, Author, Entry, Line, do, engines, entry, fail_after, serving
from support.databases import Database
from support.late_use import ALL_REFUSED, OUTSIDE, look_at, make_tables


@pytest.mark.parametrize("which", ["sqa_session", "audit"])
@pytest.mark.sweep(1)
def test_outside_the_transaction_reading_works_and_no_write_is_lost(which, tmp_path):
    """This is true in the same places as with one database, for each way to write."""
    here, there = (Database(f"sqlite:///{tmp_path}/{name}.sqlite") for name in ("here", "there"))
    watched = here if which == "sqa_session" else there
    make_tables(here)
    make_tables(there)

    settings = {"sqlalchemy.url": here.url, "sqlalchemy.binds.audit.url": there.url}
    environ = {} if which == "sqa_session" else {"test.bind": which}
    outcomes = {
        place.__name__: look_at(place, watched, environ=environ, **settings) for place in OUTSIDE
    }

    assert outcomes == {place.__name__: ALL_REFUSED for place in OUTSIDE}


def test_sessions_that_read_outside_share_the_connection_too(place):
    """Each pool has one connection, and all sessions read in one callback."""
    read, refused = [], []

    def tween_factory(handler, registry):
        def tween(request):
            response = handler(request)
            sessions = [request.sqa_session, *request.sqa_sessions.values()]
            read.extend(session.scalar(select(Entry.name)) for session in sessions)
            for session in sessions:
                with pytest.raises(OutsideTransactionError) as caught:
                    session.execute(insert(Entry).values(name="late"))
                refused.append(caught.value)
                session.rollback()
            return response

        return tween

    settings = {"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0"}
    settings |= {"sqlalchemy.pool_timeout": "0.1"}
    with serving({**place.settings, **settings}, with_tween_above(tween_factory)) as client:
        do(client, lambda request: None)

    assert read == ["audit", *get_sqa(client.app).engines]
    assert len(refused) == len(read)


def test_a_write_that_is_lost_outside_is_an_error_for_each_session(place, client):
    """In a script, a change in the session of a bind key is an error for both sessions."""
    tm = transaction.TransactionManager(explicit=True)
    sqa = get_sqa(client.app)
    session, audit = sqa.session(tm), sqa.session(tm, bind_key="audit")
    one = audit.get(Entry, 1)
    one.name = "lost"

    assert session.has_lost_write
    with pytest.raises(OutsideTransactionError):
        tm.begin()
    with pytest.raises(OutsideTransactionError):
        session.end()
    with pytest.raises(OutsideTransactionError, match="has ended"):
        audit.get(Entry, 1)


def test_a_script_has_the_sessions_in_its_transaction(place, client):
    """They read before it and write in it. At its begin, both stop being read-only."""
    tm = transaction.TransactionManager(explicit=True)
    sqa = get_sqa(client.app)
    session, audit = sqa.session(tm), sqa.session(tm, bind_key="audit")
    assert audit.get(Entry, 1).name == "audit"
    with tm:
        audit.add(Entry(name="in"))
        session.add(Line(name="in"))
    assert "in" in audit.scalars(select(Entry.name)).all()
    with pytest.raises(OutsideTransactionError):
        audit.add(Entry(name="out"))
    session.end()

    assert place.names() == {"in": {"audit", "log"}}


def test_a_write_after_the_commit_is_logged_and_undone(place, client, caplog):
    """The response is still true, so it is sent."""

    def write(request):
        audit = request.sqa_sessions["audit"]
        one = audit.get(Entry, 1)

        def later():
            audit.merge(one)
            audit.get(Entry, 1).name = "late"

        request.sqa_after_commit(later)

    assert do(client, write).status_int == 200
    assert "after it wrote" in caplog.text
    assert place.names() == {}


def test_the_session_of_a_thread_routes_or_is_wholly_on_one(place, client):
    """Session(app) routes like request.sqa_session. With a bind key it uses one database."""
    with Session(client.app) as session:
        session.add_all([Author(name="routed"), Entry(name="routed"), Line(name="routed")])
        assert session.scalar(select(entry.c.name)) == "audit"
        session.commit()
    with Session(client.app, bind_key="log") as session:
        session.add_all([Author(name="whole"), Entry(name="whole")])
        session.commit()
    assert Session(client.app) is Session(client.app, bind_key=None)
    assert Session(client.app, bind_key="log") is session
    with pytest.raises(BindError, match="only: audit, default, log"):
        Session(client.app, bind_key="adit")

    assert place.names() == {"routed": set(KEYS), "whole": {"log"}}


def test_the_session_of_a_thread_commits_what_there_is(place, client):
    """It may have used no database or one, or still have open savepoints."""
    with Session(client.app) as session:
        session.commit()
        session.add(Line(name="one"))
        session.commit()
        session.begin_nested()
        session.add_all([Line(name="two"), Author(name="two")])
        session.commit()
        session.add(Line(name="lost"))
        session.flush()
        session.rollback()

    assert place.names() == {"one": {"log"}, "two": {"log", "default"}}


def test_a_scope_takes_a_bind_key(place, client):
    """This is true for a with block and for a decorator."""
    with session_scope(client.app, bind_key="audit") as session:
        session.add(Author(name="whole"))
    with session_scope(client.app) as session:
        session.add_all([Author(name="routed"), Entry(name="routed")])

    @session_scope(client.app, attempts=2, bind_key="log")
    def job(session):
        session.add(Author(name="job"))
        return session

    with pytest.raises(OutsideTransactionError):
        job().scalar(text("SELECT 1"))
    with pytest.raises(ZeroDivisionError), session_scope(client.app, bind_key="log") as session:
        fail_after(session.add, Author(name="lost"))

    assert place.names() == {"whole": {"audit"}, "routed": {"default", "audit"}, "job": {"log"}}


def test_a_session_class_of_the_application_is_kept(place, tmp_path):
    """Every kind of session has the methods of that class."""
    settings = {**place.settings, "sqa.session.class_": Greeting}
    with serving(settings) as client:

        def greet(request):
            return [request.sqa_session.greet(), request.sqa_sessions["audit"].greet()]

        assert do(client, greet).text == "['hello', 'hello']"
        with Session(client.app) as session:
            assert session().greet() == "hello"


class Greeting(PlainSession):
    def greet(self):
        return "hello"


def test_a_session_of_the_test_in_the_environ_leaves_the_others_alone(place, client):
    """The mapping request.sqa_sessions still has the application's own sessions."""
    with PlainSession(engines(client)["default"]) as mine:
        environ = {"sqa.session": mine, "sqa.status": 200}
        environ["sqa.act"] = lambda request: (
            request.sqa_session is mine,
            request.sqa_sessions["audit"].scalar(select(Entry.name)),
        )
        answer = client.get("/", extra_environ=environ)

    assert answer.text == "(True, 'audit')"


def test_rows_are_streamed_from_the_database_of_the_tables(place):
    """When the client hangs up, the connection goes back to the pool."""

    def stream(request):
        rows = request.sqa_stream(select(Entry.name))
        return Response(app_iter=(row.name.encode() for row in rows))

    with serving(place.settings, lambda config: config.add_view(stream, name="stream")) as client:
        assert client.get("/stream").body == b"audit"
        body = Request.blank("/stream").get_response(client.app).app_iter
        next(iter(body))
        body.close()
        assert engines(client)["default"].pool.checkedin() == 0
        assert sum(each.pool.checkedout() for each in engines(client).values()) == 0
