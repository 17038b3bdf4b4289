"""Each statement of an engine is looked at once for each application that has asked for it."""

import inspect

from pyramid.response import Response
from sqlalchemy import create_engine, event, text
from webtest import TestApp

from support.apps import with_view


def test_many_applications_on_one_ready_engine_need_no_deeper_stack(serve, sqlite, tmp_path):
    """A test suite may make an application for each test, on one engine."""
    engine = create_engine(sqlite.url)

    @event.listens_for(engine, "connect")
    def add_function(connection, _):
        connection.create_function("depth", 0, lambda: len(inspect.stack(0)))

    def view(request):
        return Response(str(request.sqa_session.scalar(text("SELECT depth()"))))

    settings = {
        "sqlalchemy.engine": engine,
        "sqlalchemy.binds.audit.url": f"sqlite:///{tmp_path}/audit.sqlite",
    }
    depths = [TestApp(serve(None, with_view(view), **settings)).get("/").text for _ in range(5)]

    assert len(set(depths)) == 1
