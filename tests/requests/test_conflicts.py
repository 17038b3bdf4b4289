"""Two requests that want the same rows: both are answered, and every effect exists once."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain

import pymysql
import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import event, func, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, PendingRollbackError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from webtest import TestApp

from pyramid_aalam_sqa import BrokenTransactionError, get_sqa
from pyramid_aalam_sqa.backends.backend import ErrorKind
from pyramid_aalam_sqa.backends.registry import backend_for
from support.databases import own_database, plain_engine

# Nobody waits longer for the other: what hangs fails.
PATIENCE = 30
ROWS = 20
ALL = "SELECT * FROM account FOR UPDATE"
SECOND = "SELECT * FROM account WHERE id = 2 FOR UPDATE"
READ = text("SELECT count(*) FROM account")


class Base(DeclarativeBase):
    """The models of this test."""


class Account(Base):
    """A row that several requests change."""

    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    hits: Mapped[int]


class Entry(Base):
    """Its insertion counts as a hit, by a trigger."""

    __tablename__ = "entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[int]


class Ticket(Base):
    """Its deletion counts as a hit, by a trigger."""

    __tablename__ = "ticket"
    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[int]


class Note(Base):
    """Who was there."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    who: Mapped[int]


class Versioned(Base):
    """A row that notices by itself when somebody else has changed it."""

    __tablename__ = "versioned"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy's way to say it


MORE = {Account.hits: Account.hits + 1}
HIT = update(Account.__table__).values(hits=Account.__table__.c.hits + 1)
STYLES = {}


def style(function):
    """Register a way to count a hit of an account."""
    STYLES[function.__name__] = function
    return function


@style
def attribute_change(session, key, who):
    session.get(Account, key).hits = Account.hits + 1


@style
def orm_add(session, key, who):
    session.add(Entry(account=key))


@style
def orm_delete(session, key, who):
    session.delete(session.get(Ticket, 100 * key + who))


@style
def core_update(session, key, who):
    session.execute(HIT.where(Account.__table__.c.id == key))


@style
def text_update(session, key, who):
    session.execute(text("UPDATE account SET hits = hits + 1 WHERE id = :id"), {"id": key})


@style
def connection(session, key, who):
    session.connection().execute(HIT.where(Account.__table__.c.id == key))


@style
def driver_sql(session, key, who):
    statement = f"UPDATE account SET hits = hits + 1 WHERE id = {key}"
    session.connection().exec_driver_sql(statement)


@style
def legacy_query(session, key, who):
    session.query(Account).filter_by(id=key).update(MORE, synchronize_session=False)


@style
def stored_procedure(session, key, who):
    session.execute(text("CALL hit(:id)"), {"id": key})


def in_the_view(session, write):
    write()
    session.flush()


def in_the_flush_of_the_commit(session, write):
    event.listen(session, "before_flush", lambda *_: write(), once=True)


PLACES = [in_the_view, in_the_flush_of_the_commit]


@contextmanager
def tables(database):
    """Make the tables, for all tests."""
    Base.metadata.create_all(plain_engine(database.url))
    keys = range(1, ROWS + 1)
    database.run(
        f"INSERT INTO account (id, hits) VALUES {', '.join(f'({key}, 0)' for key in keys)}",
        "INSERT INTO versioned (id, n, version) VALUES (1, 0, 1)",
    )
    yield database


def emptied(database):
    """The tables as they are at the beginning of a test."""
    database.run(
        "UPDATE account SET hits = 0",
        "UPDATE versioned SET n = 0, version = 1",
        "DELETE FROM note",
    )
    return database


@pytest.fixture(scope="module")
def mariadb_tables(mariadb_url):
    hit = "UPDATE account SET hits = hits + 1 WHERE id ="
    with own_database(mariadb_url) as database, tables(database):
        database.run(
            f"CREATE TRIGGER made AFTER INSERT ON entry FOR EACH ROW {hit} NEW.account",
            f"CREATE TRIGGER gone AFTER DELETE ON ticket FOR EACH ROW {hit} OLD.account",
            f"CREATE PROCEDURE hit(IN account_id INT) {hit} account_id",
        )
        yield database


