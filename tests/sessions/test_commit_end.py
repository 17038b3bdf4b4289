"""The end of a transaction: COMMIT is refused or not answered, or a data manager refuses."""

import os
import signal
import sqlite3
import threading
from functools import partial

import pytest
from pymysql.err import OperationalError as DriverError
from pyramid_retry import IRetryableError
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from transaction import TransactionManager

from pyramid_aalam_sqa import OutcomeUnknownError, get_sqa
from support.proxied_app import visitors
from support.proxy import Then

PROXIED = {"sqa.mysql.tls": "off", "sqlalchemy.connect_args.read_timeout": "30"}
either_page = pytest.mark.parametrize("pages", [(), (Exception,)], ids=["", "catch-all"])
either_reset = pytest.mark.parametrize("reset", ["rollback"])


@pytest.fixture
def pages():
    """The errors that the application has an exception view for."""
    return ()


@pytest.fixture
def reset():
    """The ROLLBACK that the pool sends when a connection comes back."""
    return "rollback"


@pytest.fixture
def settings(reset):
    return {"sqlalchemy.pool_reset_on_return": reset}


@pytest.fixture
def notes(database):
    database.run("CREATE TABLE note (body VARCHAR(50))")
    return lambda: database.scalar("SELECT count(*) FROM note")


@pytest.fixture
def anywhere(database, notes):
    """Make an application on either database."""
    with visitors(database, database.url) as make:
        yield make


@pytest.fixture
def visitor(proxied, proxy, pages, settings):
    """A client of an application that connects through the proxy."""
    database, _, url = proxied
    with visitors(database, url) as make:
        visitor = make(pages=pages, settings={**PROXIED, **settings})
        visitor.warm_up()
        proxy.forget()
        yield visitor


@pytest.fixture
def stored(proxied):
    """Return how many rows there are more than before."""
    count = partial(proxied[0].scalar, "SELECT count(*) FROM note")
    before = count()
    return lambda: count() - before


# A COMMIT that is refused


@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [
        ((1180, "Got error 149 during COMMIT"), (500, 1)),
        ((1290, "The server is running with the --read-only option"), (200, 2)),
        ((1213, "Deadlock found when trying to get lock"), (200, 2)),
    ],
)
@either_reset
@either_page
def test_a_refused_commit_is_rolled_back_before_the_connection_is_used_again(
    visitor, proxy, stored, refusal, outcome
):
    """A later COMMIT on that connection never stores what this one could not."""
    proxy.refuse("COMMIT", *refusal)

    told = visitor.visit()
    said = proxy.forget()
    then = visitor.visit()

    assert (told.status, told.attempts) == outcome
    assert told.is_true
    assert said[said.index("COMMIT") + 1] == "ROLLBACK"
    assert (then.status, then.attempts, then.rows) == (200, 1, 1)
    assert stored() == told.rows + then.rows


@either_page
def test_a_commit_that_is_always_refused_is_an_error_and_stores_nothing(visitor, proxy, stored):
    """After the last attempt the client gets the error."""
    refusal = proxy.refuse("COMMIT", 1213, times=3)

    told = visitor.visit()

    assert (told.status, told.attempts, refusal.happened) == (500, 3, 3)
    assert told.is_true
    assert visitor.visit().status == 200
    assert stored() == 1


@either_reset
@pytest.mark.parametrize("rollback", ["refused", "cut", "torn"])
def test_a_connection_that_does_not_roll_back_either_is_thrown_away(
    visitor, proxy, stored, rollback
):
    """Its state is not known, so no other request may use it."""
    proxy.refuse("COMMIT", 1180)
    if rollback == "refused":
        proxy.refuse("ROLLBACK", 1105, times=100)
    else:
        proxy.have("ROLLBACK", {"cut": Then.CUT, "torn": Then.RESET}[rollback], asked=0)

    told = visitor.visit()
    proxy.forget()
    then = visitor.visit()

    assert (told.status, told.attempts, told.rows) == (500, 1, 0)
    assert then.status == 200
    assert "GREETING" in proxy.said
    assert stored() == 1


