"""A transaction over two databases has one outcome, or an error says that it is in part."""

import io
import itertools
import logging
import sqlite3
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import pytest
from pyramid.response import Response
from pyramid_retry import IRetryableError
from sqlalchemy import Column, MetaData, String, Table, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from pyramid_aalam_sqa import (
    BrokenTransactionError,
    OutcomeUnknownError,
    PartialCommitError,
    Session,
    get_sqa,
    session_scope,
)
from pyramid_aalam_sqa.engines import watcher
from support.bound import do, serving
from support.databases import Database, own_database, plain_engine
from support.proxied_app import PASSWORD
from support.proxy import Then

_numbers = itertools.count(1)
SETTINGS = {
    "sqa.mysql.tls": "off",
    "sqlalchemy.connect_args.read_timeout": "30",
    "sqlalchemy.pool_size": "1",
    "sqlalchemy.max_overflow": "0",
    "sqa.retry_pause": "0",
}
ACCIDENTS = {
    "cut before the question": {"then": Then.CUT, "asked": 0},
    "cut in the question": {"then": Then.CUT, "asked": 3},
    "cut before the answer": {"then": Then.CUT},
    "torn before the answer": {"then": Then.RESET},
}
tables = {
    key: Table(
        "note", MetaData(info={"bind_key": key}), Column("body", String(50), primary_key=True)
    )
    for key in ("default", "audit")
}


class Hopeful:
    """A data manager that says of every error that a retry may help."""

    transaction_manager = None

    def sortKey(self):  # noqa: N802 - the name in transaction's interface
        return "hopeful"

    def should_retry(self, error):
        return True

    def tpc_begin(self, trans):
        pass

    commit = tpc_vote = tpc_finish = abort = tpc_abort = tpc_begin


@dataclass
class Told:
    """The result of a request: what the client was told, and what is true."""

    status: int
    error: BaseException | None
    attempts: int
    stored: dict
    critical: list
    unknown: list

    @property
    def is_true(self):
        """Return whether the answer agrees with what independent connections have found."""
        rows, error = self.stored, self.error
        if self.status < 400:
            return rows == {"default": 1, "audit": 1} and not self.critical
        if isinstance(error, PartialCommitError):
            keys = [*error.stored, *error.not_stored, *error.unknown]
            return (
                all(rows[key] == 1 for key in error.stored)
                and all(rows[key] == 0 for key in error.not_stored)
                and sorted(keys) == ["audit", "default"]
                and all(key in self.critical[0] for key in keys)
                and self.attempts == len(self.critical) == 1
            )
        if isinstance(error, OutcomeUnknownError):
            return rows["default"] == 0 and self.attempts == len(self.unknown) == 1
        return rows == {"default": 0, "audit": 0} and not self.critical and not self.unknown


class Visitor:
    """Makes requests that write a row to each of two databases."""

    def __init__(self, client, eyes, log):
        self.client, self.eyes, self.log = client, eyes, log
        self.attempts = 0
        # Each visitor writes rows of its own.
        self.number = next(_numbers)

    @property
    def engines(self):
        return get_sqa(self.client.app).engines

    def warm_up(self):
        for engine in self.engines.values():
            engine.connect().close()

    def write(self, session, name):
        for key in ("default", "audit"):
            session.execute(tables[key].insert(), {"body": f"{name}-{self.number}"})

    def visit(self, step=lambda name, request: None, **options):
        name = f"row-{next(_numbers)}"
        self.attempts = 0

        def act(request):
            self.attempts += 1
            step("begun", request)
            self.write(request.sqa_session, name)
            step("written", request)

        error = None
        try:
            status = do(self.client, act, **options).status_int
        except Exception as raised:  # noqa: BLE001 - of any a server makes a 500
            status, error = 500, raised
        assert self.checked_out() == 0
        return self.told(name, status, error)

    def told(self, name, status, error):
        stored = {}
        for key, engine in self.eyes.items():
            with engine.connect() as connection:
                found = connection.execute(
                    text("SELECT 1 FROM note WHERE body = :b"), {"b": f"{name}-{self.number}"}
                )
                stored[key] = len(found.all())
        lines = self.log.getvalue().splitlines()
        self.log.truncate(0)
        self.log.seek(0)
        return Told(
            status,
            error,
            self.attempts,
            stored,
            [line for line in lines if line.startswith("CRITICAL")],
            [line for line in lines if "outcome is unknown" in line],
        )

    def checked_out(self):
        return sum(engine.pool.checkedout() for engine in self.engines.values())


