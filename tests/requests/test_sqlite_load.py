"""SQLite with many writers, and SQLite files that cannot be written."""

import http.client
import threading
from contextlib import ExitStack
from urllib.parse import urlencode

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid_retry import BeforeRetry
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from webtest import TestApp

from pyramid_aalam_sqa import SettingError, get_sqa
from support.models import INSERT
from support.processes import pserve
from support.threads import together

THREADS = 8
REQUESTS = 25
BOUND = 30
IMPATIENT = {
    "sqa.lock_timeout": "0.05",
    # The pauses double, up to some seconds: one who never paused would find the lock held forever.
    "sqa.retry_pause": "0.002",
    "retry.attempts": "15",
    "sqlalchemy.pool_timeout": "60",
}
START = "CREATE TABLE counter (value INTEGER)", "INSERT INTO counter VALUES (0)"


def increment(request):
    """Read, add one, write. Without a real transaction, some increments would be lost."""
    session = request.sqa_session
    session.execute(INSERT, {"body": request.params["body"]})
    value = session.scalar(text("SELECT value FROM counter"))
    session.execute(text("UPDATE counter SET value = :next"), {"next": value + 1})
    return Response(status=int(request.params["status"]))


def read_first(request):
    """Read first and write later, so that another request's write makes this one fail."""
    value = request.sqa_session.scalar(text("SELECT value FROM counter"))
    meet = request.registry.settings.get("meet")
    if meet and request.environ["retry.attempt"] == 0 and request.params.get("meet"):
        meet()
    request.sqa_session.execute(INSERT, {"body": request.params["body"]})
    request.sqa_session.execute(text("UPDATE counter SET value = :next"), {"next": value + 1})
    return Response(status=int(request.params["status"]))


def read(request):
    return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM note"))))


def write(request):
    request.sqa_session.execute(INSERT, {"body": request.params["body"]})
    return Response()


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        for view in (increment, read_first, read, write):
            config.add_view(view, name=view.__name__)
        config.add_exception_view(
            lambda error, request: Response(status=500), context=OperationalError
        )
    return config.make_wsgi_app()


@pytest.fixture
def make():
    """Make an application, and close its connections at the end."""
    apps = []

    def make(url, **settings):
        apps.append(main({}, **{"sqlalchemy.url": url, **settings}))
        return apps[-1]

    yield make
    for app in apps:
        assert get_sqa(app).engine.pool.checkedout() == 0
        get_sqa(app).dispose()


@pytest.fixture
def counter(sqlite):
    sqlite.run("CREATE TABLE note (body VARCHAR(50))", *START)
    return sqlite


def paths(index):
    """Return the requests of thread *index*: two ways to count, and answers that roll back."""
    for number in range(REQUESTS):
        name = ("increment", "read_first")[number % 2]
        status = (200, 200, 303, 404, 500)[number % 5]
        query = {"body": f"{index}-{number}", "status": status, "meet": "1" if number == 1 else ""}
        yield f"/{name}?{urlencode(query)}", query["body"], status


def assert_stored(counter, told):
    """Check that each answer below 400 is stored once, and that no other answer is stored."""
    promised = sorted(body for body, status in told.items() if status < 400)
    assert len(told) > len(promised) > 0
    assert [row[0] for row in counter.rows("SELECT body FROM note ORDER BY body")] == promised
    assert counter.scalar("SELECT value FROM counter") == len(promised)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_eight_threads_store_exactly_what_they_were_told(make, counter, caplog, mode):
    """There are conflicts, but each is tried again, so no client sees one."""
    barrier = threading.Barrier(THREADS)
    # In the other mode who reads keeps the others from their COMMIT: not all could meet.
    meet = {"meet": lambda: barrier.wait(BOUND)} if mode == "wal" else {}
    app = make(counter.url, **IMPATIENT, **meet, **{"sqa.sqlite.journal_mode": mode})
    told = {}

    def visit(index):
        client = TestApp(app, lint=False)
        for path, body, status in paths(index):
            told[body] = client.get(path, status=status).status_int

    together(THREADS, visit)

    assert_stored(counter, told)
    retries = [line for line in caplog.messages if "the next in" in line]
    assert len(retries) >= (THREADS - 1 if mode == "wal" else 1)
    assert counter.scalar("PRAGMA journal_mode") == mode


def test_a_conflict_that_is_never_resolved_stores_nothing_and_is_an_error(make, counter):
    """If all attempts fail, the client gets an error."""
    barrier = threading.Barrier(THREADS)
    settings = {**IMPATIENT, "retry.attempts": "1", "meet": lambda: barrier.wait(BOUND)}
    app = make(counter.url, **settings)
    told = {}

    def visit(index):
        path = f"/read_first?body={index}&status=200&meet=1"
        told[str(index)] = TestApp(app).get(path, status="*").status_int

    together(THREADS, visit)

    assert sorted(told.values()) == [200] + [500] * (THREADS - 1)
    assert_stored(counter, told)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.sweep(1)
