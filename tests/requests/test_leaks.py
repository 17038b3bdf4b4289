"""Whatever requests and clients do, every connection goes back and no transaction stays open."""

import gc
import itertools
import threading
import time
from collections import Counter

import pytest
from pyramid.config import Configurator
from pyramid.events import NewResponse
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import text

from pyramid_aalam_sqa import CommitNotAllowedError, OutsideTransactionError, get_sqa
from support.models import INSERT

THREADS = 4
ROWS = text("SELECT a.d FROM digit a, digit b, digit c, digit e")
PLACES = [
    *("above before", "above after", "response callback", "finished callback", "new response"),
    *("page of a failed commit", "after commit", "body", "unmanaged", "between"),
]


# One application that does it all. ------------------------------------------------------------


def late(request, place):
    """Use the session in *place*, if this request is the one for it."""
    way, wanted = request.environ.get("test.late") or (None, None)
    if wanted == place:
        session = request.sqa_session
        assert session.scalar(text("SELECT count(*) FROM digit")) == 10
        if way == "write":
            session.execute(INSERT, {"body": "late"})


def around(handler, registry):
    def tween(request):
        late(request, "above before")
        response = handler(request)
        late(request, "above after")
        return response

    return tween


def write(request):
    request.sqa_session.execute(INSERT, {"body": request.environ["test.body"]})
    return Response("stored")


def read(request):
    return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM digit"))))


def refused(request):
    write(request)
    return Response(status=404)


def failing(request):
    write(request)
    raise ZeroDivisionError


def with_a_page(request):
    write(request)
    raise KeyError


def page(error, request):
    late(request, "page of a failed commit")
    read(request)
    return Response(status=500)


def visit(request):
    """Use the session here, and later in each of these places if the request asks for it."""
    read(request)
    request.add_response_callback(lambda request, response: late(request, "response callback"))
    request.add_finished_callback(lambda request: late(request, "finished callback"))
    request.sqa_after_commit(late, request, "after commit")
    return Response()


def failing_commit(request):
    visit(request)
    request.tm.get().join(Refusing())
    return Response()


class Refusing:
    """A data manager that refuses to commit."""

    def sortKey(self):  # noqa: N802 - transaction's interface
        return "refusing"

    def tpc_begin(self, transaction):
        raise KeyError

    def abort(self, transaction):
        """Do nothing, because there is nothing to undo."""

    tpc_abort = abort


def unmanaged(request):
    late(request, "unmanaged")
    return Response()


def between(request):
    read(request)
    request.tm.commit()
    late(request, "between")
    request.tm.begin()
    return Response()


def body(request):
    def parts():
        yield b"first"
        late(request, "body")
        yield b"last"

    return Response(app_iter=parts())


def stream(request):
    rows = request.sqa_stream(ROWS, size=100)
    return Response(app_iter=(b"%d" % row.d for row in rows))


