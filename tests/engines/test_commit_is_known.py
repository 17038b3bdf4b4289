"""COMMIT is known, not believed: faults at each of its hooks, for each way to commit.

What the client or the caller was told, and what an independent connection finds, agree. Where they
cannot, the error or the log says "unknown" or "in part" or "is stored".
"""

from contextlib import ExitStack

import pytest
from pyramid.response import Response
from pyramid_retry import IRetryableError
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session as PlainSession
from sqlalchemy.types import Integer, TypeDecorator
from webtest import TestApp

from pyramid_aalam_sqa import (
    OutcomeUnknownError,
    PartialCommitError,
    Session,
    get_sqa,
    session_scope,
)
from support.apps import with_view
from support.databases import Database
from support.models import BODIES, INSERT


class TimeLimitError(Exception):
    """An error whose first argument looks like one of MySQL's error numbers."""


SORTS = {
    "error": RuntimeError("no mail today"),
    "time limit": TimeLimitError(1205, "lock wait"),
    "end of the process": SystemExit(1),
}


# The sort that looks most like an error of the database is in each run.
DEEP = {"error", "end of the process"}
sorts = pytest.mark.parametrize(
    "sort",
    [pytest.param(sort, marks=pytest.mark.deep if sort in DEEP else ()) for sort in SORTS],
)


class Fault:
    """A fault that raises once, at the hook where it is placed."""

    def __init__(self, error):
        self.error, self.armed = error, False

    def __call__(self, *_):
        if self.armed:
            self.armed = False
            raise self.error


class Manager:
    """Another data manager, which fails in one of its phases."""

    transaction_manager = None

    def __init__(self, phase, fault):
        self.phase, self.fault = phase, fault

    def sortKey(self):  # noqa: N802 - transaction's interface
        return "another"

    def __getattr__(self, name):
        if not name.startswith(("tpc_", "commit", "abort")):
            raise AttributeError(name)
        return self.fault if name == self.phase else lambda transaction: None


def engine_commit_listener(stack, engine, fault):
    event.listen(engine, "commit", fault)


def before_it_is_sent(stack, engine, fault):
    commit = engine.dialect.do_commit

    def do_commit(connection):
        fault()
        commit(connection)

    engine.dialect.do_commit = do_commit


def after_it_was_answered(stack, engine, fault):
    commit = engine.dialect.do_commit

    def do_commit(connection):
        commit(connection)
        fault()

    engine.dialect.do_commit = do_commit


def session_event(name):
    def hook(stack, engine, fault):
        event.listen(PlainSession, name, fault, propagate=True)
        stack.callback(event.remove, PlainSession, name, fault)

    hook.__name__ = name
    return hook


def data_manager(phase):
    def hook(stack, engine, fault):
        fault.joins = phase

    hook.__name__ = f"another data manager's {phase}"
    return hook


HOOKS = [engine_commit_listener, before_it_is_sent, after_it_was_answered]
SESSION_HOOKS = [session_event("before_commit"), session_event("after_commit")]
MANAGER_HOOKS = [data_manager(phase) for phase in ("tpc_begin", "commit", "tpc_vote", "tpc_finish")]


class Case:
    """An application whose engine has a fault at one hook of COMMIT, and its answer."""

    def __init__(self, stack, serve, database, hook, error):
        self.attempts, self.database, self.fault = [], database, Fault(error)
        options = {"connect_args": {"ssl_disabled": True}} if database.kind == "mysql" else {}
        self.engine = create_engine(database.url, pool_size=1, max_overflow=1, **options)
        stack.callback(self.engine.dispose)
        # Below the package: its watcher stands around what is there already.
        hook(stack, self.engine, self.fault)
        self.serve = serve
        self.settings = {"sqlalchemy.engine": self.engine, "sqa.retry_pause": "0"}

    def join(self, tm):
        if hasattr(self.fault, "joins"):
            tm.get().join(Manager(self.fault.joins, self.fault))

    def app(self, act):
        def view(request):
            self.attempts.append(request)
            act(request)
            return Response()

        def write_next(request):
            request.sqa_session.execute(INSERT, {"body": "next"})
            return Response()

        views = with_view(view), with_view(write_next, name="next")
        return self.serve(self.settings.pop("sqlalchemy.url", "sqlite://"), *views, **self.settings)


