"""An application behind a proxy that makes accidents, its visitor, and what the visitor is told."""

import io
import itertools
import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass

from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import QueuePool
from webtest import TestApp

from pyramid_aalam_sqa import OutcomeUnknownError, get_sqa
from support.databases import plain_engine
from support.models import INSERT
from support.proxy import Proxy

PASSWORD = "the-secret-of-the-test"
SETTINGS = {
    "sqa.retry_pause": "0",
    "sqlalchemy.pool_size": "1",
    "sqlalchemy.max_overflow": "0",
}
# More seconds than all timeouts of a request together: a request that takes longer hangs.
HANGS = 60
SELECT = text("SELECT count(*) FROM note WHERE body = :body")

_numbers = itertools.count(1)


def no_step(name, request):
    """Do nothing at that step of the view."""


@dataclass
class Told:
    """What the client of a request was told, and what an independent connection finds."""

    status: int
    error: BaseException | None
    attempts: int
    rows: int
    # How many lines of the log say that the outcome of this request is unknown.
    lines: int

    @property
    def unknown(self):
        return isinstance(self.error, OutcomeUnknownError)

    @property
    def is_true(self):
        """Whether the answer agrees with what an independent connection has found."""
        if self.unknown:
            return self.status >= 500 and self.attempts == self.lines == 1 and self.rows < 2
        return self.lines == 0 and self.rows == (self.status < 400)


class Visitor:
    """Makes requests, each of which reads, and writes one row that no other writes."""

    def __init__(self, find, log, url, pages=(), settings=()):
        self.find = find
        self.log = log
        self.attempts = []
        self.shown = {}
        given = {**SETTINGS, "sqlalchemy.url": url, **dict(settings)}
        with Configurator(settings=given) as config:
            config.include("pyramid_aalam_sqa")
            config.add_route("write", "/write/{body}")
            config.add_view(self._write, route_name="write")
            for kind in pages:
                config.add_exception_view(self._page, context=kind)
        self.app = config.make_wsgi_app()
        self.engine = get_sqa(self.app).engine

    def visit(self, step=no_step):
        """Make a request; *step* is called at its beginning and after each statement."""
        body = f"row-{next(_numbers)}."
        got = []
        thread = threading.Thread(target=self._visit, args=(body, step, got), daemon=True)
        thread.start()
        thread.join(HANGS)
        assert got, "the request hangs"
        assert self.engine.pool.checkedout() == 0
        status, error = got
        lines = self.log.getvalue().splitlines()
        return Told(
            status,
            error or self.shown.get(body),
            self.attempts.count(body),
            self.find(SELECT, {"body": body}),
            sum("outcome is unknown" in line and f"/write/{body}" in line for line in lines),
        )

    def get(self, body, step=no_step):
        # lint=False, because WSGI allows only strings in the environ.
        app = TestApp(self.app, lint=False)
        return app.get(f"/write/{body}", extra_environ={"step": step}, expect_errors=True)

    def warm_up(self):
        """Put a connection into the pool."""
        self.engine.connect().close()

    def _visit(self, body, step, got):
        try:
            got[:] = self.get(body, step).status_int, None
        except Exception as error:  # noqa: BLE001 - a server answers 500 to any
            got[:] = 500, error

    def _write(self, request):
        body, step = request.matchdict["body"], request.environ["step"]
        self.attempts.append(body)
        step("begun", request)
        request.sqa_session.scalar(SELECT, {"body": body})
        step("read", request)
        request.sqa_session.execute(INSERT, {"body": body})
        step("written", request)
        return Response("stored")

    def _page(self, error, request):
        self.shown[request.matchdict["body"]] = error
        return Response("Sorry", status=500)


@contextmanager
def visitors(database, url):
    """Yield a function that makes a Visitor. At the end, check that the log has no password."""
    made = []
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    # With a log of transactions, a request has those of the package transaction itself.
    logging.getLogger("txn").setLevel(logging.INFO)

    def make(url=url, **options):
        made.append(Visitor(find, log, url, **options))
        return made[-1]

    # One engine for all look-ups, because PyMySQL takes long to connect.
    independent = plain_engine(database.url, poolclass=QueuePool, isolation_level="AUTOCOMMIT")

    def find(statement, values):
        with independent.connect() as connection:
            return connection.scalar(statement, values)

    try:
        yield make
    finally:
        independent.dispose()
        root.removeHandler(handler)
        root.setLevel(level)
        logging.getLogger("txn").setLevel(logging.NOTSET)
        for visitor in made:
            visitor.engine.dispose()
    assert PASSWORD not in log.getvalue()


@contextmanager
def behind_a_proxy(database):
    """Yield a proxy to *database* and the URL there of an account that has a password."""
    url = make_url(database.url)
    name = url.database
    database.run(
        "CREATE TABLE note (body VARCHAR(50))",
        f"CREATE USER '{name}'@'%' IDENTIFIED BY '{PASSWORD}'",
        f"GRANT ALL ON `{name}`.* TO '{name}'@'%'",
    )
    proxy = Proxy(url.host, url.port)
    proxied = url.set(username=name, password=PASSWORD, host="127.0.0.1", port=proxy.port)
    try:
        yield proxy, proxied.render_as_string(hide_password=False)
    finally:
        proxy.close()
        database.run(f"DROP USER '{name}'@'%'")
