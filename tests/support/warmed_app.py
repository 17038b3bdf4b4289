"""An application that uses its database while it is loaded, for servers of every kind.

Such a server imports ``application``. The environment says where the database is.
"""

import os
import sys

from pyramid.response import Response
from sqlalchemy import text

from pyramid_aalam_sqa import get_sqa
from support.apps import make_app
from support.models import INSERT

IDENTITY = {"mysql": "CONNECTION_ID()", "postgresql": "pg_backend_pid()", "sqlite": "0"}


def post(request):
    """Store the token, and answer with the process, the connection, and what the database sees."""
    token = request.params["token"]
    session = request.sqa_session
    session.execute(INSERT, {"body": token})
    if "gevent" in sys.modules:
        # Other greenlets run now, in the middle of this transaction.
        sys.modules["gevent"].sleep(0.01)
    name = IDENTITY[session.get_bind().dialect.name]
    connection, echo = session.execute(text(f"SELECT {name}, :token"), {"token": token}).one()
    return {"process": os.getpid(), "connection": connection, "echo": echo}


def ready(request):
    """Answer without the database, for whoever waits until the server is up."""
    return Response()


def make(url, **settings):
    """Make the application and fill its pool with two connections."""

    def add_views(config):
        config.add_view(post, name="post", renderer="json")
        config.add_view(ready)

    given = {"sqlalchemy.pool_size": "2", "sqlalchemy.max_overflow": "30", **settings}
    app = make_app(url, add_views, **given)
    with get_sqa(app).engine.connect() as one, get_sqa(app).engine.connect() as two:
        one.scalar(text("SELECT 1"))
        two.scalar(text("SELECT 1"))
    return app


if "SQA_TEST_WARMED_URL" in os.environ:
    application = make(os.environ["SQA_TEST_WARMED_URL"])
