"""The life of request.sqa_session: made at the first use, closed at the end of its request."""

import gc
import weakref

import pytest
import transaction
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid.scripting import prepare
from sqlalchemy import event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool
from transaction import TransactionManager
from webtest import TestApp

from pyramid_aalam_sqa import CommitNotAllowedError, OutsideTransactionError, SettingError, get_sqa
from support.models import INSERT


@pytest.fixture
def make(serve, database, notes):
    """Make an application with the given views, each under its name."""

    def make(*views, **settings):
        def add_views(config):
            for view in views:
                config.add_route(view.__name__, f"/{view.__name__}")
                config.add_view(view, route_name=view.__name__)

        return serve(database.url, add_views, **settings)

    return make


def write(request):
    request.sqa_session.execute(INSERT, {"body": "row"})
    return Response()


def fail_after_writing(request):
    write(request)
    raise RuntimeError


def read(request):
    return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM note"))))


def untouched(request):
    return Response()


def touched(request):
    assert isinstance(request.sqa_session, Session)
    return Response()


@pytest.fixture
def pool_events():
    """The events of all pools of the process while a test runs."""
    seen = []

    def connected(*_):
        seen.append("connect")

    def checked_out(*_):
        seen.append("checkout")

    event.listen(Pool, "connect", connected)
    event.listen(Pool, "checkout", checked_out)
    yield seen
    event.remove(Pool, "connect", connected)
    event.remove(Pool, "checkout", checked_out)


@pytest.mark.parametrize("view", [untouched, touched])
def test_a_request_that_runs_no_statement_opens_no_connection(make, pool_events, view):
    """A page without data does not connect, even if it uses the session object."""
    pool_events.clear()
    TestApp(make(view)).get(f"/{view.__name__}")

    assert pool_events == []


def test_a_request_has_one_session_and_the_next_request_another(make):
    """One visitor never sees objects that another visitor's request has loaded."""
    seen = []

    def view(request):
        seen.append(request.sqa_session)
        assert request.sqa_session is seen[-1]
        return Response()

    app = TestApp(make(view))
    app.get("/view")
    app.get("/view")

    assert len({id(session) for session in seen}) == 2


@pytest.mark.parametrize("view", [write, read])
def test_the_connection_is_back_in_the_pool_after_each_request(make, view):
    """No connection stays checked out, and no transaction stays open."""
    app = make(view)
    for _ in range(3):
        TestApp(app).get(f"/{view.__name__}")

    assert get_sqa(app).engine.pool.checkedout() == 0


def test_the_connection_comes_back_when_a_before_commit_hook_fails(make, notes):
    """The commit has not begun, so the end of the request rolls back."""

    def view(request):
        write(request)
        request.tm.get().addBeforeCommitHook(lambda: 1 / 0)
        return Response()

    app = make(view)
    with pytest.raises(ZeroDivisionError):
        TestApp(app).get("/view")

    assert get_sqa(app).engine.pool.checkedout() == 0
    assert notes() == []


def test_no_listener_is_registered_by_a_request(make, monkeypatch):
    """Registering listeners for each session would take ten times as long as the session."""
    app = TestApp(make(write, read))
    app.get("/write")
    registered = []
    monkeypatch.setattr(event, "listen", lambda *args, **_: registered.append(args))
    app.get("/write")
    app.get("/read")

    assert registered == []


@pytest.mark.parametrize("status", [200, 302, 404, 500])
@pytest.mark.sweep(2)
def test_a_request_leaves_no_cycle_that_holds_request_or_session(make, status):
    """Without the garbage collector, both are freed with the response."""
    held = []

    def view(request):
        held.extend([weakref.ref(request), weakref.ref(request.sqa_session)])
        write(request)
        return Response(status=status)

    app = make(view)
    gc.collect()
    gc.disable()
    try:
        Request.blank("/view").get_response(app)
        alive = [reference for reference in held if reference() is not None]
    finally:
        gc.enable()

    assert len(held) == 2
    assert alive == []


def test_loaded_objects_stay_readable_after_the_commit(make):
    """A response callback can read what the view has loaded: expire_on_commit is false."""

    def view(request):
        assert request.sqa_session.expire_on_commit is False
        return Response()

    TestApp(make(view)).get("/view")


def test_session_options_of_the_ini_reach_the_session(make):
    """The settings sqa.session.<option> are the options of the sessionmaker."""
    seen = []

    def view(request):
        session = request.sqa_session
        seen.append((session.expire_on_commit, session.autoflush, session.greeting))
        write(request)
        return Response()

    app = make(
        view,
        **{
            "sqa.session.expire_on_commit": "true",
            "sqa.session.autoflush": "no",
            "sqa.session.class_": "test_request:Greeting",
        },
    )
    TestApp(app).get("/view")

    assert seen == [(True, False, "hello")]


class Greeting(Session):
    """An application's own session class."""

    greeting = "hello"


def test_a_session_class_of_the_applications_own_commits_and_is_guarded(make, notes):
    """The package's listeners work for subclasses too."""

    def commit(request):
        write(request)
        request.sqa_session.commit()

    app = TestApp(make(write, commit, **{"sqa.session.class_": Greeting}))
    app.get("/write")
    with pytest.raises(CommitNotAllowedError):
        app.get("/commit")

    assert notes() == ["row"]


