"""If the database ends a stream early, the client can see that."""

import http.client

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import column, select, text

from support.processes import pserve

ROWS = 4000
# Fast at first, so that a part of the body is sent before the limit is reached.
SLOW = {
    "mysql": "SELECT REPEAT('x', 200) AS body, IF(seq > 2000, SLEEP(0.01), 0) AS wait "
    "FROM seq_1_to_4000",
    "postgresql": "SELECT repeat('x', 200) AS body, "
    "pg_sleep(CASE WHEN seq > 2000 THEN 0.05 ELSE 0 END) AS wait "
    "FROM generate_series(1, 4000) AS seq",
}


def stream(request):
    """Stream the rows of a statement that takes longer than the time limit."""
    statement = text(SLOW[request.registry.settings["kind"]])
    rows = request.sqa_stream(
        select(statement.columns(column("body"), column("wait")).subquery()), size=100
    )
    return Response(app_iter=(f"{row.body}\n".encode() for row in rows), content_type="text/plain")


def main(_global, **settings):
    with Configurator(settings=settings) as config:
        config.add_view(stream)
    return config.make_wsgi_app()


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
@pytest.mark.deep
def test_a_client_sees_that_a_stream_was_cut_by_a_time_limit(request, tmp_path, kind):
    """The server closes the connection without the last chunk, so the client sees the error."""
    database = request.getfixturevalue(kind)
    settings = f"sqa.statement_timeout = 1\nkind = {database.kind}"
    app = "test_streams_that_are_cut"
    with pserve(tmp_path, database.url, app=app, settings=settings) as (port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/")
        response = connection.getresponse()
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
        connection.close()

    assert response.status == 200
    assert 0 < len(caught.value.partial.splitlines()) < ROWS
