"""What it costs to see what the database was asked: for each statement, and when all is off.

    python benchmarks/recording_cost.py              # function calls: exact, and in seconds
    python benchmarks/recording_cost.py instructions # needs valgrind and gcc; two minutes

A request sends 20 SELECTs of one row by the ORM, on SQLite in memory. "without" is the package with
the hooks of its room `debugging` taken out, and "off" is the package as it is. The others have one
setting each. All run in this one process, so that the ratios hold on a busy machine too.
"""

import contextlib
import gc
import sys

from instructions import Instructions, count_inside, is_inside
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pyramid_aalam_sqa import get_sqa
from pyramid_aalam_sqa.requests import config as include

STATEMENTS = 20
REQUESTS = 20
# The listener for lazy loads is one for the process: what is measured after "off" has it.
SETTINGS = {
    "without": {},
    "off": {},
    "sqa.slow_statement": {"sqa.slow_statement": "9"},
    "sqa.stats": {"sqa.stats": "true"},
    "sqa.server_timing": {"sqa.server_timing": "true"},
    "sqa.n_plus_one": {"sqa.n_plus_one": "log"},
    "sqa.record": {"sqa.record": "true"},
}


class Base(DeclarativeBase):
    """The models of the benchmark."""


class Item(Base):
    """A row to read."""

    __tablename__ = "sqa_benchmark_item"
    id: Mapped[int] = mapped_column(primary_key=True)


def view(request):
    """Read one row as often as the address says."""
    for _ in range(int(request.params["n"])):
        request.sqa_session.scalars(select(Item).where(Item.id == 1)).one()
    return Response("ok")


class WithoutHooks(Configurator):
    """Leaves out what the include adds for the room."""

    def add_view_deriver(self, deriver, name=None, **options):
        """Add all but ours."""
        if name != "sqa_n_plus_one":
            super().add_view_deriver(deriver, name, **options)


@contextlib.contextmanager
def hooks_taken_out():
    """Let the include not look at the settings of the room."""
    kept, include._start_debugging = include._start_debugging, lambda config: None  # noqa: SLF001 - a benchmark of just this
    try:
        yield
    finally:
        include._start_debugging = kept  # noqa: SLF001 - as above


def application(name):
    """Return the application with the settings of that *name*."""
    kind, hooks = Configurator, contextlib.nullcontext()
    if name == "without":
        kind, hooks = WithoutHooks, hooks_taken_out()
    with hooks, kind(settings={"sqlalchemy.url": "sqlite://", **SETTINGS[name]}) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(view)
    app = config.make_wsgi_app()
    engine = get_sqa(app).engine
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(Item(id=1))
    return app


def ask(app, statements, times=REQUESTS):
    """Make requests that send so many *statements* each."""
    for _ in range(times):
        response = Request.blank(f"/?n={statements}").get_response(app)
    assert response.status_int == 200  # noqa: S101 - a benchmark


def calls(app, statements):
    """Return the function calls of a request, of Python and of C."""
    number = 0

    def count(_frame, event, _arg):
        nonlocal number
        number += event in {"call", "c_call"}

    sys.setprofile(count)
    ask(app, statements)
    sys.setprofile(None)
    return number / REQUESTS


def measure(count):
    """Print what *count* counts for each setting, and its ratio to "off"."""
    found = {}
    for name in SETTINGS:
        app = application(name)
        for statements in (STATEMENTS, 0):
            ask(app, statements)
        gc.collect()
        gc.disable()
        empty, full = (count(app, number) for number in (0, STATEMENTS))
        gc.enable()
        found[name] = empty, (full - empty) / STATEMENTS
    print(f"{'':18}{'request':>12}{'ratio':>8}{'statement':>12}{'ratio':>8}")
    for name, numbers in found.items():
        columns = (
            f"{number:12,.0f}{number / off:8.3f}"
            for number, off in zip(numbers, found["off"], strict=True)
        )
        print(f"{name:18}{''.join(columns)}")


if __name__ == "__main__":
    if is_inside():
        instructions = Instructions()
        measure(lambda app, number: instructions(lambda: ask(app, number)) / REQUESTS)
    elif "instructions" in sys.argv:
        count_inside(__file__)
    else:
        measure(calls)
