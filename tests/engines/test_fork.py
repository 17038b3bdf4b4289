"""Processes that were forked share no connection: prefork servers load the application first.

Run as a script this module is such a server: it warms the pool, forks, and prints what happened.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys

import pytest
from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import engine_from_settings, get_sqa
from support.apps import make_app, with_view
from support.models import INSERT
from support.processes import HERE, QUIET, TRACED

CHILDREN = 4
# Python's own fork runs the functions of os.register_at_fork(); the one in C, as uWSGI's, does not.
FORKS = {"python": os.fork, "c": ctypes.PyDLL(None).fork}
REQUESTS = 20
IDENTITY = {"mysql": "CONNECTION_ID()", "postgresql": "pg_backend_pid()"}


def identity(request):
    name = IDENTITY[get_sqa(request).engine.dialect.name]
    statement = text(f"SELECT {name}, :token")
    return list(request.sqa_session.execute(statement, {"token": request.params["token"]}).one())


def write(request):
    request.sqa_session.execute(INSERT, {"body": request.params["body"]})
    return Response()


def count(request):
    return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM note"))))


def make(url, **settings):
    views = [
        with_view(identity, name="identity", renderer="json"),
        with_view(write, name="write"),
        with_view(count, name="count"),
    ]
    # A database in memory has one connection.
    size = {} if url == "sqlite://" else {"sqlalchemy.pool_size": "2"}
    return make_app(url, *views, **{**size, **settings})


def warm(app):
    """Fill the pool with two connections."""
    engine = get_sqa(app).engine
    with engine.connect(), engine.connect():
        pass


class Child:
    """A forked process that runs *work* and sends its result back."""

    def __init__(self, work):
        # Two pipes: what the parent says, and what the child says.
        (self.heard, self.told), (self.answer, self.said) = os.pipe(), os.pipe()
        self.pid = FORKS[sys.argv[3]]()
        if self.pid == 0:
            os.write(self.said, json.dumps(work(self)).encode())
            # In good order, as a worker ends: whatever is left is closed and collected.
            sys.exit()
        os.close(self.said)

    def say(self):
        """In the child: tell the parent that the child has reached this point."""
        os.write(self.said, b" ")

    def wait(self):
        """In the child: wait until the parent says so."""
        assert os.read(self.heard, 1)

    def listen(self):
        assert os.read(self.answer, 1)

    def go(self):
        os.write(self.told, b"!")

    def result(self):
        with os.fdopen(self.answer) as answer:
            found = answer.read()
        assert os.waitpid(self.pid, 0)[1] == 0
        return json.loads(found)


def visit(client, name):
    """Ask the server again and again who is asking. Return the wrong answers and connections."""
    wrong, connections = [], set()
    for number in range(REQUESTS):
        token = f"{name}-{number}"
        connection, echo = client.get(f"/identity?token={token}").json
        connections.add(connection)
        wrong += [] if echo == token else [(token, echo)]
    return wrong, sorted(connections)


def prefork_with_a_budget(url):
    return prefork(url, **{"sqa.max_connections": "8"})


def prefork(url, **settings):
    app = make(url, **settings)
    client = TestApp(app)
    warm(app)

    def work(child):
        child.wait()
        return visit(client, os.getpid())

    _, before = visit(client, "before")
    children = [Child(work) for _ in range(CHILDREN)]
    for child in children:
        child.go()
    found = [visit(client, "parent"), *(child.result() for child in children)]
    _, after = visit(client, "after")
    get_sqa(app).dispose()
    return {"before": before, "found": found, "after": after}


def one_file(url):
    """Let a child write all the time, while its parent closes the file that it had open before."""
    app = make(url)
    client = TestApp(app)
    client.get("/write?body=parent")

    def work(child):
        seen = [client.get("/count").text]
        child.say()
        child.wait()
        client.get("/write?body=child")
        child.say()
        child.wait()
        return seen

    # It might close in time what the child inherited, and hide the danger.
    gc.disable()
    child = Child(work)
    child.listen()
    get_sqa(app).dispose()
    child.go()
    child.listen()
    # While the child lives, which tidies up at its end.
    seen = client.get("/count").text
    child.go()
    return [*child.result(), seen]


def in_memory(url):
    app = make(url)
    client = TestApp(app)
    with get_sqa(app).engine.begin() as connection:
        connection.execute(text("CREATE TABLE note (body VARCHAR(50))"))
    client.get("/write?body=parent")

    def work(child):
        with get_sqa(app).engine.connect() as connection:
            return connection.execute(text("SELECT name FROM sqlite_master")).scalars().all()

    return [Child(work).result(), client.get("/count").text]


def run(function, url, fork="python"):
    """Run *function* in its own process, so that it forks that process and not the test's."""
    script = [sys.executable, *QUIET, __file__, function.__name__, url, fork]
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        script,
        env={**os.environ, **TRACED, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return json.loads(done.stdout)


@pytest.mark.parametrize("function", [prefork, prefork_with_a_budget])
@pytest.mark.parametrize("fork", FORKS)
@pytest.mark.parametrize("server", ["mariadb", "postgresql"])
@pytest.mark.sweep(1)
def test_parent_and_children_get_their_own_answers_on_their_own_connections(
    request, server, fork, function
):
    """The pool has connections before the fork, and all processes ask at the same time."""
    told = run(function, request.getfixturevalue(server).url, fork)
    wrong = [answer for answers, _ in told["found"] for answer in answers]
    parent, *children = [set(connections) for _, connections in told["found"]]

    assert wrong == []
    assert sum(map(len, children)) == len(set().union(*children))
    assert all(parent.isdisjoint(child) for child in children)
    # Nor did the end of the children end the parent's.
    assert parent <= set(told["before"])
    assert set(told["after"]) <= set(told["before"])


def test_what_a_child_writes_to_an_sqlite_file_outlasts_its_parents_connections(sqlite):
    """With the parent's open file, a child's rows would be lost when the parent closes it."""
    sqlite.run("CREATE TABLE note (body VARCHAR(50))")
    assert run(one_file, sqlite.url) == ["1", "2"]

    assert sqlite.rows("SELECT body FROM note") == [("parent",), ("child",)]


@pytest.mark.parametrize("fork", FORKS)
@pytest.mark.sweep(1)
def test_a_child_starts_with_an_empty_database_in_memory(fork):
    """It cannot share the parent's database. The parent keeps its rows."""
    assert run(in_memory, "sqlite://", fork) == [[], "1"]


def number_of(pool):
    """Return the server's number of a connection that *pool* lends."""
    connection = pool.connect()
    cursor = connection.cursor()
    cursor.execute("SELECT CONNECTION_ID()")
    [number] = cursor.fetchone()
    cursor.close()
    connection.close()
    return number


def pool_of_its_engine(url):
    engine = engine_from_settings({"sqlalchemy.url": url})
    pool = engine.pool
    number = number_of(pool)
    return number, Child(lambda child: [number_of(pool), number_of(pool)]).result()


def pool_without_engine(url):
    pool = engine_from_settings({"sqlalchemy.url": url}).pool
    gc.collect()
    number = number_of(pool)
    return number, Child(lambda child: [number_of(pool), number_of(pool)]).result()


@pytest.mark.parametrize("function", [pool_of_its_engine, pool_without_engine])
@pytest.mark.deep
def test_a_pool_that_was_kept_from_before_the_fork_lends_the_childs_own_connections(
    mariadb, function
):
    """The engine may have another pool by then, or be gone."""
    parents, childs = run(function, mariadb.url, "c")

    assert parents not in childs


if __name__ == "__main__":
    sys.stdout.write(json.dumps(globals()[sys.argv[1]](sys.argv[2])))
