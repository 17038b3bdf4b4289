"""An application that is killed while it writes to two databases of one server.

Run as a script: python schemas_app.py URL ONE TWO.
"""

import os
import signal
import sys

from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pyramid_aalam_sqa import get_sqa
from support.bound import do, serving

POINTS = ("one is written", "two is written", "COMMIT", "committed")


def models(one, two):
    """Return two models with one bind key, in the schemas *one* and *two*."""

    class Base(DeclarativeBase):
        __bind_key__ = "both"

    class First(Base):
        __tablename__ = "note"
        __table_args__ = {"schema": one}  # noqa: RUF012 - SQLAlchemy's
        id: Mapped[int] = mapped_column(primary_key=True)

    class Second(Base):
        __tablename__ = "note"
        __table_args__ = {"schema": two}  # noqa: RUF012 - SQLAlchemy's
        id: Mapped[int] = mapped_column(primary_key=True)

    return First, Second


def write(url, point, number, first, second):
    """Make a request whose process is killed at *point*, one of POINTS."""

    def reach(here):
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)

    with serving({"sqlalchemy.url": "sqlite://", "sqlalchemy.binds.both.url": url}) as client:
        engine = get_sqa(client.app).engines["both"]
        event.listen(engine, "commit", lambda connection: reach("COMMIT"))

        def act(request):
            request.sqa_after_commit(reach, "committed")
            for place, model in (("one is written", first), ("two is written", second)):
                request.sqa_session.add(model(id=number))
                request.sqa_session.flush()
                reach(place)

        do(client, act)


def main(url, one, two):
    """Print each point with the signal that ended its process."""
    first, second = models(one, two)
    for number, point in enumerate(POINTS):
        child = os.fork()
        if not child:
            write(url, point, number, first, second)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        print(point, -os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(*sys.argv[1:])
