"""Numbers of pools and transactions, for monitors; and events, for those who have to know."""

import threading
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.response import Response
from pyramid_retry import RetryableException
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import (
    AttemptFailed,
    OutcomeUnknown,
    OutcomeUnknownError,
    PartialCommit,
    PartialCommitError,
    get_sqa,
    session_scope,
)
from support.apps import with_view
from support.servers import free_port

STATS = {"sqa.stats": "true", "sqa.retry_pause": "0"}


def of(app):
    return get_sqa(app).stats().databases["default"]


def answer(request):
    request.sqa_session.execute(text("SELECT 1"))
    return Response("ok", status=int(request.params.get("status", 200)))


def test_pool_and_ends_are_counted_by_database(any_database, serve):
    """A request that answers 404 rolled back, the others committed."""
    app = serve(any_database.url, with_view(answer), **STATS)
    client = TestApp(app)
    for status in (200, 404, 303):
        client.get(f"/?status={status}", status=status)

    stats = of(app)
    assert (stats.commits, stats.rollbacks) == (2, 1)
    assert (stats.size, stats.in_use, stats.idle, stats.waiting) == (15, 0, 1, 0)
    assert stats.longest is None


def test_the_longest_holder_is_named_with_its_route_and_age(sqlite, serve):
    """And how many wait behind it."""
    inside, leave = threading.Event(), threading.Event()

    def slow(request):
        request.sqa_session.execute(text("SELECT 1"))
        inside.set()
        leave.wait(10)
        return Response("slow")

    def setup(config):
        config.add_route("slow", "/slow/{name}")
        config.add_view(slow, route_name="slow")

    small = {"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0"}
    app = serve(sqlite.url, setup, with_view(answer), **STATS, **small)
    threads = [
        threading.Thread(target=TestApp(app).get, args=(path,)) for path in ("/slow/snail", "/")
    ]
    threads[0].start()
    inside.wait(10)
    threads[1].start()
    deadline = time.monotonic() + 10
    while of(app).waiting != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stats = of(app)
    leave.set()
    for thread in threads:
        thread.join()

    assert (stats.size, stats.in_use, stats.idle) == (1, 1, 0)
    assert stats.longest.who == "GET /slow/{name}"
    assert stats.longest.seconds > 0
    assert of(app).longest is None
    assert of(app).waiting == 0


def test_a_connection_that_leaves_its_pool_is_not_counted_as_held(sqlite, serve):
    """Detached or lost, it is not counted any more; a job is named by its thread."""
    app = serve(sqlite.url, **STATS)
    with get_sqa(app).engine.connect() as connection:
        assert of(app).longest.who == "thread MainThread"
        connection.detach()
        assert of(app).longest is None
    with get_sqa(app).engine.connect() as connection:
        connection.invalidate()
    assert of(app).longest is None


def test_off_the_pool_is_told_and_nothing_is_counted(sqlite, serve):
    """What has to be counted on each request is None."""
    app = serve(sqlite.url, with_view(answer))
    TestApp(app).get("/")

    stats = of(app)
    assert (stats.size, stats.in_use, stats.idle) == (15, 0, 1)
    assert stats.commits is stats.rollbacks is stats.waiting is stats.longest is None


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"sqlalchemy.poolclass": "NullPool"}, None),
        ({"sqlalchemy.pool_size": "0"}, None),
        ({"sqlalchemy.max_overflow": "-1"}, None),
        ({"sqa.max_connections": "9", "sqlalchemy.pool_size": "2"}, 6),
    ],
)
def test_the_size_is_the_most_that_a_pool_opens(settings, size, sqlite, serve):
    """None where there is no limit."""
    stats = of(serve(sqlite.url, **settings))

    assert (stats.size, stats.in_use, stats.idle) == (size, 0, 0)


