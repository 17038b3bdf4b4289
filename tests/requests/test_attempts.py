"""Each attempt sees the request as the client sent it, even if an attempt has changed it."""

import gzip
import io

import pytest
from pyramid.response import Response
from pyramid.wsgi import wsgiapp2
from pyramid_retry import BeforeRetry, RetryableException
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa, session_scope
from support.apps import with_view
from support.models import INSERT


class Conflict(RetryableException):
    """An error as if the database had rolled the transaction back."""


def in_a_tween(change):
    """Return a setup whose tween changes each request, above the application's other tweens."""

    def tween_factory(handler, registry):
        def tween(request):
            change(request)
            return handler(request)

        return tween

    def setup(config):
        name = f"changing_{id(change)}"
        globals()[name] = tween_factory
        config.add_tween(f"{__name__}.{name}")

    return setup


def lengthen_path(request):
    request.path_info += "x"


def shift_path(request):
    request.path_info_pop()


def change_query(request):
    request.GET["page"] = request.GET["page"] + "1"


def add_header(request):
    request.headers["X-Seen"] = request.headers.get("X-Seen", "") + "1"


def remove_header(request):
    request.environ["seen"] = request.headers.pop("X-Token")


def change_method(request):
    request.method = {"POST": "PUT"}[request.method]


def name_user(request):
    request.remote_user = (request.remote_user or "") + "me"


def unpack(request):
    del request.headers["Content-Encoding"]
    request.body = gzip.decompress(request.body)


def upper(request):
    request.body = request.body.upper() + b"!"


def stream_body(request):
    request.body_file = io.BytesIO(request.body[:-1])


CHANGES = [lengthen_path, shift_path, change_query, add_header, remove_header, change_method]
CHANGES += [name_user, unpack, upper, stream_body]


def state(request):
    """Return what a view can see of a request."""
    return {
        "path": request.path,
        "query": sorted(request.GET.items()),
        "seen": request.headers.get("X-Seen"),
        "method": request.method,
        "user": request.remote_user,
        "body": request.body,
        "length": request.content_length,
    }


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("where", ["in a tween", "in the view"])
def test_a_change_of_the_request_does_not_reach_the_next_attempt(serve, sqlite, change, where):
    """The next attempt starts with the request as it was at the first attempt."""
    seen = []

    def view(request):
        seen.append(state(request))
        if where == "in the view":
            change(request)
        if len(seen) < 3:
            raise Conflict
        return Response()

    setups = [lambda config: config.add_notfound_view(view)]
    if where == "in a tween":
        setups.append(in_a_tween(change))
    app = TestApp(serve(sqlite.url, *setups, **{"sqa.retry_pause": "0"}))
    headers = {"X-Token": "t", "Content-Encoding": "gzip"}
    app.post("/a/b?page=1&page=2", gzip.compress(b"content"), headers=headers)

    assert seen[1:] == [seen[0]] * 2


def test_what_a_subscriber_of_the_retry_keeps_in_the_environ_stays(serve, sqlite):
    """The documentation of pyramid_retry's event tells subscribers to do this."""
    seen = []

    def remember(event):
        event.environ["app.retried"] = event.environ.get("app.retried", 0) + 1

    def view(request):
        seen.append(request.environ.get("app.retried"))
        if len(seen) < 3:
            raise Conflict
        return Response()

    def subscribe(config):
        config.add_subscriber(remember, BeforeRetry)

    settings = {"sqa.retry_pause": "0"}
    TestApp(serve(sqlite.url, with_view(view), subscribe, **settings)).get("/")

    assert seen == [None, 1, 2]


def test_an_application_within_another_one_has_the_request_that_it_was_given(serve, sqlite):
    """The outer application has changed path and query. Both applications are tried again."""
    seen, outside = [], []

    def inner_view(request):
        seen.append((request.script_name, request.path_info, request.query_string))
        request.path_info += "x"
        if len(seen) % 2:
            raise Conflict
        return Response()

    settings = {"sqa.retry_pause": "0"}
    inner = serve(sqlite.url, lambda config: config.add_notfound_view(inner_view), **settings)

    def outer_view(context, request):
        outside.append(request.path_info)
        request.query_string += "1"
        response = wsgiapp2(inner)(context, request)
        outside.append(request.environ["PATH_INFO"])
        if len(outside) < 4:
            raise Conflict
        return response

    def setup(config):
        config.add_route("inner", "/inner*subpath")
        config.add_view(outer_view, route_name="inner")

    TestApp(serve(sqlite.url, setup, **settings)).get("/inner/page?q=")

    assert seen == [("/inner", "/page", "q=1")] * 4
    assert outside == ["/inner/page"] * 4


def test_a_body_that_the_view_has_replaced_and_closed_is_read_whole_again(serve, sqlite):
    """The next attempt reads the client's body."""
    seen = []

    def view(request):
        seen.append(request.body)
        request.body_file = io.BytesIO(b"mine")
        request.body_file_raw.close()
        if len(seen) < 3:
            raise Conflict
        return Response()

    TestApp(serve(sqlite.url, with_view(view), **{"sqa.retry_pause": "0"})).post("/", b"yours")

    assert seen == [b"yours"] * 3


def test_an_execution_policy_of_the_application_may_ask_the_router_for_more(serve, sqlite):
    """The router has the attributes of Pyramid's own router."""
    seen = []

    def policy(environ, router):
        seen.append(router.registry)
        with router.request_context(environ) as request:
            return router.invoke_request(request)

    app = serve(
        sqlite.url,
        with_view(lambda request: Response("fine")),
        lambda config: config.set_execution_policy(policy),
    )

    assert TestApp(app).get("/").text == "fine"
    assert seen == [app.registry]


def test_a_job_may_call_the_application(serve, database, notes):
    """The request has a transaction of its own, and ends its session as any request does."""

    def write(request):
        request.sqa_session.execute(INSERT, {"body": "request"})
        return Response()

    app = serve(database.url, with_view(write))

    @session_scope(app, attempts=2)
    def job(session):
        TestApp(app).get("/")
        session.execute(INSERT, {"body": "job"})

    job()

    assert notes() == ["job", "request"]
    assert get_sqa(app).engine.pool.checkedout() == 0
