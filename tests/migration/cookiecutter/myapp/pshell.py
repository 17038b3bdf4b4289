"""What the interactive shell offers; what it did not commit is rolled back when it ends."""

from . import models


def setup(env):
    """Begin a transaction, and abort the one that is there in the end."""
    request = env["request"]
    request.tm.begin()
    env.update(tm=request.tm, dbsession=request.dbsession, models=models)
    try:
        yield
    finally:
        request.tm.abort()
