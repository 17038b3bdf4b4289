"""A subrequest has its transaction's session: shared or its own. Without one, it cannot write."""

import gc

import pytest
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import event, text

from pyramid_aalam_sqa import OutsideTransactionError, get_sqa, session_scope
from support.apps import with_view
from support.late_use import (
    checked_out,
    fail,
    make_tables,
    read,
    serve_on,
    shared_manager,
    touch,
    write_next,
)
from support.models import BODIES, INSERT


def share(subrequest, request):
    """Make *subrequest* use the transaction of *request*."""
    subrequest.environ["tm.manager"] = request.tm
    subrequest.environ["tm.active"] = True


def part(request):
    """A subrequest's view."""
    request.sqa_session.execute(INSERT, {"body": "part"})
    return Response("part")


def failing_part(request):
    part(request)
    raise ZeroDivisionError


def reading_part(request):
    return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM note"))))


def parts(config):
    for view in (part, failing_part, reading_part):
        config.add_view(view, name=view.__name__)


@pytest.mark.parametrize("first", ["the request", "the subrequest"])
def test_a_subrequest_without_tweens_is_in_the_transaction_of_the_threads_own_manager(
    serve_seeded, bodies, first
):
    """Both requests have the same manager by themselves, and so the same session."""

    def view(request):
        if first == "the request":
            write_next(request)
        request.invoke_subrequest(Request.blank("/part"))
        if first == "the subrequest":
            write_next(request)
        return Response()

    client = serve_seeded(with_view(view), parts, **{"tm.manager_hook": shared_manager})
    client.get("/")

    assert bodies() == ["next", "part", "seed"]
    assert checked_out(client) == 0


@pytest.mark.parametrize(
    ("first", "status"),
    [("the request", 200), ("the request", 500), ("the subrequest", 200), ("the subrequest", 500)],
)
@pytest.mark.parametrize("use_tweens", [False, True])
@pytest.mark.sweep(8)
def test_a_subrequest_in_the_same_transaction_has_the_same_session(
    serve_seeded, bodies, use_tweens, first, status
):
    """One COMMIT stores the work of both or of none. Either may use the session first."""
    sessions = []

    def view(request):
        if first == "the request":
            write_next(request)
        subrequest = Request.blank("/part")
        share(subrequest, request)
        request.invoke_subrequest(subrequest, use_tweens=use_tweens)
        if first == "the subrequest":
            write_next(request)
        sessions[:] = [request.sqa_session, subrequest.sqa_session]
        return Response(status=status)

    client = serve_seeded(with_view(view), parts)
    seen = []
    event.listen(get_sqa(client.app).engine, "commit", seen.append)
    client.get("/", status=status)

    assert sessions[0] is sessions[1]
    assert len(seen) == (1 if status == 200 else 0)
    assert bodies() == (["next", "part", "seed"] if status == 200 else ["seed"])
    assert checked_out(client) == 0
    for session in sessions:
        with pytest.raises(OutsideTransactionError, match="ended"):
            session.execute(text("SELECT 1"))


@pytest.mark.parametrize("use_tweens", [False, True])
def test_what_a_view_wrote_is_not_lost_by_a_subrequest_that_fails(serve_seeded, bodies, use_tweens):
    """If the view catches the error, its response decides on the whole transaction."""

    def view(request):
        write_next(request)
        subrequest = Request.blank("/failing_part")
        share(subrequest, request)
        with pytest.raises(ZeroDivisionError):
            request.invoke_subrequest(subrequest, use_tweens=use_tweens)
        return Response()

    client = serve_seeded(with_view(view), parts)
    client.get("/")

    assert bodies() == ["next", "part", "seed"]
    assert checked_out(client) == 0


@pytest.mark.parametrize("use_tweens", [False, True])
def test_a_savepoint_undoes_a_subrequest_that_fails(serve_seeded, bodies, use_tweens):
    """The rest of the work is stored."""

    def view(request):
        write_next(request)
        subrequest = Request.blank("/failing_part")
        share(subrequest, request)
        with pytest.raises(ZeroDivisionError), request.sqa_session.begin_nested():
            request.invoke_subrequest(subrequest, use_tweens=use_tweens)
        return Response()

    serve_seeded(with_view(view), parts).get("/")

    assert bodies() == ["next", "seed"]


@pytest.mark.parametrize("status", [200, 500])
def test_a_subrequest_with_tweens_has_a_transaction_of_its_own(mariadb, status):
    """Its own response decides, and not the response of the request around it."""
    make_tables(mariadb)

    def view(request):
        write_next(request)
        subrequest = Request.blank("/part")
        request.invoke_subrequest(subrequest, use_tweens=True)
        assert subrequest.sqa_session is not request.sqa_session
        with pytest.raises(ZeroDivisionError):
            request.invoke_subrequest(Request.blank("/failing_part"), use_tweens=True)
        return Response(status=status)

    client = serve_on(mariadb, with_view(view), parts, **{"sqlalchemy.pool_size": "2"})
    client.get("/", status=status)

    stored = ["next", "part", "seed"] if status == 200 else ["part", "seed"]
    assert [row[0] for row in mariadb.rows(BODIES)] == stored
    assert checked_out(client) == 0


