"""How a transaction ended, as its recording says: of several databases, and after accidents."""

import itertools
import threading

import pytest
from sqlalchemy import Column, MetaData, String, Table, create_engine, event, text
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import DBAPIError
from webtest import TestApp

from pyramid_aalam_sqa import OutcomeUnknownError, PartialCommitError, get_sqa
from pyramid_aalam_sqa.debugging import recorded
from support.apps import with_view
from support.models import INSERT
from support.proxy import Then
from support.recording import RECORD, Recording, view

NOTES = "CREATE TABLE note (body VARCHAR(50))"
TABLES = [
    Table("note", MetaData(info={"bind_key": key}), Column("body", String(50), primary_key=True))
    for key in ("audit", "default")
]
_numbers = itertools.count(1)


@pytest.fixture(params=["sqlite", "mariadb"])
def second(request):
    """The database that commits first; the one behind the proxy commits last."""
    database = request.getfixturevalue(request.param)
    database.run(NOTES)
    return database


def serve_both(serve, default_url, audit_url):
    app = serve(default_url, with_view(view), **RECORD, **{"sqlalchemy.binds.audit.url": audit_url})
    for engine in get_sqa(app).engines.values():
        engine.connect().close()
    return Recording(app)


def write_to_both(request):
    body = f"row {next(_numbers)}"
    for table in TABLES:
        request.sqa_session.execute(table.insert(), {"body": body})


def ends(statements):
    return [(each.database, each.attempt, each.kind, each.outcome) for each in statements.ends]


def test_each_commit_is_told_by_its_database(serve, proxied, proxy, second):
    """In the order in which they were sent, each with its seconds."""
    statements = serve_both(serve, proxied[2], second.url).do(write_to_both)

    assert ends(statements) == [
        ("audit", 1, "COMMIT", "committed"),
        ("default", 1, "COMMIT", "committed"),
    ]
    assert [each.database for each in statements] == ["audit", "default"]
    assert {key: each.statements for key, each in statements.totals.items()} == {
        "audit": 1,
        "default": 1,
    }
    assert all(each.commit > 0 for each in statements.totals.values())


def test_a_refused_second_commit_is_told_beside_the_first_that_is_stored(
    serve, proxied, proxy, second
):
    """The request ends in a PartialCommitError."""
    both = serve_both(serve, proxied[2], second.url)
    proxy.refuse("COMMIT", 1180, "Got error 149")
    statements = both.do(write_to_both, raises=PartialCommitError)

    assert both.response.not_stored == ("default",)
    assert ends(statements) == [
        ("audit", 1, "COMMIT", "committed"),
        ("default", 1, "COMMIT", "refused"),
    ]
    assert "1180" in statements.ends[1].error


def test_a_second_commit_without_an_answer_is_unknown(serve, proxied, proxy, second):
    """What was stored is told, and what nobody knows."""
    both = serve_both(serve, proxied[2], second.url)
    proxy.have("COMMIT", Then.CUT)
    statements = both.do(write_to_both, raises=PartialCommitError)

    assert both.response.unknown == ("default",)
    assert ends(statements) == [
        ("audit", 1, "COMMIT", "committed"),
        ("default", 1, "COMMIT", "unknown"),
    ]


def test_a_first_commit_without_an_answer_rolls_the_other_back(serve, proxied, proxy, sqlite):
    """One is unknown, and the other says why it was undone."""
    sqlite.run(NOTES)
    both = serve_both(serve, sqlite.url, proxied[2])
    proxy.have("COMMIT", Then.CUT)
    statements = both.do(write_to_both, raises=OutcomeUnknownError)

    assert ends(statements) == [
        ("audit", 1, "COMMIT", "unknown"),
        ("default", 1, "ROLLBACK", "rolled back: OutcomeUnknownError"),
    ]


def test_a_conflict_at_the_first_commit_is_told_in_both_attempts(serve, proxied, proxy, second):
    """Of each database and each attempt, in order."""
    both = serve_both(serve, second.url, proxied[2])
    proxy.refuse("COMMIT", 1213, "Deadlock found")
    statements = both.do(write_to_both)

    assert both.response.status_int == 200
    assert ends(statements) == [
        ("audit", 1, "COMMIT", "refused"),
        ("default", 1, "ROLLBACK", "rolled back: tried again"),
        ("audit", 2, "COMMIT", "committed"),
        ("default", 2, "COMMIT", "committed"),
    ]