@pytest.fixture(scope="module")
def postgresql_tables(postgresql_server):
    with own_database(postgresql_server.url()) as database, tables(database):
        yield database


@pytest.fixture
def bank(mariadb_tables):
    """Accounts, entries, tickets and notes on MariaDB."""
    tickets = ", ".join(
        f"({100 * key + who}, {key})" for key in range(1, 10) for who in {1, 2, key}
    )
    mariadb_tables.run(f"INSERT IGNORE INTO ticket (id, account) VALUES {tickets}")
    return emptied(mariadb_tables)


@pytest.fixture
def ledger(postgresql_tables):
    """Accounts and notes on PostgreSQL."""
    return emptied(postgresql_tables)


@pytest.fixture
def book(sqlite):
    """Accounts and notes on SQLite."""
    with tables(sqlite):
        return sqlite


@pytest.fixture(params=["book", "bank", "ledger"])
def anywhere(request):
    """Accounts and notes on each of the three."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def serve():
    """Make an application of one view at /{style}/{who}; its connections end with the test."""
    apps = []

    def serve(url, view, *, page=False, **settings):
        given = {"sqlalchemy.url": url, "sqa.retry_pause": "0.01", **settings}
        with Configurator(settings=given) as config:
            config.include("pyramid_aalam_sqa")
            config.add_route("view", "/{style}/{who}")
            config.add_view(view, route_name="view")
            if page:
                config.add_exception_view(lambda error, request: Response("Sorry", status=500))
        apps.append(config.make_wsgi_app())
        return apps[-1]

    yield serve
    for app in apps:
        get_sqa(app).dispose()


@pytest.fixture(params=[False, True], ids=["no_page", "page_for_every_error"])
def serve_either_way(request, serve):
    """The application has an exception view for everything, or none."""
    return partial(serve, page=request.param)


def at_once(app, *paths):
    """Visit *paths* in a thread each; return each one's status, or what it raised."""

    def visit(path):
        try:
            return TestApp(app).get(path, expect_errors=True).status_int
        except Exception as error:  # noqa: BLE001 - it is the answer: the test looks at it
            return error

    with ThreadPoolExecutor(len(paths)) as threads:
        return list(threads.map(visit, paths, timeout=2 * PATIENCE))


def who_of(request):
    return int(request.matchdict["who"])


def is_first(request):
    return request.environ["retry.attempt"] == 0


def meet(barrier, request):
    """Wait for the others at the first attempt: the next is on its own."""
    if is_first(request):
        barrier.wait(PATIENCE)


def retries(caplog):
    """The lines about requests that are tried again."""
    return [line for name, _, line in caplog.record_tuples if name.endswith(".retry")]


def hits(database):
    """What was stored, as others see it: the accounts that were hit, and how often."""
    return dict(database.rows("SELECT id, hits FROM account WHERE hits > 0"))


def notes(database):
    return [row[0] for row in database.rows("SELECT who FROM note ORDER BY who")]


@contextmanager
def locked(database, statement=ALL):
    """Somebody else holds the rows; yield the function that lets them go."""
    with plain_engine(database.url).connect() as connection:
        connection.execute(text(statement)).all()
        yield connection.rollback


def crossing(write, place=in_the_view):
    """Two requests that each hold a row and then want the other's: a deadlock."""
    barrier = threading.Barrier(2)

    def view(request):
        session, who = request.sqa_session, who_of(request)
        write(session, who, who)
        session.flush()
        session.add(Note(who=who))
        meet(barrier, request)
        place(session, lambda: write(session, 3 - who, who))
        return Response()

    return view


def swallowing(session, write):
    """A view that thinks it knows better."""
    with suppress(Exception):
        write()
        session.flush()