@contextmanager
def logged():
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    ours = logging.getLogger("pyramid_aalam_sqa")
    ours.addHandler(handler)
    try:
        yield log
    finally:
        ours.removeHandler(handler)


@pytest.fixture(scope="module")
def servers(mariadb_url, second_mariadb_server):
    """Two databases on two servers, each behind a proxy."""
    from support.proxied_app import behind_a_proxy

    with ExitStack() as stack:
        found = {}
        for key, url in (("default", mariadb_url), ("audit", second_mariadb_server.url())):
            database = stack.enter_context(own_database(url))
            proxy, proxied = stack.enter_context(behind_a_proxy(database))
            eyes = plain_engine(database.url, poolclass=QueuePool, isolation_level="AUTOCOMMIT")
            stack.callback(eyes.dispose)
            found[key] = proxy, proxied, eyes
        yield found


@pytest.fixture
def proxies(servers):
    for proxy, _, _ in servers.values():
        proxy.forget()
    return {key: proxy for key, (proxy, _, _) in servers.items()}


@pytest.fixture(params=["shortcuts", pytest.param("plain", marks=pytest.mark.deep)])
def mode(request):
    """Without the round trips that are known to be needless, or with all of them."""
    return request.param


@pytest.fixture
def visitor(servers, proxies, mode):
    """A client of an application that connects to both servers through the proxies."""
    settings = {**SETTINGS, "sqlalchemy.url": servers["default"][1]}
    settings["sqa.shortcuts"] = str(mode == "shortcuts")
    settings["sqlalchemy.binds.audit.url"] = servers["audit"][1]
    with serving(settings) as client, logged() as log:
        visitor = Visitor(client, {key: eyes for key, (_, _, eyes) in servers.items()}, log)
        visitor.warm_up()
        for proxy in proxies.values():
            proxy.forget()
        yield visitor
        assert PASSWORD not in log.getvalue()


def rest_of(said, before):
    """Return what is said from *before* on."""
    return said[said.index(before) :]


# The commits of a transaction. ----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["shortcuts", "plain"])
def test_two_databases_that_have_just_answered_are_not_asked(visitor, proxies, mode):
    """Their COMMITs come at once, each a round trip; without shortcuts both are asked before."""
    visitor.visit()

    asked = {"shortcuts": [], "plain": ["SELECT 1"]}[mode]
    for proxy in proxies.values():
        [insert] = [place for place, said in enumerate(proxy.said) if said.startswith("INSERT")]
        assert proxy.said[insert + 1 :][: len(asked) + 1] == [*asked, "COMMIT"]


def test_the_second_is_asked_before_the_first_commit_if_its_answer_is_old(
    visitor, proxies, mode, monkeypatch
):
    """The default database is committed last. Each database is committed once."""
    monkeypatch.setattr(watcher, "JUST_NOW", 0)
    order = []
    for key, engine in visitor.engines.items():
        event.listen(engine, "commit", lambda connection, key=key: order.append(key))
    asked_before = []
    event.listen(
        visitor.engines["audit"],
        "commit",
        lambda connection: asked_before.append("SELECT 1" in proxies["default"].said),
    )

    told = visitor.visit()

    assert told.status == 200
    assert told.is_true
    assert order == ["audit", "default"]
    assert asked_before == [True]
    end = ["COMMIT"] if mode == "shortcuts" else ["COMMIT", "ROLLBACK"]
    assert rest_of(proxies["default"].said, "SELECT 1") == ["SELECT 1", *end]
    # The first COMMIT asks by itself.
    assert ("SELECT 1" in proxies["audit"].said) is (mode == "plain")
    assert rest_of(proxies["audit"].said, "COMMIT") == end


