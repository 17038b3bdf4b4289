"""Wherever the connection to the server is lost, the client is told the truth, and soon.

A proxy has the accidents. An independent connection says what is true.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest
from pyramid.response import Response
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from webtest import TestApp

from support.apps import with_view
from support.models import INSERT
from support.proxied_app import visitors
from support.proxy import GREETING, LOGIN, Proxy, Then

# The proxy must be able to read, and only a test of silence may run into a timeout.
SETTINGS = {"sqa.mysql.tls": "off", "sqlalchemy.connect_args.read_timeout": "30"}
ACCIDENTS = {
    "cut before the question": {"then": Then.CUT, "asked": 0},
    "cut in the question": {"then": Then.CUT, "asked": 3},
    "cut before the answer": {"then": Then.CUT},
    "cut in the answer": {"then": Then.CUT, "answered": 5},
    "torn before the question": {"then": Then.RESET, "asked": 0},
    "torn before the answer": {"then": Then.RESET},
}
either_page = pytest.mark.parametrize("pages", [(), (Exception,)], ids=["", "catch-all"])
every_accident = pytest.mark.parametrize("accident", ACCIDENTS.values(), ids=ACCIDENTS)


@pytest.fixture
def pages():
    """The errors that the application has an exception view for."""
    return ()


@pytest.fixture(params=["shortcuts", pytest.param("plain", marks=pytest.mark.deep)])
def mode(request):
    """Without the round trips that are known to be needless, or with all of SQLAlchemy's."""
    return request.param


@pytest.fixture
def settings(mode):
    return {**SETTINGS, "sqa.shortcuts": str(mode == "shortcuts")}


@pytest.fixture
def make(proxied, pages, settings):
    """Make an application behind the proxy."""
    database, _, url = proxied
    with visitors(database, url) as make:
        yield partial(make, pages=pages, settings=settings)


@pytest.fixture
def visitor(make, proxy):
    """A client of an application that connects through the proxy."""
    visitor = make()
    visitor.warm_up()
    proxy.forget()
    return visitor


def expected(said):
    """Return what a client is told if the connection is lost once, at each exchange."""
    commit = len(said) - 1 - said[::-1].index("COMMIT")
    return ["200"] * commit + ["unknown"] + ["200"] * (len(said) - commit - 1)


def answer_of(told):
    assert told.is_true, told
    return "unknown" if told.unknown else str(told.status)


@every_accident
@pytest.mark.sweep(3)
def test_a_first_request_is_told_the_truth_wherever_its_connection_is_lost(
    make, proxy, accident, mode
):
    """The request is tried again if COMMIT was not sent yet, and never after that."""
    make().visit()
    said = proxy.forget()
    told = []
    for number in range(len(said)):
        visitor = make()
        proxy.forget()
        happens = proxy.have(number, **accident)
        told.append(answer_of(visitor.visit()))
        visitor.engine.dispose()
        assert happens.happened == 1

    assert said[:2] == [GREETING, LOGIN]
    assert said[-1] == {"plain": "ROLLBACK", "shortcuts": "COMMIT"}[mode]
    # A connection that is torn down while it is made may be an unreachable server, never asked.
    assert told[0] in {"200", "503"}
    assert told[1:] == expected(said)[1:]


@every_accident
@either_page
def test_a_later_request_is_told_the_truth_wherever_its_connection_is_lost(
    visitor, proxy, accident, mode
):
    """A connection from the pool is tested first and replaced, or its request is tried again."""
    visitor.visit()
    said = proxy.forget()
    told = []
    for number in range(len(said)):
        visitor.warm_up()
        proxy.forget()
        happens = proxy.have(number, **accident)
        told.append(answer_of(visitor.visit()))
        assert happens.happened == 1

    work = ["SELECT", "INSERT", "COMMIT"]
    asked = {"plain": ["PING", *work, "ROLLBACK"], "shortcuts": work}
    assert [line.split()[0] for line in said] == asked[mode]
    assert told == expected(said)


