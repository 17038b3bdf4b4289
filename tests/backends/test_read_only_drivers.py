"""With every driver a read-only request reads, refuses writes and leaves its connection clean."""

import os
import threading

import pytest
from pyramid.response import Response
from sqlalchemy import text
from sqlalchemy.engine import make_url
from webtest import TestApp

from pyramid_aalam_sqa import ReadOnlyRequestError, get_sqa
from support.drivers import DRIVERS, drivers

NUMBERS = text("SELECT id FROM note ORDER BY id")
OWN_NUMBER = {"mysql": "SELECT connection_id()", "postgresql": "SELECT pg_backend_pid()"}


def numbers(request):
    return Response(" ".join(str(each) for each in request.sqa_session.scalars(NUMBERS)))


def stream(request):
    with request.sqa_session.execute(NUMBERS, execution_options={"yield_per": 1}) as rows:
        return Response(str(next(rows)[0]))


def write(request):
    request.sqa_session.execute(text("INSERT INTO note VALUES (4)"))


def begin(request):
    request.sqa_session.execute(text("START TRANSACTION READ WRITE"))
    return Response()


def number(request):
    return Response(str(request.sqa_session.scalar(text(OWN_NUMBER[request.params["kind"]]))))


def site(config):
    for view in (numbers, stream, write, begin, number):
        for mode in (True, "snapshot"):
            name = f"{view.__name__}/{mode}"
            config.add_route(name, f"/{name}", sqa_read_only=mode)
            config.add_view(view, route_name=name)


@pytest.fixture
def app(request, serve):
    """An application on the driver of the test, with one connection."""
    database = request.getfixturevalue(DRIVERS[request.param][0])
    database.run("CREATE TABLE note (id INTEGER)", "INSERT INTO note VALUES (1), (2), (3)")
    url = make_url(database.url).set(drivername=request.param.split()[0])
    settings = {
        "sqlalchemy.pool_size": "1",
        "sqlalchemy.max_overflow": "0",
        "sqlalchemy.pool_timeout": "60",
    }
    return serve(url.render_as_string(hide_password=False), site, **settings)


@pytest.mark.parametrize("app", drivers(*list(DRIVERS)[:4]), indirect=True)
@pytest.mark.sweep(2)
def test_each_driver_reads_streams_and_refuses(app):
    """In every order, as the connection is the same one."""
    client = TestApp(app)
    for mode in (True, "snapshot", True):
        assert client.get(f"/numbers/{mode}").text == "1 2 3"
        assert client.get(f"/stream/{mode}").text == "1"
        with pytest.raises(ReadOnlyRequestError):
            client.get(f"/write/{mode}")
        client.get("/begin/True")
        with pytest.raises(ReadOnlyRequestError):
            client.get("/write/True")
        assert client.get(f"/numbers/{mode}").text == "1 2 3"


@pytest.mark.parametrize("app", drivers("mysql+pymysql", "postgresql+psycopg"), indirect=True)
@pytest.mark.sweep(1)
def test_a_forked_process_reads_on_connections_of_its_own(app):
    """The pool for reading is emptied in the child, as the other one is."""
    client = TestApp(app)
    kind = get_sqa(app).engine.dialect.name
    own = client.get("/number/True", {"kind": kind}).text
    read, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(to_parent, client.get("/number/True", {"kind": kind}).body)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(to_parent)

    assert os.read(read, 100).decode() not in {"", own}
    assert client.get("/number/True", {"kind": kind}).text == own
    os.close(read)


@pytest.mark.deep
@pytest.mark.parametrize("app", drivers("mysql+pymysql", "postgresql+psycopg"), indirect=True)
def test_many_threads_mix_reading_lifting_and_writing(app):
    """32 threads at once: no write is stored, and no request reads anything but the rows."""
    app_threads, wrong = [], []
    start = threading.Barrier(32)

    def visit(number):
        client = TestApp(app)
        start.wait()
        for turn in range(10):
            mode = (True, "snapshot")[turn % 2]
            if (number + turn) % 3 == 0:
                client.get("/begin/True")
            elif (number + turn) % 3 == 1:
                try:
                    client.get(f"/write/{mode}")
                    wrong.append("stored")
                except ReadOnlyRequestError:
                    pass
            elif client.get(f"/numbers/{mode}").text != "1 2 3":
                wrong.append("rows")

    for number in range(32):
        app_threads.append(threading.Thread(target=visit, args=(number,)))
        app_threads[-1].start()
    for thread in app_threads:
        thread.join()

    assert wrong == []
    assert TestApp(app).get("/numbers/True").text == "1 2 3"
