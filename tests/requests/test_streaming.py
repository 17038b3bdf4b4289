"""Rows are sent while they are read, and the connection goes back if the client stops reading."""

import gc
import http.client
import threading
import time
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import FileResponse, Response
from pyramid.scripting import prepare
from sqlalchemy import String, literal, select, text
from sqlalchemy.engine import Row
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column
from transaction import TransactionManager
from webtest import TestApp

from pyramid_aalam_sqa import OutsideTransactionError, get_sqa
from support.processes import pserve

WIDTH = 200


class Base(DeclarativeBase):
    pass


class Digit(Base):
    __tablename__ = "digit"
    d: Mapped[int] = mapped_column(primary_key=True)


def numbers(places, width=WIDTH):
    """Return a SELECT of all numbers with so many digits, and a text that makes rows long."""
    digits = [aliased(Digit) for _ in range(places)]
    value = sum(digit.d * 10**place for place, digit in enumerate(digits))
    return select(value.label("n"), literal("x" * width, String(width)).label("filling"))


def lines(rows):
    for row in rows:
        yield f"{row.n} {row.filling}\n".encode()


def stream(request):
    """Stream rows in the right way: they are fetched and sent while the client reads."""
    rows = request.sqa_stream(numbers(int(request.params["places"])), size=100)
    return Response(app_iter=lines(rows), content_type="text/plain")


def read_late(request):
    """Read the request's own session in the body, which works too."""

    def body():
        for digit in range(10):
            yield str(request.sqa_session.get(Digit, digit).d).encode()

    return Response(app_iter=body())


def count(request):
    return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM digit"))))


def main(global_config, *views, **settings):
    """Make the application of the tests. A real pserve serves it too."""
    # The statement multiplies a table with itself on purpose.
    with Configurator(settings={**settings, "sqlalchemy.enable_from_linting": "false"}) as config:
        config.include("pyramid_aalam_sqa")
        for view in (stream, read_late, count, *views):
            config.add_view(view, name=view.__name__)
    return config.make_wsgi_app()


def fill(database):
    values = ", ".join(f"({digit})" for digit in range(10))
    database.run("CREATE TABLE digit (d INTEGER PRIMARY KEY)", f"INSERT INTO digit VALUES {values}")


@pytest.fixture
def serve(database):
    """Make an application with the given views and one connection."""
    fill(database)
    made = []

    def serve(*views, **settings):
        made.append(serve_on(database, *views, **settings))
        return made[-1]

    yield serve
    for app in made:
        get_sqa(app).dispose()


def serve_on(database, *views, **settings):
    given = {"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0"}
    given |= {"sqlalchemy.pool_timeout": "1", "sqlalchemy.url": database.url, **settings}
    return main({}, *views, **given)


def call(app, path, **environ):
    """Call *app* as a server does. Return the headers and the body, which is not read yet."""
    request = Request.blank(path)
    request.environ.update(environ)
    headers = {}

    def start_response(status, header_list, exc_info=None):
        headers.update({"status": status, **dict(header_list)})

    return app(request.environ, start_response), headers


def checked_out(app):
    return get_sqa(app).engine.pool.checkedout()


# Rows. ----------------------------------------------------------------------------------------


@pytest.mark.sweep(2)
def test_the_connection_is_taken_at_the_first_row_and_back_after_the_last(any_database):
    """It is not taken when the view asks for the rows, nor kept until the body is closed."""
    fill(any_database)
    app = serve_on(any_database)
    body, _headers = call(app, "/stream?places=4")
    before = checked_out(app)
    parts = iter(body)
    first = next(parts)
    during = checked_out(app)
    rest = list(parts)
    after = checked_out(app)
    body.close()

    assert (before, during, after) == (0, 1, 0)
    assert sorted(int(line.split()[0]) for line in [first, *rest]) == list(range(10**4))
    get_sqa(app).dispose()


def by_generator(parts):
    for part in parts:  # noqa: UP028 - middleware as people write it
        yield part


MIDDLEWARES = {
    "generator": by_generator,
    "expression": lambda parts: (part for part in parts),
    "map": lambda parts: map(bytes, parts),
}


@pytest.mark.parametrize("path", ["/stream?places=1", "/read_late"])
@pytest.mark.parametrize("wrap", MIDDLEWARES.values(), ids=MIDDLEWARES)
@pytest.mark.sweep(6)
def test_middleware_that_keeps_the_parts_of_a_body_alone_gets_all_of_them(serve, wrap, path):
    """It keeps nothing of the body but its iterator."""
    app = serve()
    expected = b"".join(call(app, path)[0])
    parts = wrap(call(app, path)[0])

    assert b"".join(parts) == expected != b""
    del parts
    assert checked_out(app) == 0


def test_the_rows_are_rows(serve):
    """A stream has rows with named columns, entities, and the rows of text()."""
    app = serve()
    with prepare(registry=app.registry) as env:
        stream = env["request"].sqa_stream
        rows = list(stream(numbers(1)))
        entities = [row.Digit.d for row in stream(select(Digit).order_by(Digit.d), size=3)]
        texts = [row.d for row in stream(text("SELECT d FROM digit ORDER BY d"))]

    assert all(isinstance(row, Row) for row in rows)
    assert rows[0].filling == "x" * WIDTH
    assert entities == texts == list(range(10))


