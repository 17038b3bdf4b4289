"""If two requests want the same rows, both succeed, and each change is made once."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
from pyramid.response import Response
from sqlalchemy import text
from sqlalchemy.engine import make_url
from webtest import TestApp

from support.accounts import (
    PATIENCE,
    PLACES,
    READ,
    STYLES,
    Account,
    Note,
    Versioned,
    at_once,
    core_update,
    crossing,
    hits,
    is_first,
    locked,
    meet,
    notes,
    refuse_first_commit,
    retries,
    who_of,
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", STYLES)
@pytest.mark.sweep(12)
def test_a_deadlock_of_two_requests_ends_in_two_successes(
    serve_accounts_either_way, bank, caplog, place, name
):
    """The server ends one of the two. That request is tried again, and stores nothing twice."""
    app = serve_accounts_either_way(bank.url, crossing(STYLES[name], place))

    assert at_once(app, f"/{name}/1", f"/{name}/2") == [200, 200]
    assert hits(bank) == {1: 2, 2: 2}
    assert notes(bank) == [1, 2]
    (line,) = retries(caplog)
    assert "attempt 1 of 3 failed (OperationalError 1213)" in line


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.sweep(10)
def test_a_commit_that_is_refused_for_a_conflict_is_made_again(
    serve_accounts_either_way, bank, caplog, name
):
    """A Galera cluster finds some conflicts only at COMMIT."""
    barrier = threading.Barrier(2)

    def view(request):
        session, who = request.sqa_session, who_of(request)
        STYLES[name](session, who, who)
        session.add(Note(who=who))
        session.flush()
        meet(barrier, request)
        return Response()

    app = serve_accounts_either_way(bank.url, view)
    refuse_first_commit(app, 1213)

    assert at_once(app, f"/{name}/1", f"/{name}/2") == [200, 200]
    assert hits(bank) == {1: 1, 2: 1}
    assert notes(bank) == [1, 2]
    (line,) = retries(caplog)
    assert "attempt 1 of 3 failed (OperationalError 1213)" in line


@pytest.mark.parametrize("code", [1020, 1205, 3101])
def test_other_conflicts_at_commit_are_tried_again_too(serve_accounts, bank, caplog, code):
    """Among them: snapshot conflicts, lock waits, and MySQL's group replication."""

    def view(request):
        core_update(request.sqa_session, 1, 1)
        return Response()

    app = serve_accounts(bank.url, view)
    refuse_first_commit(app, code)

    assert at_once(app, "/any/1") == [200]
    assert hits(bank) == {1: 1}
    assert f"OperationalError {code}" in retries(caplog)[0]


def test_a_deadlock_is_known_under_mariadbs_own_url(serve_accounts, bank, caplog):
    """A URL with mariadb+pymysql:// is for the same kind of database."""
    url = make_url(bank.url).set(drivername="mariadb+pymysql")
    app = serve_accounts(url, crossing(core_update))

    assert at_once(app, "/any/1", "/any/2") == [200, 200]
    assert hits(bank) == {1: 2, 2: 2}
    assert len(retries(caplog)) == 1


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.sweep(2)
def test_a_lock_wait_that_timed_out_is_tried_again(serve_accounts_either_way, bank, caplog, place):
    """Another connection holds all rows until each style of writing has timed out once."""
    everybody_failed = threading.Barrier(len(STYLES) + 1)
    let_go = threading.Event()

    def view(request):
        if not is_first(request):
            everybody_failed.wait(PATIENCE)
            let_go.wait(PATIENCE)
        session, who = request.sqa_session, who_of(request)
        session.add(Note(who=who))
        place(session, lambda: STYLES[request.matchdict["style"]](session, who, who))
        return Response()

    app = serve_accounts_either_way(bank.url, view, **{"sqa.lock_timeout": "1"})
    paths = [f"/{name}/{who}" for who, name in enumerate(STYLES, 1)]
    with locked(bank) as release, ThreadPoolExecutor(1) as thread:
        answers = thread.submit(at_once, app, *paths)
        everybody_failed.wait(PATIENCE)
        release()
        let_go.set()
        assert answers.result(PATIENCE) == [200] * len(STYLES)

    assert hits(bank) == dict.fromkeys(range(1, len(STYLES) + 1), 1)
    assert notes(bank) == list(range(1, len(STYLES) + 1))
    assert len(retries(caplog)) == len(STYLES)
    assert all("OperationalError 1205" in line for line in retries(caplog))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", STYLES)
@pytest.mark.sweep(12)
def test_a_snapshot_that_another_commit_has_overtaken_is_tried_again(
    serve_accounts_either_way, bank, caplog, place, name
):
    """MariaDB refuses to change a row that is newer than the transaction's snapshot."""
    if not bank.rows("SHOW VARIABLES LIKE 'innodb_snapshot_isolation'"):
        pytest.skip("The server has no innodb_snapshot_isolation.")

    def view(request):
        session = request.sqa_session
        session.scalar(READ)
        session.add(Note(who=1))
        if is_first(request):
            bank.run("UPDATE account SET hits = hits + 10 WHERE id = 1")
        place(session, lambda: STYLES[name](session, 1, 1))
        return Response()

    settings = {
        "sqlalchemy.isolation_level": "REPEATABLE READ",
        "sqlalchemy.connect_args.init_command": "SET innodb_snapshot_isolation = ON",
    }

    assert at_once(serve_accounts_either_way(bank.url, view, **settings), f"/{name}/1") == [200]
    assert hits(bank) == {1: 11}
    assert notes(bank) == [1]
    assert ["OperationalError 1020" in line for line in retries(caplog)] == [True]


