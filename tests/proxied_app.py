"""An application whose database has accidents, somebody who visits it, and what she is told."""

import io
import itertools
import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass

from proxy import Proxy
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import text
from sqlalchemy.engine import make_url
from webtest import TestApp

from pyramid_aalam_sqa import OutcomeUnknown, get_sqa

PASSWORD = "the-secret-of-the-test"
SETTINGS = {
    "sqa.retry_pause": "0",
    "sqlalchemy.pool_size": "1",
    "sqlalchemy.max_overflow": "0",
}
# Far more than all timeouts of a request together.
HANGS = 60
SELECT = text("SELECT count(*) FROM note WHERE body = :body")
INSERT = text("INSERT INTO note (body) VALUES (:body)")

_numbers = itertools.count(1)


@dataclass
class Told:
    """What came of a request: what the client was told, and what is true."""

    status: int
    error: BaseException | None
    attempts: int
    rows: int
    # The lines of the log that say of this request that nobody knows.
    lines: int

    @property
    def unknown(self):
        return isinstance(self.error, OutcomeUnknown)

    @property
    def is_true(self):
        """Whether the answer agrees with what an independent connection has found."""
        if self.unknown:
            return self.status >= 500 and self.attempts == self.lines == 1 and self.rows < 2
        return self.lines == 0 and self.rows == (self.status < 400)


class Visitor:
    """Makes requests, each of which reads, and writes one row that no other writes."""

    def __init__(self, database, url, log, *, catch_all=False, setup=None, settings=()):
        self.database = database
        self.log = log
        self.attempts = []
        self.pages = {}
        given = {**SETTINGS, "sqlalchemy.url": url, **dict(settings)}
        with Configurator(settings=given) as config:
            config.include("pyramid_aalam_sqa")
            config.add_route("write", "/write/{body}")
            config.add_view(self._write, route_name="write")
            if catch_all:
                config.add_exception_view(self._page, context=Exception)
            if setup:
                setup(config)
        self.app = config.make_wsgi_app()
        self.engine = get_sqa(self.app).engine

    def visit(self, step=lambda name, request: None):
        """Make a request; *step* is called after each of its statements."""
        body = f"row-{next(_numbers)}."
        got = []
        thread = threading.Thread(target=self._get, args=(body, step, got), daemon=True)
        thread.start()
        thread.join(HANGS)
        assert got, "the request hangs"
        assert self.engine.pool.checkedout() == 0
        status, error = got
        lines = self.log.getvalue().splitlines()
        return Told(
            status,
            error or self.pages.get(body),
            self.attempts.count(body),
            self.database.scalar(f"SELECT count(*) FROM note WHERE body = '{body}'"),
            sum("outcome is unknown" in line and f"/write/{body}" in line for line in lines),
        )

    def _get(self, body, step, got):
        try:
            # Unchecked, for WSGI has strings alone in the environ.
            answer = TestApp(self.app, lint=False).get(
                f"/write/{body}", extra_environ={"step": step}, expect_errors=True
            )
        except Exception as error:  # noqa: BLE001 - of any a server makes a 500
            got[:] = 500, error
        else:
            got[:] = answer.status_int, None

    def _write(self, request):
        body, step = request.matchdict["body"], request.environ["step"]
        self.attempts.append(body)
        request.sqa_session.scalar(SELECT, {"body": body})
        step("read", request)
        request.sqa_session.execute(INSERT, {"body": body})
        step("written", request)
        return Response("stored")

    def _page(self, error, request):
        self.pages[request.matchdict["body"]] = error
        return Response("Sorry", status=500)


@contextmanager
def visitors(database, url):
    """Yield what makes a Visitor, and see to it that nothing they log holds the password."""
    made = []
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)

    def make(url=url, **options):
        made.append(Visitor(database, url, log, **options))
        return made[-1]

    try:
        yield make
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        for visitor in made:
            visitor.engine.dispose()
    assert PASSWORD not in log.getvalue()


@contextmanager
def behind_a_proxy(database):
    """Yield a proxy to *database* and the URL of an account that has a password."""
    url = make_url(database.url)
    name = url.database
    database.run(
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