@pytest.mark.deep
def test_a_long_answer_needs_no_memory(any_database):
    """If a driver fetched all 100,000 rows at once, they would need more than 20 MB."""
    fill(any_database)
    app = serve_on(any_database)
    body, _headers = call(app, "/stream?places=1")
    assert sum(map(len, body)) == 10 * (WIDTH + 3)
    body.close()
    tracemalloc.start()
    try:
        body, _headers = call(app, "/stream?places=5")
        size = sum(map(len, body))
        body.close()
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size > 20_000_000
    assert peak < 4_000_000
    get_sqa(app).dispose()


def test_a_stream_reads_what_is_committed_and_cannot_write(serve, database):
    """It has its own read-only transaction, because nothing would commit a write."""

    def view(request):
        request.sqa_session.execute(text("DELETE FROM digit WHERE d = 9"))
        request.sqa_session.rollback()
        assert len(list(request.sqa_stream(select(Digit)))) == 10
        with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
            next(request.sqa_stream(text("DELETE FROM digit")))
        return Response()

    TestApp(serve(view)).get("/view")

    assert database.scalar("SELECT count(*) FROM digit") == 10


def test_an_entity_of_a_stream_that_is_changed_is_not_a_lost_write(serve, database):
    """The change raises an error at the end of the stream."""

    def view(request):
        for row in request.sqa_stream(select(Digit)):
            row.Digit.d += 100
        return Response()

    app = serve(view)
    with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
        TestApp(app).get("/view")

    assert database.scalar("SELECT max(d) FROM digit") == 9
    assert checked_out(app) == 0


def test_two_streams_have_a_connection_each(serve):
    """A view may merge two streams. Both end with the body."""

    def merged(request):
        pairs = zip(request.sqa_stream(numbers(3)), request.sqa_stream(numbers(3)), strict=True)
        return Response(app_iter=(f"{left.n}={right.n}\n".encode() for left, right in pairs))

    app = serve(merged, **{"sqlalchemy.pool_size": "2"})
    body, _headers = call(app, "/merged")
    parts = iter(body)
    next(parts)
    during = checked_out(app)
    body.close()

    assert (during, checked_out(app)) == (2, 0)


def test_a_stream_of_a_test_with_a_session_of_its_own_reads_from_that(serve):
    """So it reads what the test has prepared and never commits."""
    app = serve()
    tm = TransactionManager(explicit=True)
    tm.begin()
    session = get_sqa(app).session(tm)
    session.execute(text("DELETE FROM digit WHERE d > 4"))
    environ = {"tm.active": True, "tm.manager": tm, "sqa.session": session}
    response = TestApp(app, extra_environ=environ).get("/stream?places=1")

    assert len(response.text.splitlines()) == 5
    assert session.scalar(text("SELECT count(*) FROM digit")) == 5
    tm.abort()
    session.close()


# Clients that hang up. ------------------------------------------------------------------------


@pytest.mark.parametrize("read", [0, 1, 250])
@pytest.mark.parametrize("path", ["/stream?places=4", "/read_late"])
def test_the_connection_is_back_when_the_client_hangs_up(serve, path, read):
    """The server then closes the body, which may not have begun yet."""
    app = serve()
    body, _headers = call(app, path)
    for _ in zip(range(read), body, strict=False):
        pass
    body.close()

    assert checked_out(app) == 0
    assert TestApp(app).get("/count").text == "10"


def test_the_connection_is_back_when_the_body_is_dropped(serve):
    """A server that fails before the first byte does not close the body."""
    app = serve()

    def start_response(*_):
        raise ZeroDivisionError

    request = Request.blank("/read_late")
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError):
            app(request.environ, start_response)
        body, _headers = call(app, "/read_late")
        next(iter(body))
        del body, request
        left = checked_out(app)
    finally:
        gc.enable()

    assert left == 0
    assert TestApp(app).get("/count").text == "10"


def test_hanging_up_does_not_wait_for_the_rows_that_are_not_read(mariadb):
    """The driver would read all rows before it closes the result, here for half an hour."""
    fill(mariadb)

    def slow(request):
        statement = numbers(5, width=20_000).add_columns(text("SLEEP(0.02)"))
        return Response(app_iter=lines(request.sqa_stream(statement, size=1)))

    app = serve_on(mariadb, slow)

    def hang_up():
        body, _headers = call(app, "/slow")
        next(iter(body))
        body.close()

    thread = threading.Thread(target=hang_up, daemon=True)
    thread.start()
    thread.join(20)

    assert not thread.is_alive()
    assert checked_out(app) == 0
    assert TestApp(app).get("/count").text == "10"
    get_sqa(app).dispose()


def test_hanging_up_keeps_a_database_in_memory(tmp_path):
    """Such a database exists only as long as its one connection."""
    app = main({}, **{"sqlalchemy.url": "sqlite://"})
    with get_sqa(app).engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(text("INSERT INTO digit VALUES (0), (1), (2)"))
    body, _headers = call(app, "/stream?places=2")
    next(iter(body))
    body.close()

    assert TestApp(app).get("/count").text == "3"


