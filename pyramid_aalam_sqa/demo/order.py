"""Two databases with one outcome: an order in one, and its booking in the other."""

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest, HTTPSeeOther
from pyramid.response import Response

from pyramid_aalam_sqa import SqaRequest

from .models import Booking, Order

# The ledger has a constraint that refuses the second amount.
AMOUNTS = {"5": 5, "0": 0}


def includeme(config: Configurator) -> None:
    """Add the view behind the buttons."""
    config.add_route("order", "/order/{number:[0-9a-f]{8}}")
    config.add_view(order, route_name="order", request_method="POST")


def order(request: SqaRequest) -> Response:
    """Write an order into one database, and its booking into the other."""
    amount = AMOUNTS.get(request.POST.get("choice"))
    if amount is None:
        raise HTTPBadRequest
    number = request.matchdict["number"]
    session = request.sqa_session
    session.add(Order(number=number, visitor=request.visitor))
    session.flush()
    session.add(Booking(number=number, visitor=request.visitor, amount=amount))
    session.flush()
    return HTTPSeeOther(request.route_path("landing"))
