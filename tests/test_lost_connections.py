"""Wherever the connection to the server is lost, the client is told the truth, and soon.

A proxy has the accidents. An independent connection says what is true.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
from proxied_app import behind_a_proxy, visitors
from proxy import GREETING, LOGIN, Proxy, Then
from sqlalchemy import text
from sqlalchemy.engine import make_url

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
either_page = pytest.mark.parametrize("catch_all", [False, True], ids=["", "catch-all"])
every_accident = pytest.mark.parametrize("accident", ACCIDENTS.values(), ids=ACCIDENTS)


@pytest.fixture
def proxied(mariadb):
    mariadb.run("CREATE TABLE note (body VARCHAR(50))")
    with behind_a_proxy(mariadb) as (proxy, url):
        yield proxy, url


@pytest.fixture
def proxy(proxied):
    return proxied[0]


@pytest.fixture
def make(mariadb, proxied):
    """Make an application behind the proxy."""
    with visitors(mariadb, proxied[1]) as make:
        yield lambda settings=(), **options: make(settings={**SETTINGS, **dict(settings)}, **options)


def expected(said):
    """What a request is told when the connection is lost once, at each of its exchanges."""
    commit = len(said) - 1 - said[::-1].index("COMMIT")
    return ["200"] * commit + ["unknown"] + ["200"] * (len(said) - commit - 1)


def answer_of(told):
    assert told.is_true, told
    return "unknown" if told.unknown else str(told.status)


@every_accident
@either_page
def test_a_first_request_is_told_the_truth_wherever_its_connection_is_lost(
    make, proxy, accident, catch_all
):
    """From the greeting on: tried again until COMMIT was sent, and never after that."""
    make().visit()
    said = proxy.said
    told = []
    for number in range(len(said)):
        visitor = make(catch_all=catch_all)
        proxy.forget()
        happens = proxy.have(number, **accident)
        told.append(answer_of(visitor.visit()))
        visitor.engine.dispose()
        assert happens.happened == 1

    assert said[:2] == [GREETING, LOGIN]
    assert said[-2:] == ["COMMIT", "ROLLBACK"]
    assert told == expected(said)


@every_accident
@either_page
def test_a_later_request_is_told_the_truth_wherever_its_connection_is_lost(
    make, proxy, accident, catch_all
):
    """A connection from the pool is tested first, and replaced."""
    visitor = make(catch_all=catch_all)
    visitor.visit()
    proxy.forget()
    visitor.visit()
    said = proxy.said
    told = []
    for number in range(len(said)):
        visitor.visit()
        proxy.forget()
        happens = proxy.have(number, **accident)
        told.append(answer_of(visitor.visit()))
        assert happens.happened == 1

    assert [line.split()[0] for line in said] == ["PING", "SELECT", "INSERT", "COMMIT", "ROLLBACK"]
    assert told == expected(said)


@pytest.mark.parametrize("at", ["INSERT", "COMMIT"])
def test_a_request_is_told_the_truth_whatever_byte_of_the_question_is_the_last(make, proxy, at):
    """Of the packet that the client sends, one byte more gets through each time."""
    visitor = make()
    visitor.visit()
    proxy.forget()
    visitor.visit()
    [question] = [line for line in proxy.said if line.startswith(at)]
    told = set()
    for asked in range(4 + 1 + len(question)):
        visitor.visit()
        proxy.forget()
        happens = proxy.have(at, Then.CUT, asked=asked)
        answer = visitor.visit()
        told.add((answer_of(answer), answer.attempts, answer.rows))
        assert happens.happened == 1

    # The server has not heard the whole of it.
    assert told == {("200", 2, 1) if at == "INSERT" else ("unknown", 1, 0)}


@pytest.mark.parametrize("at", ["INSERT", "COMMIT"])
@either_page
def test_a_request_is_told_the_truth_whatever_byte_of_the_answer_is_the_last(
    make, proxy, at, catch_all
):
    """Of the packet that the server sends, one byte more gets through each time."""
    visitor = make(catch_all=catch_all)
    told = []
    happened = 1
    while happened:
        visitor.visit()
        proxy.forget()
        happens = proxy.have(at, Then.CUT, answered=len(told))
        answer = visitor.visit()
        told.append((answer_of(answer), answer.attempts, answer.rows))
        happened = happens.happened
    *cut, whole, beyond = told

    assert len(cut) >= 4 + 7
    assert set(cut) == {("200", 2, 1) if at == "INSERT" else ("unknown", 1, 1)}
    # All of the answer: what comes of it depends on when the next question is written.
    assert at == "INSERT" or whole == ("200", 1, 1)
    assert beyond == ("200", 1, 1)


@either_page
def test_a_silent_server_is_waited_for_once_and_the_client_is_told_the_truth(
    mariadb, make, proxied, catch_all
):
    """A read timeout is never tried again: 503 before COMMIT, unknown from then on."""
    first = [GREETING, LOGIN, "SET sql_mode"]
    places = [*first, "PING", "SELECT", "INSERT", "COMMIT", "ROLLBACK"]
    server, url = make_url(mariadb.url), make_url(proxied[1])

    def visit(place):
        at, asked = place
        proxy = Proxy(server.host, server.port)
        try:
            own_url = url.set(port=proxy.port).render_as_string(hide_password=False)
            short = {"sqlalchemy.connect_args.read_timeout": "1"}
            visitor = make(short, url=own_url, catch_all=catch_all)
            visitor.visit()
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

    waited = dict.fromkeys(places, ("503", 1))
    waited |= {"PING": ("200", 1), "COMMIT": ("unknown", 1), "ROLLBACK": ("200", 1)}
    assert told == {(at, asked): waited[at] for at, asked in each}


def test_a_server_that_is_slow_but_in_time_is_waited_for(make, proxy):
    """Nothing happens to a request that takes longer."""
    visitor = make()
    visitor.visit()
    delays = [proxy.have(at, Then.DELAY, seconds=0.05) for at in ("PING", "INSERT", "COMMIT")]

    told = visitor.visit()

    assert (told.status, told.attempts, told.rows) == (200, 1, 1)
    assert [delay.happened for delay in delays] == [1, 1, 1]


@pytest.mark.parametrize("at", [GREETING, LOGIN, "SET sql_mode", "SELECT", "INSERT"])
@either_page
def test_a_connection_that_is_always_lost_is_a_503_after_all_attempts(make, proxy, at, catch_all):
    """The client is asked to come back, and nothing is stored."""
    visitor = make(catch_all=catch_all)
    proxy.have(at, Then.CUT, times=100)

    told = visitor.visit()

    assert (told.status, told.attempts, told.rows) == (503, 3, 0)
    assert told.is_true


@pytest.mark.parametrize(
    ("at", "code", "message", "status", "attempts"),
    [
        (GREETING, 1040, "Too many connections", 503, 1),
        (LOGIN, 1203, "User has already more than 'max_user_connections'", 503, 1),
        (LOGIN, 1045, "Access denied", 500, 1),
        ("SELECT", 1927, "Connection was killed", 200, 2),
        ("INSERT", 1053, "Server shutdown in progress", 200, 2),
        ("INSERT", 1047, "WSREP has not yet prepared node for application use", 200, 2),
        ("INSERT", 1213, "Deadlock found when trying to get lock", 200, 2),
        ("INSERT", 1205, "Lock wait timeout exceeded", 200, 2),
        ("INSERT", 1290, "The server is running with the --read-only option", 200, 2),
        ("INSERT", 1290, "The server is running with the --secure-file-priv option", 500, 1),
        ("INSERT", 1364, "Field 'body' doesn't have a default value", 500, 1),
    ],
)
@either_page
def test_an_error_in_the_place_of_the_answer_is_told_truly(
    make, proxy, at, code, message, status, attempts, catch_all
):
    """What may go away is tried again; what has no room is a 503; the rest is an error."""
    visitor = make(catch_all=catch_all)
    refusal = proxy.refuse(at, code, message)

    told = visitor.visit()

    assert refusal.happened == 1
    assert (told.status, told.attempts) == (status, attempts)
    assert told.is_true


@pytest.fixture(params=["mariadb", "postgresql"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def number_of(server):
    """Ask the server for the number of a request's connection."""
    own = {"mysql": "connection_id()", "postgresql": "pg_backend_pid()"}[server.kind]
    return lambda request: request.sqa_session.scalar(text(f"SELECT {own}"))


