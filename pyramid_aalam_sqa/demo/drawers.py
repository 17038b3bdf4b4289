"""Two at once, and a list: a conflict that is retried before the visitor, and N+1 with its cure."""

import inspect
import threading
import time
from collections.abc import Callable
from secrets import token_hex
from typing import Any

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound, HTTPSeeOther
from sqlalchemy import Engine, func, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import selectinload

from pyramid_aalam_sqa import SqaRequest, get_sqa

from .models import Coin, Drawer
from .sent import RECORDINGS, remember

PAGE = "templates/drawers.jinja2"
LABELS = ("Pence", "Groats", "Florins", "Crowns", "Guineas")
COINS = 25
# Seconds in which the request comes to wait for the other connection.
HEAD_START = 0.3


def includeme(config: Configurator) -> None:
    """Add the page with its two buttons."""
    config.add_route("drawers", "/drawers")
    config.add_route("swapped", r"/drawers/{token:\w+}")
    config.add_view(show, route_name="drawers", request_method="GET", renderer=PAGE)
    config.add_view(swap, route_name="drawers", request_method="POST")
    config.add_view(show_swapped, route_name="swapped", renderer=PAGE)
    config.add_route("list", "/list")
    config.add_view(show_list, route_name="list", renderer=PAGE, sqa_n_plus_one="log")


def fill_drawers(engine: Engine) -> None:
    """Put the coins into the drawers, once however many processes start together."""
    drawers = [{"id": number, "label": label} for number, label in enumerate(LABELS, 1)]
    coins = [{"id": number, "drawer_id": number % 5 + 1} for number in range(1, COINS + 1)]
    try:
        with engine.begin() as connection:
            if not connection.scalar(select(func.count()).select_from(Drawer)):
                connection.execute(insert(Drawer), drawers)
                connection.execute(insert(Coin), coins)
    except DBAPIError:
        # Another process was at it at the same moment.
        return


def show(request: SqaRequest) -> dict[str, object]:
    """Show the buttons."""
    return _page()


def swap(request: SqaRequest) -> Any:
    """Move two coins to other drawers, while another connection moves them the other way round.

    The database ends one of the two. This view knows nothing of it: the request is tried again.
    """
    token = token_hex(4)
    remember(request, token)
    session = request.sqa_session
    first, second = session.scalars(select(Coin).order_by(Coin.id).limit(2))
    other = OtherConnection(request)
    first.drawer_id = first.drawer_id % 5 + 1
    session.flush()
    other.go_on()
    second.drawer_id = second.drawer_id % 5 + 1
    session.flush()  # a deadlock, at the first attempt
    return HTTPSeeOther(request.route_path("swapped", token=token, _anchor="outcome"))


class OtherConnection:
    """Moves the same coins in a thread, the first one last; in a request's first attempt only."""

    def __init__(self, request: SqaRequest) -> None:
        self._engine = get_sqa(request).engine
        self._has_moved = threading.Event()
        self._may_go_on = threading.Event()
        if not request.environ.get("retry.attempt"):
            # Of SQLite's file one connection can be the writer: there the other one is done before
            # the request writes, and the request finds that what it has read is no longer true.
            if self._engine.dialect.name == "sqlite":
                self._may_go_on.set()
            threading.Thread(target=self._run, daemon=True).start()
            self._has_moved.wait(10)

    def go_on(self) -> None:
        """Let the thread want the first coin, while the request wants the second."""
        self._may_go_on.set()

    def _run(self) -> None:
        move = update(Coin).values(drawer_id=Coin.drawer_id % 5 + 1)
        alone = self._may_go_on.is_set()
        try:
            with self._engine.begin() as connection:
                connection.execute(move.where(Coin.id > 1))
                if not alone:
                    self._has_moved.set()
                    self._may_go_on.wait(10)
                    # The request has to be the one that waits first, and has changed less.
                    time.sleep(HEAD_START)
                connection.execute(move.where(Coin.id == 1))
        except DBAPIError:
            # The database has ended this connection's transaction, not the request's.
            return
        finally:
            self._has_moved.set()


def show_swapped(request: SqaRequest) -> dict[str, object]:
    """Show what became of the request that swapped the coins."""
    token = request.matchdict["token"]
    if token not in request.registry[RECORDINGS]:
        raise HTTPNotFound
    statements = request.registry[RECORDINGS][token]
    attempts = max((end.attempt for end in statements.ends), default=1) if statements else 0
    return _page(token=token, attempts=attempts)


def show_list(request: SqaRequest) -> dict[str, object]:
    """List the drawers with their coins: a statement for each drawer, or one for all of them."""
    cured = "cured" in request.params
    query = select(Drawer).order_by(Drawer.id)
    if cured:
        query = query.options(selectinload(Drawer.coins))
    token = token_hex(4)
    remember(request, token)
    listed = [(drawer.label, len(drawer.coins)) for drawer in request.sqa_session.scalars(query)]
    return _page(show_list, token=token, listed=listed, cured=cured)


def _page(shown: Callable[..., Any] = swap, **found: Any) -> dict[str, object]:
    nothing = {"token": "", "attempts": 0, "listed": [], "cured": False}
    return {**nothing, **found, "source": inspect.getsource(shown)}
