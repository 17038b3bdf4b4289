"""A session_scope() is a session outside a request that commits at the end."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import transaction
from sqlalchemy import text
from transaction.interfaces import TransientError

from pyramid_aalam_sqa import (
    CommitNotAllowedError,
    OutsideTransactionError,
    SettingError,
    get_sqa,
    session_scope,
)
from support.models import INSERT


@pytest.fixture
def app(serve, database, notes):
    """An application that retries without a pause."""
    return serve(database.url, **{"sqa.retry_pause": "0"})


class Mail:
    """A data manager that sends mail when the transaction commits."""

    transaction_manager = None

    def __init__(self, retry=False):
        self.retry = retry
        self.sent = self.dropped = 0

    def should_retry(self, error):
        return self.retry

    def sortKey(self):  # noqa: N802 - the name in transaction's interface
        return "mail"

    def abort(self, trans):
        self.dropped += 1

    def tpc_begin(self, trans):
        pass

    commit = tpc_vote = tpc_begin

    def tpc_finish(self, trans):
        self.sent += 1

    def tpc_abort(self, trans):
        self.dropped += 1


def add(session, body):
    session.execute(INSERT, {"body": body})


def open_connections(app):
    return get_sqa(app).engine.pool.checkedout()


def test_a_with_block_commits_at_its_end(app, notes):
    """The connection goes back to the pool, and the session cannot be used any more."""
    with session_scope(app) as session:
        add(session, "kept")
        assert notes() == []

    assert notes() == ["kept"]
    assert open_connections(app) == 0
    with pytest.raises(OutsideTransactionError, match="has ended"):
        session.execute(INSERT, {"body": "late"})


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_a_with_block_that_raises_rolls_back(app, notes, error):
    """The caller gets the exception that the block raised."""

    def job():
        with session_scope(app) as session:
            add(session, "lost")
            raise error

    with pytest.raises(error):
        job()
    assert notes() == []
    assert open_connections(app) == 0


def test_a_decorated_function_is_handed_the_session(app, notes):
    """The session is its first argument. The caller gets what the function returns."""

    @session_scope(app)
    def job(session, body, *, twice=False):
        """Store it."""
        add(session, body)
        if twice:
            add(session, body)
        return body.upper()

    assert job("one") == "ONE"
    assert job("two", twice=True) == "TWO"
    assert notes() == ["one", "two", "two"]
    assert (job.__name__, job.__doc__) == ("job", "Store it.")
    assert open_connections(app) == 0


def test_a_decorated_function_that_raises_rolls_back(app, notes):
    """The function is called once, unless more attempts are asked for."""
    calls = []

    @session_scope(app, attempts=3)
    def job(session):
        calls.append(1)
        add(session, "lost")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job()
    assert len(calls) == 1
    assert notes() == []


def test_without_a_name_it_is_the_only_application(app, notes):
    """The application is looked up when the function is called, not when it is decorated."""

    @session_scope(app)
    def job(session):
        add(session, "kept")

    job()

    assert notes() == ["kept"]


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    """The error is raised by the call, in one sentence."""
    with (
        pytest.raises(SettingError, match="The database 'aalam_nowhere' is not known"),
        session_scope("aalam_nowhere"),
    ):
        pass


def test_savepoints_and_flushes_work_as_in_a_view(app, notes):
    """But commit() raises an error, because the end of the block decides."""
    with session_scope(app) as session:
        add(session, "kept")
        point = session.begin_nested()
        add(session, "undone")
        point.rollback()
        session.flush()
        with pytest.raises(CommitNotAllowedError):
            session.commit()
        session.rollback()
        add(session, "after")

    assert notes() == ["after"]


def test_a_part_can_be_committed_at_once(app, notes):
    """The block calls commit() and begin() of the transaction manager, as a view does."""
    with session_scope(app) as session:
        add(session, "one")
        session.tm.commit()
        assert notes() == ["one"]
        session.tm.begin()
        add(session, "two")

    assert notes() == ["one", "two"]


def test_a_part_that_was_committed_last_needs_a_new_beginning(app, notes):
    """All work is stored. The error says that the block has begun no other transaction."""

    def job():
        with session_scope(app) as session:
            add(session, "one")
            session.tm.commit()

    with pytest.raises(transaction.interfaces.NoTransaction):
        job()
    assert notes() == ["one"]
    assert open_connections(app) == 0


def test_other_data_managers_take_part(app, notes):
    """A mail is sent at the commit, and dropped at a rollback."""
    sent, dropped = Mail(), Mail()

    def job():
        with session_scope(app) as session:
            session.tm.get().join(dropped)
            add(session, "lost")
            raise ZeroDivisionError

    with session_scope(app) as session:
        session.tm.get().join(sent)
        add(session, "kept")
    with pytest.raises(ZeroDivisionError):
        job()

    assert (sent.sent, dropped.sent, dropped.dropped) == (1, 0, 1)
    assert notes() == ["kept"]


def test_a_data_manager_that_refuses_rolls_everything_back(app, notes):
    """Our data manager votes last."""

    class Refuses(Mail):
        def tpc_vote(self, trans):
            raise ZeroDivisionError

    def job():
        with session_scope(app) as session:
            add(session, "lost")
            session.tm.get().join(Refuses())

    with pytest.raises(ZeroDivisionError):
        job()
    assert notes() == []
    assert open_connections(app) == 0


def test_functions_after_the_commit_are_called_then(app, notes):
    """They are called when the work is stored, with True as the argument."""
    seen = []

    with session_scope(app) as session:
        session.tm.get().addAfterCommitHook(lambda committed: seen.append((committed, notes())))
        add(session, "kept")

    assert seen == [(True, ["kept"])]


def test_a_transaction_of_the_thread_is_left_alone(app, notes):
    """The scope has its own transaction manager."""
    transaction.begin()
    with session_scope(app) as session:
        add(session, "kept")
    transaction.abort()

    assert notes() == ["kept"]


def test_scopes_within_each_other_are_two_transactions(app, notes, database):
    """The work of the inner scope is stored even if the outer scope fails."""
    if database.kind == "sqlite":
        database.run("PRAGMA journal_mode = wal")

    def outer():
        with session_scope(app) as session:
            with session_scope(app) as inner:
                add(inner, "inner")
            add(session, "outer")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outer()
    assert notes() == ["inner"]


def test_jobs_at_the_same_time_have_sessions_of_their_own(app, notes):
    """Many threads call one decorated function."""
    barrier = threading.Barrier(4)

    @session_scope(app)
    def job(session, number):
        barrier.wait(10)
        session.scalar(text("SELECT 1"))
        seen = id(session)
        barrier.wait(10)
        return seen

    with ThreadPoolExecutor(4) as pool:
        sessions = list(pool.map(job, range(4)))

    assert len(set(sessions)) == 4
    assert open_connections(app) == 0


def collide(app):
    """Run two jobs that lock two rows in opposite orders. Each waits for the other once."""
    barrier = threading.Barrier(2)
    first = threading.local()

    @session_scope(app, attempts=3)
    def job(session, one, other):
        session.execute(text("UPDATE pair SET n = n + 1 WHERE id = :id"), {"id": one})
        if not hasattr(first, "done"):
            first.done = True
            barrier.wait(10)
        session.execute(text("UPDATE pair SET n = n + 1 WHERE id = :id"), {"id": other})

    with ThreadPoolExecutor(2) as pool:
        for result in [pool.submit(job, 1, 2), pool.submit(job, 2, 1)]:
            result.result()


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_deadlock_is_tried_again(serve, kind, request, caplog):
    """After a real deadlock both jobs are done once, and the log has a line for the attempt."""
    database = request.getfixturevalue(kind)
    database.run("CREATE TABLE pair (id INTEGER PRIMARY KEY, n INTEGER)")
    database.run("INSERT INTO pair VALUES (1, 0), (2, 0)")

    collide(serve(database.url, **{"sqa.retry_pause": "0"}))

    assert database.rows("SELECT id, n FROM pair ORDER BY id") == [(1, 2), (2, 2)]
    assert "collide.<locals>.job: attempt 1 of 3 failed" in caplog.text


def test_after_the_last_attempt_the_error_is_the_callers(app, notes):
    """The caller gets the error. `attempts` is the number of all calls."""
    calls = []

    @session_scope(app, attempts=3)
    def job(session):
        calls.append(1)
        add(session, "lost")
        raise TransientError

    with pytest.raises(TransientError):
        job()
    assert len(calls) == 3
    assert notes() == []


def test_a_data_manager_may_ask_for_another_attempt(app, notes):
    """Its should_retry() is called, as pyramid_tm calls it."""
    calls = []

    @session_scope(app, attempts=2)
    def job(session):
        calls.append(1)
        session.tm.get().join(Mail(retry=True))
        add(session, "kept")
        if len(calls) == 1:
            raise ZeroDivisionError

    job()

    assert len(calls) == 2
    assert notes() == ["kept"]


def test_an_attempt_that_failed_has_no_functions_after_its_commit(app, notes):
    """Only the functions of the attempt that was stored are called with True."""
    seen, calls = [], []

    @session_scope(app, attempts=2)
    def job(session):
        calls.append(1)
        number = len(calls)
        session.tm.get().addAfterCommitHook(lambda committed: seen.append((number, committed)))
        add(session, "kept")
        if number == 1:
            raise TransientError

    job()

    assert (2, True) in seen
    assert (1, True) not in seen


def test_a_with_block_cannot_be_tried_again():
    """The error says to decorate a function instead."""
    with (
        pytest.raises(TypeError, match="write a function under @session_scope"),
        session_scope(attempts=3),
    ):
        pass


def test_one_scope_is_one_block_at_a_time(app):
    """Otherwise one object would have two sessions."""
    scope = session_scope(app)
    with scope, pytest.raises(RuntimeError, match="call session_scope\\(\\) for each"):
        scope.__enter__()
    with scope as session:
        assert session.scalar(text("SELECT 1")) == 1


def generator(session):
    yield


async def coroutine(session):
    pass


async def asynchronous_generator(session):
    yield


@pytest.mark.parametrize("function", [generator, coroutine, asynchronous_generator])
def test_what_would_outlive_the_session_is_refused(function):
    """A generator or coroutine is refused when it is decorated."""
    with pytest.raises(TypeError, match="write a plain function"):
        session_scope()(function)


@pytest.mark.parametrize("attempts", [0, -1])
def test_at_least_one_attempt_is_made(attempts):
    """A smaller number raises ValueError."""
    with pytest.raises(ValueError, match="a whole number from 1 up"):
        session_scope(attempts=attempts)
