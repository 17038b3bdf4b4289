"""A request that is tried again is the whole request again, and what must happen once does."""

import io
import sqlite3
from contextlib import closing, suppress

import pytest
from pyramid.config import Configurator
from pyramid.events import NewResponse
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import BeforeRetry, RetryableException, is_last_attempt, mark_error_retryable
from sqlalchemy import String, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from webtest import TestApp
from webtest.app import TestRequest

from pyramid_aalam_sqa import BrokenTransactionError, OutsideTransactionError, get_sqa
from pyramid_aalam_sqa.requests import retry

INSERT = text("INSERT INTO note (body) VALUES (:body)")
COUNT = text("SELECT count(*) FROM note")
SECRET = "the visitor's secret"


class Base(DeclarativeBase):
    """The models of this test."""


class Note(Base):
    """What a request stores."""

    __tablename__ = "note"
    body: Mapped[str] = mapped_column(String(100), primary_key=True)


class Conflict(RetryableException):
    """As if the database had thrown the transaction away."""


@pytest.fixture
def notes(sqlite):
    sqlite.run("CREATE TABLE note (body VARCHAR(100) PRIMARY KEY)")
    return lambda: [row[0] for row in sqlite.rows("SELECT body FROM note ORDER BY body")]


@pytest.fixture
def serve(sqlite, notes):
    """Make an application of one view."""
    apps = []

    def serve(view, *, setup=None, url=sqlite.url, view_options=(), **settings):
        given = {"sqlalchemy.url": url, "sqa.retry_pause": "0", **settings}
        with Configurator(settings=given) as config:
            config.include("pyramid_aalam_sqa")
            config.add_view(view, **dict(view_options))
            if setup:
                setup(config)
        apps.append(config.make_wsgi_app())
        return TestApp(apps[-1])

    yield serve
    for app in apps:
        get_sqa(app).dispose()


@pytest.fixture
def serve_on(serve, request):
    """Make it on another database, and return that too."""

    def serve_on(kind, view, **settings):
        target = request.getfixturevalue(kind)
        if kind != "sqlite":
            target.run("CREATE TABLE note (body VARCHAR(100) PRIMARY KEY)")
        return serve(view, url=target.url, **settings), target

    return serve_on


def write(request, body):
    request.sqa_session.execute(INSERT, {"body": body})


def number(request):
    """Which attempt this is, from 1."""
    return request.environ["retry.attempt"] + 1


def fail_at_first(request):
    if number(request) < 3:
        raise Conflict


