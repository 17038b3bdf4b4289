"""Every way to write is stored with status 200 and rolled back with status 500."""

import pytest
from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from support.apps import with_view
from support.ways import BEFORE, CASES, WAYS, prepare


@pytest.fixture
def target(request):
    """The database that a case names."""
    return prepare(request.getfixturevalue(request.param))


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(("name", "target"), CASES, indirect=["target"], ids=map("-".join, CASES))
@pytest.mark.sweep(60)
def test_a_write_is_stored_when_the_status_says_so_and_only_then(serve, name, target, status):
    """A status of 200 to 399 stores the write of every style; any other undoes it."""
    write, after, _ = WAYS[name]

    def view(request):
        write(request.sqa_session)
        return Response(status=status)

    TestApp(serve(target.url, with_view(view))).get("/", status=status)

    stored = set(target.rows("SELECT id, body FROM note"))
    assert stored == (after if status < 400 else BEFORE)


@pytest.mark.parametrize("status", [200, 500])
def test_a_table_made_on_sqlite_is_rolled_back_like_a_row(serve, sqlite, status):
    """The driver would commit DDL at once. The explicit BEGIN prevents that."""

    def view(request):
        request.sqa_session.execute(text("CREATE TABLE made (id INTEGER)"))
        return Response(status=status)

    TestApp(serve(sqlite.url, with_view(view))).get("/", status=status)

    made = sqlite.scalar("SELECT count(*) FROM sqlite_master WHERE name = 'made'")
    assert made == (status == 200)