def test_threads_of_real_processes_store_exactly_what_they_were_told(counter, tmp_path, processes):
    """One pserve with eight threads, and two pserves on one file."""
    settings = "\n".join(f"{key} = {value}" for key, value in IMPATIENT.items())
    told, wrong = {}, []
    with ExitStack() as stack:
        ports, logs = [], []
        for number in range(processes):
            folder = tmp_path / str(number)
            folder.mkdir()
            served = pserve(folder, counter.url, app="test_sqlite_load", settings=settings)
            port, log = stack.enter_context(served)
            ports.append(port)
            logs.append(log)

        def visit(index):
            port = ports[index % processes]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            for path, body, status in paths(index):
                connection.request("GET", path)
                response = connection.getresponse()
                response.read()
                told[body] = response.status
                wrong.extend([] if response.status == status else [(path, response.status)])
            connection.close()

        together(THREADS, visit)

    assert wrong == []
    assert_stored(counter, told)
    assert all("the next in" in log.read_text() for log in logs)


def test_a_reader_is_served_while_another_request_writes(make, counter):
    """In WAL mode, the reader sees what is committed and does not wait."""
    app = make(counter.url)
    with get_sqa(app).engine.begin() as writer:
        writer.execute(INSERT, {"body": "not yet"})
        assert TestApp(app).get("/read").text == "0"

    assert TestApp(app).get("/read").text == "1"


def test_a_locked_file_is_tried_again_and_written_when_the_lock_is_gone(make, counter, caplog):
    """The lock is held longer than sqa.lock_timeout, and released between two attempts."""
    app = make(counter.url, **{**IMPATIENT, "retry.attempts": "2"})
    holder = get_sqa(app).engine.connect()
    holder.execute(INSERT, {"body": "holder"})
    with Configurator(registry=app.registry, autocommit=True) as config:
        config.add_subscriber(lambda event: holder.close(), BeforeRetry)
    TestApp(app).get("/write?body=row")

    assert counter.rows("SELECT body FROM note") == [("row",)]
    [line] = caplog.messages
    assert line.startswith("GET /write: attempt 1 of 2 failed")


def test_a_file_that_stays_locked_is_an_error_of_the_application(make, counter):
    """The file is in use, but not unavailable.

    The application's page answers, nothing is stored.
    """
    app = make(counter.url, **{**IMPATIENT, "retry.attempts": "2"})
    with get_sqa(app).engine.connect() as holder:
        holder.execute(INSERT, {"body": "holder"})
        TestApp(app).get("/write?body=row", status=500)

    assert counter.rows("SELECT body FROM note") == []


def test_memory_is_one_database_for_sixteen_threads(make):
    """Each thread waits until the only connection is free."""
    app = make("sqlite://", **IMPATIENT)
    with get_sqa(app).engine.begin() as connection:
        for statement in ("CREATE TABLE note (body VARCHAR(50))", *START):
            connection.execute(text(statement))
    promised = []

    def visit(index):
        client = TestApp(app, lint=False)
        for path, body, status in paths(index):
            if client.get(path, status=status).status_int < 400:
                promised.append(body)

    together(16, visit)

    with get_sqa(app).engine.connect() as connection:
        rows = connection.execute(text("SELECT body FROM note")).scalars()
        assert sorted(rows) == sorted(promised)
        assert connection.scalar(text("SELECT value FROM counter")) == len(promised)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_file_that_is_read_only_can_be_read_and_a_write_answers_503(
    make, counter, tmp_path, caplog, mode
):
    """Nothing is stored in part or tried again, and the log says why."""
    counter.run(f"PRAGMA journal_mode = {mode}", "INSERT INTO note VALUES ('kept')")
    app = make(f"sqlite:///file:{tmp_path}/test.sqlite?mode=ro&uri=true")
    client = TestApp(app)

    assert client.get("/read").text == "1"
    response = client.get("/write?body=never", status=503)
    assert response.headers["Retry-After"] == "5"
    assert client.get("/increment?body=never&status=200", status=503)
    assert caplog.messages == [
        "GET /write: no database: attempt to write a readonly database",
        "GET /increment: no database: attempt to write a readonly database",
    ]
    assert counter.rows("SELECT body FROM note") == [("kept",)]


def test_a_file_that_cannot_be_opened_answers_503_until_it_can(make, tmp_path, caplog):
    """Here a folder has the file's name. When it is removed, requests succeed."""
    path = tmp_path / "app.sqlite"
    path.mkdir()
    client = TestApp(make(f"sqlite:///{path}"))
    response = client.get("/read", status=503)
    assert str(tmp_path) not in response.text
    assert caplog.messages == ["GET /read: no database: unable to open database file"]
    path.rmdir()
    with get_sqa(client.app).engine.begin() as connection:
        connection.execute(text("CREATE TABLE note (body VARCHAR(50))"))

    assert client.get("/read").text == "0"


@pytest.mark.parametrize("below", ["app.sqlite", "deeper/app.sqlite"])
def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_setting(make, tmp_path, below):
    """A file has the folder's name. The application starts, and recovers when it is removed."""
    taken = tmp_path / "data"
    taken.write_text("")
    client = TestApp(make(f"sqlite:///{taken}/{below}"))
    with pytest.raises(SettingError, match=r"^sqlalchemy\.url: the folder .*data.* cannot be made"):
        client.get("/read")
    taken.unlink()
    with get_sqa(client.app).engine.begin() as connection:
        connection.execute(text("CREATE TABLE note (body VARCHAR(50))"))

    assert client.get("/read").text == "0"
