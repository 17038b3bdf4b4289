"""Real replicas: nobody misses what he has written, and no fault of a replica is noticed."""

import http.client
import threading
import time
from contextlib import ExitStack

import pytest
from webtest import TestApp

from pyramid_aalam_sqa import ReadOnlyRequestError, get_sqa
from support.apps import application
from support.databases import MISSING
from support.processes import pserve
from support.replica_app import site
from support.replicas import PAIRS
from support.servers import find

pytestmark = pytest.mark.deep

SECRET = "a secret of the tests of replicas"
PROGRAMS = {"mariadb": "mariadbd", "postgresql": "initdb"}
# Seconds; the bound is one second.
HANGS = 30
SETTINGS = {
    "sqa.reader.secret": SECRET,
    "sqa.reader.pause": "0.3",
    "sqa.retry_pause": "0.01",
    "sqa.mysql.tls": "off",
}


@pytest.fixture(scope="module", params=PAIRS)
def pair(request):
    """A primary and its replica."""
    if find(PROGRAMS[request.param]) is None:
        pytest.skip(MISSING[PROGRAMS[request.param]])
    made = PAIRS[request.param]()
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def settings(pair):
    return {**SETTINGS, "sqa.reader.url": pair.replica.url}


@pytest.fixture
def make(pair, settings):
    """Return a function that makes a client of an application of its own."""
    with ExitStack() as ends:

        def make(**more):
            return TestApp(
                ends.enter_context(application(pair.primary.url, site, **{**settings, **more}))
            )

        yield make


class Visitor:
    """A visitor of two processes: one writes, the other one reads."""

    def __init__(self, writer, reader):
        self._writer, self._reader = (
            http.client.HTTPConnection("localhost", port) for port in (writer, reader)
        )
        self._cookie = ""
        self.ports = []

    def close(self):
        self._writer.close()
        self._reader.close()

    def write(self, number):
        self._writer.request("POST", f"/write?number={number}", headers={"Cookie": self._cookie})
        response = self._writer.getresponse()
        assert response.read() == b"stored"
        self._cookie = response.headers["Set-Cookie"].partition(";")[0]

    def read(self):
        self._reader.request("GET", "/read", headers={"Cookie": self._cookie})
        response = self._reader.getresponse()
        body = response.read().decode()
        assert response.status == 200, body
        number, port = body.split()
        self.ports.append(int(port))
        return int(number)

    def stale(self, tries, begin):
        """Return how often a number that was written is not read."""
        wrong = 0
        for number in range(begin, begin + tries):
            self.write(number)
            wrong += self.read() != number
        return wrong


@pytest.fixture
def visitor(pair, settings, tmp_path):
    lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
    with ExitStack() as ends:
        ports = []
        for name in ("writer", "reader"):
            folder = tmp_path / name
            folder.mkdir()
            port, _ = ends.enter_context(
                pserve(folder, pair.primary.url, app="support.replica_app", settings=lines)
            )
            ports.append(port)
        visitor = Visitor(*ports)
        ends.callback(visitor.close)
        yield visitor


def test_what_was_written_is_read_by_another_process(pair, visitor):
    """In 1,000 tries in all: idle, while others write, and with a replica that is late."""
    assert visitor.stale(400, 1) == 0
    # The replica serves, as it has caught up.
    assert visitor.ports.count(pair.ports[1]) > 200

    stop = threading.Event()

    def load():
        while not stop.is_set():
            pair.primary.run(f"UPDATE mark SET id = id + {int(time.monotonic())}")

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert visitor.stale(400, 1000) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    pair.delay(1)
    try:
        visitor.ports.clear()
        assert visitor.stale(200, 2000) == 0
        assert pair.ports[0] in visitor.ports
    finally:
        pair.delay(0)
    pair.catch_up()


def test_with_replication_stopped_the_primary_answers_and_the_replica_comes_back(pair, make):
    """Nobody reads old rows from it, also those who have written nothing."""
    client, stranger = make(), make()
    client.post("/write", {"number": "1"})
    pair.catch_up()
    assert stranger.get("/read").text == f"1 {pair.ports[1]}"
    pair.stop()
    try:
        client.post("/write", {"number": "2"})
        assert client.get("/read").text == f"2 {pair.ports[0]}"
        # It is known to be behind until it has caught up.
        time.sleep(0.4)
        other = TestApp(client.app)
        assert other.get("/read").text == f"2 {pair.ports[0]}"
    finally:
        pair.go_on()
    pair.catch_up()
    time.sleep(0.4)
    assert client.get("/read").text == f"2 {pair.ports[1]}"


def test_a_replica_that_is_killed_fails_no_request_and_serves_again(pair, make):
    """Each answer is right, before, in between and afterwards."""
    client = make()
    client.post("/write", {"number": "7"})
    pair.catch_up()
    before = [client.get("/read").text for _ in range(5)]
    pair.kill()
    try:
        between = [client.get("/read").text for _ in range(50)]
    finally:
        pair.start_again()
    pair.catch_up()
    time.sleep(0.4)
    after = [client.get("/read").text for _ in range(5)]

    assert set(before) == set(after) == {f"7 {pair.ports[1]}"}
    assert set(between) == {f"7 {pair.ports[0]}"}


def test_a_frozen_replica_delays_a_request_by_the_bound_alone(pair, make):
    """The next ones do not wait for it."""
    client = make(**{"sqa.reader.pause": "30", "sqa.statement_timeout": "0"})
    client.post("/write", {"number": "8"})
    pair.catch_up()
    client.get("/read")
    pair.freeze()
    try:
        client.post("/write", {"number": "9"})
        answers = []
        thread = threading.Thread(
            target=lambda: answers.extend(client.get("/read").text for _ in range(20)), daemon=True
        )
        thread.start()
        thread.join(HANGS)
    finally:
        pair.thaw()
    assert len(answers) == 20, "a request hangs"
    pair.catch_up()

    assert set(answers) == {f"9 {pair.ports[0]}"}


def test_many_threads_mix_reading_and_writing(pair, make):
    """Each of 32 visitors reads what he has written; what may not be written is refused."""
    client = make(**{"sqlalchemy.pool_timeout": "60"})
    wrong, start = [], threading.Barrier(32)
    pair.primary.run("DELETE FROM note WHERE id > 1")

    def visit(number):
        own = TestApp(client.app)
        start.wait()
        for turn in range(10):
            try:
                if number % 4 == 0:
                    own.post("/write", {"number": str(turn)})
                kind = ("/read", "/snapshot")[turn % 2]
                own.get(kind)
                if turn % 3 == 0:
                    own.post("/refused", {"number": "-1"})
                    wrong.append("stored")
            except ReadOnlyRequestError:
                pass
            except Exception as error:  # noqa: BLE001 - each one is told
                wrong.append(repr(error))

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert pair.primary.scalar("SELECT body FROM note WHERE id = 1") >= 0
    with pytest.raises(ReadOnlyRequestError):
        client.post("/refused", {"number": "-1"})
    assert {
        engine.pool.checkedout() for engine in get_sqa(client.app).reading.by_name().values()
    } == {0}