def test_a_retry_is_counted_and_is_an_event(sqlite, serve):
    """With the request, the error and the number of the attempt."""
    heard = []

    def view(request):
        if request.environ["retry.attempt"] < 2:
            raise RetryableException
        return Response("ok")

    def setup(config):
        config.add_subscriber(heard.append, AttemptFailed)

    app = serve(sqlite.url, with_view(view), setup, **STATS)
    TestApp(app).get("/")

    assert [(each.attempt, each.attempts) for each in heard] == [(1, 3), (2, 3)]
    assert {type(each.error) for each in heard} == {RetryableException}
    assert heard[0].request.path == "/"
    assert get_sqa(app).stats().retries == 2


OUTCOMES = [
    (OutcomeUnknownError("lost"), OutcomeUnknown, "unknown_outcomes"),
    (PartialCommitError("half", stored=["a"], not_stored=["b"]), PartialCommit, "partial_commits"),
]


@pytest.mark.parametrize("page", [False, True], ids=["raised", "with a page"])
@pytest.mark.parametrize("outcome", OUTCOMES, ids=["unknown", "partial"])
def test_an_outcome_that_is_not_whole_is_counted_and_is_an_event(outcome, page, sqlite, serve):
    """Whether an exception view makes a page of it or not."""
    error, event, number = outcome
    heard = []

    def view(request):
        raise error

    def setup(config):
        config.add_subscriber(heard.append, event)
        if page:
            config.add_exception_view(
                lambda request: Response("Sorry", status=500), context=type(error)
            )

    app = serve(sqlite.url, with_view(view), setup)
    if page:
        TestApp(app).get("/", status=500)
    else:
        with pytest.raises(type(error)):
            TestApp(app).get("/")

    [found] = heard
    assert found.error is error
    assert found.request.path == "/"
    assert getattr(get_sqa(app).stats(), number) == 1


def test_a_subscriber_that_fails_changes_nothing(sqlite, serve, caplog):
    """It is logged; the request is retried all the same."""

    def view(request):
        if request.environ["retry.attempt"] == 0:
            raise RetryableException
        return Response("ok")

    def fail(event):
        raise ZeroDivisionError

    app = serve(
        sqlite.url,
        with_view(view),
        lambda config: config.add_subscriber(fail, AttemptFailed),
        **STATS,
    )

    assert TestApp(app).get("/").text == "ok"
    assert "A subscriber of AttemptFailed failed" in caplog.text


def test_a_job_is_counted_too(sqlite, serve):
    """Its retries and its outcomes; who called it gets the error."""
    app = serve(sqlite.url, **STATS)

    @session_scope(app, attempts=2)
    def conflict(session):
        raise RetryableException

    with pytest.raises(RetryableException):
        conflict()
    for error, _, number in OUTCOMES:
        with pytest.raises(type(error)), session_scope(app):
            raise error
        assert getattr(get_sqa(app).stats(), number) == 1
    assert get_sqa(app).stats().retries == 1


def test_an_answer_503_is_counted_once(serve):
    """However many attempts it took."""
    url = f"mysql+pymysql://ann@127.0.0.1:{free_port()}/shop"
    app = serve(url, with_view(answer), **{"sqa.retry_pause": "0"})
    TestApp(app).get("/", status=HTTPServiceUnavailable.code)

    assert get_sqa(app).stats().unavailable == 1


def test_the_documented_collector_tells_prometheus(sqlite, serve):
    """The ten lines of the documentation, as they are there."""
    from support.pages import ROOT, blocks

    page = ROOT / "docs" / "guide" / "debugging.md"
    [code] = [block for block in blocks(page, "python") if "class SqaCollector" in block]
    names = {}
    exec(code, names)  # documentation is meant to be run
    assert len([line for line in code.splitlines() if line.strip()]) <= 24
    app = serve(sqlite.url, with_view(answer), **STATS)
    TestApp(app).get("/")
    registry = CollectorRegistry()
    registry.register(names["SqaCollector"](app))
    found = generate_latest(registry).decode()

    assert 'sqa_connections_in_use{database="default"} 0.0' in found
    assert 'sqa_commits_total{database="default"} 1.0' in found
    assert "sqa_retries_total 0.0" in found