def test_a_subrequest_without_tweens_and_transaction_reads_and_does_not_write(serve_seeded, bodies):
    """A write would have no commit. Each connection goes back, so a pool of one is enough."""

    def view(request):
        texts = [request.invoke_subrequest(Request.blank("/reading_part")).text for _ in range(5)]
        with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
            request.invoke_subrequest(Request.blank("/part"))
        return Response(" ".join(texts))

    client = serve_seeded(with_view(view), parts)

    assert client.get("/").text == "1 1 1 1 1"
    assert bodies() == ["seed"]
    assert checked_out(client) == 0


@pytest.mark.parametrize("use_tweens", [False, True])
def test_the_callbacks_of_a_subrequest_read_and_may_raise(serve_seeded, use_tweens):
    """With a pool of one, the connection is back before the next subrequest needs it."""

    def reading(request):
        request.add_response_callback(lambda request, response: read(request.sqa_session))
        request.add_finished_callback(lambda request: read(request.sqa_session))
        return touch(request)

    def failing(request):
        request.add_finished_callback(fail)
        request.add_response_callback(lambda request, response: read(request.sqa_session))
        return touch(request)

    def view(request):
        for _ in range(2):
            request.invoke_subrequest(Request.blank("/reading"), use_tweens=use_tweens)
            with pytest.raises(ZeroDivisionError):
                request.invoke_subrequest(Request.blank("/failing"), use_tweens=use_tweens)
        return touch(request)

    client = serve_seeded(
        with_view(view), with_view(reading, name="reading"), with_view(failing, name="failing")
    )
    client.get("/")

    assert checked_out(client) == 0


def test_the_streamed_response_of_a_subrequest_is_sent_by_the_request(serve_seeded):
    """The body may be the first to use the subrequest's session."""

    def body(request):
        yield reading_part(request).body

    def streamed(request):
        return Response(app_iter=body(request))

    def view(request):
        return request.invoke_subrequest(Request.blank("/streamed"))

    client = serve_seeded(with_view(view), with_view(streamed, name="streamed"))
    gc.collect()
    gc.disable()
    try:
        text = Request.blank("/").get_response(client.app).text
        left = checked_out(client)
    finally:
        gc.enable()

    assert text == "1"
    assert left == 0


@pytest.fixture
def other(mariadb):
    """Another application, with its own database."""
    make_tables(mariadb)

    def view(request):
        seen.append(request.sqa_session)
        part(request)
        return Response(app_iter=(part for part in [b"pa", b"rt"]))

    seen = []
    client = serve_on(mariadb, with_view(view))
    client.seen = seen
    client.bodies = lambda: [row[0] for row in mariadb.rows(BODIES)]
    yield client
    get_sqa(client.app).dispose()


@pytest.mark.parametrize("touched", ["before", "after"])
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("environ", ["shared", "new"])
def test_two_applications_in_one_request_have_a_session_each(
    sqlite, other, environ, status, touched
):
    """They share the environ and so the transaction. The outer response decides on both."""
    make_tables(sqlite)
    seen = []

    def view(request):
        seen.append(request.sqa_session)
        if touched == "before":
            write_next(request)
        inner = request if environ == "shared" else Request.blank("/")
        assert inner.get_response(other.app).text == "part"
        if touched == "after":
            write_next(request)
        return Response(status=status)

    client = serve_on(sqlite, with_view(view))
    client.get("/", status=status)

    mine = [row[0] for row in sqlite.rows(BODIES)]
    assert mine == (["next", "seed"] if status == 200 else ["seed"])
    shared_and_failed = environ == "shared" and status == 500
    assert other.bodies() == (["seed"] if shared_and_failed else ["part", "seed"])
    assert checked_out(client) == checked_out(other) == 0
    assert seen[0] is not other.seen[0]
    for session in (seen[0], other.seen[0]):
        with pytest.raises(OutsideTransactionError, match="ended with its request"):
            session.execute(text("SELECT 1"))


def test_a_subrequest_made_in_a_job_shares_the_session_of_the_request_around_the_job(
    serve_seeded, bodies
):
    """The end of the subrequest does not end the session that the outer request uses."""

    def view(request):
        subrequest = Request.blank("/part")
        share(subrequest, request)
        with session_scope(request):
            request.invoke_subrequest(subrequest, use_tweens=True)
        write_next(request)
        return Response()

    client = serve_seeded(with_view(view), parts)
    client.get("/")

    assert bodies() == ["next", "part", "seed"]
    assert checked_out(client) == 0
