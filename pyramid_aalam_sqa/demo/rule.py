"""The rule: the status of a response decides whether what its request wrote is stored."""

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest, HTTPSeeOther
from pyramid.response import Response

from pyramid_aalam_sqa import SqaRequest

from .models import Order

ANSWERS = {
    "200": "OK",
    "303": "See Other",
    "400": "Bad Request",
    "404": "Not Found",
    "500": "Server Error",
    "raise": "an exception",
}


class Accident(Exception):  # noqa: N818 - it happens on purpose
    """Raised by the view after it has written the order."""


def includeme(config: Configurator) -> None:
    """Add the view behind the buttons."""
    config.add_route("rule", "/rule/{number:[0-9a-f]{8}}")
    config.add_view(write, route_name="rule", request_method="POST")
    config.add_exception_view(answer_accident, context=Accident)


def write(request: SqaRequest) -> Response:
    """Write an order, then answer as the button says."""
    choice = request.POST.get("choice")
    if choice not in ANSWERS:
        raise HTTPBadRequest
    number = request.matchdict["number"]
    request.sqa_session.add(Order(number=number, visitor=request.visitor))
    request.sqa_session.flush()  # the INSERT is sent now
    if choice == "raise":
        raise Accident
    if choice == "303":
        return HTTPSeeOther(request.route_path("landing"))
    return Response(status=int(choice))


def answer_accident(_error: Accident, _request: SqaRequest) -> Response:
    """Answer 500 to a request whose view raised. ``errors`` does so for all other exceptions."""
    return Response(status=500)
