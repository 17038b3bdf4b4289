"""A list that is read row by row, which is called N+1, and its cure."""

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest
from pyramid.response import Response
from sqlalchemy import Engine, insert, select
from sqlalchemy.orm import selectinload

from pyramid_aalam_sqa import SqaRequest, get_sqa

from .filling import fill_once
from .models import Coin, Drawer

LABELS = ("Pence", "Groats", "Florins", "Crowns", "Guineas")
COINS = 25
OPTIONS = {"plain": (), "selectinload": (selectinload(Drawer.coins),)}


def includeme(config: Configurator) -> None:
    """Add the view behind the buttons, and what it lists."""
    fill_drawers(get_sqa(config).engine)
    config.add_route("list", "/list/{number:[0-9a-f]{8}}")
    config.add_view(list_drawers, route_name="list", request_method="POST", sqa_n_plus_one="log")


def list_drawers(request: SqaRequest) -> Response:
    """List the drawers with their coins, as the button says."""
    options = OPTIONS.get(request.POST.get("choice"))
    if options is None:
        raise HTTPBadRequest
    query = select(Drawer).order_by(Drawer.id).options(*options)
    drawers = request.sqa_session.scalars(query)
    lines = [f"{drawer.label}: {len(drawer.coins)}" for drawer in drawers]
    return Response("\n".join(lines))


def fill_drawers(engine: Engine) -> None:
    """Put the coins into the drawers, if there are none."""
    drawers = [{"id": number, "label": label} for number, label in enumerate(LABELS, 1)]
    coins = [{"id": number, "drawer_id": number % 5 + 1} for number in range(1, COINS + 1)]
    fill_once(engine, select(Drawer.id), insert(Drawer).values(drawers), insert(Coin).values(coins))