def lines(caplog, level="WARNING"):
    """What the package has logged."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("pyramid_aalam_sqa") and record.levelname == level
    ]


def apologise(error, request):
    return Response(f"Sorry for {type(error).__name__}", status=500)


def page_for_everything(config):
    config.add_exception_view(apologise, context=Exception)


class Refusing:
    """Another data manager, which may say no when the commit has begun."""

    transaction_manager = None

    def __init__(self, vote, *args):
        self.vote = vote, args

    def sortKey(self):  # noqa: N802 - transaction's interface
        return "other"

    def tpc_begin(self, transaction):
        """It has nothing to do."""

    commit = abort = tpc_abort = tpc_finish = tpc_begin

    def tpc_vote(self, transaction):
        vote, args = self.vote
        vote(*args)


# Bodies


SMALL, LARGE = b"line\n" * 20, bytes(range(256)) * 1000
JSON = {"content_type": "application/json"}


def post_form(app):
    return app.post("/", {"a": "1", "b": "ä"})


def read_form(request):
    return repr(sorted(request.POST.items()))


def post_json(app):
    return app.post_json("/", {"key": ["value"] * 2000})


def read_json(request):
    return str(len(request.json_body["key"]))


def read_body(request):
    return request.body.hex()


def read_body_file(request):
    return request.body_file.read().hex()


def read_file(request):
    upload = request.POST["upload"]
    return f"{upload.filename} {upload.file.read().hex()} {request.POST['title']}"


def send(content):
    def send(app):
        return app.post("/", content, content_type="application/octet-stream")

    return send


def upload(content):
    def upload(app):
        return app.post("/", {"title": "ä"}, upload_files=[("upload", "file.bin", content)])

    return upload


def chunked(app):
    """A body whose length the client did not tell."""
    environ = {"wsgi.input_terminated": True, "wsgi.input": io.BytesIO(LARGE)}
    return app.do_request(TestRequest.blank("/", method="POST", environ=environ))


BODIES = {
    "form": (post_form, read_form, "[('a', '1'), ('b', 'ä')]"),
    "json": (post_json, read_json, "2000"),
    "body": (send(SMALL), read_body, SMALL.hex()),
    "large_body": (send(LARGE), read_body, LARGE.hex()),
    "body_file": (send(SMALL), read_body_file, SMALL.hex()),
    "large_body_file": (send(LARGE), read_body_file, LARGE.hex()),
    "chunked_body": (chunked, read_body_file, LARGE.hex()),
    "file": (upload(SMALL), read_file, f"file.bin {SMALL.hex()} ä"),
    "large_file": (upload(LARGE), read_file, f"file.bin {LARGE.hex()} ä"),
    "empty_file": (upload(b""), read_file, "file.bin  ä"),
    "no_body": (lambda app: app.get("/"), read_body, ""),
}


@pytest.mark.parametrize("how", ["raised", "page", "commit"])
@pytest.mark.parametrize("name", BODIES)
def test_each_attempt_reads_the_complete_body(serve, notes, sqlite, name, how):
    """The file that the last attempt stores is whole, whoever has read it before, and how far."""
    post, read, expected = BODIES[name]
    seen = []

    def view(request):
        seen.append(read(request))
        write(request, "row")
        if how == "commit":
            request.tm.get().join(Refusing(fail_at_first, request))
        else:
            fail_at_first(request)
        return Response()

    response = post(serve(view, setup=page_for_everything if how == "page" else None))
    # A file, where the body is large; WebOb leaves it to the collector.
    response.request.environ["wsgi.input"].close()

    assert response.status_int == 200
    assert seen == [expected] * 3
    assert notes() == ["row"]


def test_a_body_that_was_read_in_part_is_read_from_its_beginning(serve):
    """The attempt may have failed anywhere."""
    seen = []

    def view(request):
        seen.append(request.body_file.read(7 if number(request) < 3 else -1))
        fail_at_first(request)
        return Response()

    response = serve(view).post("/", LARGE, content_type="text/plain")
    response.request.environ["wsgi.input"].close()

    assert seen == [LARGE[:7], LARGE[:7], LARGE]


def test_a_body_that_the_view_has_closed_makes_the_attempt_the_last(serve, notes, caplog):
    """An io.TextIOWrapper closes what it wraps. The error is the view's, not one about a file."""
    seen = []

    def view(request):
        with io.TextIOWrapper(request.body_file) as body:
            seen.append(body.read())
        write(request, "row")
        raise Conflict

    with pytest.raises(Conflict):
        serve(view).post("/", "content", content_type="text/plain")

    assert seen == ["content"]
    assert notes() == []
    assert lines(caplog) == [
        "POST /: attempt 1 of 3 failed (Conflict), the last: its body is closed"
    ]


# After the commit


def test_what_comes_after_the_commit_happens_once(serve, notes):
    """Attempts that were thrown away call nothing; the rows are there when it is called."""
    called = []

    def view(request):
        write(request, "row")
        request.sqa_after_commit(lambda *args: called.append((*args, notes())), number(request), 2)
        request.sqa_after_commit(called.append, "second")
        fail_at_first(request)
        return Response()

    serve(view).get("/")

    assert called == [(3, 2, ["row"]), "second"]


def test_what_comes_after_the_commit_happens_once_when_a_commit_was_refused(serve, notes):
    """The commit of the first attempt had begun."""
    called = []

    def view(request):
        write(request, "row")
        request.sqa_after_commit(called.append, number(request))
        request.tm.get().join(Refusing(fail_at_first, request))
        return Response()

    serve(view).get("/")

    assert called == [3]


def not_found(request):
    return Response(status=404)


def fails(request):
    raise RuntimeError


def doomed(request):
    request.tm.doom()
    return Response()


def refused(request):
    request.tm.get().join(Refusing(fails, request))
    return Response()


def aborted(request):
    request.tm.abort()
    request.tm.begin()
    return Response()


@pytest.mark.parametrize("end", [not_found, fails, doomed, refused, aborted])
def test_nothing_comes_after_a_transaction_that_was_not_committed(serve, notes, end):
    """A mail about an order that was never stored is not sent."""
    called = []

    def view(request):
        write(request, "row")
        request.sqa_after_commit(called.append, "after")
        return end(request)

    serve(view, setup=page_for_everything).get("/", expect_errors=True)

    assert called == []
    assert notes() == []


