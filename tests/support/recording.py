"""An application that records what its view sends."""

from pyramid.response import Response
from webtest import TestApp

RECORD = {"sqa.record": "true", "sqa.retry_pause": "0"}


class Recording:
    """An application that records; ``do(act)`` has its view call *act* and returns what it sent."""

    def __init__(self, app):
        self.app = app
        self.client = TestApp(app, lint=False)
        self.response = None

    def do(self, act, status=200, raises=()):
        """Return the recording of one request, which may end in one of the errors of *raises*."""
        got = []
        environ = {"test.act": act, "test.status": status, "test.got": got}
        try:
            self.response = self.client.get("/", extra_environ=environ, expect_errors=True)
        except raises as error:
            self.response = error
        return got[-1]


def view(request):
    """Do what the test asks for."""
    environ = request.environ
    environ.get("test.got", []).append(getattr(request, "sqa_statements", None))
    result = environ["test.act"](request)
    return result or Response("done", status=environ["test.status"])
