"""If a view swallows a database error, it is retried or fails. A part is never committed."""

import threading
from contextlib import suppress

import pytest
from pyramid.response import Response
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, PendingRollbackError

from pyramid_aalam_sqa import BrokenTransactionError
from support.accounts import (
    PATIENCE,
    SECOND,
    Account,
    Note,
    at_once,
    attribute_change,
    core_update,
    crossing,
    flush_a_duplicate,
    hits,
    is_first,
    locked,
    meet,
    notes,
    retries,
    swallowing,
    who_of,
)


def test_a_view_that_swallows_a_deadlock_is_tried_again(serve_accounts_either_way, bank, caplog):
    """A commit would store only what the view did after the deadlock."""
    app = serve_accounts_either_way(bank.url, crossing(core_update, swallowing))

    assert at_once(app, "/any/1", "/any/2") == [200, 200]
    assert hits(bank) == {1: 2, 2: 2}
    assert notes(bank) == [1, 2]
    assert ["OperationalError 1213" in line for line in retries(caplog)] == [True]


def test_a_swallowed_deadlock_that_cannot_be_tried_again_is_an_error(serve_accounts, bank):
    """The losing request gets an error and stores nothing. The other one stores everything."""
    barrier = threading.Barrier(2)

    def view(request):
        session, who = request.sqa_session, who_of(request)
        core_update(session, who, who)
        meet(barrier, request)
        swallowing(session, lambda: core_update(session, 3 - who, who))
        session.execute(text(f"INSERT INTO note (who) VALUES ({who})"))
        return Response()

    app = serve_accounts(bank.url, view, **{"retry.attempts": "1"})
    answers = at_once(app, "/any/1", "/any/2")

    assert {type(answer) for answer in answers} == {int, BrokenTransactionError}
    assert notes(bank) == [answers.index(200) + 1]
    assert hits(bank) == {1: 1, 2: 1}


@pytest.mark.parametrize("where", ["around", "inside"])
def test_a_deadlock_swallowed_around_a_savepoint_is_tried_again(
    serve_accounts, bank, caplog, where
):
    """The deadlock has ended the savepoint too, so it cannot undo its part."""

    def in_a_savepoint(session, write):
        if where == "around":
            with suppress(Exception), session.begin_nested():
                write()
            return
        with suppress(Exception), session.begin_nested():
            with suppress(Exception):
                write()
            session.execute(text("UPDATE account SET hits = hits WHERE id = 9"))

    app = serve_accounts(bank.url, crossing(core_update, in_a_savepoint))

    assert at_once(app, "/any/1", "/any/2") == [200, 200]
    assert hits(bank) == {1: 2, 2: 2}
    assert notes(bank) == [1, 2]
    assert len(retries(caplog)) == 1


def rolls_back(request):
    request.sqa_session.rollback()


def begins_again(request):
    request.tm.abort()
    request.tm.begin()


@pytest.mark.parametrize("start_over", [rolls_back, begins_again])
@pytest.mark.parametrize("write", [core_update, attribute_change])
def test_a_view_may_handle_a_deadlock_by_rolling_back_and_doing_it_again(
    serve_accounts, bank, caplog, start_over, write
):
    """What the view does after its rollback is stored once, without a retry."""
    barrier = threading.Barrier(2)
    deadlocks = []

    def view(request):
        session, who = request.sqa_session, who_of(request)
        write(session, who, who)
        session.flush()
        barrier.wait(PATIENCE)
        try:
            write(session, 3 - who, who)
            session.flush()
        except OperationalError:
            deadlocks.append(who)
            start_over(request)
            write(session, who, who)
            write(session, 3 - who, who)
        session.add(Note(who=who))
        return Response()

    app = serve_accounts(bank.url, view)

    assert at_once(app, "/any/1", "/any/2") == [200, 200]
    assert len(deadlocks) == 1
    assert hits(bank) == {1: 2, 2: 2}
    assert notes(bank) == [1, 2]
    assert retries(caplog) == []