def test_each_part_that_a_view_commits_has_its_own_after(serve, notes):
    """request.tm.commit() is a commit, too."""
    called = []

    def view(request):
        for part in ("one", "two", "three"):
            write(request, part)
            request.sqa_after_commit(called.append, part)
            request.tm.abort() if part == "two" else request.tm.commit()
            request.tm.begin()
        return Response()

    serve(view).get("/")

    assert called == ["one", "three"]
    assert notes() == ["one", "three"]


def test_an_error_after_the_commit_is_logged_and_does_not_change_the_response(serve, notes, caplog):
    """What was stored was stored: the client is told so, and the next function is called."""
    called = []

    def send_mail():
        raise OSError("no mail server")

    def view(request):
        write(request, "row")
        request.sqa_after_commit(send_mail)
        request.sqa_after_commit(called.append, "next")
        return Response("stored")

    assert serve(view).get("/").text == "stored"
    assert notes() == ["row"]
    assert called == ["next"]
    (line,) = lines(caplog, "ERROR")
    assert "send_mail" in line
    assert "no mail server" in caplog.text


def test_a_conflict_after_the_commit_is_not_tried_again(serve, notes, caplog):
    """It would be stored twice."""
    attempts = []

    def view(request):
        attempts.append(1)
        write(request, f"row {len(attempts)}")
        request.sqa_after_commit(fail_at_first, request)
        return Response()

    serve(view).get("/")

    assert notes() == ["row 1"]
    assert len(lines(caplog, "ERROR")) == 1


def test_the_session_can_read_after_the_commit(serve):
    """Objects and fresh rows; the connection goes back."""
    seen = []

    def look(request):
        seen.append(request.sqa_session.scalar(COUNT))
        seen.append(request.sqa_session.get(Note, "row").body)

    def view(request):
        write(request, "row")
        request.sqa_after_commit(look, request)
        return Response()

    app = serve(view)
    app.get("/")

    assert seen == [1, "row"]
    assert get_sqa(app.app).engine.pool.checkedout() == 0


def insert(session):
    write_again = text("INSERT INTO note (body) VALUES ('late')")
    session.execute(write_again)


def add(session):
    session.add(Note(body="late"))


def delete(session):
    session.delete(session.get(Note, "row"))


def change(session):
    session.get(Note, "row").body = "late"


def change_and_fail(session):
    change(session)
    raise OSError


@pytest.mark.parametrize("late_write", [insert, add, delete, change, change_and_fail])
def test_a_write_after_the_commit_is_logged_and_lost_and_the_response_stays(
    serve, notes, caplog, late_write
):
    """Nobody would commit it; the answer is about what was committed."""

    def view(request):
        write(request, "row")
        request.sqa_after_commit(lambda: late_write(request.sqa_session))
        return Response()

    app = serve(view)
    app.get("/", status=200)

    assert notes() == ["row"]
    assert lines(caplog, "ERROR")
    assert "can only read here" in caplog.text
    assert get_sqa(app.app).engine.pool.checkedout() == 0


def promising(handler, registry):
    def tween(request):
        with pytest.raises(OutsideTransactionError, match=r"sqa_after_commit\(\) needs"):
            request.sqa_after_commit(print)
        return handler(request)

    return tween


def test_there_is_no_after_the_commit_where_there_is_no_transaction(serve):
    """A tween above the transaction is told so."""

    def setup(config):
        config.add_tween("test_retry.promising")

    serve(lambda request: Response(), setup=setup).get("/")


# What is never tried again, because something was stored


def failing_callback(request):
    request.add_response_callback(lambda request, response: fail_at_first(request))


def failing_finished_callback(request):
    request.add_finished_callback(fail_at_first)


def failing_nothing(request):
    """The view has no part in it."""


def above_all(handler, registry):
    def tween(request):
        response = handler(request)
        fail_at_first(request)
        return response

    return tween


def add_tween(config):
    config.add_tween("test_retry.above_all")


def add_subscriber(config):
    config.add_subscriber(lambda event: fail_at_first(event.request), NewResponse)


@pytest.mark.parametrize(
    ("in_view", "setup"),
    [
        (failing_callback, None),
        (failing_finished_callback, None),
        (failing_nothing, add_tween),
        (failing_nothing, add_subscriber),
    ],
)
@pytest.mark.parametrize("status", [200, 404])
def test_a_conflict_that_comes_after_the_answer_is_not_tried_again(
    serve, notes, in_view, setup, status
):
    """The rows are stored. Made again, the request would store them twice."""
    attempts = []

    def view(request):
        attempts.append(1)
        write(request, f"row {len(attempts)}")
        in_view(request)
        return Response(status=status)

    with pytest.raises(Conflict):
        serve(view, setup=setup).get("/", status="*")

    assert notes() == (["row 1"] if status == 200 else [])
    assert attempts == [1]


