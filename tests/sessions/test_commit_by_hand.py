"""A commit by hand is refused, and what is left of its connection too."""

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import CommitNotAllowedError, get_sqa
from support.models import INSERT


def test_a_connection_that_was_killed_before_a_commit_by_hand_is_thrown_away(mariadb):
    """The refusal stays the error that is told, and the next request has another connection."""
    mariadb.run("CREATE TABLE note (body VARCHAR(50))")

    def by_hand(request):
        request.sqa_session.execute(INSERT, {"body": "by hand"})
        number = request.sqa_session.scalar(text("SELECT CONNECTION_ID()"))
        mariadb.run(f"KILL {number}")
        request.sqa_session.connection().commit()

    def write(request):
        request.sqa_session.execute(INSERT, {"body": "next"})
        return Response()

    with Configurator(settings={"sqlalchemy.url": mariadb.url}) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(by_hand, name="by_hand")
        config.add_view(write, name="write")
    app = config.make_wsgi_app()
    client = TestApp(app)
    with pytest.raises(CommitNotAllowedError):
        client.get("/by_hand")
    client.get("/write")

    assert mariadb.rows("SELECT body FROM note") == [("next",)]
    assert get_sqa(app).engine.pool.checkedout() == 0
    get_sqa(app).dispose()
