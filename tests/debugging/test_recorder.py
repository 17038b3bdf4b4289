"""What sqa.record keeps of a request: statements, lines, seconds, and the ends of transactions."""

import inspect
import threading
from contextlib import suppress

import pytest
from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response
from pyramid_retry import RetryableException
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import sessionmaker
from webtest import TestApp

from pyramid_aalam_sqa import Session, get_sqa, session_scope
from pyramid_aalam_sqa.debugging import recorded
from pyramid_aalam_sqa.debugging.recording import Recorder
from pyramid_aalam_sqa.debugging.request_recording import RecordedBody
from pyramid_aalam_sqa.debugging.tap import taps_of
from support.apps import with_view
from support.models import INSERT, Base, Note
from support.recording import RECORD, Recording, view


@pytest.fixture
def recording(any_database, serve):
    app = serve(any_database.url, with_view(view), **RECORD)
    Base.metadata.create_all(get_sqa(app).engine)
    # Other tests count from the same beginning: what a first connection asks is behind us.
    Recording(app).do(lambda request: None)
    return Recording(app)


def texts(statements):
    return [each.statement.partition(" ")[0] for each in statements]


def kinds(statements):
    """The steps of transactions but those that depend on the driver."""
    return [each.kind for each in statements.steps if each.kind != "RESET"]


def lines_of(function):
    source, first = inspect.getsourcelines(function)
    return range(first, first + len(source))


def test_orm_core_and_text_are_recorded_in_order_with_their_line(recording):
    """Each has its text, its database, its seconds and the line of this file that asked for it."""

    def act(request):
        session = request.sqa_session
        session.add(Note(body="orm"))
        session.flush()
        session.execute(insert(Note.__table__).values(body="core"))
        session.execute(INSERT, {"body": "text"})
        session.scalars(select(Note)).all()

    statements = recording.do(act)

    assert texts(statements) == ["INSERT", "INSERT", "INSERT", "SELECT"]
    assert statements.count == 4
    assert all(each.database == "default" and each.duration > 0 for each in statements)
    assert {each.line.file for each in statements} == {__file__}
    assert {each.line.function for each in statements} == {"act"}
    numbers = [each.line.line for each in statements]
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(lines_of(act))
    assert kinds(statements) == ["CONNECT", "BEGIN", "COMMIT"]


def test_rows_are_those_that_were_written_or_found(recording):
    """Whether the driver counts them or hands them out one by one."""

    def act(request):
        session = request.sqa_session
        session.execute(INSERT, [{"body": "a"}, {"body": "b"}])
        session.execute(select(Note.body)).all()
        session.execute(text("UPDATE note SET body = 'c'"))

    assert [each.rows for each in recording.do(act)] == [2, 2, 2]


def test_many_sets_of_parameters_are_one_statement_with_their_number(recording):
    """The first ten are kept; a bulk insert of the ORM is counted as what is sent."""

    def act(request):
        request.sqa_session.execute(INSERT, [{"body": str(number)} for number in range(50)])

    [statement] = recording.do(act)
    assert (statement.sets, len(statement.parameters)) == (50, 10)

    def bulk(request):
        request.sqa_session.add_all([Note(body=str(number)) for number in range(30)])
        request.sqa_session.flush()

    sent = recording.do(bulk)
    assert set(texts(sent)) == {"INSERT"}
    assert sum(each.rows for each in sent) == 30


def test_a_savepoint_is_a_step_and_no_statement(recording):
    """So the count is the same with and without one."""

    def act(request):
        with request.sqa_session.begin_nested():
            request.sqa_session.execute(INSERT, {"body": "a"})

    statements = recording.do(act)

    assert statements.count == 1
    assert kinds(statements) == ["CONNECT", "BEGIN", "SAVEPOINT", "SAVEPOINT", "COMMIT"]
    assert [getattr(each, "kind", "statement") for each in statements.timeline][3] == "statement"


def test_a_statement_that_fails_is_recorded_with_its_error(recording):
    """Pyramid's toolbar leaves it out, and it is the one that matters."""

    def act(request):
        try:
            with request.sqa_session.begin_nested():
                request.sqa_session.execute(text("SELECT missing FROM nowhere"))
        except DBAPIError:
            return

    [statement] = recording.do(act)

    assert "nowhere" in statement.error
    assert statement.line.function == "act"
    assert statement.rows is None


@pytest.mark.parametrize(
    ("status", "end"), [(200, "COMMIT"), (303, "COMMIT"), (404, "ROLLBACK"), (500, "ROLLBACK")]
)
def test_the_end_says_what_became_of_the_transaction(status, end, recording):
    """COMMIT or ROLLBACK with the seconds that the driver needed for it, and why."""
    statements = recording.do(
        lambda request: request.sqa_session.execute(INSERT, {"body": "a"}) and None, status
    )

    [step] = statements.ends
    assert step.kind == end
    assert step.duration > 0
    outcomes = {"COMMIT": "committed", "ROLLBACK": f"rolled back: {status}"}
    assert step.outcome == outcomes[end]


