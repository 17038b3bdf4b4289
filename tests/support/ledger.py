"""A counter, accounts, and sixteen visitors who count and transfer while servers fail.

Each request writes a row with a token of its own in the same transaction, so that afterwards each
answer can be compared with what is stored.
"""

import itertools
import random
import threading
import time
from collections import Counter

from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import OutcomeUnknownError
from support.apps import with_view

THREADS = 16
ACCOUNTS, AMOUNT = 10, 1000
# Seconds. A request that takes longer hangs: all limits and pauses of its attempts are shorter.
HANGS = 90
PASSWORD = "top-secret"
TABLES = (
    "CREATE TABLE counter (id INT PRIMARY KEY, n INT)",
    "CREATE TABLE account (id INT PRIMARY KEY, amount INT)",
    "CREATE TABLE entry (token VARCHAR(40) PRIMARY KEY)",
    "INSERT INTO counter VALUES (1, 0)",
    *(f"INSERT INTO account VALUES ({number}, {AMOUNT})" for number in range(ACCOUNTS)),
)
SETTINGS = {
    "retry.attempts": "5",
    "sqa.retry_pause": "0.1",
    "sqa.lock_timeout": "3",
    "sqa.statement_timeout": "4",
    "sqlalchemy.pool_size": str(THREADS),
    "sqlalchemy.connect_args.connect_timeout": "2",
}
COUNT = text("UPDATE counter SET n = n + 1 WHERE id = 1")
MOVE = text("UPDATE account SET amount = amount + :change WHERE id = :id")
ENTER = text("INSERT INTO entry (token) VALUES (:token)")


def count(request):
    request.sqa_session.execute(COUNT)
    request.sqa_session.execute(ENTER, {"token": request.params["token"]})
    return Response()


def transfer(request):
    for place, change in (("from", -1), ("to", 1)):
        values = {"id": int(request.params[place]), "change": change}
        request.sqa_session.execute(MOVE, values)
    request.sqa_session.execute(ENTER, {"token": request.params["token"]})
    return Response()


VIEWS = with_view(count, name="count"), with_view(transfer, name="transfer")


class Visitors:
    """Threads that visit *app* until the block ends; then :meth:`check` says if all is right."""

    def __init__(self, app, name="", threads=THREADS):
        self.app = app
        self.name = name
        self.told = {}
        self.steps = threading.Semaphore(0)
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=[number], daemon=True)
            for number in range(threads)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        deadline = time.monotonic() + HANGS
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "a request hangs"

    def wait_for(self, successes):
        """Wait until so many requests more have been answered with 200."""
        for _ in range(successes):
            assert self.steps.acquire(timeout=HANGS), "no request succeeds any more"

    def wait_for_new(self, successes=100):
        """The same, of requests that are answered from now on."""
        while self.steps.acquire(blocking=False):
            pass
        self.wait_for(successes)

    def check(self, rows):
        """Compare what was told with what *rows*, an independent connection, finds; return both.

        Each 200 is stored, once. What was answered with another status is not. Where the outcome is
        unknown, it is stored as a whole or not at all.
        """
        stored = Counter(token for (token,) in rows("SELECT token FROM entry"))
        tally = Counter((told, stored[token]) for token, told in self.told.items())
        assert stored.keys() <= self.told.keys()
        assert {both for both in tally if both[0] != "unknown"} <= {(200, 1), (503, 0), (500, 0)}
        counted = sum(token.startswith("count") for token in stored)
        assert rows("SELECT n FROM counter")[0][0] == counted
        assert rows("SELECT sum(amount) FROM account")[0][0] == ACCOUNTS * AMOUNT
        return tally

    def _visit(self, number):
        client, lot = TestApp(self.app), random.Random(number)
        for turn in itertools.count():
            if self._end.is_set():
                return
            kind = ("count", "transfer")[number % 2]
            token = f"{kind}-{self.name}-{number}-{turn}"
            ends = f"&from={lot.randrange(ACCOUNTS)}&to={lot.randrange(ACCOUNTS)}"
            self.told[token] = told = self._told(client, f"/{kind}?token={token}{ends}")
            if told == 200:
                self.steps.release()

    @staticmethod
    def _told(client, path):
        try:
            return client.get(path, expect_errors=True).status_int
        except OutcomeUnknownError:
            return "unknown"
        except Exception:  # noqa: BLE001 - a server answers 500 to any
            return 500