def raises(request):
    raise Conflict


def refuses_to_commit(request):
    request.tm.get().join(Refusing(raises, request))
    return Response()


@pytest.mark.parametrize("fail", [raises, refuses_to_commit])
@pytest.mark.parametrize("page", [False, True])
def test_a_request_that_has_committed_a_part_is_not_tried_again(serve, notes, fail, page):
    """The part is stored; the error of the rest goes to the application's page."""
    attempts = []

    def view(request):
        attempts.append(1)
        write(request, f"part {len(attempts)}")
        request.tm.commit()
        request.tm.begin()
        write(request, "rest")
        return fail(request)

    app = serve(view, setup=page_for_everything if page else None)
    if page:
        assert app.get("/", status=500).text == "Sorry for Conflict"
    else:
        with pytest.raises(Conflict):
            app.get("/")

    assert attempts == [1]
    assert notes() == ["part 1"]


def test_a_request_is_not_tried_again_after_a_subrequest_has_committed(serve, notes):
    """A subrequest with tweens has a transaction of its own."""

    def child(request):
        write(request, f"child {request.params['attempt']}")
        return Response()

    def view(request):
        subrequest = Request.blank(f"/child?attempt={number(request)}")
        request.invoke_subrequest(subrequest, use_tweens=True)
        raise Conflict

    with pytest.raises(Conflict):
        serve(view, setup=lambda config: config.add_view(child, name="child")).get("/")

    assert notes() == ["child 1"]


def test_a_subrequest_that_fails_is_tried_again_with_the_request_around_it(serve, notes, caplog):
    """There is one line in the log and one pause for each attempt."""

    def view(request):
        write(request, "view")
        if number(request) < 3:
            request.invoke_subrequest(Request.blank("/child"), use_tweens=number(request) == 2)
        return Response()

    serve(view, setup=lambda config: config.add_view(raises, name="child")).get("/")

    assert notes() == ["view"]
    assert len(lines(caplog)) == 2


# How often, and for what


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_the_ini_says_how_often_a_request_is_tried(serve, notes, caplog, attempts):
    """retry.attempts = 1 turns retries off, and the log is silent."""
    seen = []

    def view(request):
        seen.append(number(request))
        write(request, "row")
        raise Conflict

    with pytest.raises(Conflict):
        serve(view, **{"retry.attempts": str(attempts)}).get("/")

    assert seen == list(range(1, attempts + 1))
    assert notes() == []
    assert len(lines(caplog)) == attempts - 1


@pytest.mark.parametrize("fail", [raises, refuses_to_commit])
@pytest.mark.parametrize("page", [False, True])
def test_a_view_can_turn_retries_off(serve, notes, caplog, fail, page):
    """sqa_retry=False: what it did outside the database must not happen twice."""
    attempts = []

    def view(request):
        attempts.append(is_last_attempt(request))
        write(request, "row")
        return fail(request)

    setup = page_for_everything if page else None
    app = serve(view, setup=setup, view_options={"sqa_retry": False})
    if page:
        app.get("/", status=500)
    else:
        with pytest.raises(Conflict):
            app.get("/")

    assert attempts == [True]
    assert notes() == []
    assert lines(caplog) == []


def test_a_view_can_turn_retries_off_for_itself_alone(serve):
    """sqa_retry=True, and no option, leave the others as they are."""
    seen = []

    def other(request):
        seen.append(request.path)
        raise Conflict

    def setup(config):
        config.add_view(other, name="option", sqa_retry=True)
        config.add_view(other, name="none")

    app = serve(other, setup=setup, view_options={"sqa_retry": False})
    for path in ("/", "/option", "/none"):
        with pytest.raises(Conflict):
            app.get(path)

    assert seen == ["/", *["/option"] * 3, *["/none"] * 3]


def duplicate(request):
    write(request, "twice")
    write(request, "twice")


def signal(request):
    request.sqa_session.execute(text("SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not now'"))


def raise_exception(request):
    request.sqa_session.execute(
        text("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'AA123'; END $$")
    )


