"""What the package costs a request, as ratios to the least that does the same work.

    python benchmarks/request_cost.py [URL [SECOND_URL]]

The floor is a bare Pyramid view that opens a session and commits it by itself. "by hand" is the
wiring of Pyramid's cookiecutter: pyramid_tm, pyramid_retry and zope.sqlalchemy. "ours" is this
package, whose engines it makes from settings. Requests are made as a WSGI server makes them. All
run in one process, in turn. The figures are instructions of the processor where valgrind and gcc
are there; that takes two minutes. Elsewhere they are CPU, each the median of many rounds. The
number of calls is exact.

Without a URL the databases are two SQLite files. A database that is named has to be empty.
"""

import gc
import statistics
import sys
import tempfile
import time
from functools import partial
from io import BytesIO
from pathlib import Path

import zope.sqlalchemy
from instructions import Instructions, can_count, count_inside, is_inside
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

ROUNDS = 100
REQUESTS = 10
STATEMENTS = 200


class Base(DeclarativeBase):
    """The models of the benchmark."""


class Item(Base):
    """A row to read and to change."""

    __tablename__ = "sqa_benchmark_item"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


UPDATE = text("UPDATE sqa_benchmark_item SET number = number + 1 WHERE id = 1")
TWENTY = select(Item).where(Item.id <= 20).order_by(Item.id)


def nothing(first, second):
    """Answer without a database."""


def get(first, second):
    """Read one object by its key."""
    first().get(Item, 1)


def list_of_20(first, second):
    """Read twenty objects."""
    first().scalars(TWENTY).all()


def insert(first, second):
    """Add an object."""
    first().add(Item(number=1))


def missing(first, second):
    """Add an object, and answer 404."""
    session = first()
    session.add(Item(number=1))
    session.flush()
    raise HTTPNotFound


def update(first, second):
    """Change one row by a text statement."""
    first().execute(UPDATE)


def statements(first, second):
    """Send many statements."""
    session = first()
    for _ in range(STATEMENTS):
        session.execute(UPDATE)


def two(first, second):
    """Add an object to each of two databases."""
    first().add(Item(number=1))
    second().add(Item(number=1))


WORK = (nothing, get, list_of_20, insert, missing, update, statements, two)


def application(config, view_of):
    """Return the WSGI application whose views are made by *view_of*."""
    for work in WORK:
        config.add_view(view_of(work), name=work.__name__)
    return config.make_wsgi_app()


def floor(urls):
    """Make the views that do by themselves what has to be done."""
    engines = [create_engine(url) for url in urls]

    def view_of(work):
        def view(request):
            if work is nothing:
                return Response("ok")
            with Session(engines[0]) as first, first.begin():
                try:
                    if work is not two:
                        work(lambda: first, None)
                        return Response("ok")
                    with Session(engines[1]) as second, second.begin():
                        work(lambda: first, lambda: second)
                except HTTPNotFound:
                    first.get_transaction().rollback()
                    return Response("no", status=404)
            return Response("ok")

        return view

    return application(Configurator(), view_of)


def views_with(first, second):
    """Make views for a stack that commits for them."""

    def view_of(work):
        def view(request):
            try:
                work(lambda: first(request), lambda: second(request))
            except HTTPNotFound:
                return Response("no", status=404)
            return Response("ok")

        return view

    return view_of


def ours(urls):
    """Include this package."""
    settings = {"sqlalchemy.url": urls[0], "sqlalchemy.binds.second.url": urls[1]}
    config = Configurator(settings=settings)
    config.include("pyramid_aalam_sqa")
    views = views_with(
        lambda request: request.sqa_session, lambda request: request.sqa_sessions["second"]
    )
    return application(config, views)


def by_hand(urls):
    """Wire pyramid_tm and zope.sqlalchemy as the cookiecutter does."""
    settings = {
        "tm.manager_hook": "pyramid_tm.explicit_manager",
        "tm.commit_veto": "pyramid_tm.default_commit_veto",
    }
    config = Configurator(settings=settings)
    config.include("pyramid_tm")
    config.include("pyramid_retry")
    for name, url in zip(("first", "second"), urls, strict=True):
        factory = sessionmaker(create_engine(url))

        def dbsession(request, factory=factory):
            session = factory(info={"request": request})
            zope.sqlalchemy.register(
                session, transaction_manager=request.tm, initial_state="changed"
            )
            return session

        config.add_request_method(dbsession, name, reify=True)
    return application(
        config, views_with(lambda request: request.first, lambda request: request.second)
    )


STACKS = {"floor": floor, "ours": ours, "by hand": by_hand}


def visit(app, path):
    """Make a request as a server does, and return its status."""
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    told = []
    body = app(environ, lambda status, headers, error=None: told.append(status))
    list(body)
    close = getattr(body, "close", None)
    if close is not None:
        close()
    return told[0]


def visits(app, path):
    """Make some requests."""
    for _ in range(REQUESTS):
        visit(app, path)


def seconds(function):
    """Return the CPU seconds of a call of *function*."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def calls(app, path):
    """Return how many functions a request calls."""
    count = 0

    def note(_frame, event, _argument):
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        visits(app, path)
    finally:
        sys.setprofile(None)
    return count / REQUESTS


def prepare(urls):
    """Make the tables anew, with the rows that are read."""
    for url in urls:
        engine = create_engine(url)
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add_all(Item(id=number, number=0) for number in range(1, 21))
        engine.dispose()


def measure(urls, count, rounds, unit):
    """Print the ratios of what *count* finds, in so many *rounds*, and of calls."""
    prepare(urls)
    apps = {name: make(urls) for name, make in STACKS.items()}
    others = [name for name in STACKS if name != "floor"]
    print(f"{'':12}" + "".join(f"{f'{unit} {name}':>14}{f'calls {name}':>15}" for name in others))
    for work in WORK:
        path = f"/{work.__name__}"
        expected = "404" if work is missing else "200"
        for app in apps.values():
            if not visit(app, path).startswith(expected):
                raise RuntimeError(path)
            visits(app, path)
        gc.collect()
        gc.disable()
        times = {stack: [] for stack in STACKS}
        for _ in range(rounds):
            for stack, app in apps.items():
                times[stack].append(count(partial(visits, app, path)))
        gc.enable()
        least, fewest = statistics.median(times["floor"]), calls(apps["floor"], path)
        cells = ""
        for name in others:
            cells += f"{statistics.median(times[name]) / least:14.2f}"
            cells += f"{calls(apps[name], path) / fewest:15.2f}"
        print(f"{work.__name__:12}" + cells)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        files = [f"sqlite:///{Path(folder) / name}" for name in ("first", "second")]
        databases = (sys.argv[1:] + files)[:2]
        if is_inside():
            measure(databases, Instructions(), 1, "inst.")
        elif can_count():
            count_inside(__file__, *databases)
        else:
            measure(databases, seconds, ROUNDS, "CPU")
