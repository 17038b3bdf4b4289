"""The last attempt, the pause before an attempt, and what the log and subscribers see."""

import sqlite3
from contextlib import closing, suppress

import pytest
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import BeforeRetry, is_last_attempt, mark_error_retryable
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from pyramid_aalam_sqa import BrokenTransactionError, OutsideTransactionError, get_sqa
from pyramid_aalam_sqa.requests import retry
from support.retried import (
    COUNT,
    SECRET,
    Conflict,
    Note,
    duplicate,
    fail_at_first,
    lines,
    number,
    raises,
    refuses_to_commit,
    write,
)


def test_the_last_attempts_error_goes_to_the_applications_page(serve_view, unique_notes):
    """The page has its own status, and the database's own error."""
    seen = []

    def view(request):
        write(request, "row")
        duplicate(request)

    def page(error, request):
        seen.append((number(request), is_last_attempt(request)))
        return Response(f"{type(error).__name__} at {number(request)}", status=409)

    def setup(config):
        config.add_exception_view(page, context=IntegrityError)

    response = serve_view(view, setup=setup, **{"sqa.retry_codes": "19"}).get("/", status=409)

    assert response.text == "IntegrityError at 3"
    assert seen == [(1, False), (2, False), (3, True)]
    assert unique_notes() == []


def test_a_page_can_be_for_the_last_attempt_alone(serve_view):
    """The predicates of pyramid_retry work with each of our errors."""
    pages = []

    def page(error, request):
        pages.append(number(request))
        return Response("Sorry", status=503)

    def setup(config):
        config.add_exception_view(page, context=Conflict, last_retry_attempt=True)

    serve_view(raises, setup=setup).get("/", status=503)

    assert pages == [3]


@pytest.mark.parametrize("status", [200, 500])
def test_the_page_of_a_commit_that_failed_to_the_last_follows_its_own_status(
    serve_view, unique_notes, status
):
    """The page can use the session, in a transaction of its own."""

    def view(request):
        write(request, "row")
        return refuses_to_commit(request)

    def page(error, request):
        write(request, "page")
        return Response(str(request.sqa_session.scalar(COUNT)), status=status)

    def setup(config):
        config.add_exception_view(page, context=Conflict)

    app = serve_view(view, setup=setup)

    assert app.get("/", status=status).text == "1"
    assert unique_notes() == (["page"] if status == 200 else [])
    assert get_sqa(app.app).engine.pool.checkedout() == 0


def test_the_page_of_a_failed_commit_that_fails_itself_stores_nothing(serve_view, unique_notes):
    """Pyramid renders no second page: the server gets the error. The connection goes back."""

    def view(request):
        write(request, "row")
        return refuses_to_commit(request)

    def page(error, request):
        write(request, "page")
        raise LookupError("no template")

    def setup(config):
        config.add_exception_view(page, context=Conflict)

    app = serve_view(view, setup=setup)

    with pytest.raises((LookupError, Conflict)):
        app.get("/")
    assert unique_notes() == []
    assert get_sqa(app.app).engine.pool.checkedout() == 0


def test_the_page_of_a_failed_commit_gets_one_transaction_and_no_second(serve_view, unique_notes):
    """If the page's commit fails too, the page can read, but a write raises an error."""
    told = []

    def view(request):
        return refuses_to_commit(request)

    def page(error, request):
        write(request, "page")
        refuses_to_commit(request)
        with suppress(Conflict):
            request.tm.commit()
        told.append(request.sqa_session.scalar(COUNT))
        with pytest.raises(OutsideTransactionError):
            write(request, "lost")
        return Response("sorry", status=500)

    def setup(config):
        config.add_exception_view(page, context=Conflict)

    serve_view(view, setup=setup, **{"retry.attempts": "1"}).get("/", status=500)

    assert told == [0]
    assert unique_notes() == []


def test_an_error_that_the_page_makes_an_answer_of_is_still_tried_again(serve_view, unique_notes):
    """A catch-all view that answers 200 does not hide a conflict from the retry."""

    def view(request):
        write(request, "row")
        fail_at_first(request)
        return Response("done")

    def setup(config):
        config.add_exception_view(lambda error, request: Response("fine"), context=Exception)

    assert serve_view(view, setup=setup).get("/").text == "done"
    assert unique_notes() == ["row"]


# The pause and the log


