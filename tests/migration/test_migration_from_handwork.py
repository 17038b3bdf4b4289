"""What applications that wire SQLAlchemy by hand do around the session goes on working here."""

import pytest
import transaction
import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.scripting import prepare
from pyramid.tweens import EXCVIEW
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from webtest import TestApp

from pyramid_aalam_sqa import OutsideTransactionError, SqaError, get_sqa

both_ends = pytest.mark.parametrize(
    "end", [transaction.commit, transaction.abort], ids=["commit", "abort"]
)


@pytest.fixture
def notes(database):
    """The stored notes, as others see them."""
    database.run("CREATE TABLE notes (name VARCHAR(50) PRIMARY KEY)")
    return lambda: [name for (name,) in database.rows("SELECT name FROM notes ORDER BY name")]


@pytest.fixture
def make_app(database, notes):
    """Makes an application whose one page is *view*, configured around the include."""
    made = []

    def make(view=blank, early=nothing, late=nothing, **settings):
        settings = {"sqlalchemy.url": database.url, **settings}
        with Configurator(settings=settings) as config:
            early(config)
            config.include("pyramid_aalam_sqa")
            late(config)
            config.add_route("page", "/")
            config.add_view(view, route_name="page")
        made.append(config.make_wsgi_app())
        return made[-1]

    yield make
    for app in made:
        get_sqa(app).dispose()


@pytest.fixture(autouse=True)
def thread_transaction():
    """The thread's own transaction begins and ends with the test."""
    transaction.begin()
    yield
    transaction.abort()


@pytest.fixture
def own():
    """A manager of the test's own."""
    return transaction.TransactionManager(explicit=True)


def nothing(config):
    pass


def blank(request):
    return Response()


def add(session, *names):
    """Write as an application does that zope.sqlalchemy's own listeners would not notice."""
    for name in names:
        session.execute(text("INSERT INTO notes VALUES (:name)"), {"name": name})


def read(session):
    return session.execute(text("SELECT name FROM notes ORDER BY name")).scalars().all()


# The session and the manager of a request.


def test_a_manager_assigned_to_a_request_is_the_session_s(make_app, notes, own):
    """request.tm stays assignable, and the session is made for what was assigned."""
    with prepare(registry=make_app().registry) as env:
        env["request"].tm = own
        with own:
            add(env["request"].sqa_session, "kept")

    assert notes() == ["kept"]


def test_a_session_assigned_to_a_request_outlives_it(make_app, notes, own):
    """request.sqa_session stays assignable; such a session is its maker's to close."""
    app = make_app()
    session = get_sqa(app).session(own)
    own.begin()
    with prepare(registry=app.registry) as env:
        env["request"].sqa_session = session
        add(env["request"].sqa_session, "kept")

    assert session.in_transaction()
    own.commit()
    assert notes() == ["kept"]


def test_a_session_in_the_environ_is_shared_by_requests_and_closed_by_none(make_app, notes, own):
    """A test's session keeps its transaction through every request, also one that fails."""
    seen = []

    def view(request):
        seen.append(request.sqa_session)
        add(request.sqa_session, request.params["name"])
        if request.params["name"] == "failing":
            raise RuntimeError
        return Response(status=404)

    app = make_app(view)
    session = get_sqa(app).session(own)
    environ = {"tm.active": True, "tm.manager": own, "sqa.session": session}
    browser = TestApp(app, extra_environ=environ)
    own.begin()

    browser.get("/?name=vetoed", status=404)
    with pytest.raises(RuntimeError):
        browser.get("/?name=failing")

    assert seen == [session, session]
    assert notes() == []
    assert read(session) == ["failing", "vetoed"]
    own.commit()
    assert notes() == ["failing", "vetoed"]


# Transactions of the application's own.


@pytest.mark.parametrize(
    ("status", "stored"), [(200, ["last", "one", "two"]), (500, ["one", "two"])]
)
def test_a_request_may_run_several_transactions(make_app, notes, status, stored):
    """A batch keeps what it committed, loses what it aborted; the status decides on the rest."""

    def view(request):
        for name in ("one", "bad", "two"):
            add(request.sqa_session, name)
            end = request.tm.abort if name == "bad" else request.tm.commit
            end()
            request.tm.begin()
        add(request.sqa_session, "last")
        return Response(status=status)

    TestApp(make_app(view)).get("/", status=status)

    assert notes() == stored