@pytest.mark.parametrize(
    ("kind", "codes", "fail"),
    [
        ("sqlite", "19", duplicate),
        ("sqlite", "5 1555", duplicate),
        ("mariadb", "1644 1062", duplicate),
        ("mariadb", "1644", signal),
        ("postgresql", "23505", duplicate),
        ("postgresql", "AA123\n 57014", raise_exception),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_the_ini_can_name_more_errors_that_are_worth_another_attempt(
    serve_on, kind, codes, fail, named
):
    """sqa.retry_codes: numbers of MySQL, MariaDB and SQLite, SQLSTATEs of PostgreSQL."""
    attempts = []

    def view(request):
        attempts.append(1)
        write(request, "row")
        fail(request)

    app, target = serve_on(kind, view, **{"sqa.retry_codes": codes if named else "4321"})
    with pytest.raises(DBAPIError):
        app.get("/")

    assert len(attempts) == (3 if named else 1)
    assert target.rows("SELECT * FROM note") == []


def test_a_named_error_that_the_view_swallows_is_tried_again_too(serve, notes):
    """What is worth another attempt is not worth half of one."""
    attempts = []

    def view(request):
        attempts.append(1)
        write(request, "row")
        if len(attempts) == 1:
            with suppress(IntegrityError):
                duplicate(request)
        return Response()

    serve(view, **{"sqa.retry_codes": "19"}).get("/")

    assert len(attempts) == 2
    assert notes() == ["row"]


# The last attempt


def test_the_last_attempts_error_goes_to_the_applications_page(serve, notes):
    """Its page, its status, and the database's own error to look at."""
    seen = []

    def view(request):
        write(request, "row")
        duplicate(request)

    def page(error, request):
        seen.append((number(request), is_last_attempt(request)))
        return Response(f"{type(error).__name__} at {number(request)}", status=409)

    def setup(config):
        config.add_exception_view(page, context=IntegrityError)

    response = serve(view, setup=setup, **{"sqa.retry_codes": "19"}).get("/", status=409)

    assert response.text == "IntegrityError at 3"
    assert seen == [(1, False), (2, False), (3, True)]
    assert notes() == []


def test_a_page_can_be_for_the_last_attempt_alone(serve):
    """pyramid_retry's predicates work with every error of ours."""
    pages = []

    def page(error, request):
        pages.append(number(request))
        return Response("Sorry", status=503)

    def setup(config):
        config.add_exception_view(page, context=Conflict, last_retry_attempt=True)

    serve(raises, setup=setup).get("/", status=503)

    assert pages == [3]


def test_the_page_of_a_commit_that_failed_to_the_last_can_read(serve, notes):
    """The transaction is over: the page shows what there is, and cannot write."""

    def view(request):
        write(request, "row")
        return refuses_to_commit(request)

    def page(error, request):
        with pytest.raises(OutsideTransactionError):
            write(request, "page")
        return Response(str(request.sqa_session.scalar(COUNT)), status=500)

    def setup(config):
        config.add_exception_view(page, context=Conflict)

    app = serve(view, setup=setup)

    assert app.get("/", status=500).text == "0"
    assert notes() == []
    assert get_sqa(app.app).engine.pool.checkedout() == 0


def test_an_error_that_the_page_makes_an_answer_of_is_still_tried_again(serve, notes):
    """A catch-all view that answers 200 hides no conflict from the retry."""

    def view(request):
        write(request, "row")
        fail_at_first(request)
        return Response("done")

    def setup(config):
        config.add_exception_view(lambda error, request: Response("fine"), context=Exception)

    assert serve(view, setup=setup).get("/").text == "done"
    assert notes() == ["row"]


# The pause and the log


def test_the_pause_grows_and_is_never_the_same(serve, monkeypatch):
    """Two requests that met do not meet again."""
    pauses = []
    monkeypatch.setattr(retry.time, "sleep", pauses.append)
    settings = {"retry.attempts": "6", "sqa.retry_pause": "0.1"}
    app = serve(raises, **settings)
    for _ in range(2):
        with pytest.raises(Conflict):
            app.get("/")

    assert len(pauses) == len(set(pauses)) == 10
    for run in (pauses[:5], pauses[5:]):
        assert all(0.05 * 2**n <= pause <= 0.1 * 2**n for n, pause in enumerate(run))
        assert run == sorted(run)


def test_the_pause_does_not_grow_for_ever(serve, monkeypatch):
    """A thread that sleeps serves nobody: two seconds at most, or what the setting says."""
    pauses = []
    monkeypatch.setattr(retry.time, "sleep", pauses.append)
    with pytest.raises(Conflict):
        serve(raises, **{"retry.attempts": "20", "sqa.retry_pause": "0.5"}).get("/")

    assert len(pauses) == 19
    assert 1 <= max(pauses) <= 2


def test_nothing_is_locked_and_no_connection_is_held_during_the_pause(serve, sqlite, monkeypatch):
    """What the attempt had is given back before."""
    free = []

    def look(_pause):
        sqlite.run("INSERT INTO note (body) VALUES ('somebody else')", "DELETE FROM note")
        free.append(get_sqa(app.app).engine.pool.checkedout())

    monkeypatch.setattr(retry.time, "sleep", look)

    def view(request):
        write(request, "row")
        fail_at_first(request)
        return Response()

    app = serve(view)
    app.get("/")

    assert free == [0, 0]


@pytest.mark.parametrize(
    ("kind", "code_and_name"),
    [
        ("sqlite", ("19", "IntegrityError SQLITE_CONSTRAINT_PRIMARYKEY")),
        ("mariadb", ("1062", "IntegrityError 1062")),
        ("postgresql", ("23505", "UniqueViolation 23505")),
    ],
)
@pytest.mark.parametrize("swallowed", [True, False])
def test_the_log_names_the_error_and_not_what_was_in_it(
    serve_on, caplog, kind, code_and_name, swallowed
):
    """No statement and no value: the visitor's data does not end in the log."""
    code, name = code_and_name

    def view(request):
        write(request, SECRET)
        with suppress(DBAPIError if swallowed else ()):
            write(request, SECRET)
        return Response()

    app, _ = serve_on(kind, view, **{"sqa.retry_codes": code})
    with pytest.raises((BrokenTransactionError, DBAPIError)):
        app.post(f"/?a={SECRET}", {"a": SECRET})

    assert lines(caplog) == [
        f"POST /: attempt {n} of 3 failed ({name}), the next in 0 ms" for n in (1, 2)
    ]
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/caf%C3%A9/a%20b", "/caf%C3%A9/a%20b"),
        ("/%ff", "/%FF"),
        ("/a%0AERROR%20all%20is%20lost", "/a%0AERROR%20all%20is%20lost"),
    ],
)
def test_a_path_cannot_break_the_log(serve, caplog, path, logged):
    """Bytes that are no text, and line breaks, are shown as the client has sent them."""

    def setup(config):
        config.set_root_factory(raises)

    with pytest.raises(Conflict):
        Request.blank(path).get_response(serve(raises, setup=setup).app)

    assert [line.split(":")[0] for line in lines(caplog)] == [f"GET {logged}"] * 2