# Ways to count one up, each of which loses hits when nobody watches.
def orm_attribute(session, meet):
    counter = session.get(Account, 1)
    meet()
    counter.hits += 1


def read_and_update(session, meet):
    hits = session.scalar(text("SELECT hits FROM account WHERE id = 1"))
    meet()
    session.execute(text("UPDATE account SET hits = :hits WHERE id = 1"), {"hits": hits + 1})


def select_for_update(session, meet):
    meet()
    session.get(Account, 1, with_for_update=True).hits += 1


def versioned_row(session, meet):
    row = session.get(Versioned, 1)
    meet()
    row.n += 1


def versioned_row_flushed(session, meet):
    versioned_row(session, meet)
    session.flush()


COUNTERS = [
    pytest.param((kind, write, isolation), id=f"{kind}-{write.__name__}")
    for kind, isolation, ways in [
        ("book", None, [orm_attribute, read_and_update, versioned_row]),
        ("bank", None, [select_for_update, versioned_row, versioned_row_flushed]),
        ("ledger", "SERIALIZABLE", [orm_attribute, read_and_update]),
        ("ledger", None, [select_for_update, versioned_row]),
    ]
    for write in ways
]


@pytest.mark.parametrize("case", COUNTERS)
@pytest.mark.sweep(1)
def test_a_counter_ends_at_the_number_of_successes(serve_accounts, request, caplog, case):
    """Eight threads send ten requests each. The counter is the number of 200 responses."""
    kind, write, isolation = case
    database = request.getfixturevalue(kind)
    barrier = threading.Barrier(8)

    def view(request):
        # The first time everybody has read what everybody is going to change.
        together = is_first(request) and who_of(request) == 0
        write(request.sqa_session, (lambda: barrier.wait(PATIENCE)) if together else int)
        return Response()

    settings = {"sqlalchemy.isolation_level": isolation} if isolation else {}
    app = serve_accounts(database.url, view, page=True, **settings)

    def visit(_):
        client = TestApp(app)
        return [client.get(f"/any/{n}", expect_errors=True).status_int for n in range(10)]

    with ThreadPoolExecutor(8) as threads:
        answers = Counter(chain.from_iterable(threads.map(visit, range(8), timeout=2 * PATIENCE)))

    counted = max(database.rows("SELECT hits FROM account UNION SELECT n FROM versioned"))[0]
    assert counted == answers[200] > 8
    assert set(answers) <= {200, 500}
    assert write is select_for_update or retries(caplog)


@pytest.mark.parametrize("place", PLACES)
def test_a_deadlock_on_postgresql_ends_in_two_successes(
    serve_accounts_either_way, ledger, caplog, place
):
    """PostgreSQL reports the deadlock as 40P01."""
    settings = {
        "sqlalchemy.connect_args.options": "-c deadlock_timeout=20ms",
        # PostgreSQL lets the next attempt overtake the other request, which may wake up late.
        "sqa.retry_pause": "0.2",
    }
    app = serve_accounts_either_way(ledger.url, crossing(core_update, place), **settings)

    assert at_once(app, "/any/1", "/any/2") == [200, 200]
    assert hits(ledger) == {1: 2, 2: 2}
    assert notes(ledger) == [1, 2]
    assert {"DeadlockDetected 40P01" in line for line in retries(caplog)} == {True}


@pytest.mark.parametrize("place", PLACES)
def test_a_row_that_has_changed_since_a_serializable_transaction_began_is_tried_again(
    serve_accounts_either_way, ledger, caplog, place
):
    """PostgreSQL reports 40001 for a statement in the view, or in the flush before COMMIT."""

    def view(request):
        session = request.sqa_session
        session.scalar(READ)
        session.add(Note(who=1))
        if is_first(request):
            ledger.run("UPDATE account SET hits = 10 WHERE id = 1")
        place(session, lambda: core_update(session, 1, 1))
        return Response()

    settings = {"sqlalchemy.isolation_level": "SERIALIZABLE"}

    assert at_once(serve_accounts_either_way(ledger.url, view, **settings), "/any/1") == [200]
    assert hits(ledger) == {1: 11}
    assert notes(ledger) == [1]
    assert ["SerializationFailure 40001" in line for line in retries(caplog)] == [True]


def test_a_commit_that_postgresql_refuses_is_made_again(serve_accounts_either_way, ledger, caplog):
    """Each request reads what the other changes. No statement fails, but one COMMIT does."""
    barrier = threading.Barrier(2)

    def view(request):
        session, who = request.sqa_session, who_of(request)
        seen = session.scalar(text("SELECT sum(hits) FROM account"))
        meet(barrier, request)
        change = text("UPDATE account SET hits = :hits WHERE id = :id")
        session.execute(change, {"hits": seen + 1, "id": who})
        meet(barrier, request)
        return Response()

    app = serve_accounts_either_way(
        ledger.url, view, **{"sqlalchemy.isolation_level": "SERIALIZABLE"}
    )

    assert at_once(app, "/any/1", "/any/2") == [200, 200]
    # One after the other, as SERIALIZABLE says.
    assert sorted(hits(ledger).values()) == [1, 2]
    assert ["SerializationFailure 40001" in line for line in retries(caplog)] == [True]