def test_committing_by_hand_is_one_error_that_says_what_to_do(make, notes):
    """The response decides on the whole work, so a view must not commit a part of it."""

    def view(request):
        write(request)
        request.sqa_session.commit()

    with pytest.raises(CommitNotAllowedError, match=r"session\.flush\(\)"):
        TestApp(make(view)).get("/view")

    assert notes() == []


def test_several_transactions_in_one_request_are_each_committed(make, notes):
    """The session joins each transaction, so a batch view can keep or drop each part."""

    def view(request):
        for part in ("kept", "dropped", "kept too"):
            request.sqa_session.execute(INSERT, {"body": part})
            request.tm.abort() if part == "dropped" else request.tm.commit()
            request.tm.begin()
        return Response()

    TestApp(make(view)).get("/view")

    assert notes() == ["kept", "kept too"]


def test_a_session_used_before_a_transaction_was_begun_can_read_and_says_why_it_does_not_write(
    make, notes
):
    """A write would be lost there. Inside `with request.tm:` the session can write."""
    with prepare(registry=make().registry) as env:
        request = env["request"]
        assert read(request).text == "0"
        with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
            write(request)
        with request.tm:
            write(request)

    assert notes() == ["row"]


def test_an_application_without_a_database_starts_and_names_the_key_at_first_touch():
    """Only a view that uses the session needs the setting."""
    with Configurator(settings={}) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(untouched)
        config.add_view(touched, name="touched")
    app = TestApp(config.make_wsgi_app())

    app.get("/")
    with pytest.raises(SettingError, match=r"sqlalchemy\.url"):
        app.get("/touched")


def test_get_sqa_without_the_include_says_what_to_call():
    """The error says to include the package."""
    with pytest.raises(SettingError, match=r"config\.include"):
        get_sqa(Configurator())


def test_prepare_gives_a_session_that_a_with_block_commits(make, notes):
    """A script that calls pyramid.scripting.prepare() writes inside `with request.tm:`."""
    app = make()
    with prepare(registry=app.registry) as env:
        with env["request"].tm:
            write(env["request"])
        with pytest.raises(RuntimeError), env["request"].tm:
            fail_after_writing(env["request"])

    assert notes() == ["row"]
    assert get_sqa(app).engine.pool.checkedout() == 0


def test_a_script_that_forgets_to_commit_leaves_nothing_behind(make, notes):
    """The closer of prepare() rolls back, and the connection goes back to the pool."""
    app = make()
    with prepare(registry=app.registry) as env:
        env["request"].tm.begin()
        write(env["request"])

    assert notes() == []
    assert get_sqa(app).engine.pool.checkedout() == 0


def test_a_tests_own_session_is_used_as_it_is_and_never_closed(make, notes):
    """The requests share environ["sqa.session"], and the transaction of the test."""
    app = make(write, read)
    tm = TransactionManager(explicit=True)
    tm.begin()
    tm.doom()
    session = get_sqa(app).session(tm)
    environ = {"tm.active": True, "tm.manager": tm, "sqa.session": session}
    client = TestApp(app, extra_environ=environ)
    client.get("/write")
    client.get("/write")

    assert client.get("/read").text == "2"
    assert notes() == []
    tm.abort()
    session.close()
    assert notes() == []


def test_a_tests_own_session_survives_an_exception_in_a_view(make):
    """The package does not roll back what the test has prepared."""

    def fails(request):
        write(request)
        raise RuntimeError

    app = make(fails, read)
    tm = TransactionManager(explicit=True)
    tm.begin()
    session = get_sqa(app).session(tm)
    client = TestApp(
        app, extra_environ={"tm.active": True, "tm.manager": tm, "sqa.session": session}
    )
    with pytest.raises(RuntimeError):
        client.get("/fails")

    assert client.get("/read").text == "1"
    tm.abort()
    session.close()


def test_a_session_on_a_manager_of_ones_own_is_committed_by_it(make, notes):
    """With get_sqa(app).session(tm), tests and scripts do not need a request."""
    sqa = get_sqa(make())
    tm = TransactionManager()
    session = sqa.session(tm)
    session.execute(INSERT, {"body": "kept"})
    tm.commit()
    session.execute(INSERT, {"body": "dropped"})
    tm.abort()
    session.close()

    assert notes() == ["kept"]


def test_the_threads_own_manager_can_be_the_applications(make, notes):
    """The application may set tm.manager_hook."""
    app = make(write, **{"tm.manager_hook": lambda request: transaction.manager})
    TestApp(app).get("/write")

    assert notes() == ["row"]


def test_another_data_manager_that_refuses_leaves_nothing_stored(make, notes):
    """Our data manager votes last, for every sort key of the other one."""

    class Refusing:
        transaction_manager = None

        def sortKey(self):  # noqa: N802 - transaction's interface
            return "~~~~~~~~~~~~~~~~~~~~~~~ last of all"

        def tpc_begin(self, transaction):
            """Do nothing."""

        commit = abort = tpc_abort = tpc_finish = tpc_begin

        def tpc_vote(self, transaction):
            raise RuntimeError("no")

    def view(request):
        write(request)
        request.tm.get().join(Refusing())
        return Response()

    with pytest.raises(RuntimeError, match="no"):
        TestApp(make(view)).get("/view")

    assert notes() == []
