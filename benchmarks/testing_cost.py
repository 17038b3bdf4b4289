"""What the isolation of one test costs, beside a plain fixture with a connection and a savepoint.

    python benchmarks/testing_cost.py [URL ...]

Each URL is an empty database; without one it is an SQLite file. The two ways take turns in this one
process: an empty test, and one with a request that writes. Each figure is the fastest tenth of the
rounds, because other work on the machine only adds to the rest.
"""

import statistics
import sys
import tempfile
import time
from contextlib import contextmanager

from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import text
from sqlalchemy.orm import Session
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from pyramid_aalam_sqa.testing import isolated

ROUNDS = 200
TABLE = "sqa_benchmark_note"


def write(request):
    """Write a row."""
    request.sqa_session.execute(text(f"INSERT INTO {TABLE} VALUES ('new')"))  # noqa: S608 - ours
    return Response("ok")


def application(url):
    """Return an application on *url* with its table."""
    with Configurator(settings={"sqlalchemy.url": url}) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(write)
    app = config.make_wsgi_app()
    with get_sqa(app).engine.begin() as connection:
        connection.execute(text(f"DROP TABLE IF EXISTS {TABLE}"))
        connection.execute(text(f"CREATE TABLE {TABLE} (body VARCHAR(20))"))
    return app


@contextmanager
def plain(app):
    """Share one session with all requests, as many projects do."""
    with get_sqa(app).engine.connect() as connection:
        transaction = connection.begin()
        session = Session(connection, join_transaction_mode="create_savepoint")
        yield {"sqa.session": session}
        session.close()
        transaction.rollback()


@contextmanager
def sandbox(app):
    """Isolate as this package does."""
    with isolated(app):
        yield {}


@contextmanager
def commits(app):
    """Let COMMITs be real, and put the table back."""
    with isolated(app, commits=True):
        yield {}


WAYS = (plain, sandbox, commits)


def milliseconds(way, app, *, request):
    """Return how long one test takes."""
    began = time.perf_counter()
    with way(app) as environ:
        if request:
            TestApp(app, extra_environ=environ).get("/")
    return (time.perf_counter() - began) * 1000


def main():
    """Print a table for each URL."""
    with tempfile.TemporaryDirectory() as folder:
        for url in sys.argv[1:] or [f"sqlite:///{folder}/test.sqlite"]:
            app = application(url)
            print(get_sqa(app).engine.dialect.name)
            for request in (False, True):
                found = {way.__name__: [] for way in WAYS}
                for _ in range(ROUNDS):
                    for way in WAYS:
                        found[way.__name__].append(milliseconds(way, app, request=request))
                shown = "  ".join(
                    f"{name} {statistics.quantiles(times, n=10)[0]:.2f} ms"
                    for name, times in found.items()
                )
                print(f"  {'a request' if request else 'empty':<10} {shown}")
            with get_sqa(app).engine.begin() as connection:
                connection.execute(text(f"DROP TABLE {TABLE}"))
            get_sqa(app).dispose()


if __name__ == "__main__":
    main()
