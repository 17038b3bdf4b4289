"""A browser for a test, a server in a thread, and a request without a server."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pyramid.request import Request, apply_request_extensions
from pyramid.testing import DummyRequest
from pyramid.threadlocal import RequestContext
from transaction import TransactionManager
from transaction.interfaces import NoTransaction

from ..interfaces import HasRegistry
from .sandbox import Sandbox


def client_of(sandbox: Sandbox, **options: Any) -> Any:
    """Return a WebTest ``TestApp`` of the application in *sandbox*, with its *options*.

    Before each request the session of the test ends its transaction, so that it sees afterwards
    what the request has stored. Raises :class:`SandboxError` where the test has written something
    that no request could see, because it was not committed.
    """
    from webtest import TestApp  # noqa: PLC0415 - only those who use it need it

    class Client(TestApp):  # type: ignore[misc]  # WebTest has no types
        def do_request(self, *args: Any, **more: Any) -> Any:
            sandbox.before_request()
            return super().do_request(*args, **more)

    app: Any = sandbox.app
    return Client(app, **options)


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """Serve *app* by waitress in threads inside the block, which gets its address.

    *options* are waitress's own. The block's end waits for the requests that are being served.
    """
    from webtest.http import StopableWSGIServer  # noqa: PLC0415 - as above

    server = StopableWSGIServer.create(app, **options)
    try:
        yield server.application_url.rstrip("/")
    finally:
        server.shutdown()


@contextmanager
def dummy_request(app: HasRegistry, path: str = "/", **attributes: Any) -> Iterator[Any]:
    """Make a request for a view that is called as a function, inside the block.

    It is Pyramid's ``DummyRequest`` for the address *path*, with everything that the application
    *app* gives a request: ``sqa_session``, ``sqa_paginate``, its own methods. *attributes* are set
    on it. Its transaction ``request.tm`` has begun. At the end of the block it is rolled back;
    ``request.tm.commit()`` stores before that.
    """
    tm = TransactionManager(explicit=True)
    blank = Request.blank(path)
    environ = {**blank.environ, "tm.active": True, "tm.manager": tm}
    request = DummyRequest(params=blank.GET, environ=environ, path=blank.path)
    request.host, request.registry = blank.host, app.registry
    apply_request_extensions(request)
    for name, value in attributes.items():
        setattr(request, name, value)
    context = RequestContext(request)
    context.begin()
    tm.begin()
    try:
        yield request
    finally:
        with suppress(NoTransaction):
            tm.abort()
        callbacks: Any = request.finished_callbacks
        while callbacks:
            callbacks.popleft()(request)
        context.end()