def failing_stream(request):
    rows = request.sqa_stream(ROWS, size=100)
    return Response(app_iter=(b"%d" % (1 // row.d) for row in rows))


def failing_callbacks(request):
    read(request)
    request.add_response_callback(lambda request, response: read(request))
    request.add_response_callback(lambda request, response: 1 / 0)
    request.add_finished_callback(lambda request: 1 / 0)
    return Response()


def commit(request):
    write(request)
    request.sqa_session.connection().commit()


def close(request):
    write(request)
    request.sqa_session.close()
    return Response()


def kept(request):
    request.environ["test.kept"](request)
    return read(request)


def subrequests(request):
    shared = Request.blank("/write")
    shared.environ |= {key: request.environ[key] for key in ("tm.manager", "tm.active")}
    shared.environ["test.body"] = request.environ["test.body"]
    request.invoke_subrequest(shared)
    return Response()


def parts(request):
    texts = [request.invoke_subrequest(Request.blank("/read")).text for _ in range(3)]
    return Response(" ".join(texts))


def is_managed(request):
    return request.path_info not in {"/unmanaged", "/parts"}


VIEWS = [write, read, refused, failing, with_a_page, visit, failing_commit, unmanaged, between]
VIEWS += [body, stream, failing_stream, failing_callbacks, commit, close, kept, subrequests, parts]


def make_app(database):
    settings = {
        "sqlalchemy.url": database.url,
        "sqlalchemy.pool_size": "2",
        "sqlalchemy.max_overflow": "0",
        "sqlalchemy.pool_timeout": "60",
        "tm.activate_hook": is_managed,
    }
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.add_tween("test_leaks.around", over="pyramid_tm.tm_tween_factory")
        config.add_subscriber(lambda event: late(event.request, "new response"), NewResponse)
        config.add_exception_view(page, context=KeyError)
        for view in VIEWS:
            config.add_view(view, name=view.__name__)
    return config.make_wsgi_app()


# Clients. -------------------------------------------------------------------------------------

PATH_OF = {"page of a failed commit": "failing_commit", "unmanaged": "unmanaged"}
PATH_OF |= {"between": "between", "body": "body"}
KINDS = [
    # The path, how many parts of the body the client reads, a late use, and what comes of it: a
    # status, or the error that the server gets instead of an answer.
    *[("write", None, None, "200")] * 4,
    ("write", 0, None, "200"),
    ("read", None, None, "200"),
    ("refused", None, None, "404"),
    ("failing", None, None, "ZeroDivisionError"),
    ("with_a_page", None, None, "500"),
    ("stream", None, None, "200"),
    ("stream", 0, None, "200"),
    ("stream", 1, None, "200"),
    ("stream", 1500, None, "200"),
    ("failing_stream", None, None, "ZeroDivisionError"),
    ("failing_callbacks", None, None, "ZeroDivisionError"),
    ("commit", None, None, "CommitNotAllowedError"),
    ("close", None, None, "OutsideTransactionError"),
    ("subrequests", None, None, "200"),
    ("parts", None, None, "200"),
    ("body", 0, ("read", "body"), "200"),
    ("body", 1, ("write", "body"), "200"),
    ("kept", None, None, "200"),
]
for place in PLACES:
    path = PATH_OF.get(place, "visit")
    status = "500" if place == "page of a failed commit" else "200"
    # The commit is true; what fails after it is logged.
    lost = "200" if place == "after commit" else "OutsideTransactionError"
    KINDS.append((path, None, ("read", place), status))
    # The page of a failed commit has a transaction of its own, and so may meet a lock.
    if place != "page of a failed commit":
        KINDS.append((path, None, ("write", place), lost))


def use_after_the_end(request):
    with pytest.raises(OutsideTransactionError):
        request.sqa_session.execute(INSERT, {"body": "late"})


def visit_app(app, kind, body):
    """Make one request as a server does, and return its result."""
    path, wanted, late_use, _answer = kind
    held = []
    request = Request.blank(f"/{path}")
    request.environ |= {"test.body": body, "test.kept": held.append, "test.late": late_use}
    told = []
    try:
        parts = app(request.environ, lambda status, *_: told.append(status.split()[0]))
        try:
            for _ in itertools.islice(parts, wanted):
                pass
        finally:
            if hasattr(parts, "close"):
                parts.close()
    except (CommitNotAllowedError, OutsideTransactionError, ZeroDivisionError) as error:
        told.append(type(error).__name__)
    for ended in held:
        use_after_the_end(ended)
    return told[-1]


def run(app, requests):
    """Make the requests from several threads. Return each answer, and what must be stored."""
    told, stored, errors = Counter(), [], []

    def work(number):
        for index in range(number, requests, THREADS):
            if errors:
                return
            kind = KINDS[index // THREADS % len(KINDS)]
            try:
                answer = visit_app(app, kind, f"body-{index}")
            except Exception as error:  # noqa: BLE001 - shown by the assertion on it
                errors.append((kind, repr(error)))
                return
            told[kind, answer] += 1
            if kind[0] in {"write", "subrequests"} and answer == "200":
                stored.append(f"body-{index}")

    threads = [threading.Thread(target=work, args=[n], daemon=True) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return told, sorted(stored), errors


@pytest.fixture
def served(database):
    engine = " ENGINE=InnoDB" if database.kind == "mysql" else ""
    database.run(
        f"CREATE TABLE note (body VARCHAR(50)){engine}",
        f"CREATE TABLE digit (d INTEGER PRIMARY KEY){engine}",
        "INSERT INTO digit VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)",
    )
    app = make_app(database)
    yield app
    get_sqa(app).dispose()


def soon(look, wanted):
    """Wait until look() returns *wanted*: a server needs time to see that a socket was closed."""
    deadline = time.monotonic() + 20
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


OPEN = (
    "SELECT count(*) FROM information_schema.innodb_trx t "
    "JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id "
    "WHERE p.db = DATABASE() AND p.id <> CONNECTION_ID()"
)
BUSY = (
    "SELECT count(*) FROM information_schema.processlist "
    "WHERE db = DATABASE() AND id <> CONNECTION_ID() AND command <> 'Sleep'"
)
IN_ALL = (
    "SELECT count(*) FROM information_schema.processlist "
    "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
)


def open_transactions(database):
    """Return what the database itself says is still open; (0, 0, 0) means nothing."""
    if database.kind == "sqlite":
        # Truncates the log when nobody reads or writes.
        return database.rows("PRAGMA wal_checkpoint(TRUNCATE)")[0]
    # In one statement: each one has a connection of its own, which the next one may see closing.
    [(still_open, busy, in_all)] = database.rows(f"SELECT ({OPEN}), ({BUSY}), ({IN_ALL})")
    return still_open, busy, max(in_all - 2, 0)


@pytest.mark.parametrize("requests", [200, pytest.param(1000, marks=pytest.mark.deep)])
def test_after_many_mixed_requests_nothing_is_left_behind(served, database, requests):
    """Four threads with a pool of two: successes, errors, streams, hang-ups and late uses."""
    pool = get_sqa(served).engine.pool
    gc.collect()
    # Nothing is left to the collector.
    gc.disable()
    try:
        told, stored, errors = run(served, requests)
        left = pool.checkedout()
    finally:
        gc.enable()

    assert errors == []
    assert left == 0
    assert soon(lambda: open_transactions(database), (0, 0, 0)) == (0, 0, 0)
    assert set(told) == {(kind, kind[-1]) for kind in KINDS}
    assert sum(told.values()) == requests
    assert [row[0] for row in database.rows("SELECT body FROM note ORDER BY body")] == stored