@either_reset
@either_page
def test_a_busy_file_at_commit_is_tried_again_and_stores_each_row_once(sqlite, pages, settings):
    """SQLite refuses COMMIT while another connection reads, and keeps the transaction open."""
    sqlite.run("CREATE TABLE note (body VARCHAR(50))", "INSERT INTO note VALUES ('read')")
    settings |= {"sqa.sqlite.journal_mode": "delete", "sqa.lock_timeout": "0.1"}
    reader = sqlite3.connect(sqlite.url.removeprefix("sqlite:///"), check_same_thread=False)

    def read():
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM note").fetchall()

    def stop_reading_at_last(name, request):
        if request.environ["retry.attempt"] == 2:
            reader.rollback()

    with visitors(sqlite, sqlite.url) as make:
        visitor = make(pages=pages, settings=settings)
        read()
        refused = visitor.visit()
        reader.rollback()
        then = visitor.visit()
        read()
        retried = visitor.visit(stop_reading_at_last)
    reader.close()

    assert (refused.status, refused.attempts, refused.rows) == (500, 3, 0)
    assert isinstance(refused.error, OperationalError)
    assert (then.status, then.attempts, then.rows) == (200, 1, 1)
    assert (retried.status, retried.attempts, retried.rows) == (200, 3, 1)
    assert sqlite.scalar("SELECT count(*) FROM note") == 3


@either_reset
def test_a_constraint_that_fails_at_commit_leaves_a_clean_connection(sqlite, settings):
    """A deferred foreign key is checked only at COMMIT."""
    sqlite.run(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE note (body VARCHAR(50), parent INTEGER"
        " REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    )

    def orphan(name, request):
        request.sqa_session.connection().exec_driver_sql("UPDATE note SET parent = 7")

    with visitors(sqlite, sqlite.url) as make:
        visitor = make(settings=settings)
        told = visitor.visit(orphan)
        then = visitor.visit()

    assert (told.status, told.attempts, told.rows) == (500, 1, 0)
    assert "FOREIGN KEY" in str(told.error)
    assert (then.status, then.rows) == (200, 1)
    assert sqlite.scalar("SELECT count(*) FROM note") == 1


# A COMMIT that is not answered


@pytest.mark.parametrize("pages", [(OutcomeUnknownError,)], ids=["its own"])
def test_a_lost_answer_has_an_exception_view_of_its_own(visitor, proxy):
    """The application can inform its client. The error has the driver's error as its reason."""
    called = []
    proxy.have("COMMIT", Then.CUT)

    told = visitor.visit(lambda name, request: request.sqa_after_commit(called.append, name))
    cause = told.error.reason

    assert told.unknown
    assert told.is_true
    assert told.error in visitor.shown.values()
    assert "/write/row-" in str(told.error)
    assert isinstance(cause, OperationalError)
    assert isinstance(cause.orig, DriverError)
    assert not IRetryableError.providedBy(told.error)
    assert not IRetryableError.providedBy(cause)
    assert called == []


def test_a_lost_answer_is_unknown_in_a_script_too(visitor, proxy, stored):
    """The code that commits gets the error, and the log has the transaction's note."""
    proxy.have("COMMIT", Then.CUT)
    tm = TransactionManager(explicit=True)
    session = get_sqa(visitor.app).session(tm)
    tm.begin().note("the nightly import")
    session.connection().exec_driver_sql("INSERT INTO note VALUES ('script')")

    with pytest.raises(OutcomeUnknownError, match="the nightly import") as caught:
        tm.commit()
    tm.abort()
    session.close()

    assert isinstance(caught.value.reason, OperationalError)
    assert "outcome is unknown: the nightly import" in visitor.log.getvalue()
    assert stored() == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x01", b"\xfe", b"\x00", b"\xff"],
    ids=["nothing", "rows", "end", "half an OK", "half an error"],
)
def test_an_answer_that_makes_no_sense_leaves_the_outcome_unknown(visitor, proxy, answer):
    """Only a clear OK or error counts as an answer. Here the server has committed."""
    proxy.have("COMMIT", Then.INSTEAD, instead=answer)

    told = visitor.visit()

    assert told.unknown
    assert told.is_true
    assert visitor.visit().status == 200


def test_the_end_of_the_process_at_commit_is_logged_and_goes_on(visitor, proxy, stored):
    """Gunicorn ends a worker by raising SystemExit at any line."""
    silence = proxy.have("COMMIT", Then.SILENCE)

    def end(number, frame):
        raise SystemExit(1)

    def signal_at_commit():
        assert silence.at_last.wait(30)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, end)
    thread = threading.Thread(target=signal_at_commit)
    thread.start()
    try:
        with pytest.raises(SystemExit):
            visitor.get("ended")
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)

    assert "outcome is unknown: /write/ended" in visitor.log.getvalue()
    assert stored() == 1
    assert visitor.engine.pool.checkedout() == 0
    assert visitor.visit().status == 200