def test_the_pause_grows_and_is_never_the_same(serve_view, monkeypatch):
    """So two requests in conflict do not meet again at the next attempt."""
    pauses = []
    monkeypatch.setattr(retry.time, "sleep", pauses.append)
    settings = {"retry.attempts": "6", "sqa.retry_pause": "0.1"}
    app = serve_view(raises, **settings)
    for _ in range(2):
        with pytest.raises(Conflict):
            app.get("/")

    assert len(pauses) == len(set(pauses)) == 10
    for run in (pauses[:5], pauses[5:]):
        assert all(0.05 * 2**n <= pause <= 0.1 * 2**n for n, pause in enumerate(run))
        assert run == sorted(run)


def test_the_pause_does_not_grow_for_ever(serve_view, monkeypatch):
    """A pause is two seconds at most, or as long as the setting says."""
    pauses = []
    monkeypatch.setattr(retry.time, "sleep", pauses.append)
    with pytest.raises(Conflict):
        serve_view(raises, **{"retry.attempts": "20", "sqa.retry_pause": "0.5"}).get("/")

    assert len(pauses) == 19
    assert 1 <= max(pauses) <= 2


def test_nothing_is_locked_and_no_connection_is_held_during_the_pause(
    serve_view, sqlite, monkeypatch
):
    """The failed attempt gives back its connection before the pause."""
    free = []

    def look(_pause):
        sqlite.run("INSERT INTO note (body) VALUES ('somebody else')", "DELETE FROM note")
        free.append(get_sqa(app.app).engine.pool.checkedout())

    monkeypatch.setattr(retry.time, "sleep", look)

    def view(request):
        write(request, "row")
        fail_at_first(request)
        return Response()

    app = serve_view(view)
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
    serve_view_on, caplog, kind, code_and_name, swallowed
):
    """The line has no statement and no value, so no data of the visitor is in the log."""
    code, name = code_and_name

    def view(request):
        write(request, SECRET)
        with suppress(DBAPIError if swallowed else ()):
            write(request, SECRET)
        return Response()

    app, _ = serve_view_on(kind, view, **{"sqa.retry_codes": code})
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
def test_a_path_cannot_break_the_log(serve_view, caplog, path, logged):
    """Line breaks and bytes that are not text are shown as the client has encoded them."""

    def setup(config):
        config.set_root_factory(raises)

    with pytest.raises(Conflict):
        Request.blank(path).get_response(serve_view(raises, setup=setup).app)

    assert [line.split(":")[0] for line in lines(caplog)] == [f"GET {logged}"] * 2


# Beside other tools


def test_the_event_of_pyramid_retry_is_sent_for_each_attempt_thrown_away(serve_view):
    """Subscribers get the same events as without this package."""
    seen = []

    def view(request):
        fail_at_first(request)
        return Response()

    def setup(config):
        config.add_subscriber(lambda event: seen.append(type(event.exception)), BeforeRetry)

    serve_view(view, setup=setup).get("/")

    assert seen == [Conflict, Conflict]


def test_an_error_that_the_application_marks_itself_is_tried_again(serve_view, unique_notes):
    """The function mark_error_retryable() works for any error."""

    def view(request):
        write(request, "row")
        if number(request) == 1:
            error = KeyError()
            mark_error_retryable(error)
            raise error
        return Response()

    serve_view(view).get("/")

    assert unique_notes() == ["row"]


def test_every_attempt_has_a_session_of_its_own(serve_view):
    """An attempt never sees objects that an attempt before it has loaded."""
    sessions = []

    def view(request):
        sessions.append(request.sqa_session)
        assert not list(request.sqa_session)
        request.sqa_session.add(Note(body="row"))
        request.sqa_session.flush()
        fail_at_first(request)
        return Response()

    serve_view(view).get("/")

    assert len(set(map(id, sessions))) == 3
    for session in sessions:
        with pytest.raises(OutsideTransactionError, match="ended with its request"):
            session.scalar(COUNT)


def test_a_busy_file_is_tried_again_and_then_the_applications_error(
    serve_view, sqlite, unique_notes, caplog
):
    """Another connection holds the SQLite file longer than sqa.lock_timeout, or for ever."""
    app = serve_view(
        lambda request: write(request, "row") or Response(), **{"sqa.lock_timeout": "0.01"}
    )
    app.get("/")
    sqlite.run("DELETE FROM note")
    with closing(sqlite3.connect(make_url(sqlite.url).database)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            app.get("/")

    assert unique_notes() == []
    assert len(lines(caplog)) == 2
    assert "OperationalError SQLITE_BUSY" in lines(caplog)[0]
    app.get("/")
    assert unique_notes() == ["row"]
