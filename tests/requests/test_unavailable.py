"""The response 503: when it is sent, what it says, and how an application replaces it."""

import importlib
import socket
import threading

import pytest
from pyramid.events import NewRequest
from pyramid.exceptions import PredicateMismatch
from pyramid.response import Response
from pyramid.tweens import EXCVIEW
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pyramid_aalam_sqa import IDatabaseUnavailable, get_sqa
from support.apps import with_view
from support.models import INSERT
from support.pages import blocks
from support.servers import free_port
from support.unavailable import BOUND, FAULTS_PAGE, MYSQL, POSTGRESQL, lines, unavailable


@pytest.mark.parametrize("url", [MYSQL, POSTGRESQL], ids=["mysql", "postgresql"])
def test_where_nothing_listens_the_answer_is_503_at_once_and_the_log_says_why(
    serve_pages, attempts, caplog, url
):
    """The request is not tried again, because another attempt at once would not help."""
    client = serve_pages(url.format(port=free_port()))
    unavailable(client, "/read?secret=top-secret")

    assert attempts == ["read"]
    [(level, line)] = lines(caplog)
    assert level == "ERROR"
    assert line.startswith("GET /read: no database: ")
    assert "refused" in line
    assert "top-secret" not in line
    assert "SELECT" not in line


@pytest.mark.parametrize("url", [MYSQL, POSTGRESQL], ids=["mysql", "postgresql"])
@pytest.mark.sweep(1)
def test_a_server_that_accepts_and_never_answers_is_given_up(serve_pages, attempts, url):
    """The driver's own time limit ends the wait, and the answer is a 503."""
    limit = "read_timeout" if url == MYSQL else "connect_timeout"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = serve_pages(
            url.format(port=silent.getsockname()[1]),
            # psycopg waits two seconds at least.
            **{f"sqlalchemy.connect_args.{limit}": "1" if url == MYSQL else "2"},
        )
        thread = threading.Thread(target=unavailable, args=(client, "/read"), daemon=True)
        thread.start()
        thread.join(BOUND)

    assert not thread.is_alive()
    assert attempts == ["read"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/html"),
        (None, "text/plain"),
        ("text/html", "text/html"),
        ("application/json", "application/json"),
        ("text/plain", "text/plain"),
    ],
)
def test_the_503_is_html_json_or_text_as_the_client_accepts(serve_pages, accept, kind):
    """The type is negotiated in the same way as for Pyramid's own errors."""
    client = serve_pages(MYSQL.format(port=free_port()))
    response = unavailable(client, "/read", headers={"Accept": accept} if accept else {})

    assert response.content_type == kind
    if kind == "application/json":
        assert response.json["code"] == "503 Service Unavailable"


@pytest.mark.parametrize("seconds", ["0", "120"])
def test_sqa_retry_after_is_what_the_503_asks_for(serve_pages, seconds):
    """The header follows the setting."""
    client = serve_pages(MYSQL.format(port=free_port()), **{"sqa.retry_after": seconds})
    response = client.get("/read", status=503)

    assert response.headers["Retry-After"] == seconds


@pytest.mark.parametrize("context", [Exception, DBAPIError, OperationalError, PoolTimeout])
def test_a_view_for_every_error_leaves_the_503_alone(serve_pages, context):
    """A catch-all view, or one for SQLAlchemy's errors, would answer 500 without Retry-After."""

    def catch_all(config):
        config.add_exception_view(lambda error, request: Response(status=500), context=context)

    unavailable(serve_pages(MYSQL.format(port=free_port()), catch_all), "/read")


def own_page(error, request):
    return Response("our own page", status=503)


def pages(config):
    config.add_exception_view(own_page, context=IDatabaseUnavailable)
    config.add_exception_view(own_page, context=PoolTimeout)


def included_pages(config):
    config.include(pages)


@pytest.mark.parametrize("setup", [pages, included_pages])
def test_the_applications_own_view_takes_the_place_of_the_503(serve_pages, sqlite, setup):
    """The application may add the view itself, or include a module that adds it."""
    refused = serve_pages(MYSQL.format(port=free_port()), setup)
    exhausted = serve_pages(sqlite.url, setup, **POOL_OF_ONE)

    assert refused.get("/read", status=503).text == "our own page"
    with get_sqa(exhausted.app).engine.connect():
        assert exhausted.get("/read", status=503).text == "our own page"


def test_the_applications_own_view_may_be_for_some_requests_only(serve_pages):
    """If the view's predicate does not match, the package's 503 is sent."""

    def some(config):
        config.add_exception_view(own_page, context=IDatabaseUnavailable, request_param="own")

    client = serve_pages(MYSQL.format(port=free_port()), some)

    assert client.get("/read?own=1", status=503).text == "our own page"
    unavailable(client, "/read")


POOL_OF_ONE = {
    "sqlalchemy.pool_size": "1",
    "sqlalchemy.max_overflow": "0",
    "sqlalchemy.pool_timeout": "0.2",
}


def test_when_all_connections_are_in_use_the_next_request_gets_503(
    serve_pages, database, attempts, caplog
):
    """One thread holds the only connection. The other waits for pool_timeout seconds."""
    database.run("CREATE TABLE note (body VARCHAR(50))")
    holding, release = threading.Event(), threading.Event()
    held = []

    def hold(request):
        request.sqa_session.execute(INSERT, {"body": "held"})
        holding.set()
        assert release.wait(BOUND)
        return Response("held")

    client = serve_pages(database.url, with_view(hold, name="hold"), **POOL_OF_ONE)
    thread = threading.Thread(target=lambda: held.append(client.get("/hold").text))
    thread.start()
    assert holding.wait(BOUND)
    try:
        unavailable(client, "/read")
    finally:
        release.set()
        thread.join(BOUND)

    assert held == ["held"]
    assert client.get("/read").text == "1"
    assert attempts == ["read", "read"]
    [(level, line)] = lines(caplog)
    assert level == "ERROR"
    assert line.startswith("GET /read: no database: QueuePool limit of size 1 overflow 0 reached")