def test_a_view_may_give_up_after_a_deadlock(serve_accounts, bank, caplog):
    """The view has rolled back and says so. Its response is a success without a write."""

    def view(request):
        session = request.sqa_session
        session.add(Note(who=1))
        session.flush()
        with suppress(OperationalError):
            session.execute(text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213"))
        session.rollback()
        return Response()

    assert at_once(serve_accounts(bank.url, view), "/any/1") == [200]
    assert notes(bank) == []
    assert retries(caplog) == []


# MariaDB's way to wait for one statement only so long as told: not at all.
AT_ONCE = text(
    "SET STATEMENT innodb_lock_wait_timeout = 0 FOR UPDATE account SET hits = 9 WHERE id = 2"
)


def test_a_swallowed_lock_wait_is_tried_again(serve_accounts, bank, caplog):
    """One statement of the view is missing, and the package cannot know whether it matters."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        if is_first(request):
            with locked(bank, SECOND):
                swallowing(session, lambda: session.execute(AT_ONCE))
        else:
            core_update(session, 2, 1)
        return Response()

    assert at_once(serve_accounts(bank.url, view), "/any/1") == [200]
    assert hits(bank) == {1: 1, 2: 1}
    assert ["OperationalError 1205" in line for line in retries(caplog)] == [True]


def test_a_lock_wait_swallowed_around_a_savepoint_is_the_views_own_business(
    serve_accounts, bank, caplog
):
    """The savepoint undoes only that statement. The rest is complete and is stored."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        session.add(Note(who=2))
        with locked(bank, SECOND), suppress(OperationalError), session.begin_nested():
            session.add(Note(who=1))
            session.execute(AT_ONCE)
        session.add(Note(who=3))
        return Response()

    assert at_once(serve_accounts(bank.url, view), "/any/1") == [200]
    assert hits(bank) == {1: 1}
    assert notes(bank) == [2, 3]
    assert retries(caplog) == []


def test_a_transaction_that_lost_its_savepoint_is_not_committed(serve_accounts, bank):
    """With innodb_rollback_on_timeout, a lock wait ends the savepoint and all work before it."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        with suppress(Exception), session.begin_nested():
            # What the server does by itself under that option.
            session.execute(text("ROLLBACK"))
            session.execute(text("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1205"))
        core_update(session, 2, 1)
        return Response()

    (answer,) = at_once(serve_accounts(bank.url, view), "/any/1")

    # SQLAlchemy's own error: its rollback to the savepoint has failed.
    assert type(answer) is PendingRollbackError
    assert hits(bank) == {}


def query_with_autoflush(session):
    session.add(Account(id=2, hits=0))
    session.scalar(select(func.count()).select_from(Account))


def save_in_bulk(session):
    session.bulk_save_objects([Account(id=2, hits=0)])


@pytest.mark.parametrize("fail", [flush_a_duplicate, query_with_autoflush, save_in_bulk])
def test_a_swallowed_failed_flush_stores_nothing_and_is_an_error(serve_accounts, anywhere, fail):
    """SQLAlchemy has rolled back all work of the view before the flush."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        with pytest.raises(IntegrityError):
            fail(session)
        return Response()

    (answer,) = at_once(serve_accounts(anywhere.url, view), "/any/1")

    # Where an error of the server ends the transaction, ours comes before SQLAlchemy's.
    ours = anywhere.kind == "postgresql"
    assert type(answer) is (BrokenTransactionError if ours else PendingRollbackError)
    assert hits(anywhere) == {}
    assert notes(anywhere) == []


def test_a_view_that_rolls_back_a_failed_flush_stores_what_comes_after(serve_accounts, anywhere):
    """By the rollback, the view shows that it knows that its earlier work is lost."""

    def view(request):
        session = request.sqa_session
        with pytest.raises(IntegrityError):
            flush_a_duplicate(session)
        session.rollback()
        session.add(Note(who=3))
        return Response()

    assert at_once(serve_accounts(anywhere.url, view), "/any/1") == [200]
    assert notes(anywhere) == [3]


def test_a_failure_that_made_sqlite_roll_back_is_an_error(serve_accounts, sqlite):
    """ON CONFLICT ROLLBACK ends the transaction, as a full disk does."""
    sqlite.run("CREATE TABLE note (who INTEGER UNIQUE ON CONFLICT ROLLBACK)")

    def view(request):
        session = request.sqa_session
        for who in (1, 1, 2):
            swallowing(session, lambda: session.execute(text(f"INSERT INTO note VALUES ({who})")))  # noqa: B023
        return Response()

    (answer,) = at_once(serve_accounts(sqlite.url, view), "/any/1")

    assert isinstance(answer, BrokenTransactionError)


def raw_cursor(session):
    session.connection().connection.cursor().execute("SELECT 1 / 0")


def failing(statement):
    def fail(session):
        session.execute(text(statement))

    return fail


FAILURES = {
    "syntax": failing("SELEKT"),
    "unknown table": failing("SELECT * FROM nowhere"),
    "division by zero": failing("SELECT 1 / 0"),
    "duplicate": failing("INSERT INTO account (id, hits) VALUES (1, 0)"),
    "not null": failing("INSERT INTO account (id) VALUES (7)"),
    "cancelled": failing("SET LOCAL statement_timeout = 1; SELECT pg_sleep(5)"),
    "a cursor of the driver": raw_cursor,
    "a failed flush": flush_a_duplicate,
}


@pytest.mark.parametrize("name", FAILURES)
def test_an_error_swallowed_on_postgresql_is_an_error(serve_accounts, ledger, name):
    """PostgreSQL would accept COMMIT, but roll back all work of the view."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        with pytest.raises(Exception, match=r"."):
            FAILURES[name](session)
        return Response()

    (answer,) = at_once(serve_accounts(ledger.url, view), "/any/1")

    assert isinstance(answer, BrokenTransactionError)
    # What SQLAlchemy has not seen, nobody can name.
    assert isinstance(answer.reason, DBAPIError) == (name != "a cursor of the driver")
    assert hits(ledger) == {}


@pytest.mark.parametrize("name", FAILURES)
def test_an_error_swallowed_around_a_savepoint_leaves_the_rest_whole(serve_accounts, ledger, name):
    """An application must write a savepoint around a statement that may fail."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        with pytest.raises(Exception, match=r"."), session.begin_nested():
            FAILURES[name](session)
        return Response()

    assert at_once(serve_accounts(ledger.url, view), "/any/1") == [200]
    assert hits(ledger) == {1: 1}


def test_a_swallowed_lock_timeout_on_postgresql_is_tried_again(serve_accounts, ledger, caplog):
    """On PostgreSQL, 55P03 outside a savepoint has ended the transaction."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        if is_first(request):
            with locked(ledger, SECOND):
                nowait = text("SELECT * FROM account WHERE id = 2 FOR UPDATE NOWAIT")
                swallowing(session, lambda: session.execute(nowait))
        return Response()

    assert at_once(serve_accounts(ledger.url, view), "/any/1") == [200]
    assert hits(ledger) == {1: 1}
    assert ["LockNotAvailable 55P03" in line for line in retries(caplog)] == [True]