def refuse_first_commit(app, code):
    """Have the server roll back at the first COMMIT, as a cluster does for a conflict."""
    dialect = get_sqa(app).engine.dialect
    commit, refused, lock = dialect.do_commit, [], threading.Lock()

    def do_commit(connection):
        with lock:
            first = not refused
            refused.append(code)
        if first:
            connection.rollback()
            raise pymysql.err.OperationalError(code, "conflict")
        commit(connection)

    dialect.do_commit = do_commit


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", STYLES)
def test_a_deadlock_of_two_requests_ends_in_two_successes(
    serve_either_way, bank, caplog, place, name
):
    """The one that the server throws away is made again, and nothing of it is there twice."""
    app = serve_either_way(bank.url, crossing(STYLES[name], place))

    assert at_once(app, f"/{name}/1", f"/{name}/2") == [200, 200]
    assert hits(bank) == {1: 2, 2: 2}
    assert notes(bank) == [1, 2]
    (line,) = retries(caplog)
    assert "attempt 1 of 3 failed (OperationalError 1213)" in line


@pytest.mark.parametrize("name", STYLES)
def test_a_commit_that_is_refused_for_a_conflict_is_made_again(
    serve_either_way, bank, caplog, name
):
    """A cluster finds the conflict no earlier than at COMMIT."""
    barrier = threading.Barrier(2)

    def view(request):
        session, who = request.sqa_session, who_of(request)
        STYLES[name](session, who, who)
        session.add(Note(who=who))
        session.flush()
        meet(barrier, request)
        return Response()

    app = serve_either_way(bank.url, view)
    refuse_first_commit(app, 1213)

    assert at_once(app, f"/{name}/1", f"/{name}/2") == [200, 200]
    assert hits(bank) == {1: 1, 2: 1}
    assert notes(bank) == [1, 2]
    (line,) = retries(caplog)
    assert "attempt 1 of 3 failed (OperationalError 1213)" in line


@pytest.mark.parametrize("code", [1020, 1205, 3101])
def test_other_conflicts_at_commit_are_tried_again_too(serve, bank, caplog, code):
    """Snapshot conflicts, lock waits, and MySQL's group replication."""

    def view(request):
        core_update(request.sqa_session, 1, 1)
        return Response()

    app = serve(bank.url, view)
    refuse_first_commit(app, code)

    assert at_once(app, "/any/1") == [200]
    assert hits(bank) == {1: 1}
    assert f"OperationalError {code}" in retries(caplog)[0]


def test_a_deadlock_is_known_under_mariadbs_own_url(serve, bank, caplog):
    """mariadb+pymysql:// is the same database."""
    url = make_url(bank.url).set(drivername="mariadb+pymysql")
    app = serve(url, crossing(core_update))

    assert at_once(app, "/any/1", "/any/2") == [200, 200]
    assert hits(bank) == {1: 2, 2: 2}
    assert len(retries(caplog)) == 1


@pytest.mark.parametrize("place", PLACES)
def test_a_lock_wait_that_timed_out_is_tried_again(serve_either_way, bank, caplog, place):
    """Every style of writing, at once, while somebody holds all rows until each has given up."""
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

    app = serve_either_way(bank.url, view, **{"sqa.lock_timeout": "1"})
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
def test_a_snapshot_that_somebody_else_has_overtaken_is_tried_again(
    serve_either_way, bank, caplog, place, name
):
    """MariaDB refuses to change a row that is newer than what the transaction has read."""
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

    assert at_once(serve_either_way(bank.url, view, **settings), f"/{name}/1") == [200]
    assert hits(bank) == {1: 11}
    assert notes(bank) == [1]
    assert ["OperationalError 1020" in line for line in retries(caplog)] == [True]


def test_a_view_that_swallows_a_deadlock_is_tried_again(serve_either_way, bank, caplog):
    """What came after the deadlock would be stored, and what came before it would not."""
    app = serve_either_way(bank.url, crossing(core_update, swallowing))

    assert at_once(app, "/any/1", "/any/2") == [200, 200]
    assert hits(bank) == {1: 2, 2: 2}
    assert notes(bank) == [1, 2]
    assert ["OperationalError 1213" in line for line in retries(caplog)] == [True]


