"""An application whose MySQL server is behind a proxy, somebody who visits it, and what she is told."""

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
from webtest import TestApp

from pyramid_aalam_sqa import OutcomeUnknown, get_sqa

PASSWORD = "the-secret-of-the-test"
SETTINGS = {
    "sqa.mysql.tls": "off",
    "sqa.retry_pause": "0",
    "sqlalchemy.pool_size": "1",
    "sqlalchemy.max_overflow": "0",
    "sqlalchemy.connect_args.read_timeout": "20",
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
    # The lines of the log that say that nobody knows, and name this request.
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

    def __init__(self, database, port=None, catch_all=False, settings=(), setup=None):
        self.database = database
        self.attempts = []
        self.errors = []
        url = make_url(database.url)
        url = url.set(port=port or url.port, username=url.database, password=PASSWORD)
        url = url.render_as_string(hide_password=False)
        with Configurator(settings={**SETTINGS, "sqlalchemy.url": url, **dict(settings)}) as config:
            config.include("pyramid_aalam_sqa")
            config.add_route("write", "/write/{body}")
            config.add_view(self.write, route_name="write")
            if catch_all:
                config.add_exception_view(self.page, context=Exception)
            if setup:
                setup(config)
        self.app = config.make_wsgi_app()
        self.engine = get_sqa(self.app).engine

    def write(self, request):
        body, step = request.matchdict["body"], request.environ["step"]
        self.attempts.append(body)
        request.sqa_session.scalar(SELECT, {"body": body})
        step("read", request)
        request.sqa_session.execute(INSERT, {"body": body})
        step("written", request)
        return Response("stored")

    def page(self, error, request):
        self.errors.append((request.matchdict["body"], error))
        return Response("Sorry", status=500)

    def visit(self, step=lambda name, request: None):
        """Make a request; *step* is called between its statements."""
        body = f"row-{next(_numbers)}."
        got = []
        with written_log() as log:
            thread = threading.Thread(target=self._get, args=(body, step, got), daemon=True)
            thread.start()
            thread.join(HANGS)
            assert got, "the request hangs"
            lines = log()
        status, error = got
        shown = [error for of, error in self.errors if of == body]
        found = self.database.scalar(f"SELECT count(*) FROM note WHERE body = '{body}'")
        unknown = [line for line in lines if "outcome is unknown" in line and body in line]
        assert PASSWORD not in "\n".join(lines)
        return Told(
            status,
            error or (shown[-1] if shown else None),
            self.attempts.count(body),
            found,
            len(unknown),
        )

    def _get(self, body, step, got):
        try:
            # Unchecked, for WSGI has strings alone in the environ.
            answer = TestApp(self.app, lint=False).get(
                f"/write/{body}", extra_environ={"step": step}, expect_errors=True
            )
        except Exception as error:
            # What a server makes of it.
            got[:] = 500, error
        else:
            got[:] = answer.status_int, None


@contextmanager
def written_log():
    """Yield a function that returns the lines of everything that is logged, at every level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lambda: stream.getvalue().splitlines()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@contextmanager
def account(database):
    """An account of the database's own name, with a password that must not be seen anywhere."""
    name = make_url(database.url).database
    database.run(
        "CREATE TABLE note (body VARCHAR(50))",
        f"CREATE USER '{name}'@'%' IDENTIFIED BY '{PASSWORD}'",
        f"GRANT ALL ON `{name}`.* TO '{name}'@'%'",
    )
    yield
    database.run(f"DROP USER '{name}'@'%'")
