"""Two pages: a deadlock after which the request is tried again, and a list with and without N+1."""

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
# The other connection pauses for these seconds. By their end, the request waits for it.
HEAD_START = 0.3


def includeme(config: Configurator) -> None:
    """Add the page with the deadlock, and the page with the list."""
    config.add_route("drawers", "/drawers")
    config.add_route("swapped", r"/drawers/{token:\w+}")
    config.add_view(show, route_name="drawers", request_method="GET", renderer=PAGE)
    config.add_view(swap, route_name="drawers", request_method="POST")
    config.add_view(show_swapped, route_name="swapped", renderer=PAGE)
    config.add_route("list", "/list")
    config.add_view(show_list, route_name="list", renderer=PAGE, sqa_n_plus_one="log")


def fill_drawers(engine: Engine) -> None:
    """Put the coins into the drawers if there are none, even if several processes start at once."""
    drawers = [{"id": number, "label": label} for number, label in enumerate(LABELS, 1)]
    coins = [{"id": number, "drawer_id": number % 5 + 1} for number in range(1, COINS + 1)]
    try:
        with engine.begin() as connection:
            if not connection.scalar(select(func.count()).select_from(Drawer)):
                connection.execute(insert(Drawer), drawers)
                connection.execute(insert(Coin), coins)
    except DBAPIError:
        # Another process has filled them at the same time.
        return


def show(request: SqaRequest) -> dict[str, object]:
    """Show the buttons."""
    return _page()


def swap(request: SqaRequest) -> Any:
    """Move two coins to other drawers. Another connection moves the same coins in reverse order.

    The database ends one of the two transactions. If it is this one, the request is tried again.
    The view does nothing for that.
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
    """Moves the same coins in a thread, the first coin last. Only in a request's first attempt."""

    def __init__(self, request: SqaRequest) -> None:
        self._engine = get_sqa(request).engine
        self._has_moved = threading.Event()
        self._may_go_on = threading.Event()
        if not request.environ.get("retry.attempt"):
            # On SQLite only one connection at a time can write. So the other connection finishes
            # before the request writes, and the database refuses the request's outdated snapshot.
            if self._engine.dialect.name == "sqlite":
                self._may_go_on.set()
            threading.Thread(target=self._run, daemon=True).start()
            self._has_moved.wait(10)

    def go_on(self) -> None:
        """Let the thread ask for the first coin, while the request asks for the second coin."""
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
                    # The request must wait first and have changed fewer rows: then it is the one
                    # that the database ends.
                    time.sleep(HEAD_START)
                connection.execute(move.where(Coin.id == 1))
        except DBAPIError:
            # The database has ended this connection's transaction, not the request's.
            return
        finally:
            self._has_moved.set()


def show_swapped(request: SqaRequest) -> dict[str, object]:
    """Show how the request that moved the coins ended."""
    token = request.matchdict["token"]
    if token not in request.registry[RECORDINGS]:
        raise HTTPNotFound
    statements = request.registry[RECORDINGS][token]
    attempts = max((end.attempt for end in statements.ends), default=1) if statements else 0
    return _page(token=token, attempts=attempts)


def show_list(request: SqaRequest) -> dict[str, object]:
    """List the drawers with their coins, read with one statement per drawer or one for all."""
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