def test_a_swallowed_deadlock_that_cannot_be_tried_again_is_no_success(serve, bank):
    """The loser gets an error and stores nothing; the winner has stored everything."""
    barrier = threading.Barrier(2)

    def view(request):
        session, who = request.sqa_session, who_of(request)
        core_update(session, who, who)
        meet(barrier, request)
        swallowing(session, lambda: core_update(session, 3 - who, who))
        session.execute(text(f"INSERT INTO note (who) VALUES ({who})"))
        return Response()

    app = serve(bank.url, view, **{"retry.attempts": "1"})
    answers = at_once(app, "/any/1", "/any/2")

    assert {type(answer) for answer in answers} == {int, BrokenTransactionError}
    assert notes(bank) == [answers.index(200) + 1]
    assert hits(bank) == {1: 1, 2: 1}


@pytest.mark.parametrize("where", ["around", "inside"])
def test_a_deadlock_swallowed_around_a_savepoint_is_tried_again(serve, bank, caplog, where):
    """The savepoint is gone as everything else: no part can be undone or kept."""

    def in_a_savepoint(session, write):
        if where == "around":
            with suppress(Exception), session.begin_nested():
                write()
            return
        with suppress(Exception), session.begin_nested():
            with suppress(Exception):
                write()
            session.execute(text("UPDATE account SET hits = hits WHERE id = 9"))

    app = serve(bank.url, crossing(core_update, in_a_savepoint))

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
    serve, bank, caplog, start_over, write
):
    """Everything after the rollback is stored once, with no retry of ours."""
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

    app = serve(bank.url, view)

    assert at_once(app, "/any/1", "/any/2") == [200, 200]
    assert len(deadlocks) == 1
    assert hits(bank) == {1: 2, 2: 2}
    assert notes(bank) == [1, 2]
    assert retries(caplog) == []