def test_a_response_that_is_raised_has_its_status_in_the_end(recording):
    """So has what is not found."""

    def act(request):
        request.sqa_session.execute(INSERT, {"body": "a"})
        raise HTTPNotFound

    assert recording.do(act).ends[-1].outcome == "rolled back: 404"


def test_each_attempt_is_told_apart(recording):
    """A conflict is retried: the first attempt's statements and its ROLLBACK have the number 1."""

    def act(request):
        request.sqa_session.execute(INSERT, {"body": "a"})
        if request.environ["retry.attempt"] < 2:
            raise RetryableException

    statements = recording.do(act)

    assert [each.attempt for each in statements] == [1, 2, 3]
    ends = [(each.attempt, each.outcome) for each in statements.ends]
    again = "rolled back: tried again"
    assert ends == [(1, again), (2, again), (3, "committed")]


def test_a_stream_is_recorded_until_its_last_row(recording):
    """Its statement is sent by the server, after the request's transaction has ended."""

    def act(request):
        request.sqa_session.execute(INSERT, [{"body": str(number)} for number in range(9)])
        rows = request.sqa_stream(select(Note.body), size=2)
        return Response(app_iter=(f"{body} ".encode() for (body,) in rows))

    statements = recording.do(act)

    assert recording.response.text.split() == [str(number) for number in range(9)]
    assert texts(statements) == ["INSERT", "SELECT"]
    assert kinds(statements)[:3] == ["CONNECT", "BEGIN", "COMMIT"]
    assert statements.ends[-1].kind == "ROLLBACK"


def test_a_body_that_is_not_a_stream_is_not_changed(recording):
    """Its length too."""
    recording.do(lambda request: Response(app_iter=iter([b"12", b"3"]), content_length=3))

    assert recording.response.headers["Content-Length"] == "3"
    assert recording.response.text == "123"


def test_a_body_need_not_have_a_close():
    """WSGI asks for none, and the server closes ours."""
    body = RecordedBody(iter([b"1", b"2"]), Recorder({}))

    assert list(body) == [b"1", b"2"]
    body.close()


def test_hidden_parameters_are_hidden_here_too(any_database, serve):
    """With hide_parameters neither values nor the text of an error are kept."""
    app = serve(
        any_database.url,
        with_view(view),
        **RECORD,
        **{"sqlalchemy.hide_parameters": "true"},
    )
    Base.metadata.create_all(get_sqa(app).engine)

    def act(request):
        request.sqa_session.execute(INSERT, {"body": "secret"})
        request.sqa_session.execute(text("SELECT missing, :body FROM nowhere"), {"body": "secret"})

    recording = Recording(app)
    with pytest.raises(DBAPIError):
        recording.do(act)
    with recorded(app) as statements, pytest.raises(DBAPIError):
        recording.do(act)

    assert statements.count == 2
    assert all(each.parameters is None for each in statements)
    assert "secret" not in str(statements)
    assert statements[1].error


def test_a_thousand_statements_are_kept_and_the_rest_counted(serve, sqlite):
    """A page that sends more has another problem than their details."""
    app = serve(sqlite.url, with_view(view), **RECORD)

    def act(request):
        for _ in range(1003):
            request.sqa_session.execute(text("SELECT 1"))

    statements = Recording(app).do(act)

    assert (len(statements), statements.count, statements.left_out) == (1000, 1003, 3)
    assert statements.ends[-1].outcome == "committed"


def test_an_upload_is_not_held_by_the_recording(serve, sqlite):
    """Long values are cut."""
    app = serve(sqlite.url, with_view(view), **RECORD)

    def act(request):
        request.sqa_session.execute(text("SELECT :a, :b"), {"a": "x" * 9999, "b": b"x" * 9999})

    [statement] = Recording(app).do(act)

    assert {len(value) for value in statement.parameters} == {1000}


def test_a_job_is_recorded_by_a_block(recording):
    """session_scope(), Session() and engine.begin(), in any thread, with the database's key."""
    app = recording.app

    def in_a_thread():
        with get_sqa(app).engine.begin() as connection:
            connection.execute(INSERT, {"body": "thread"})

    with recorded(app) as statements:
        with session_scope(app) as session:
            session.add(Note(body="scope"))
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
    with get_sqa(app).engine.begin() as connection:
        connection.execute(INSERT, {"body": "afterwards"})

    assert [each.parameters for each in statements] == [
        each.parameters for each in statements if "afterwards" not in str(each.parameters)
    ]
    assert statements.count == 2
    assert statements[0].line.file == __file__
    assert statements[1].line.function == "in_a_thread"
    assert [each.outcome for each in statements.ends] == ["committed", "committed"]


