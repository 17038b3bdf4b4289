"""A conflict: two connections want the same two rows, and the database ends one of the two."""

import threading
import time

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPSeeOther
from pyramid.response import Response
from sqlalchemy import Select, insert, select, update
from sqlalchemy.exc import DBAPIError

from pyramid_aalam_sqa import SqaRequest, get_sqa

from .filling import fill_once
from .models import Order, Stock

APPLES, PEARS, KINDS = 1, 2, 12
PIECES = 1000
# The other connection pauses for these seconds. By their end, the request waits for it.
HEAD_START = 0.3


def includeme(config: Configurator) -> None:
    """Add the view behind the button."""
    config.add_route("conflict", "/conflict/{number:[0-9a-f]{8}}")
    config.add_view(take, route_name="conflict", request_method="POST")


def take(request: SqaRequest) -> Response:
    """Take an apple and a pear, while another connection takes them too.

    The other connection begins with the pear. So the database has to end
    one of the two transactions. If it is this one, the request is tried
    again. The view does nothing for that.
    """
    number = request.matchdict["number"]
    session = request.sqa_session
    apples, pears = session.scalars(stock_of(request.visitor))
    other = OtherConnection(request)
    session.add(Order(number=number, visitor=request.visitor))
    apples.pieces = Stock.pieces - 1
    session.flush()
    other.go_on()
    pears.pieces = Stock.pieces - 1
    session.flush()
    return HTTPSeeOther(request.route_path("landing"))


def stock_of(visitor: str) -> Select[Stock]:
    """Select the apples and the pears that a visitor has in stock."""
    mine = select(Stock).where(Stock.visitor == visitor, Stock.kind.in_((APPLES, PEARS)))
    return mine.order_by(Stock.kind)


def fill_stock(request: SqaRequest) -> None:
    """Give the visitor a stock of apples, pears and ten more kinds, unless there is one."""
    rows = [
        {"visitor": request.visitor, "kind": kind, "pieces": PIECES} for kind in range(1, KINDS + 1)
    ]
    found = stock_of(request.visitor)
    fill_once(get_sqa(request).engine, found, insert(Stock).values(rows))


class OtherConnection:
    """Takes one of each kind in a thread, the apple last. Only in a request's first attempt."""

    def __init__(self, request: SqaRequest) -> None:
        self._engine = get_sqa(request).engine
        self._take = (
            update(Stock).where(Stock.visitor == request.visitor).values(pieces=Stock.pieces - 1)
        )
        self._has_taken = threading.Event()
        self._may_go_on = threading.Event()
        if not request.environ.get("retry.attempt"):
            # On SQLite only one connection at a time can write. So the other connection finishes
            # before the request writes, and the database refuses the request's outdated snapshot.
            if self._engine.dialect.name == "sqlite":
                self._may_go_on.set()
            threading.Thread(target=self._run, daemon=True).start()
            self._has_taken.wait(10)

    def go_on(self) -> None:
        """Let the thread ask for the apple, while the request asks for the pear."""
        self._may_go_on.set()

    def _run(self) -> None:
        alone = self._may_go_on.is_set()
        try:
            with self._engine.begin() as connection:
                connection.execute(self._take.where(Stock.kind > APPLES))
                if not alone:
                    self._has_taken.set()
                    self._may_go_on.wait(10)
                    # The request must wait first and have changed fewer rows: then it is the one
                    # that the database ends.
                    time.sleep(HEAD_START)
                connection.execute(self._take.where(Stock.kind == APPLES))
        except DBAPIError:
            # The database has ended this connection's transaction, not the request's.
            return
        finally:
            self._has_taken.set()
