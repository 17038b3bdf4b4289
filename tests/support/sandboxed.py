"""An application of a few views for the tests of the sandbox, seen from outside too."""

from contextlib import contextmanager, nullcontext

import pytest
from pyramid.response import Response
from sqlalchemy import text

from pyramid_aalam_sqa import session_scope
from pyramid_aalam_sqa.testing import SandboxError, client_of, isolated


def write(request):
    """Write a note, and answer with a status."""
    request.sqa_session.execute(
        text("INSERT INTO note (body) VALUES (:body)"), {"body": request.params["body"]}
    )
    return Response(status=int(request.params.get("status", "200")))


def raw(request):
    """Send what the test wants, after a write if it wants that."""
    if "body" in request.params:
        write_note(request.sqa_session, request.params["body"])
    request.sqa_session.execute(text(request.params["sql"]))
    return Response("ok")


def outer(request):
    """Write, let a job write in the middle, and answer with a status."""
    if "first" in request.params:
        write_note(request.sqa_session, "outer")
    with session_scope(request) as session:
        write_note(session, "inner")
    return Response(status=int(request.params.get("status", "200")))


def write_note(session, body):
    session.execute(text("INSERT INTO note (body) VALUES (:body)"), {"body": body})


def read(session):
    return list(session.scalars(text("SELECT body FROM note ORDER BY body")))


def views(config):
    for view in (write, raw, outer):
        config.add_view(view, name=view.__name__)


NOTE = "CREATE TABLE note (body VARCHAR(50))"


class Site:
    """An application on one database, seen from outside too."""

    def __init__(self, database, app):
        self.database, self.app = database, app

    @property
    def stored(self):
        """What others see."""
        return [row[0] for row in self.database.rows("SELECT body FROM note ORDER BY body")]

    @contextmanager
    def isolated(self, fails=None, **options):
        """Isolate the application; *fails* is what the error at the end of the block says."""
        expected = pytest.raises(SandboxError, match=fails) if fails else nullcontext()
        with expected, isolated(self.app, **options) as sandbox:
            sandbox.client = client_of(sandbox)
            yield sandbox
