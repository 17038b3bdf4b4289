"""The landing page: each section says one thing that the package does, and lets a visitor do it."""

import inspect
from collections.abc import Callable
from secrets import token_hex
from typing import Any

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest
from sqlalchemy import func, select

from pyramid_aalam_sqa import SqaRequest

from . import by_hand, conflict, drawers, order, outage, parcels, rule
from .models import Booking, Order
from .sending import Answer, send
from .visitor import remove_oldest_rows

PAGE = "templates/landing.jinja2"


# Where the buttons of each section send their request.
PATHS = {
    "rule": "/rule",
    "conflict": "/conflict",
    "order": "/order",
    "outage": "/order",
    "list": "/list",
}
# The code that each section shows.
CODE: dict[str, Callable[..., Any]] = {
    "rule": rule.write,
    "conflict": conflict.take,
    "order": order.order,
    "outage": outage.connect_nowhere,
    "parcels": parcels.page_by_place,
    "list": drawers.list_drawers,
}


def includeme(config: Configurator) -> None:
    """Add the page."""
    config.include(".sending")
    config.add_route("landing", "/")
    config.add_view(show, route_name="landing", request_method="GET", renderer=PAGE)
    config.add_view(act, route_name="landing", request_method="POST", renderer=PAGE)


def show(request: SqaRequest) -> dict[str, Any]:
    """Show the page, and the parcels if the address asks for them."""
    return _page(request, parcels=parcels.find_page(request))


def act(request: SqaRequest) -> dict[str, Any]:
    """Send the request of a button, and show the page with what became of it."""
    name = request.POST.get("section")
    if name not in PATHS:
        raise HTTPBadRequest
    if name == "conflict":
        conflict.fill_stock(request)
    number = token_hex(4)
    answer = send(request, f"{PATHS[name]}/{number}")
    if answer.is_stored:
        remove_oldest_rows(request.sqa_session)
    return _page(request, section=name, answer=answer, found=_find(request, number))


def _find(request: SqaRequest, number: str) -> dict[str, Any]:
    """Return what is stored of the order, as another request finds it after the answer."""
    session = request.sqa_session
    found = {
        "number": number,
        "order": session.scalar(select(func.count()).where(Order.number == number)),
        "stock": session.scalars(conflict.stock_of(request.visitor)).all(),
    }
    if not outage.is_out(request):
        booking = select(func.count()).where(Booking.number == number)
        found["booking"] = session.scalar(booking)
    return found


def _page(
    request: SqaRequest,
    section: str = "",
    answer: Answer | None = None,
    found: dict[str, Any] | None = None,
    parcels: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "visitor": request.visitor,  # a new visitor gets the cookie now
        "section": section,
        "answer": answer,
        "found": found,
        "parcels": parcels,
        "answers": rule.ANSWERS,
        "is_out": outage.is_out(request),
        "code": {name: inspect.getsource(code) for name, code in CODE.items()},
        "by_hand": inspect.getsource(by_hand),
    }
