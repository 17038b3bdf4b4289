"""Read-only requests read from the host that takes writes, and follow it."""

import pytest
from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from support.hosts import NAME, SECRET, Pair
from support.models import INSERT


@pytest.fixture
def pair(mariadb_server, second_mariadb_server):
    made = Pair(mariadb_server, second_mariadb_server)
    yield made
    made.remove()


def site(config):
    def read(request):
        bodies = request.sqa_session.scalars(text("SELECT body FROM note ORDER BY body"))
        return Response(" ".join(bodies))

    def write(request):
        request.sqa_session.execute(INSERT, {"body": request.params["body"]})
        return Response()

    config.add_route("read", "/read", sqa_read_only=True)
    config.add_view(read, route_name="read")
    config.add_view(write, name="write")


@pytest.mark.sweep(1)
@pytest.mark.parametrize("reads_first", [False, True])
def test_after_a_switchover_what_was_written_is_read(serve, pair, reads_first):
    """The old writer still answers, but it does not get what is written now."""
    settings = {"sqa.hosts": " ".join(pair.hosts), "sqa.retry_pause": "0", "sqa.mysql.tls": "off"}
    app = serve(f"mysql+pymysql://{NAME}:{SECRET}@/{NAME}", site, **settings)
    client = TestApp(app)
    if reads_first:
        assert client.get("/read").text == ""
    else:
        client.post("/write", {"body": "before"})
        assert client.get("/read").text == "before"
    pair.writer(pair.second)

    client.post("/write", {"body": "after"})

    assert client.get("/read").text == client.get("/read").text == "after"
    pools = [get_sqa(app).engine.pool, get_sqa(app).reading.by_name()["default.reader"].pool]
    assert [pool.checkedout() for pool in pools] == [0, 0]