@pytest.mark.parametrize("kept", [False, True], ids=["rows in an expression", "rows in a variable"])
def test_the_connection_is_back_after_an_error_in_the_body(serve, kept):
    """This is true even if a log keeps the traceback, which refers to the rows."""

    def failing(request):
        def body():
            if kept:
                rows = request.sqa_stream(numbers(4))
                for row in rows:
                    yield b"%d\n" % (1 // row.n)
            for row in request.sqa_stream(numbers(4)):
                yield b"%d\n" % (1 // row.n)

        return Response(app_iter=body())

    app = serve(failing)
    body, _headers = call(app, "/failing")
    with pytest.raises(ZeroDivisionError) as caught:
        list(body)
    body.close()

    assert caught.tb is not None
    assert checked_out(app) == 0


def test_the_connection_is_back_when_closing_the_body_fails(serve):
    """The application's close() is called first, and may raise an error."""

    class Body:
        def __init__(self, request):
            self.request = request

        def __iter__(self):
            yield count(self.request).body

        def close(self):
            raise ZeroDivisionError

    def closing_fails(request):
        return Response(app_iter=Body(request))

    app = serve(closing_fails)
    body, _headers = call(app, "/closing_fails")
    assert list(body) == [b"10"]
    with pytest.raises(ZeroDivisionError):
        body.close()

    assert checked_out(app) == 0


def test_a_head_request_of_a_streamed_page_leaves_nothing_open(serve):
    """WebOb closes the body without reading it."""
    app = serve()
    TestApp(app).head("/stream?places=4")
    TestApp(app).head("/read_late")

    assert checked_out(app) == 0


def test_a_stream_that_a_view_leaves_in_the_middle_ends_with_the_request(serve):
    """This is true even if the view keeps a reference to the stream."""
    kept = []

    def view(request):
        kept.append(request.sqa_stream(numbers(4)))
        return Response(str(next(kept[0]).n))

    app = serve(view)
    TestApp(app).get("/view")

    assert checked_out(app) == 0
    assert list(kept[0]) == []


# Bodies that are none of ours. ----------------------------------------------------------------


class Wrapper:
    """A wsgi.file_wrapper, which a server offers for sending files."""

    def __init__(self, file, size):
        self.file = file
        self.close = file.close

    def __iter__(self):
        return iter(self.file)


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("file_wrapper", [None, Wrapper])
def test_a_file_is_sent_by_the_server_itself(serve, touched, file_wrapper):
    """The package keeps wsgi.file_wrapper and the length. The session ends before."""

    def file(request):
        if touched:
            count(request)
            request.add_response_callback(lambda request, response: count(request))
        return FileResponse(__file__, request=request)

    app = serve(file)
    environ = {"wsgi.file_wrapper": file_wrapper} if file_wrapper else {}
    body, headers = call(app, "/file", **environ)
    left = checked_out(app)
    content = b"".join(body)
    body.close()

    assert content == Path(__file__).read_bytes()
    assert headers["Content-Length"] == str(len(content))
    assert left == 0
    if file_wrapper:
        assert type(body) is Wrapper


def test_a_streamed_body_keeps_the_length_it_was_given(serve):
    """The browser can show the progress of a download."""

    def sized(request):
        count(request)
        return Response(app_iter=iter([b"12345"]), content_length=5)

    _body, headers = call(serve(sized), "/sized")

    assert headers["Content-Length"] == "5"


def test_a_body_that_is_a_list_is_sent_as_it_is(serve):
    """A list is complete, so the session ends before it is sent."""

    def listed(request):
        count(request)
        response = Response()
        response.app_iter = made
        return response

    made = [b"1", b"2"]
    body, _headers = call(serve(listed), "/listed")

    assert body is made


# A server and a client. -----------------------------------------------------------------------


def test_a_client_that_closes_its_socket_gives_the_connection_back(mariadb, tmp_path):
    """The server is real and has a pool of one. Another connection watches its queries."""
    fill(mariadb)
    running = (
        "SELECT count(*) FROM information_schema.processlist "
        "WHERE db = DATABASE() AND command = 'Query' AND id <> CONNECTION_ID()"
    )

    def settles_at(wanted):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if mariadb.scalar(running) == wanted:
                return True
            time.sleep(0.02)
        return False

    settings = "\n".join(
        f"sqlalchemy.{name}" for name in ("pool_size = 1", "max_overflow = 0", "pool_timeout = 2")
    )
    with pserve(tmp_path, mariadb.url, app="test_streaming", settings=settings) as (port, _log):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
            # More than waitress holds for a client that does not read.
            client.request("GET", "/stream?places=6")
            with client.getresponse() as response:
                assert response.read(1000).count(b"\n") > 1
                assert settles_at(1)
        settled = settles_at(0)
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
            client.request("GET", "/count")
            with client.getresponse() as response:
                after = response.status, response.read()

    assert settled
    assert after == (200, b"10")