@pytest.mark.parametrize("at", ["INSERT", "COMMIT"])
@pytest.mark.sweep(1)
def test_a_request_is_told_the_truth_whatever_byte_of_the_question_is_the_last(visitor, proxy, at):
    """The connection is lost after each byte of the packet that the client sends."""
    visitor.visit()
    [question] = [line for line in proxy.forget() if line.startswith(at)]
    told = set()
    for asked in range(4 + 1 + len(question)):
        visitor.warm_up()
        proxy.forget()
        happens = proxy.have(at, Then.CUT, asked=asked)
        answer = visitor.visit()
        told.add((answer_of(answer), answer.attempts, answer.rows))
        assert happens.happened == 1
        assert at == "INSERT" or proxy.said.count("COMMIT") == 1

    # The server has not heard the whole of it.
    assert told == {("200", 2, 1) if at == "INSERT" else ("unknown", 1, 0)}


@pytest.mark.parametrize("at", ["INSERT", "COMMIT"])
@either_page
@pytest.mark.sweep(2)
def test_a_request_is_told_the_truth_whatever_byte_of_the_answer_is_the_last(visitor, proxy, at):
    """The connection is lost after each byte of the packet that the server sends."""
    told = []
    happened = 1
    while happened:
        visitor.warm_up()
        proxy.forget()
        happens = proxy.have(at, Then.CUT, answered=len(told))
        answer = visitor.visit()
        told.append((answer_of(answer), answer.attempts, answer.rows))
        happened = happens.happened
        assert at == "INSERT" or proxy.said.count("COMMIT") == 1
    *cut, whole, beyond = told

    assert len(cut) >= 4 + 7
    assert set(cut) == {("200", 2, 1) if at == "INSERT" else ("unknown", 1, 1)}
    # All of the answer: what comes of it depends on when the next question is written.
    assert at == "INSERT" or whole == ("200", 1, 1)
    assert beyond == ("200", 1, 1)


@either_page
@pytest.mark.sweep(1)
def test_a_silent_server_is_waited_for_once_and_the_client_is_told_the_truth(
    make, proxied, settings, mode
):
    """A read timeout is never tried again: before COMMIT it is a 503, after it unknown."""
    first = [GREETING, LOGIN, "SET autocommit"]
    places = [*first, "PING", "SELECT", "INSERT", "COMMIT"]
    places += ["ROLLBACK"] if mode == "plain" else []
    database, _, url = proxied
    server = make_url(database.url)

    def visit(place):
        at, asked = place
        proxy = Proxy(server.host, server.port)
        try:
            # Long enough for an answer of a busy machine.
            short = {**settings, "sqlalchemy.connect_args.read_timeout": "2"}
            if at == "PING":
                short["sqa.ping_after"] = "0"
            visitor = make(make_url(url).set(port=proxy.port), settings=short)
            visitor.warm_up()
            if at in first:
                visitor.engine.dispose()
            happens = proxy.have(at, Then.SILENCE, asked=asked)
            told = visitor.visit()
            visitor.engine.dispose()
            assert happens.happened == 1
            return answer_of(told), told.attempts
        finally:
            proxy.close()

    each = [(at, asked) for at in places for asked in (0, None)]
    with ThreadPoolExecutor(len(each)) as pool:
        told = dict(zip(each, pool.map(visit, each), strict=True))

    ends = {"PING": ("200", 1), "COMMIT": ("unknown", 1), "ROLLBACK": ("200", 1)}
    waited = {at: ends.get(at, ("503", 1)) for at in places}
    assert told == {(at, asked): waited[at] for at, asked in each}


def test_a_server_that_is_slow_but_in_time_is_waited_for(make, proxy, settings):
    """A request that takes longer succeeds."""
    visitor = make(settings={**settings, "sqa.ping_after": "0"})
    visitor.warm_up()
    delays = [proxy.have(at, Then.DELAY, seconds=0.05) for at in ("PING", "INSERT", "COMMIT")]

    told = visitor.visit()

    assert (told.status, told.attempts, told.rows) == (200, 1, 1)
    assert [delay.happened for delay in delays] == [1, 1, 1]


@pytest.mark.parametrize("at", [GREETING, LOGIN, "SET autocommit", "SELECT", "INSERT"])
@either_page
def test_a_connection_that_is_always_lost_is_a_503_after_all_attempts(make, proxy, at):
    """The 503 asks the client to come back. Nothing is stored."""
    proxy.have(at, Then.CUT, times=100)

    told = make().visit()

    assert (told.status, told.attempts, told.rows) == (503, 3, 0)
    assert told.is_true