def test_a_request_that_uses_one_database_is_not_asked_first(visitor, proxies, mode):
    """It sends as many packets as in an application with one database."""
    do(visitor.client, lambda request: request.sqa_session.execute(text("SELECT 2")))

    work = ["SELECT 2", "COMMIT"]
    asked = {"shortcuts": work, "plain": ["PING", *work, "ROLLBACK"]}
    assert proxies["default"].said == asked[mode]
    assert proxies["audit"].said == []


@pytest.mark.parametrize("key", ["default", "audit"])
@pytest.mark.parametrize("accident", ACCIDENTS.values(), ids=ACCIDENTS)
def test_wherever_a_connection_is_lost_the_client_is_told_the_truth(
    visitor, proxies, key, accident
):
    """A loss at any exchange before the first COMMIT means that the request is tried again."""
    visitor.visit()
    said = {each: proxy.forget() for each, proxy in proxies.items()}
    kinds = []
    for number in range(len(said[key])):
        visitor.warm_up()
        for proxy in proxies.values():
            proxy.forget()
        happens = proxies[key].have(number, **accident)
        told = visitor.visit()
        assert happens.happened == 1
        assert told.is_true, (said[key][number], told)
        kinds.append(type(told.error).__name__ if told.error else told.status)

    commit = said[key].index("COMMIT")
    assert kinds[:commit] == [200] * commit
    assert kinds[commit] == ("OutcomeUnknownError" if key == "audit" else "PartialCommitError")
    assert kinds[commit + 1 :] == [200] * (len(kinds) - commit - 1)


@pytest.mark.parametrize("accident", ACCIDENTS.values(), ids=ACCIDENTS)
def test_a_lost_second_commit_is_a_partial_one(visitor, proxies, accident):
    """The error says which database is stored, and whether the other one is known."""
    called = []
    proxies["default"].have("COMMIT", **accident)

    told = visitor.visit(lambda name, request: request.sqa_after_commit(called.append, name))

    assert isinstance(told.error, PartialCommitError)
    assert told.is_true
    assert told.error.stored == ("audit",)
    assert {*told.error.not_stored, *told.error.unknown} == {"default"}
    assert isinstance(told.error.reason, OperationalError)
    assert called == []
    assert visitor.visit().status == 200


@pytest.mark.parametrize(
    ("refusal", "retried"),
    [
        ((1180, "Got error 149"), False),
        ((1213, "Deadlock found"), True),
        ((1290, "--read-only"), True),
    ],
)
def test_a_refused_first_commit_stores_nothing_and_a_conflict_is_tried_again(
    visitor, proxies, refusal, retried
):
    """The other database is rolled back. All else is as with one database."""
    proxies["audit"].refuse("COMMIT", *refusal)

    told = visitor.visit()

    assert (told.status, told.attempts) == ((200, 2) if retried else (500, 1))
    assert told.is_true
    assert visitor.visit().is_true


@pytest.mark.parametrize("code", [1180, 1213, 1205, 1290])
def test_a_refused_second_commit_is_never_tried_again(visitor, proxies, code):
    """Even after a conflict, another attempt would store the first database's part twice."""
    proxies["default"].refuse("COMMIT", code, "--read-only", times=3)

    told = visitor.visit()
    said = proxies["default"].forget()
    then = visitor.visit()

    assert isinstance(told.error, PartialCommitError)
    assert (told.error.stored, told.error.not_stored) == (("audit",), ("default",))
    assert told.error.unknown == ()
    assert told.is_true
    assert not IRetryableError.providedBy(told.error)
    assert said.count("COMMIT") == 1
    assert "ROLLBACK" in said
    assert (then.status, then.is_true) == (200, True)


