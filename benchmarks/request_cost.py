"""What the package costs a request, as ratios to the least that does the same work.

    python benchmarks/request_cost.py [URL]

The floor is a Pyramid view that opens a session and commits it by itself. "by hand" is the wiring
that Pyramid's tutorial shows. All run in this one process, in turn, so that the ratios hold on a
busy machine too; each figure is the median of many rounds.
"""

import statistics
import sys
import time

import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

ROUNDS = 60
REQUESTS = 30


class Base(DeclarativeBase):
    """The models of the benchmark."""


class Item(Base):
    """A row to read and to change."""

    __tablename__ = "sqa_benchmark_item"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


def work_nothing(session_of, request):
    """Answer without a database."""


def work_get(session_of, request):
    """Read one row."""
    session_of(request).scalars(select(Item).where(Item.id == 1)).one()


def work_update(session_of, request):
    """Change one row by a text statement."""
    statement = text("UPDATE sqa_benchmark_item SET number = number + 1 WHERE id = 1")
    session_of(request).execute(statement)


WORK = {"nothing": work_nothing, "get": work_get, "update": work_update}


def application(config, view_of):
    """Return the WSGI application whose views are made by *view_of*."""
    for name, work in WORK.items():
        config.add_view(view_of(work), name=name)
    return config.make_wsgi_app()


def floor(engine):
    """Make the view that does by itself what has to be done."""

    def view_of(work):
        def view(request):
            if work is work_nothing:
                return Response("ok")
            with Session(engine) as session, session.begin():
                work(lambda request: session, request)
            return Response("ok")

        return view

    return application(Configurator(), view_of)


def views_with(session_of):
    """Make views for a stack that commits for them."""

    def view_of(work):
        def view(request):
            work(session_of, request)
            return Response("ok")

        return view

    return view_of


def ours(engine):
    """Include this package."""
    config = Configurator(settings={"sqlalchemy.engine": engine})
    config.include("pyramid_aalam_sqa")
    return application(config, views_with(lambda request: request.sqa_session))


def by_hand(engine):
    """Wire pyramid_tm and zope.sqlalchemy as the tutorial does."""

    def dbsession(request):
        session = Session(engine, info={"request": request})
        zope.sqlalchemy.register(session, transaction_manager=request.tm, initial_state="changed")
        return session

    config = Configurator(settings={"tm.manager_hook": "pyramid_tm.explicit_manager"})
    config.include("pyramid_tm")
    config.include("pyramid_retry")
    config.add_request_method(dbsession, reify=True)
    return application(config, views_with(lambda request: request.dbsession))


STACKS = {"floor": floor, "ours": ours, "by hand": by_hand}


def seconds(app, path):
    """Return the CPU seconds of some requests."""
    begin = time.process_time()
    for _ in range(REQUESTS):
        response = Request.blank(path).get_response(app)
    elapsed = time.process_time() - begin
    if response.status_int != 200:
        raise RuntimeError(response.status)
    return elapsed


def measure(engine: Engine) -> None:
    """Print the ratios."""
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(Item(id=1, number=0))
    apps = {name: make(engine) for name, make in STACKS.items()}
    print(f"{'':10}" + "".join(f"{name:>10}" for name in STACKS))
    for name in WORK:
        times = {stack: [] for stack in STACKS}
        for _ in range(ROUNDS):
            for stack, app in apps.items():
                times[stack].append(seconds(app, f"/{name}"))
        least = statistics.median(times["floor"])
        ratios = [statistics.median(times[stack]) / least for stack in STACKS]
        print(f"{name:10}" + "".join(f"{ratio:10.2f}" for ratio in ratios))
    Base.metadata.drop_all(engine)


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else "sqlite://"
    bench_engine = create_engine(url)
    measure(bench_engine)
    bench_engine.dispose()
