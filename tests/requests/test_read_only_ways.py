"""A read-only request refuses each way to write, and leaves its connection clean."""

import pytest
from pyramid.response import Response
from sqlalchemy import select
from webtest import TestApp

from pyramid_aalam_sqa import ReadOnlyRequestError, get_sqa
from support.models import Note
from support.ways import BEFORE, CASES, WAYS, prepare


@pytest.fixture
def target(request):
    """The database that a case names."""
    return prepare(request.getfixturevalue(request.param))


def bodies(request):
    notes = request.sqa_session.scalars(select(Note).order_by(Note.id)).all()
    return Response(",".join(note.body for note in notes))


def use_session(request):
    """Return a root, after the session was used, as the root factory of a blog does."""
    request.sqa_session.scalars(select(Note)).all()
    return {}


def site(write):
    """Return a setup: a read-only route that writes, and one whose view is read-only."""

    def setup(config):
        config.add_route("fresh", "/fresh", sqa_read_only=True)
        config.add_route("used", "/used", factory=use_session)
        config.add_route("read", "/read", sqa_read_only=True)
        config.add_view(write, route_name="fresh")
        config.add_view(write, route_name="used", sqa_read_only=True)
        config.add_view(bodies, route_name="read")

    return setup


@pytest.mark.parametrize("place", ["fresh", "used"])
@pytest.mark.parametrize(("name", "target"), CASES, indirect=["target"], ids=map("-".join, CASES))
@pytest.mark.sweep(8)
def test_each_way_to_write_is_refused_and_stores_nothing(serve, name, target, place):
    """One clear error names the route or the view; the next request reads as ever."""
    write, _, _ = WAYS[name]
    attempts = []

    def view(request):
        attempts.append(name)
        write(request.sqa_session)
        return Response()

    app = serve(target.url, site(view), **{"sqa.retry_pause": "0"})
    client = TestApp(app)
    with pytest.raises(ReadOnlyRequestError) as caught:
        client.get(f"/{place}")

    assert {"fresh": "GET /fresh (route fresh) is", "used": "view test_read"}[place] in str(
        caught.value
    )
    # A value, as the ways write it.
    assert "'" not in str(caught.value)
    assert attempts == [name]
    assert set(target.rows("SELECT id, body FROM note")) == BEFORE
    assert client.get("/read").text == "before"
    assert get_sqa(app).engine.pool.checkedout() == 0
    with pytest.raises(ReadOnlyRequestError):
        client.get(f"/{place}")