def by_the_request(case):
    def act(request):
        case.join(request.tm)
        request.sqa_session.execute(INSERT, {"body": "row"})

    client = TestApp(case.app(act))
    case.fault.armed = True
    return client.get("/", status="*").status_int < 400


def by_a_plain_engine_in_a_view(case):
    def act(request):
        with get_sqa(request).engine.begin() as connection:
            connection.execute(INSERT, {"body": "row"})

    client = TestApp(case.app(act))
    case.fault.armed = True
    return client.get("/", status="*").status_int < 400


def by_a_scope(case):
    app = case.app(print)

    @session_scope(app, attempts=3)
    def job(session):
        case.attempts.append(session)
        case.join(session.tm)
        session.execute(INSERT, {"body": "row"})

    case.fault.armed = True
    job()
    return True


def by_the_session_of_a_thread(case):
    app = case.app(print)
    case.attempts.append(app)
    with Session(app) as session:
        session.execute(INSERT, {"body": "row"})
        case.fault.armed = True
        session.commit()
    return True


WAYS = [by_the_request, by_a_scope, by_the_session_of_a_thread, by_a_plain_engine_in_a_view]
CASES = [(way, hook) for way in WAYS for hook in HOOKS]
CASES += [(way, hook) for way in WAYS[:3] for hook in SESSION_HOOKS]
CASES += [(way, hook) for way in WAYS[:2] for hook in MANAGER_HOOKS]


OVER_TWO = [
    (faulty, hook)
    for faulty in ("default", "audit")
    for hook in (*HOOKS, *SESSION_HOOKS, *MANAGER_HOOKS)
]


def name_of(case):
    return "-".join(each.__name__.split("'s ")[-1] for each in case)


@sorts
@pytest.mark.parametrize("one", CASES, ids=name_of)
@pytest.mark.sweep(39)
def test_what_was_told_and_what_is_stored_agree(any_database, caplog, case_of, one, sort):
    """Work that is called stored is stored once, other work is not, or an error says "unknown"."""
    way, hook = one
    case = case_of(hook, SORTS[sort])
    error = None
    try:
        told = way(case)
    except (Exception, SystemExit) as caught:  # noqa: BLE001 - whatever a server would make a 500 of
        told, error = False, caught
    stored = [row[0] for row in any_database.rows(BODIES)]
    said = isinstance(error, (OutcomeUnknownError, PartialCommitError)) or any(
        word in caplog.text for word in ("is unknown", "in part", "is stored")
    )

    assert not case.fault.armed, "the fault has not happened"
    assert stored in ([], ["row"])
    assert told == bool(stored) or said
    assert len(case.attempts) == 1
    assert case.engine.pool.checkedout() == 0
    if error is not None:
        assert type(error) in {type(SORTS[sort]), OutcomeUnknownError}
        assert not IRetryableError.providedBy(error)
    # Nothing is left for the next one on the connection to store.
    TestApp(case.app(print)).get("/next")
    assert [row[0] for row in any_database.rows(BODIES)] == sorted([*stored, "next"])