@pytest.mark.parametrize("veto", ["pyramid_aalam_sqa.commit_veto", ""])
def test_a_503_stores_nothing_of_what_the_view_wrote_before(serve_pages, database, veto):
    """It rolls back like each 5xx, even if tm.commit_veto is blank and all else commits."""
    database.run("CREATE TABLE note (body VARCHAR(50))")

    def write_and_wait(request):
        request.sqa_session.execute(INSERT, {"body": "half"})
        get_sqa(request).engine.connect()

    client = serve_pages(
        database.url,
        with_view(write_and_wait, name="half"),
        **POOL_OF_ONE,
        **{"tm.commit_veto": veto},
    )
    unavailable(client, "/half")
    client.get("/write?body=whole")

    assert database.rows("SELECT body FROM note") == [("whole",)]


def test_the_views_of_the_faults_page_work(serve_pages, sqlite, tmp_path, monkeypatch, capsys):
    """A stored order is confirmed, rows are streamed, and the application's page is shown."""
    (tmp_path / "page_of_faults.py").write_text("\n".join(blocks(FAULTS_PAGE, "python")))
    monkeypatch.syspath_prepend(tmp_path)
    page = importlib.import_module("page_of_faults")
    sqlite.run("CREATE TABLE note (body VARCHAR(50))")

    def setup(config):
        config.add_view(page.order, name="order")
        config.add_view(page.export, name="export")
        config.scan(page)

    client = serve_pages(sqlite.url, setup, **POOL_OF_ONE)
    client.get("/order?address=me")
    client.get("/charge")

    assert capsys.readouterr().out == "a mail to me\n"
    assert client.get("/export").text == "charged\nordered\n"
    with get_sqa(client.app).engine.connect():
        response = client.get("/read", status=503)
    assert (response.text, response.headers["Retry-After"]) == ("Back in a minute", "60")


def broken_tween(handler, registry):
    def tween(request):
        if "before" in request.params:
            request.sqa_session.scalar(text("SELECT 1"))
        response = handler(request)
        if "after" in request.params:
            request.sqa_session.scalar(text("SELECT 1"))
        return response

    return tween


class Users:
    """A security policy that asks the database who the user is."""

    def authenticated_userid(self, request):
        return request.sqa_session.scalar(text("SELECT 'me'")) if "user" in request.params else None

    identity = authenticated_userid

    def permits(self, request, context, permission):
        return True


def above_everything(config):
    config.add_tween(f"{__name__}.broken_tween")


def above_the_exception_views(config):
    config.add_tween(f"{__name__}.broken_tween", over=EXCVIEW)


def above_the_transaction(config):
    config.add_tween(f"{__name__}.broken_tween", over="pyramid_tm.tm_tween_factory")


def secure(config):
    config.set_security_policy(Users())


def failing_subscriber(config):
    config.add_subscriber(
        lambda event: event.request.sqa_session.scalar(text("SELECT 1")), NewRequest
    )


def failing_root(config):
    config.set_root_factory(lambda request: request.sqa_session.scalar(text("SELECT 1")))


@pytest.mark.parametrize(
    "case",
    [
        (above_everything, "before", {}),
        (above_everything, "after", {}),
        (above_the_exception_views, "before", {}),
        (above_the_transaction, "before", {}),
        (above_the_transaction, "after", {}),
        (secure, "user", {"tm.annotate_user": "true"}),
        (failing_subscriber, "", {}),
        (failing_root, "", {}),
    ],
)
@pytest.mark.parametrize("page", [False, True], ids=["ours", "own page"])
def test_a_503_also_answers_an_error_outside_all_views(serve_pages, case, page, caplog):
    """For example, in a tween above the exception views, or when pyramid_tm asks for the user."""
    setup, query, settings = case

    def own_page(error, request):
        return Response("closed", status=503)

    def add_page(config):
        if page:
            config.add_exception_view(own_page, context=IDatabaseUnavailable)

    def fine(request):
        return Response("fine")

    view = with_view(fine, name="fine")
    client = serve_pages(MYSQL.format(port=free_port()), setup, view, add_page, **settings)

    if page:
        assert client.get(f"/fine?{query}", status=503).text == "closed"
        assert lines(caplog) == []
    else:
        unavailable(client, f"/fine?{query}")
        assert [level for level, _ in lines(caplog)] == ["ERROR"]


def test_an_error_outside_all_views_that_is_not_the_databases_is_not_answered(serve_pages, sqlite):
    """The server answers 500 to it, and also to an error whose page fails."""

    def mistake(handler, registry):
        def tween(request):
            raise ZeroDivisionError

        return tween

    globals()["mistake"] = mistake
    client = serve_pages(sqlite.url, lambda config: config.add_tween(f"{__name__}.mistake"))
    with pytest.raises(ZeroDivisionError):
        client.get("/read")


@pytest.mark.parametrize("missing", [True, False], ids=["no page", "a page that fails"])
def test_an_unavailable_database_without_a_page_is_the_servers_500(serve_pages, caplog, missing):
    """The server gets the database's own error."""

    def failing_page(error, request):
        if missing:
            raise PredicateMismatch
        raise ZeroDivisionError

    def add_page(config):
        config.add_exception_view(failing_page, context=IDatabaseUnavailable)

    client = serve_pages(MYSQL.format(port=free_port()), above_everything, add_page)
    with pytest.raises(OperationalError):
        client.get("/read?before")

    assert ("The exception view for OperationalError failed" in caplog.text) != missing