def test_what_other_data_managers_say_does_not_try_a_partial_commit_again(visitor, proxies):
    """Otherwise one that calls every error retryable would have the work stored twice."""
    proxies["default"].refuse("COMMIT", 1213, times=3)

    told = visitor.visit(lambda name, request: request.tm.get().join(Hopeful()))

    assert isinstance(told.error, PartialCommitError)
    assert told.is_true


def test_a_partial_commit_is_a_500_that_an_exception_view_can_show(servers, proxies):
    """It is not a 503, even if a 503 would fit its cause. The page is rendered once."""
    shown = []

    def page(error, request):
        shown.append(error)
        return Response("Half of it", status=500)

    settings = {**SETTINGS, "sqlalchemy.url": servers["default"][1]}
    settings["sqlalchemy.binds.audit.url"] = servers["audit"][1]

    with serving(
        settings, lambda config: config.add_exception_view(page, context=PartialCommitError)
    ) as client:
        do(client, lambda request: request.sqa_session.execute(text("SELECT 1")))
        proxies["default"].have("COMMIT", Then.CUT)
        answer = do(
            client,
            lambda request: [
                request.sqa_session.execute(table.insert(), {"body": "page"})
                for table in tables.values()
            ],
            expect_errors=True,
        )

    assert (answer.status_int, answer.text, len(shown)) == (500, "Half of it", 1)


def test_a_connection_that_dies_between_the_two_commits(visitor, servers):
    """The server answers when it is asked, and is gone when it has to commit."""
    ids = {}

    def note(name, request):
        if name == "written":
            connection = request.sqa_session.connection()
            ids["default"] = connection.scalar(text("SELECT connection_id()"))

    def kill(connection):
        with servers["default"][2].connect() as eyes:
            eyes.execute(text(f"KILL {ids['default']}"))
            while eyes.scalar(
                text("SELECT count(*) FROM information_schema.processlist WHERE id = :id"),
                {"id": ids["default"]},
            ):
                pass

    event.listen(visitor.engines["audit"], "commit", kill, once=True)

    told = visitor.visit(note)

    assert isinstance(told.error, PartialCommitError)
    assert told.error.stored == ("audit",)
    assert told.is_true
    assert visitor.visit().status == 200


@pytest.mark.parametrize("key", ["default", "audit"])
def test_a_swallowed_conflict_in_one_database_is_tried_again_in_both(visitor, proxies, key):
    """After the conflict, the transaction is broken in all databases."""
    proxies[key].refuse("INSERT", 1213, "Deadlock found")
    plain = visitor.write

    def swallow(session, name):
        for each in ("default", "audit"):
            with suppress(OperationalError):
                session.execute(tables[each].insert(), {"body": f"{name}-{visitor.number}"})

    visitor.write = swallow
    told = visitor.visit()
    visitor.write = plain

    assert (told.status, told.attempts) == (200, 2)
    assert told.is_true


def test_a_flush_that_fails_in_one_database_undoes_both(visitor, proxies):
    """The client gets the view's own error."""
    proxies["audit"].refuse("INSERT", 1364, "Field has no default value")

    told = visitor.visit()

    assert (told.status, told.attempts) == (500, 1)
    assert told.is_true
    assert "COMMIT" not in [*proxies["default"].said, *proxies["audit"].said]


def test_a_script_is_told_of_a_partial_commit_and_does_nothing_twice(visitor, proxies):
    """After a conflict session_scope() tries again, but not after a partial commit."""
    proxies["default"].refuse("COMMIT", 1213)
    calls = []

    @session_scope(visitor.client.app, attempts=3)
    def job(session):
        session.tm.get().join(Hopeful())
        calls.append(session)
        visitor.write(session, "job")

    with pytest.raises(PartialCommitError) as caught:
        job()

    assert caught.value.stored == ("audit",)
    assert visitor.told("job", 500, caught.value).stored == {"default": 0, "audit": 1}
    assert len(calls) == 1
    assert visitor.checked_out() == 0


