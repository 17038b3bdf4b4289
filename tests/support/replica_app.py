"""An application that writes a number and reads it, and says which server it has asked."""

from contextlib import suppress

from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import text

NUMBER = "SELECT body, {} FROM note WHERE id = 1"
PORTS = {"mysql": "@@port", "postgresql": "inet_server_port()"}


def write(request):
    """Store a number."""
    request.sqa_session.execute(
        text("UPDATE note SET body = :number WHERE id = 1"), {"number": request.params["number"]}
    )
    return Response("stored")


def read(request):
    """Return the number, and the port of the server."""
    session = request.sqa_session
    port = PORTS[session.get_bind().dialect.name]
    return Response(" ".join(map(str, session.execute(text(NUMBER.format(port))).one())))


def write_by_get(request):
    """Store a number, as a GET should not."""
    read(request)
    return write(request)


def swallow(request):
    """Go on after an error, as careless code does."""
    with suppress(Exception):
        write(request)
    return Response("swallowed")


def site(config):
    """Add the routes."""
    config.add_route("write", "/write")
    config.add_route("read", "/read", sqa_read_only=True)
    config.add_route("snapshot", "/snapshot", sqa_read_only="snapshot")
    config.add_route("refused", "/refused", sqa_read_only=True)
    config.add_route("free", "/free", sqa_read_only=False)
    config.add_route("plain", "/plain")
    config.add_route("get", "/get")
    config.add_route("swallow", "/swallow")
    config.add_view(write, route_name="write")
    config.add_view(write, route_name="refused")
    config.add_view(write_by_get, route_name="get")
    config.add_view(swallow, route_name="swallow")
    for name in ("read", "snapshot", "free", "plain"):
        config.add_view(read, route_name=name)
    config.add_view(read, name="view", sqa_read_only=True)
    config.add_view(write_by_get, name="writes", sqa_read_only=False)


def main(_global_config, **settings):
    """Return the application, for pserve."""
    with Configurator(settings=settings) as config:
        config.include(site)
    return config.make_wsgi_app()