@pytest.mark.parametrize(
    ("refusal", "status", "attempts"),
    [
        ((GREETING, 1040, "Too many connections"), 503, 1),
        ((LOGIN, 1203, "User has already more than 'max_user_connections'"), 503, 1),
        ((LOGIN, 1045, "Access denied"), 503, 1),
        (("SELECT", 1927, "Connection was killed"), 200, 2),
        (("INSERT", 1053, "Server shutdown in progress"), 200, 2),
        (("INSERT", 1047, "WSREP has not yet prepared node for application use"), 200, 2),
        (("INSERT", 1213, "Deadlock found when trying to get lock"), 200, 2),
        (("INSERT", 1205, "Lock wait timeout exceeded"), 200, 2),
        (("INSERT", 1290, "The server is running with the --read-only option"), 200, 2),
        (("INSERT", 1290, "The server is running with the --secure-file-priv option"), 500, 1),
        (("INSERT", 1364, "Field 'body' doesn't have a default value"), 500, 1),
    ],
)
@either_page
@pytest.mark.sweep(11)
def test_an_error_in_the_place_of_the_answer_is_told_truly(make, proxy, refusal, status, attempts):
    """Passing errors are tried again, a full server is a 503, and the rest are errors."""
    happens = proxy.refuse(*refusal)

    told = make().visit()

    assert happens.happened == 1
    assert (told.status, told.attempts) == (status, attempts)
    assert told.is_true


@pytest.fixture(params=["mariadb", "postgresql"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def number_of(server):
    """Return the server's number of a request's connection."""
    own = {"mysql": "connection_id()", "postgresql": "pg_backend_pid()"}[server.kind]
    return lambda request: request.sqa_session.scalar(text(f"SELECT {own}"))


@pytest.fixture
def kill(server):
    """Kill the connection with this number, and return when the server has closed it."""
    end = {"mysql": "KILL CONNECTION {}", "postgresql": "SELECT pg_terminate_backend({})"}
    thread = "SELECT count(*) FROM information_schema.processlist WHERE id = {}"
    lives = {
        "mysql": lambda number: server.scalar(thread.format(number)),
        "postgresql": process_lives,
    }

    def kill(number):
        server.run(end[server.kind].format(number))
        while lives[server.kind](number):
            pass

    return kill


def process_lives(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@pytest.fixture
def near(server, pages, mode):
    """Make an application without a proxy between it and the server."""
    server.run("CREATE TABLE note (body VARCHAR(50))")
    with visitors(server, server.url) as make:
        settings = {"sqa.shortcuts": str(mode == "shortcuts")}
        yield partial(make, pages=pages, settings=settings)


@pytest.mark.parametrize("caught", [False, True], ids=["unseen", "caught by the view"])
def test_the_last_attempt_is_a_503_if_its_connection_is_killed(
    serve, server, number_of, kill, caught
):
    """Nothing is stored, and the client is told to come again, whatever the view does then."""
    server.run("CREATE TABLE note (body VARCHAR(50))")

    def view(request):
        request.sqa_session.execute(INSERT, {"body": "lost"})
        kill(number_of(request))
        if caught:
            with suppress(DBAPIError):
                request.sqa_session.scalar(text("SELECT 1"))
        return Response()

    client = TestApp(serve(server.url, with_view(view), **{"retry.attempts": "1"}))

    assert client.get("/", status=503).headers["Retry-After"]
    assert server.rows("SELECT body FROM note") == []


@pytest.mark.parametrize("place", ["read", "written"])
@either_page
@pytest.mark.sweep(5)
def test_a_request_whose_connection_is_killed_is_tried_again(near, number_of, kill, place):
    """It is killed between two statements, or before COMMIT, which the server cannot receive."""
    killed = []

    def step(name, request):
        if name == place and not killed:
            killed.append(number_of(request))
            kill(killed[0])

    told = near().visit(step)

    assert (told.status, told.attempts, told.rows) == (200, 2, 1)
    assert told.is_true


def test_a_connection_that_is_killed_while_idle_is_replaced(near, number_of, kill):
    """The pool tests the connection before the next request gets it."""
    visitor = near()
    numbers = []
    visitor.visit(lambda name, request: numbers.append(number_of(request)))
    kill(numbers[-1])

    told = visitor.visit(lambda name, request: numbers.append(number_of(request)))

    assert (told.status, told.attempts, told.rows) == (200, 1, 1)
    assert len(set(numbers)) == 2