# Beside other tools


def test_the_event_of_pyramid_retry_is_sent_for_each_attempt_thrown_away(serve):
    """Applications that listen to it see what they saw."""
    seen = []

    def view(request):
        fail_at_first(request)
        return Response()

    def setup(config):
        config.add_subscriber(lambda event: seen.append(type(event.exception)), BeforeRetry)

    serve(view, setup=setup).get("/")

    assert seen == [Conflict, Conflict]


def test_an_error_that_the_application_marks_itself_is_tried_again(serve, notes):
    """mark_error_retryable() works on any error."""

    def view(request):
        write(request, "row")
        if number(request) == 1:
            error = KeyError()
            mark_error_retryable(error)
            raise error
        return Response()

    serve(view).get("/")

    assert notes() == ["row"]


def test_every_attempt_has_a_session_of_its_own(serve):
    """Nothing that an attempt has loaded is seen by the next."""
    sessions = []

    def view(request):
        sessions.append(request.sqa_session)
        assert not list(request.sqa_session)
        request.sqa_session.add(Note(body="row"))
        request.sqa_session.flush()
        fail_at_first(request)
        return Response()

    serve(view).get("/")

    assert len(set(map(id, sessions))) == 3
    for session in sessions:
        with pytest.raises(OutsideTransactionError, match="ended with its request"):
            session.scalar(COUNT)


def test_a_busy_file_is_tried_again_and_then_the_applications_error(serve, sqlite, notes, caplog):
    """Somebody holds the SQLite file for longer than sqa.lock_timeout, once and for ever."""
    app = serve(lambda request: write(request, "row") or Response(), **{"sqa.lock_timeout": "0.01"})
    app.get("/")
    sqlite.run("DELETE FROM note")
    with closing(sqlite3.connect(make_url(sqlite.url).database)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            app.get("/")

    assert notes() == []
    assert len(lines(caplog)) == 2
    assert "OperationalError SQLITE_BUSY" in lines(caplog)[0]
    app.get("/")
    assert notes() == ["row"]
