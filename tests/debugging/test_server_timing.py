"""The header Server-Timing, which the developer tools of a browser show."""

import re

import pytest
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from support.apps import with_view
from support.models import INSERT, Base

FORM = re.compile(
    r'db;dur=([0-9.]+);desc="(\d+) statements?", pool;dur=([0-9.]+), commit;dur=([0-9.]+)'
)


def view(request):
    for _ in range(int(request.params.get("n", 1))):
        request.sqa_session.execute(INSERT, {"body": "a"})
    return Response("ok", headers={"Server-Timing": "app;dur=1"})


def test_it_has_the_milliseconds_of_the_database(any_database, serve):
    """Statements, the wait for a connection and the COMMIT; the application's own stay."""
    app = serve(any_database.url, with_view(view), **{"sqa.server_timing": "true"})
    Base.metadata.create_all(get_sqa(app).engine)
    response = TestApp(app).get("/?n=3")

    own, ours = response.headers.getall("Server-Timing")
    assert own == "app;dur=1"
    db, number, pool, commit = FORM.fullmatch(ours).groups()
    assert number == "3"
    assert float(db) > 0
    assert float(pool) >= 0
    assert float(commit) >= 0
    assert 'desc="1 statement"' in TestApp(app).get("/").headers.getall("Server-Timing")[1]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_every_answer_has_it(status, sqlite, serve):
    """A redirect and an error page too; one that asks no database has zeros."""

    def other(request):
        if status == 302:
            raise HTTPFound("/")
        return Response("page", status=status)

    app = serve(sqlite.url, with_view(other), **{"sqa.server_timing": "true"})
    response = TestApp(app).get("/", status=status)

    zeros = 'db;dur=0.0;desc="0 statements", pool;dur=0.0, commit;dur=0.0'
    assert response.headers["Server-Timing"] == zeros


def test_statements_are_counted_and_not_kept(sqlite, serve):
    """Whoever wants them sets sqa.record too."""

    def other(request):
        request.sqa_session.execute(text("SELECT 1"))
        return Response(str(hasattr(request, "sqa_statements")))

    app = serve(sqlite.url, with_view(other), **{"sqa.server_timing": "true"})

    assert TestApp(app).get("/").text == "False"


def test_off_the_header_is_absent(sqlite, serve):
    """It is the default: the header tells strangers how busy the database is."""
    app = serve(sqlite.url, with_view(lambda request: Response("ok")))

    assert "Server-Timing" not in TestApp(app).get("/").headers
