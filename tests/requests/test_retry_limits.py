"""A request is not retried after something is stored. Settings and views limit the attempts."""

from contextlib import suppress

import pytest
from pyramid.events import NewResponse
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import is_last_attempt
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from support.retried import (
    Conflict,
    duplicate,
    fail_at_first,
    lines,
    number,
    page_for_everything,
    raises,
    refuses_to_commit,
    write,
)


def failing_callback(request):
    request.add_response_callback(lambda request, response: fail_at_first(request))


def failing_finished_callback(request):
    request.add_finished_callback(fail_at_first)


def failing_nothing(request):
    """A view that does nothing: the error comes from somewhere else."""


def above_all(handler, registry):
    def tween(request):
        response = handler(request)
        fail_at_first(request)
        return response

    return tween


def add_tween(config):
    config.add_tween(f"{__name__}.above_all")


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
    serve_view, unique_notes, in_view, setup, status
):
    """The rows are stored. Another attempt would store them twice."""
    attempts = []

    def view(request):
        attempts.append(1)
        write(request, f"row {len(attempts)}")
        in_view(request)
        return Response(status=status)

    with pytest.raises(Conflict):
        serve_view(view, setup=setup).get("/", status="*")

    assert unique_notes() == (["row 1"] if status == 200 else [])
    assert attempts == [1]


@pytest.mark.parametrize("fail", [raises, refuses_to_commit])
@pytest.mark.parametrize("page", [False, True])
def test_a_request_that_has_committed_a_part_is_not_tried_again(
    serve_view, unique_notes, fail, page
):
    """The part stays stored. The application's page gets the error of the rest."""
    attempts = []

    def view(request):
        attempts.append(1)
        write(request, f"part {len(attempts)}")
        request.tm.commit()
        request.tm.begin()
        write(request, "rest")
        return fail(request)

    app = serve_view(view, setup=page_for_everything if page else None)
    if page:
        assert app.get("/", status=500).text == "Sorry for Conflict"
    else:
        with pytest.raises(Conflict):
            app.get("/")

    assert attempts == [1]
    assert unique_notes() == ["part 1"]


def test_a_request_is_not_tried_again_after_a_subrequest_has_committed(serve_view, unique_notes):
    """A subrequest with tweens has a transaction of its own."""

    def child(request):
        write(request, f"child {request.params['attempt']}")
        return Response()

    def view(request):
        subrequest = Request.blank(f"/child?attempt={number(request)}")
        request.invoke_subrequest(subrequest, use_tweens=True)
        raise Conflict

    with pytest.raises(Conflict):
        serve_view(view, setup=lambda config: config.add_view(child, name="child")).get("/")

    assert unique_notes() == ["child 1"]


def test_a_subrequest_that_fails_is_tried_again_with_the_request_around_it(
    serve_view, unique_notes, caplog
):
    """Each attempt of both has one line in the log and one pause."""

    def view(request):
        write(request, "view")
        if number(request) < 3:
            request.invoke_subrequest(Request.blank("/child"), use_tweens=number(request) == 2)
        return Response()

    serve_view(view, setup=lambda config: config.add_view(raises, name="child")).get("/")

    assert unique_notes() == ["view"]
    assert len(lines(caplog)) == 2


# How often, and for what


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_the_ini_says_how_often_a_request_is_tried(serve_view, unique_notes, caplog, attempts):
    """With retry.attempts = 1 no request is tried again, and nothing is logged."""
    seen = []

    def view(request):
        seen.append(number(request))
        write(request, "row")
        raise Conflict

    with pytest.raises(Conflict):
        serve_view(view, **{"retry.attempts": str(attempts)}).get("/")

    assert seen == list(range(1, attempts + 1))
    assert unique_notes() == []
    assert len(lines(caplog)) == attempts - 1


@pytest.mark.parametrize("fail", [raises, refuses_to_commit])
@pytest.mark.parametrize("page", [False, True])
def test_a_view_can_turn_retries_off(serve_view, unique_notes, caplog, fail, page):
    """With sqa_retry=False, what a view does outside the database is not done twice."""
    attempts = []

    def view(request):
        attempts.append(is_last_attempt(request))
        write(request, "row")
        return fail(request)

    setup = page_for_everything if page else None
    app = serve_view(view, setup=setup, view_options={"sqa_retry": False})
    if page:
        app.get("/", status=500)
    else:
        with pytest.raises(Conflict):
            app.get("/")

    assert attempts == [True]
    assert unique_notes() == []
    assert lines(caplog) == []


def test_a_view_can_turn_retries_off_for_itself_alone(serve_view):
    """Views with sqa_retry=True, and views without the option, are tried again."""
    seen = []

    def other(request):
        seen.append(request.path)
        raise Conflict

    def setup(config):
        config.add_view(other, name="option", sqa_retry=True)
        config.add_view(other, name="none")

    app = serve_view(other, setup=setup, view_options={"sqa_retry": False})
    for path in ("/", "/option", "/none"):
        with pytest.raises(Conflict):
            app.get(path)

    assert seen == ["/", *["/option"] * 3, *["/none"] * 3]


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
@pytest.mark.sweep(6)
def test_the_ini_can_name_more_errors_that_are_worth_another_attempt(
    serve_view_on, kind, codes, fail, named
):
    """In sqa.retry_codes: numbers of MySQL, MariaDB and SQLite, SQLSTATEs of PostgreSQL."""
    attempts = []

    def view(request):
        attempts.append(1)
        write(request, "row")
        fail(request)

    app, target = serve_view_on(kind, view, **{"sqa.retry_codes": codes if named else "4321"})
    with pytest.raises(DBAPIError):
        app.get("/")

    assert len(attempts) == (3 if named else 1)
    assert target.rows("SELECT * FROM note") == []


def test_a_named_error_that_the_view_swallows_is_tried_again_too(serve_view, unique_notes):
    """The transaction is broken, so a part of the work is never committed alone."""
    attempts = []

    def view(request):
        attempts.append(1)
        write(request, "row")
        if len(attempts) == 1:
            with suppress(IntegrityError):
                duplicate(request)
        return Response()

    serve_view(view, **{"sqa.retry_codes": "19"}).get("/")

    assert len(attempts) == 2
    assert unique_notes() == ["row"]
