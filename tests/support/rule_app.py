"""An application that writes a row and then answers as it is asked to."""

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPException
from pyramid.response import Response
from sqlalchemy import text

INSERT = text("INSERT INTO note (body) VALUES (:body)")


def write(request):
    request.sqa_session.execute(INSERT, {"body": request.matchdict["body"]})


def returned(request):
    write(request)
    return Response(status=int(request.matchdict["status"]))


def raised(request):
    write(request)
    status = int(request.matchdict["status"])
    raise type("Raised", (HTTPException,), {"code": status, "title": "Raised"})


def broken(request):
    write(request)
    raise RuntimeError


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        for view in (returned, raised, broken):
            config.add_route(view.__name__, f"/{view.__name__}/{{status}}/{{body}}")
            config.add_view(view, route_name=view.__name__)
    return config.make_wsgi_app()