@sorts
@pytest.mark.parametrize("one", OVER_TWO, ids=lambda one: f"{one[0]}-{one[1].__name__}")
@pytest.mark.sweep(27)
def test_over_two_databases_it_agrees_too(case_of, tmp_path, caplog, one, sort):
    """The default database is committed last. If only one is stored, the error says so."""
    faulty, hook = one
    case = case_of(hook, SORTS[sort])
    other = Database(f"sqlite:///{tmp_path}/other.sqlite")
    other.run("CREATE TABLE note (body VARCHAR(50))")
    databases = {faulty: case.database, "audit" if faulty == "default" else "default": other}
    case.settings |= {
        "sqlalchemy.url": databases["default"].url,
        "sqlalchemy.binds.audit.url": databases["audit"].url,
    }
    ready = "sqlalchemy.engine" if faulty == "default" else "sqlalchemy.binds.audit.engine"
    del case.settings["sqlalchemy.engine"]
    case.settings[ready] = case.engine

    def act(request):
        case.join(request.tm)
        for key in databases:
            request.sqa_session.execute(INSERT, {"body": "row"}, bind_arguments={"bind_key": key})

    client = TestApp(case.app(act))
    case.fault.armed = True
    try:
        told, error = client.get("/", status="*").status_int < 400, None
    except (Exception, SystemExit) as caught:  # noqa: BLE001 - a server makes a 500 of it
        told, error = False, caught
    stored = [len(each.rows(BODIES)) for each in databases.values()]
    said = isinstance(error, (OutcomeUnknownError, PartialCommitError)) or any(
        word in caplog.text for word in ("is unknown", "in part", "is stored")
    )

    assert not case.fault.armed
    assert set(stored) <= {0, 1}
    assert said or (stored == [1, 1] if told else stored == [0, 0])
    assert not told or stored == [1, 1]
    assert len(case.attempts) == 1
    assert case.engine.pool.checkedout() == 0


@pytest.fixture
def case_of(serve, any_database):
    any_database.run("CREATE TABLE note (body VARCHAR(50))")
    with ExitStack() as stack:
        yield lambda hook, error: Case(stack, serve, any_database, hook, error)


@pytest.mark.parametrize("reset", ["rollback", None])
def test_a_listener_that_raises_before_commit_leaves_nothing_behind(serve, any_database, reset):
    """SQLAlchemy takes the transaction as ended, so the pool would not roll back."""
    any_database.run("CREATE TABLE note (body VARCHAR(50))")

    def view(request):
        request.sqa_session.execute(INSERT, {"body": request.params["body"]})
        return Response()

    # A ready engine, which may have any option.
    options = {"connect_args": {"ssl_disabled": True}} if any_database.kind == "mysql" else {}
    engine = create_engine(any_database.url, pool_size=1, pool_reset_on_return=reset, **options)
    client = TestApp(serve("sqlite://", with_view(view), **{"sqlalchemy.engine": engine}))

    def fail(connection):
        event.remove(engine, "commit", fail)
        raise RuntimeError

    event.listen(engine, "commit", fail)
    with pytest.raises(RuntimeError):
        client.get("/?body=lost")
    client.get("/?body=kept")
    engine.dispose()

    assert [row[0] for row in any_database.rows(BODIES)] == ["kept"]


@pytest.mark.parametrize("number", [2006, 2013, 1213, 1205, 1040])
def test_the_error_of_a_view_is_not_taken_for_one_of_the_database(serve, any_database, number):
    """KeyError(2006) is not a lost connection: one attempt, no 503, and the pool is kept."""
    attempts = []

    def view(request):
        attempts.append(request.sqa_session.connection().connection.dbapi_connection)
        raise KeyError(number)

    client = TestApp(serve(any_database.url, with_view(view)))
    for _ in range(2):
        with pytest.raises(KeyError):
            client.get("/")

    assert len(attempts) == 2
    assert attempts[0] is attempts[1]


def test_a_value_that_cannot_be_bound_is_not_taken_for_an_error_of_the_database(
    serve, any_database
):
    """An error that an application's column type raises does not have a code either."""

    class Picky(TypeDecorator):
        impl, cache_ok = Integer, True

        def process_result_value(self, value, dialect):
            raise KeyError(1213)

    attempts = []

    def view(request):
        attempts.append(request)
        request.sqa_session.execute(text("SELECT 1 AS one").columns(one=Picky)).all()

    with pytest.raises(KeyError):
        TestApp(serve(any_database.url, with_view(view))).get("/")

    assert len(attempts) == 1
