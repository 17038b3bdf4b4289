"""An application that writes a row, and then answers as the path says."""

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPException
from pyramid.response import Response

from support.models import INSERT


def write(request):
    """Store a note with the body that the path says."""
    request.sqa_session.execute(INSERT, {"body": request.matchdict["body"]})


def returned(request):
    """Return a response with the status that the path says."""
    write(request)
    return Response(status=int(request.matchdict["status"]))


def raised(request):
    """Raise a response with the status that the path says."""
    write(request)
    status = int(request.matchdict["status"])
    raise type("Raised", (HTTPException,), {"code": status, "title": "Raised"})


def broken(request):
    """Raise an exception that is not a response."""
    write(request)
    raise RuntimeError


def main(global_config, **settings):
    """Return the application, for an ini file that lists the package in pyramid.includes."""
    with Configurator(settings=settings) as config:
        for view in (returned, raised, broken):
            config.add_route(view.__name__, f"/{view.__name__}/{{status}}/{{body}}")
            config.add_view(view, route_name=view.__name__)
    return config.make_wsgi_app()