def test_code_of_this_package_is_never_the_applications(sqlite, serve):
    """What the session writes at its end was asked by the block, in the demo's own package too."""
    app = serve(sqlite.url)
    Base.metadata.create_all(get_sqa(app).engine)
    [tap] = taps_of(get_sqa(app))
    recorder = Recorder({tap: "default"}, "pyramid_aalam_sqa")
    tap.recorders = (recorder,)
    with session_scope(app) as session:
        session.add(Note(body="written at the end"))

    [statement] = recorder.statements
    assert statement.line.file == __file__


def test_a_session_is_recorded_by_a_block(recording):
    """Of this thread, on its databases: a plain session of SQLAlchemy, or one of ours."""
    engine = get_sqa(recording.app).engine
    with sessionmaker(engine)() as session:
        session.execute(text("SELECT 1"))
        with recorded(session) as statements:
            session.execute(text("SELECT 2"))
            thread = threading.Thread(target=lambda: engine.connect().close())
            thread.start()
            thread.join()
        session.execute(text("SELECT 3"))

    assert [each.statement for each in statements] == ["SELECT 2"]
    assert statements.steps == []


def test_an_engine_and_a_thread_local_session_are_recorded_by_a_block(tmp_path, serve):
    """The portal's Session(db_name) too."""
    settings = {"sqa.provider": "aalam", "sqa.app": "recorded"}
    app = serve(f"sqlite:///{tmp_path}/aalam_recorded.sqlite", **settings)
    session = Session("aalam_recorded")
    with recorded(session) as mine, recorded(get_sqa(app).engine) as everything:
        session.execute(text("SELECT 1"))
        session.rollback()
    session.remove()

    assert mine.count == everything.count == 1
    assert repr(mine) == "<Statements 1: SELECT 1>"
    assert "SELECT 1" in str(everything)


def test_each_request_has_a_recording_of_its_own(recording):
    """Threads at work at the same time do not mix."""
    barrier = threading.Barrier(2)
    got = {}

    def run(name):
        def act(request):
            barrier.wait()
            for _ in range(5):
                request.sqa_session.execute(text(f"SELECT '{name}'"))

        got[name] = Recording(recording.app).do(act)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for name, statements in got.items():
        assert [each.statement for each in statements] == [f"SELECT '{name}'"] * 5


def test_a_recording_holds_no_connection(recording):
    """It can be kept after its request, with what the pool had then closed."""
    statements = recording.do(
        lambda request: request.sqa_session.scalars(select(Note)).all() and None
    )

    assert get_sqa(recording.app).engine.pool.checkedout() == 0
    assert statements.count == 1


def test_outside_a_server_a_request_has_an_empty_recording(recording):
    """A script that makes a request by hand uses recorded()."""
    from pyramid.scripting import prepare

    with prepare(registry=recording.app.registry) as env:
        assert len(env["request"].sqa_statements) == 0


def test_off_a_request_has_no_such_attribute(serve, sqlite):
    """Nothing is wrapped, and no listener is registered."""
    app = serve(
        sqlite.url, with_view(lambda request: Response(str(hasattr(request, "sqa_statements"))))
    )
    engine = get_sqa(app).engine

    assert TestApp(app).get("/").text == "False"
    made_in = {getattr(each, "__module__", None) for each in vars(engine.dialect).values()}
    assert not any(str(module).startswith("pyramid_aalam_sqa.debugging") for module in made_in)
    assert "raw_connection" not in vars(engine)


def test_the_server_has_heard_what_was_recorded(mariadb, serve, mariadb_server):
    """The general log of the server, word for word, is the recording of two attempts."""
    app = serve(mariadb.url, with_view(view), **RECORD)
    Base.metadata.create_all(get_sqa(app).engine)
    Recording(app).do(lambda request: None)

    def act(request):
        session = request.sqa_session
        session.add(Note(body="an 'orm' note"))
        session.flush()
        with session.begin_nested():
            session.execute(INSERT, {"body": "text"})
        with suppress(DBAPIError), session.begin_nested():
            session.execute(text("SELECT missing FROM nowhere"))
        session.scalars(select(Note).where(Note.id > 0)).all()
        if request.environ["retry.attempt"] == 0:
            raise RetryableException

    with mariadb_server.connect() as eyes, eyes.cursor() as cursor:
        cursor.execute("TRUNCATE mysql.general_log")
        cursor.execute("SET GLOBAL log_output = 'TABLE', GLOBAL general_log = 1")
        statements = Recording(app).do(act)
        cursor.execute("SET GLOBAL general_log = 0")
        cursor.execute(
            "SELECT argument FROM mysql.general_log "
            "WHERE command_type = 'Query' AND thread_id <> CONNECTION_ID() ORDER BY event_time"
        )
        heard = [row[0] for row in cursor.fetchall()]
        # The pool sends ROLLBACK when the connection comes back. BEGIN is not sent.
        sent = [
            "ROLLBACK"
            if item.statement == "RESET"
            else cursor.mogrify(item.statement, getattr(item, "parameters", None))
            for item in statements.timeline
            if item.statement not in {"CONNECT", "BEGIN"}
        ]

    assert sent == heard
    assert heard.count("COMMIT") == 1