@pytest.mark.parametrize(
    ("fixture", "sends", "outcome"),
    [
        ("sqlite", True, "committed"),
        ("sqlite", False, "refused"),
        # A driver that waits for a server does not know what the server has done meanwhile.
        ("mariadb", True, "unknown"),
    ],
)
def test_an_interrupt_at_the_commit_does_not_hide_what_became_of_it(
    fixture, sends, outcome, request, interrupted
):
    """Before COMMIT is sent, or after its answer is read; as far as the driver knows."""
    database = request.getfixturevalue(fixture)
    statements = interrupted(database, sends)

    assert statements.ends[0].outcome == outcome
    assert statements.ends[0].error == "KeyboardInterrupt: "
    assert database.scalar("SELECT count(*) FROM note") == sends


@pytest.fixture
def interrupted(serve, monkeypatch):
    """Record a request whose COMMIT is interrupted, before it is *sent* or after it."""
    plain, armed = DefaultDialect.do_commit, threading.Event()

    def do_commit(dialect, connection):
        if armed.is_set() and not sent.is_set():
            raise KeyboardInterrupt
        plain(dialect, connection)
        if armed.is_set():
            raise KeyboardInterrupt

    sent = threading.Event()
    monkeypatch.setattr(DefaultDialect, "do_commit", do_commit)

    def write(request):
        request.sqa_session.execute(INSERT, {"body": "a"})
        armed.set()

    def record(database, sends):
        database.run(NOTES)
        if sends:
            sent.set()
        recording = Recording(serve(database.url, with_view(view), **RECORD))
        statements = recording.do(write, raises=KeyboardInterrupt)
        armed.clear()
        return statements

    return record


def test_a_statement_that_ends_the_request_is_recorded_with_its_rollback(any_database, serve):
    """The view has not caught the error, so the request says it."""
    recording = Recording(serve(any_database.url, with_view(view), **RECORD))
    statements = recording.do(
        lambda request: request.sqa_session.execute(text("SELECT missing FROM nowhere")),
        raises=DBAPIError,
    )

    assert "nowhere" in statements[0].error
    name = type(recording.response).__name__
    assert statements.ends[0].outcome == f"rolled back: {name}"


def test_an_engine_that_the_application_has_made_is_recorded_too(tmp_path):
    """Nobody watches it: an error in its COMMIT does not tell what became of that."""
    engine = create_engine(f"sqlite:///{tmp_path}/own.sqlite")
    event.listen(engine, "connect", lambda driver, _: driver.execute("PRAGMA foreign_keys = ON"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE parent (id INTEGER PRIMARY KEY)"))
        reference = "REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED"
        connection.execute(text(f"CREATE TABLE child (id INTEGER {reference})"))

    with recorded(engine) as statements:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO parent VALUES (1)"))
        with pytest.raises(DBAPIError), engine.begin() as connection:
            connection.execute(text("INSERT INTO child VALUES (2)"))
    engine.dispose()

    outcomes = [each.outcome for each in statements.ends]
    assert outcomes == ["committed", "unknown"]
    assert "FOREIGN KEY" in statements.ends[1].error


def test_a_statement_that_no_line_of_an_application_asks_for_has_none(sqlite, serve):
    """A thread that begins in a library, for example."""
    app = serve(sqlite.url)
    engine = get_sqa(app).engine
    with recorded(engine) as statements, engine.connect() as connection:
        thread = threading.Thread(target=connection.exec_driver_sql, args=("SELECT 1",))
        thread.start()
        thread.join()

    assert (statements.count, statements[0].line) == (1, None)


def test_an_application_in_an_application_has_a_recording_of_its_own(tmp_path, serve):
    """Of two that record, of one that only looks for N+1, and of an engine that is not its own."""
    inner, silent, outer = [
        serve(
            f"sqlite:///{tmp_path}/{name}.sqlite",
            with_view(view),
            *([with_view(view, name="watched", sqa_n_plus_one="log")]),
            **settings,
        )
        for name, settings in [("inner", RECORD), ("silent", {}), ("outer", RECORD)]
    ]
    got = {}

    def in_silence(request):
        request.sqa_session.execute(text("SELECT 'silent'"))

    def act(request):
        request.sqa_session.execute(text("SELECT 'outer'"))
        got["inner"] = Recording(inner).do(
            lambda request: request.sqa_session.execute(text("SELECT 'inner'")) and None
        )
        environ = {"test.act": in_silence, "test.status": 200}
        TestApp(silent, lint=False).get("/watched", extra_environ=environ)
        with get_sqa(silent).engine.connect() as connection:
            connection.execute(text("SELECT 'elsewhere'"))

    got["outer"] = Recording(outer).do(act)

    assert {name: [each.statement for each in found] for name, found in got.items()} == {
        "inner": ["SELECT 'inner'"],
        "outer": ["SELECT 'outer'"],
    }
