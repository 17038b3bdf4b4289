"""What it costs to find the database of a statement, and of a request with several databases.

    python benchmarks/routing_cost.py

Each figure is the median of many rounds in this one process, on SQLite in memory.
"""

import statistics
import time
from operator import itemgetter

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pyramid_aalam_sqa import create_all, get_sqa
from pyramid_aalam_sqa.sessions import Routes

ROUNDS = 60
CALLS = 200


class Base(DeclarativeBase):
    """The models of the default database."""


class Item(Base):
    """A row of the default database."""

    __tablename__ = "sqa_benchmark_item"
    id: Mapped[int] = mapped_column(primary_key=True)


class Elsewhere(Base):
    """A row of the bind."""

    __tablename__ = "sqa_benchmark_elsewhere"
    __bind_key__ = "other"
    id: Mapped[int] = mapped_column(primary_key=True)


def read_one(request):
    """Read in the default database."""
    request.sqa_session.scalars(select(Item).where(Item.id == 1)).all()
    return Response("ok")


def read_both(request):
    """Read in both databases."""
    request.sqa_session.scalars(select(Elsewhere).where(Elsewhere.id == 1)).all()
    return read_one(request)


def application(**binds):
    """Return an application whose databases are in memory."""
    config = Configurator(settings={"sqlalchemy.url": "sqlite://", **binds})
    config.include("pyramid_aalam_sqa")
    config.add_view(read_one, name="one")
    config.add_view(read_both, name="both")
    app = config.make_wsgi_app()
    if binds:
        create_all(app, Base)
    else:
        # Without the bind, the other model has no database.
        Item.metadata.create_all(get_sqa(app).engine, tables=[Item.__table__])
    return app


def microseconds(calls):
    """Return the median cost of each of *calls*, made in turn."""
    times = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begin = time.process_time()
            for _ in range(CALLS):
                call()
            times[name].append((time.process_time() - begin) / CALLS * 1e6)
    return {name: statistics.median(found) for name, found in times.items()}


def show(found):
    """Print one line for each of *found*."""
    for name, time_of_one in found.items():
        print(f"{name:45} {time_of_one:8.2f} us")


def measure():
    """Print the figures."""
    alone = application()
    routed = application(
        **{"sqlalchemy.binds.other.url": "sqlite:///file:other?mode=memory&uri=true"}
    )
    routes = Routes(get_sqa(routed).engines)
    statement = select(Item).where(Item.id == 1)
    look_up = itemgetter(statement)
    known = {statement: None}
    show(
        microseconds(
            {
                "a look-up in a dictionary": lambda: look_up(known),
                "the database of a statement seen before": lambda: routes.engine_of(statement),
                "of one that is new": lambda: routes.engine_of(select(Item).where(Item.id == 1)),
                "to make that statement": lambda: select(Item).where(Item.id == 1),
            }
        )
    )
    show(
        microseconds(
            {
                "a request, no binds": lambda: Request.blank("/one").get_response(alone),
                "with binds, one database used": lambda: Request.blank("/one").get_response(routed),
                "with binds, two databases used": lambda: Request.blank("/both").get_response(
                    routed
                ),
            }
        )
    )
    for app in (alone, routed):
        get_sqa(app).dispose()


if __name__ == "__main__":
    measure()