@pytest.fixture
def kill(server):
    """Kill a connection by its number, and return when the server has closed it."""
    end, living = {
        "mysql": ("KILL CONNECTION {}", "information_schema.processlist WHERE id = {}"),
        "postgresql": ("SELECT pg_terminate_backend({})", "pg_stat_activity WHERE pid = {}"),
    }[server.kind]

    def kill(number):
        server.run(end.format(number))
        while server.scalar(f"SELECT count(*) FROM {living}".format(number)):
            pass

    return kill


@pytest.fixture
def near(server):
    """Make an application without a proxy, which would be one more that closes."""
    server.run("CREATE TABLE note (body VARCHAR(50))")
    with visitors(server, server.url) as make:
        yield make


@pytest.mark.parametrize("place", ["read", "written"])
@either_page
def test_a_request_whose_connection_is_killed_is_tried_again(
    near, number_of, kill, place, catch_all
):
    """Between two statements, and before COMMIT: that one the server cannot have heard."""
    visitor = near(catch_all=catch_all)
    killed = []

    def step(name, request):
        if name == place and not killed:
            killed.append(number_of(request))
            kill(killed[0])

    told = visitor.visit(step)

    assert (told.status, told.attempts, told.rows) == (200, 2, 1)
    assert told.is_true


def test_a_connection_that_is_killed_while_idle_is_replaced(near, number_of, kill):
    """The pool tests it before the next request has it."""
    visitor = near()
    numbers = []
    visitor.visit(lambda name, request: numbers.append(number_of(request)))
    kill(numbers[-1])

    told = visitor.visit(lambda name, request: numbers.append(number_of(request)))

    assert (told.status, told.attempts, told.rows) == (200, 1, 1)
    assert len(set(numbers)) == 2