def test_the_session_of_a_thread_is_told_of_a_partial_commit(visitor, proxies):
    """Its commit() has the same order, and raises the same error."""
    proxies["default"].have("COMMIT", Then.CUT)
    session = Session(visitor.client.app)
    visitor.write(session, "thread")

    with pytest.raises(PartialCommitError) as caught:
        session.commit()

    assert (caught.value.stored, caught.value.unknown) == (("audit",), ("default",))
    assert visitor.checked_out() == 0
    visitor.write(session, "again")
    session.commit()
    session.remove()
    assert visitor.told("again", 200, None).stored == {"default": 1, "audit": 1}


def test_the_session_of_a_thread_stores_nothing_when_the_first_commit_fails(visitor, proxies):
    """It also stores nothing if the caller has swallowed an error that lost a part of the work."""
    proxies["audit"].refuse("COMMIT", 1213)
    session = Session(visitor.client.app)
    visitor.write(session, "refused")
    with pytest.raises(OperationalError):
        session.commit()
    session.rollback()
    proxies["audit"].refuse("INSERT", 1213)
    with pytest.raises(OperationalError):
        visitor.write(session, "broken")
    with pytest.raises(BrokenTransactionError):
        session.commit()
    session.remove()

    assert visitor.told("refused", 500, None).stored == {"default": 0, "audit": 0}
    assert visitor.told("broken", 500, None).stored == {"default": 0, "audit": 0}
    assert visitor.checked_out() == 0


def test_a_connection_that_was_rolled_back_by_hand_commits_nothing(visitor):
    """The session does not notice the rollback of its connection, but the commit does."""

    def roll_back(name, request):
        if name == "written":
            request.sqa_session.connection(bind_arguments={"bind_key": "audit"}).rollback()

    told = visitor.visit(roll_back)

    assert isinstance(told.error, BrokenTransactionError)
    assert told.is_true
    assert told.attempts == 1


def test_the_end_of_the_process_between_two_commits_is_logged_and_goes_on(visitor):
    """Gunicorn ends a worker by raising SystemExit at any line."""

    def end(connection):
        raise SystemExit(1)

    event.listen(visitor.engines["default"], "commit", end, once=True)
    with pytest.raises(SystemExit):
        do(visitor.client, lambda request: visitor.write(request.sqa_session, "ended"))
    told = visitor.told("ended", 500, None)

    assert told.stored == {"default": 0, "audit": 1}
    assert "[stored: audit] [not stored: default]" in told.critical[0]
    assert visitor.checked_out() == 0
    assert visitor.visit().is_true


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_busy_file_at_the_second_commit_is_a_partial_commit(kind, tmp_path, request):
    """SQLite refuses COMMIT while another connection reads. The request is not tried again."""
    files = {key: Database(f"sqlite:///{tmp_path}/{key}.sqlite") for key in ("default", "audit")}
    if kind == "postgresql":
        files["audit"] = request.getfixturevalue("postgresql")
    for database in files.values():
        database.run("CREATE TABLE note (body VARCHAR(50) PRIMARY KEY)")
    settings = {"sqlalchemy.url": files["default"].url, "sqa.sqlite.journal_mode": "delete"}
    settings |= {"sqlalchemy.binds.audit.url": files["audit"].url, "sqa.lock_timeout": "0.1"}
    reader = sqlite3.connect(tmp_path / "default.sqlite")
    attempts = []

    def write(request):
        attempts.append(request.environ["retry.attempt"])
        for table in tables.values():
            request.sqa_session.execute(table.insert(), {"body": f"row {len(attempts)}"})

    with serving(settings) as client:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM note").fetchall()
        with pytest.raises(PartialCommitError) as caught:
            do(client, write)
        reader.rollback()
        reader.close()
        do(client, write)

    assert (caught.value.stored, caught.value.not_stored) == (("audit",), ("default",))
    assert attempts == [0, 0]
    assert files["default"].rows("SELECT body FROM note") == [("row 2",)]
    assert files["audit"].rows("SELECT body FROM note ORDER BY body") == [("row 1",), ("row 2",)]
