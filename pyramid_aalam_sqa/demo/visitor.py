"""Who is asking: a random name in a cookie, so that visitors do not get in each other's way."""

import re
from secrets import token_hex
from typing import Any

from pyramid.config import Configurator
from sqlalchemy import delete, func, select

from pyramid_aalam_sqa import SqaRequest, SqaSession

from .models import Booking, Order, Stock

COOKIE = "visitor"
# Each of the tables keeps this number of rows, the newest ones. So the rows of old visitors go.
MOST_ROWS = 10_000


def includeme(config: Configurator) -> None:
    """Give each request ``request.visitor``."""
    config.add_request_method(visitor, reify=True)


def visitor(request: SqaRequest) -> str:
    """Return the visitor's name; a new visitor gets one."""
    known: str = request.cookies.get(COOKIE, "")
    if re.fullmatch("[0-9a-f]{32}", known):
        return known
    name = token_hex(16)
    request.add_response_callback(
        lambda _, response: response.set_cookie(COOKIE, name, httponly=True, samesite="Lax")
    )
    return name


def remove_oldest_rows(session: SqaSession) -> None:
    """Remove what is older than the newest rows of each table."""
    models: tuple[Any, ...] = (Order, Stock, Booking)
    for model in models:
        newest = session.scalar(select(func.max(model.id))) or 0
        if newest > MOST_ROWS:
            session.execute(delete(model).where(model.id <= newest - MOST_ROWS))