@both_ends
def test_mark_changed_before_the_first_statement_loses_no_write(make_app, notes, end):
    """It would join the thread's manager, had the session not joined the request's."""

    def view(request):
        zope.sqlalchemy.mark_changed(request.sqa_session)
        add(request.sqa_session, "first")
        end()
        add(request.sqa_session, "second")
        request.tm.commit()
        request.tm.begin()
        zope.sqlalchemy.mark_changed(request.sqa_session)
        end()
        add(request.sqa_session, "third")
        return Response()

    TestApp(make_app(view)).get("/", status=200)
    end()

    assert notes() == ["first", "second", "third"]


@both_ends
def test_mark_changed_on_a_session_that_is_not_used_touches_no_transaction(make_app, notes, end):
    """The thread's manager is given nothing, so that it can end as it likes."""

    def view(request):
        zope.sqlalchemy.mark_changed(request.sqa_session)
        end()
        return Response()

    TestApp(make_app(view)).get("/", status=200)
    end()

    assert notes() == []


def test_mark_changed_does_not_store_what_the_status_rolls_back(make_app, notes):
    """It says that something was written, and nothing about whether that is kept."""

    def view(request):
        add(request.sqa_session, "lost")
        zope.sqlalchemy.mark_changed(request.sqa_session)
        return Response(status=409)

    TestApp(make_app(view)).get("/", status=409)

    assert notes() == []


@pytest.mark.parametrize("doomed", [False, True])
def test_the_thread_s_manager_is_the_request_s_where_the_application_says_so(
    make_app, notes, doomed
):
    """With such a tm.manager_hook, transaction.abort() and doom() in a view are the request's."""

    def view(request):
        add(request.sqa_session, "aborted")
        transaction.abort()
        add(request.sqa_session, "after")
        if doomed:
            transaction.doom()
        return Response()

    hook = {"tm.manager_hook": f"{__name__}.thread_manager"}
    TestApp(make_app(view, **hook)).get("/", status=200)

    assert notes() == ([] if doomed else ["after"])


def thread_manager(request):
    return transaction.manager


# Rolling back the session itself.


@pytest.mark.parametrize("place", ["early", "late"])
@pytest.mark.parametrize(("status", "stored"), [(200, ["apology"]), (500, [])])
def test_a_tween_may_roll_back_before_an_exception_view_writes(
    make_app, notes, place, status, stored
):
    """session.rollback() under the exception views leaves them a session that works."""

    def view(request):
        add(request.sqa_session, "half")
        raise RuntimeError

    def apologise(error, request):
        assert read(request.sqa_session) == []
        add(request.sqa_session, "apology")
        return Response(status=status)

    def configure(config):
        # Below the package's own tween when added early, above it when added late.
        config.add_tween(f"{__name__}.rollback_tween_factory", under=EXCVIEW)
        config.add_exception_view(apologise, context=RuntimeError)

    TestApp(make_app(view, **{place: configure})).get("/", status=status)

    assert notes() == stored


def rollback_tween_factory(handler, registry):
    def rollback_tween(request):
        try:
            return handler(request)
        except RuntimeError:
            request.sqa_session.rollback()
            raise

    return rollback_tween


def test_a_view_may_roll_back_and_answer_with_an_error(make_app, notes):
    """session.rollback() and a status that rolls back ask for the same."""

    def view(request):
        add(request.sqa_session, "lost")
        request.sqa_session.rollback()
        return Response(status=400)

    TestApp(make_app(view)).get("/", status=400)

    assert notes() == []


@pytest.mark.parametrize("act", ["read", "refused"])
def test_a_view_may_roll_back_and_answer_well(make_app, database, notes, act):
    """A form that says «taken» after a refused INSERT and a rollback is a page, not an error."""
    database.run("INSERT INTO notes VALUES ('taken')")

    def view(request):
        if act == "read":
            read(request.sqa_session)
        else:
            with pytest.raises(IntegrityError):
                add(request.sqa_session, "taken")
        request.sqa_session.rollback()
        return Response("taken")

    TestApp(make_app(view)).get("/", status=200)

    assert notes() == ["taken"]


