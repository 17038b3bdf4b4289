"""Functions that must run once, after the commit, run once and after the commit."""

import pytest
from pyramid.response import Response
from sqlalchemy import text

from pyramid_aalam_sqa import OutsideTransactionError, get_sqa
from support.retried import (
    COUNT,
    Note,
    Refusing,
    fail_at_first,
    lines,
    number,
    page_for_everything,
    write,
)


def test_what_comes_after_the_commit_happens_once(serve_view, unique_notes):
    """Failed attempts call no function. When a function is called, the rows are stored."""
    called = []

    def view(request):
        write(request, "row")
        request.sqa_after_commit(
            lambda *args: called.append((*args, unique_notes())), number(request), 2
        )
        request.sqa_after_commit(called.append, "second")
        fail_at_first(request)
        return Response()

    serve_view(view).get("/")

    assert called == [(3, 2, ["row"]), "second"]


def test_what_comes_after_the_commit_happens_once_when_a_commit_was_refused(
    serve_view, unique_notes
):
    """The commit of the first attempt had begun before the database refused it."""
    called = []

    def view(request):
        write(request, "row")
        request.sqa_after_commit(called.append, number(request))
        request.tm.get().join(Refusing(fail_at_first, request))
        return Response()

    serve_view(view).get("/")

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
def test_nothing_comes_after_a_transaction_that_was_not_committed(serve_view, unique_notes, end):
    """For example, no mail is sent about an order that was not stored."""
    called = []

    def view(request):
        write(request, "row")
        request.sqa_after_commit(called.append, "after")
        return end(request)

    serve_view(view, setup=page_for_everything).get("/", expect_errors=True)

    assert called == []
    assert unique_notes() == []


def test_each_part_that_a_view_commits_has_its_own_after(serve_view, unique_notes):
    """The functions are also called after request.tm.commit()."""
    called = []

    def view(request):
        for part in ("one", "two", "three"):
            write(request, part)
            request.sqa_after_commit(called.append, part)
            request.tm.abort() if part == "two" else request.tm.commit()
            request.tm.begin()
        return Response()

    serve_view(view).get("/")

    assert called == ["one", "three"]
    assert unique_notes() == ["one", "three"]


def test_an_error_after_the_commit_is_logged_and_does_not_change_the_response(
    serve_view, unique_notes, caplog
):
    """The work is stored, so the client gets its response, and the next function is called."""
    called = []

    def send_mail():
        raise OSError("no mail server")

    def view(request):
        write(request, "row")
        request.sqa_after_commit(send_mail)
        request.sqa_after_commit(called.append, "next")
        return Response("stored")

    assert serve_view(view).get("/").text == "stored"
    assert unique_notes() == ["row"]
    assert called == ["next"]
    (line,) = lines(caplog, "ERROR")
    assert "send_mail" in line
    assert "no mail server" in caplog.text


def test_a_conflict_after_the_commit_is_not_tried_again(serve_view, unique_notes, caplog):
    """A second attempt would store the work twice."""
    attempts = []

    def view(request):
        attempts.append(1)
        write(request, f"row {len(attempts)}")
        request.sqa_after_commit(fail_at_first, request)
        return Response()

    serve_view(view).get("/")

    assert unique_notes() == ["row 1"]
    assert len(lines(caplog, "ERROR")) == 1


def test_the_session_can_read_after_the_commit(serve_view):
    """It reads loaded objects and fresh rows. The connection goes back to the pool."""
    seen = []

    def look(request):
        seen.append(request.sqa_session.scalar(COUNT))
        seen.append(request.sqa_session.get(Note, "row").body)

    def view(request):
        write(request, "row")
        request.sqa_after_commit(look, request)
        return Response()

    app = serve_view(view)
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
    serve_view, unique_notes, caplog, late_write
):
    """The write has no transaction to commit it. The response is about what was committed."""

    def view(request):
        write(request, "row")
        request.sqa_after_commit(lambda: late_write(request.sqa_session))
        return Response()

    app = serve_view(view)
    app.get("/", status=200)

    assert unique_notes() == ["row"]
    assert lines(caplog, "ERROR")
    assert "can only read here" in caplog.text
    assert get_sqa(app.app).engine.pool.checkedout() == 0


def promising(handler, registry):
    def tween(request):
        with pytest.raises(OutsideTransactionError, match=r"sqa_after_commit\(\) needs"):
            request.sqa_after_commit(print)
        return handler(request)

    return tween


def test_without_a_transaction_a_call_after_the_commit_is_refused(serve_view):
    """A tween above the transaction gets an error that says so."""

    def setup(config):
        config.add_tween(f"{__name__}.promising")

    serve_view(lambda request: Response(), setup=setup).get("/")