# What comes after a COMMIT that was answered


def test_a_listener_that_fails_after_the_commit_does_not_deny_it(anywhere, notes):
    """The client is told that everything is stored. The listener's error is logged."""
    visitor = anywhere()

    def fail(session):
        raise RuntimeError("no mail today")

    event.listen(Session, "after_commit", fail, propagate=True)
    try:
        told = visitor.visit()
    finally:
        event.remove(Session, "after_commit", fail)

    assert (told.status, told.attempts, told.rows) == (200, 1, 1)
    assert "no mail today" in visitor.log.getvalue()
    assert visitor.visit().status == 200


# Another data manager that refuses


class Refusing:
    """A data manager that refuses in one phase of the commit."""

    transaction_manager = None

    def __init__(self, phase, key):
        self.phase, self.key = phase, key

    def sortKey(self):  # noqa: N802 - the name in transaction's interface
        return self.key

    def _called(self, phase):
        if phase == self.phase:
            raise RuntimeError("I refuse")

    def tpc_begin(self, transaction):
        self._called("tpc_begin")

    def commit(self, transaction):
        self._called("commit")

    def tpc_vote(self, transaction):
        self._called("tpc_vote")

    def tpc_finish(self, transaction):
        """Do nothing."""

    abort = tpc_abort = tpc_finish


@pytest.mark.parametrize("joins", ["begun", "written"])
@pytest.mark.parametrize(
    ("phase", "key"),
    [
        ("tpc_begin", "~~~~"),
        ("commit", "~~~~"),
        ("tpc_vote", ""),
        ("tpc_vote", "~sqlalchemy:999999999999999999"),
    ],
)
@pytest.mark.sweep(8)
def test_another_data_manager_that_refuses_leaves_nothing_stored(
    anywhere, notes, phase, key, joins
):
    """Our data manager has only one phase, so it votes after all others, whenever they join."""

    def step(name, request):
        if name == joins:
            request.tm.get().join(Refusing(phase, key))

    visitor = anywhere()
    told = visitor.visit(step)

    assert (told.status, told.attempts, told.rows) == (500, 1, 0)
    assert str(told.error) == "I refuse"
    assert visitor.visit().status == 200
    assert notes() == 1


def test_what_another_data_manager_calls_transient_is_tried_again(anywhere, notes):
    """That data manager refuses before any work of ours is stored."""

    class Flaky(Refusing):
        def should_retry(self, error):
            return True

    def step(name, request):
        if name == "written" and request.environ["retry.attempt"] == 0:
            request.tm.get().join(Flaky("tpc_vote", "~~~~"))

    told = anywhere().visit(step)

    assert (told.status, told.attempts, told.rows) == (200, 2, 1)
    assert notes() == 1