def test_a_view_may_give_up_after_a_deadlock(serve, bank, caplog):
    """It has rolled back, and answers that it stores nothing: that is a success, and no half."""

    def view(request):
        session = request.sqa_session
        session.add(Note(who=1))
        session.flush()
        with suppress(OperationalError):
            session.execute(text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213"))
        session.rollback()
        return Response()

    assert at_once(serve(bank.url, view), "/any/1") == [200]
    assert notes(bank) == []
    assert retries(caplog) == []


# MariaDB's way to wait for one statement only so long as told: not at all.
AT_ONCE = text(
    "SET STATEMENT innodb_lock_wait_timeout = 0 FOR UPDATE account SET hits = 9 WHERE id = 2"
)


def test_a_swallowed_lock_wait_is_tried_again(serve, bank, caplog):
    """One statement of the view is missing, and nobody knows whether it mattered."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        if is_first(request):
            with locked(bank, SECOND):
                swallowing(session, lambda: session.execute(AT_ONCE))
        else:
            core_update(session, 2, 1)
        return Response()

    assert at_once(serve(bank.url, view), "/any/1") == [200]
    assert hits(bank) == {1: 1, 2: 1}
    assert ["OperationalError 1205" in line for line in retries(caplog)] == [True]


def test_a_lock_wait_swallowed_around_a_savepoint_is_the_views_own_business(serve, bank, caplog):
    """The savepoint undoes the statement alone; the rest is whole and is stored."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        session.add(Note(who=2))
        with locked(bank, SECOND), suppress(OperationalError), session.begin_nested():
            session.add(Note(who=1))
            session.execute(AT_ONCE)
        session.add(Note(who=3))
        return Response()

    assert at_once(serve(bank.url, view), "/any/1") == [200]
    assert hits(bank) == {1: 1}
    assert notes(bank) == [2, 3]
    assert retries(caplog) == []


def test_a_transaction_that_lost_its_savepoint_is_not_committed(serve, bank):
    """Under innodb_rollback_on_timeout a timed out wait in a savepoint ends everything before."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        with suppress(Exception), session.begin_nested():
            # What the server does by itself under that option.
            session.execute(text("ROLLBACK"))
            session.execute(text("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1205"))
        core_update(session, 2, 1)
        return Response()

    (answer,) = at_once(serve(bank.url, view), "/any/1")

    assert isinstance(answer, BrokenTransactionError)
    assert hits(bank) == {}


def flush_a_duplicate(session):
    session.add(Account(id=2, hits=0))
    session.flush()


def query_with_autoflush(session):
    session.add(Account(id=2, hits=0))
    session.scalar(select(func.count()).select_from(Account))


def save_in_bulk(session):
    session.bulk_save_objects([Account(id=2, hits=0)])


@pytest.mark.parametrize("fail", [flush_a_duplicate, query_with_autoflush, save_in_bulk])
def test_a_swallowed_failed_flush_stores_nothing_and_is_no_success(serve, anywhere, fail):
    """SQLAlchemy has rolled back all that the view did before."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        with pytest.raises(IntegrityError):
            fail(session)
        return Response()

    (answer,) = at_once(serve(anywhere.url, view), "/any/1")

    assert isinstance(answer, (PendingRollbackError, BrokenTransactionError))
    assert hits(anywhere) == {}
    assert notes(anywhere) == []


def test_a_view_that_rolls_back_a_failed_flush_stores_what_comes_after(serve, anywhere):
    """The rollback says that the view knows."""

    def view(request):
        session = request.sqa_session
        with pytest.raises(IntegrityError):
            flush_a_duplicate(session)
        session.rollback()
        session.add(Note(who=3))
        return Response()

    assert at_once(serve(anywhere.url, view), "/any/1") == [200]
    assert notes(anywhere) == [3]


def test_a_failure_that_made_sqlite_roll_back_is_no_success(serve, sqlite):
    """ON CONFLICT ROLLBACK, as a full disk: what comes after would be stored on its own."""
    sqlite.run("CREATE TABLE note (who INTEGER UNIQUE ON CONFLICT ROLLBACK)")

    def view(request):
        session = request.sqa_session
        for who in (1, 1, 2):
            swallowing(session, lambda: session.execute(text(f"INSERT INTO note VALUES ({who})")))  # noqa: B023
        return Response()

    (answer,) = at_once(serve(sqlite.url, view), "/any/1")

    assert isinstance(answer, BrokenTransactionError)


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
def test_a_counter_ends_at_the_number_of_successes(serve, request, caplog, case):
    """Eight threads of ten requests: what was answered with 200 was counted, and nothing else."""
    kind, write, isolation = case
    database = request.getfixturevalue(kind)
    barrier = threading.Barrier(8)

    def view(request):
        # The first time everybody has read what everybody is going to change.
        together = is_first(request) and who_of(request) == 0
        write(request.sqa_session, (lambda: barrier.wait(PATIENCE)) if together else int)
        return Response()

    settings = {"sqlalchemy.isolation_level": isolation} if isolation else {}
    app = serve(database.url, view, page=True, **settings)

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
def test_a_deadlock_on_postgresql_ends_in_two_successes(serve_either_way, ledger, caplog, place):
    """40P01."""
    settings = {
        "sqlalchemy.connect_args.options": "-c deadlock_timeout=20ms",
        # PostgreSQL lets the next attempt overtake the other request, which may wake up late.
        "sqa.retry_pause": "0.2",
    }
    app = serve_either_way(ledger.url, crossing(core_update, place), **settings)

    assert at_once(app, "/any/1", "/any/2") == [200, 200]
    assert hits(ledger) == {1: 2, 2: 2}
    assert notes(ledger) == [1, 2]
    assert {"DeadlockDetected 40P01" in line for line in retries(caplog)} == {True}


@pytest.mark.parametrize("place", PLACES)
def test_a_row_that_has_changed_since_a_serializable_transaction_began_is_tried_again(
    serve_either_way, ledger, caplog, place
):
    """40001 at a statement, in the view and in the flush of the commit."""

    def view(request):
        session = request.sqa_session
        session.scalar(READ)
        session.add(Note(who=1))
        if is_first(request):
            ledger.run("UPDATE account SET hits = 10 WHERE id = 1")
        place(session, lambda: core_update(session, 1, 1))
        return Response()

    settings = {"sqlalchemy.isolation_level": "SERIALIZABLE"}

    assert at_once(serve_either_way(ledger.url, view, **settings), "/any/1") == [200]
    assert hits(ledger) == {1: 11}
    assert notes(ledger) == [1]
    assert ["SerializationFailure 40001" in line for line in retries(caplog)] == [True]


def test_a_commit_that_postgresql_refuses_is_made_again(serve_either_way, ledger, caplog):
    """Each has read what the other changes: no statement fails, one COMMIT does."""
    barrier = threading.Barrier(2)

    def view(request):
        session, who = request.sqa_session, who_of(request)
        seen = session.scalar(text("SELECT sum(hits) FROM account"))
        meet(barrier, request)
        change = text("UPDATE account SET hits = :hits WHERE id = :id")
        session.execute(change, {"hits": seen + 1, "id": who})
        meet(barrier, request)
        return Response()

    app = serve_either_way(ledger.url, view, **{"sqlalchemy.isolation_level": "SERIALIZABLE"})

    assert at_once(app, "/any/1", "/any/2") == [200, 200]
    # One after the other, as SERIALIZABLE says.
    assert sorted(hits(ledger).values()) == [1, 2]
    assert ["SerializationFailure 40001" in line for line in retries(caplog)] == [True]


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
def test_an_error_swallowed_on_postgresql_is_no_success(serve, ledger, name):
    """COMMIT would be answered, and would have undone all that the view did before."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        with pytest.raises(Exception, match=r"."):
            FAILURES[name](session)
        return Response()

    (answer,) = at_once(serve(ledger.url, view), "/any/1")

    assert isinstance(answer, BrokenTransactionError)
    # What SQLAlchemy has not seen, nobody can name.
    assert isinstance(answer.reason, DBAPIError) == (name != "a cursor of the driver")
    assert hits(ledger) == {}


@pytest.mark.parametrize("name", FAILURES)
def test_an_error_swallowed_around_a_savepoint_leaves_the_rest_whole(serve, ledger, name):
    """The savepoint is what the application has to write around a statement that may fail."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        with pytest.raises(Exception, match=r"."), session.begin_nested():
            FAILURES[name](session)
        return Response()

    assert at_once(serve(ledger.url, view), "/any/1") == [200]
    assert hits(ledger) == {1: 1}


def test_a_swallowed_lock_timeout_on_postgresql_is_tried_again(serve, ledger, caplog):
    """55P03 outside a savepoint has ended the transaction there."""

    def view(request):
        session = request.sqa_session
        core_update(session, 1, 1)
        if is_first(request):
            with locked(ledger, SECOND):
                nowait = text("SELECT * FROM account WHERE id = 2 FOR UPDATE NOWAIT")
                swallowing(session, lambda: session.execute(nowait))
        return Response()

    assert at_once(serve(ledger.url, view), "/any/1") == [200]
    assert hits(ledger) == {1: 1}
    assert ["LockNotAvailable 55P03" in line for line in retries(caplog)] == [True]


class OtherDriversError(Exception):
    """What mysqlclient and others raise: the number first."""


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (1213, ErrorKind.CONFLICT),
        (1020, ErrorKind.CONFLICT),
        (3101, ErrorKind.CONFLICT),
        (1205, ErrorKind.LOCKED),
        (2006, ErrorKind.DISCONNECT),
        (2013, ErrorKind.DISCONNECT),
        (1792, ErrorKind.READ_ONLY),
        (1062, None),
        (1064, None),
        (4321, ErrorKind.CONFLICT),
    ],
)
@pytest.mark.parametrize("driver", ["mysql+mysqldb", "mysql+pymysql", "mariadb+mysqldb"])
def test_the_numbers_of_mysql_mean_the_same_in_every_driver(driver, code, fault):
    """The number comes first in mysqlclient, as in PyMySQL."""
    dialect = backend_for(make_url(f"{driver}://host/name"), {"retry_codes": ["4321"]})
    error = OtherDriversError(code, "said the server")

    assert dialect.fault(error, connecting=False, disconnected=False) is fault
    assert fault is None or fault.retryable


def test_no_lock_left_is_the_end_of_the_whole_transaction():
    """1206 rolls back everything: InnoDB has no room for another lock."""
    dialect = backend_for(make_url("mysql+mysqldb://host/name"), {"retry_codes": None})

    assert dialect.ends_transaction(OtherDriversError(1206, "lock table size"), None)
    assert not dialect.ends_transaction(OtherDriversError(1062, "SAVEPOINT"), None)
    assert not dialect.ends_transaction(OtherDriversError(1305, "PROCEDURE a does not exist"), None)