def test_a_view_may_roll_back_and_write_again(make_app, notes):
    """What was written after session.rollback() is what the view wants stored."""

    def view(request):
        add(request.sqa_session, "lost")
        request.sqa_session.rollback()
        add(request.sqa_session, "kept")
        return Response()

    TestApp(make_app(view)).get("/", status=200)

    assert notes() == ["kept"]


def test_closing_the_session_is_not_asking_for_a_rollback(make_app, notes):
    """A write that session.close() has thrown away is not answered with a good status."""

    def view(request):
        add(request.sqa_session, "lost")
        request.sqa_session.close()
        return Response()

    browser = TestApp(make_app(view))
    with pytest.raises((SQLAlchemyError, SqaError)):
        browser.get("/")

    assert notes() == []


# Outside requests.


def test_a_script_that_never_sets_tm_active_stores_by_its_manager_alone(make_app, notes):
    """What counts is whether the manager has begun a transaction, not pyramid_tm's mark."""
    app = make_app()
    with prepare(registry=app.registry) as env:
        request = env["request"]
        assert "tm.active" not in request.environ
        with request.tm:
            add(request.sqa_session, "first")
        with pytest.raises(IntegrityError), request.tm:
            add(request.sqa_session, "lost", "first")
        request.tm.begin()
        add(request.sqa_session, "second")
        request.tm.commit()
        request.tm.begin()
        add(request.sqa_session, "forgotten")

    assert get_sqa(app).engine.pool.checkedout() == 0
    assert notes() == ["first", "second"]


def test_before_a_script_begins_a_transaction_the_session_says_so(make_app, notes):
    """A write that nobody would commit is refused, and the session works once there is one."""
    with prepare(registry=make_app().registry) as env:
        request = env["request"]
        with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
            add(request.sqa_session, "lost")
        with request.tm:
            add(request.sqa_session, "kept")

    assert notes() == ["kept"]


@pytest.mark.parametrize(
    "manager",
    [transaction.manager, transaction.TransactionManager(), transaction.TransactionManager(True)],
    ids=["thread", "implicit", "explicit"],
)
def test_a_session_lives_in_any_manager_outside_requests(make_app, notes, manager):
    """Workers and tests bring managers of their own, one session for many transactions."""
    session = get_sqa(make_app()).session(manager)

    for name in ("first", "second"):
        with manager:
            add(session, name)
    with pytest.raises(IntegrityError), manager:
        add(session, "lost", "first")

    assert notes() == ["first", "second"]


def test_sessions_of_different_managers_end_apart(make_app, notes, own):
    """A worker's job is not committed by the thread's transaction."""
    job = get_sqa(make_app()).session(own)
    own.begin()
    add(job, "lost")

    transaction.commit()
    own.abort()

    assert notes() == []


# Settings.


def test_settings_hold_a_ready_engine_that_stays_its_maker_s(make_app, database, notes):
    """A test's engine is used as it is, and has its connections after the application's end."""
    engine = create_engine(database.url)

    def view(request):
        add(request.sqa_session, request.params["name"])
        return Response(status=int(request.params["status"]))

    app = make_app(view, **{"sqlalchemy.engine": engine})
    browser = TestApp(app)
    browser.get("/?name=kept&status=200", status=200)
    browser.get("/?name=lost&status=400", status=400)
    get_sqa(app).dispose()

    assert get_sqa(app).engine is engine
    assert engine.pool.checkedin() == 1
    assert notes() == ["kept"]
    engine.dispose()


def test_settings_hold_objects_where_an_ini_file_has_text(make_app, database, notes):
    """What Python hands in needs no spelling, and what is not ours is not looked at."""

    def view(request):
        add(request.sqa_session, "kept")
        return Response()

    app = make_app(
        view,
        **{
            "sqlalchemy.url": make_url(database.url),
            "sqlalchemy.poolclass": NullPool,
            "tm.manager_hook": thread_manager,
            "retry.attempts": 2,
            "mailer": object(),
            "engine": None,
        },
    )
    TestApp(app).get("/", status=200)

    assert isinstance(get_sqa(app).engine.pool, NullPool)
    assert notes() == ["kept"]
