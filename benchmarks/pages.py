"""Measures what pages cost on 1,000,000 rows of MariaDB, against statements written by hand.

    python benchmarks/pages.py

It starts and stops a MariaDB of its own. The rows are ordered by a column with an index, newest
first, 20 on a page. Each figure is the median of rounds in which all are measured in turn, so that
the ratios hold on a busy machine too.
"""

import statistics
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine, event, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pyramid_aalam_sqa import paginate, paginate_keyset

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.servers import MariaDB

ROWS = 1_000_000
LAST = ROWS // 20
ROUNDS = 21
FILL = f"""
INSERT INTO sqa_benchmark_entry (id, created, body)
SELECT seq, seq DIV 3, CONCAT('entry ', seq) FROM seq_1_to_{ROWS}
"""  # noqa: S608 - two numbers of our own


class Base(DeclarativeBase):
    """The models of the benchmark."""


class Entry(Base):
    """A row of a list. Three rows have the same age."""

    __tablename__ = "sqa_benchmark_entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    created: Mapped[int] = mapped_column(index=True)


# The table has one column more than the model, so that the index alone is not enough for a page.
DDL = "ALTER TABLE sqa_benchmark_entry ADD COLUMN body VARCHAR(200) NOT NULL"
NEWEST = select(Entry).order_by(Entry.created.desc())


def keyset(session, **place):
    """Fetch the page after a cursor, or the first."""
    return paginate_keyset(session, NEWEST, secret="of the benchmark", **place)  # noqa: S106


def numbered(session, page, count):
    """Fetch a page by its number."""
    return paginate(session, NEWEST, page=page, count=count)


def counted_by_hand(session):
    """Count the rows by a statement written by hand."""
    return session.scalar(select(func.count()).select_from(Entry))


class CountOfPage:
    """Measures how long the count query of a numbered page takes."""

    def __init__(self, engine):
        self.seconds = 0.0
        event.listen(engine, "before_cursor_execute", self._begin)
        event.listen(engine, "after_cursor_execute", self._end)

    def _begin(self, *_):
        self._began = time.perf_counter()

    def _end(self, _connection, _cursor, statement, *_):
        if statement.startswith("SELECT count("):
            self.seconds = time.perf_counter() - self._began


@contextmanager
def filled(engine: Engine):
    """Make the table, and drop it at the end."""
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text(DDL))
        connection.execute(text(FILL))
        connection.execute(text("ANALYZE TABLE sqa_benchmark_entry"))
    yield
    Base.metadata.drop_all(engine)


def measure(engine: Engine) -> None:
    """Print the figures and the ratios."""
    count = CountOfPage(engine)
    with Session(engine) as session:
        # The cursor of the last page is found from the end: it is the next one of the page before.
        end = keyset(session, url="/").last_url.partition("before=")[2]
        cursor = keyset(session, before=end).prev().next_cursor
        if keyset(session, after=cursor).has_next:
            raise RuntimeError(cursor)
        work = {
            "keyset page 1": lambda: keyset(session),
            f"keyset page {LAST:,}": lambda: keyset(session, after=cursor),
            "numbered page 1, not counted": lambda: numbered(session, 1, False),
            f"numbered page {LAST:,}, not counted": lambda: numbered(session, LAST, False),
            "numbered page 1, counted": lambda: numbered(session, 1, True),
            "SELECT count(*) by hand": lambda: counted_by_hand(session),
        }
        times = {name: [] for name in [*work, "its count query"]}
        for _ in range(ROUNDS):
            for name, run in work.items():
                session.expunge_all()
                began = time.perf_counter()
                run()
                seconds = time.perf_counter() - began
                # Of both counts, only the time of the database is compared.
                times[name].append(count.seconds if "hand" in name else seconds)
                if name == "numbered page 1, counted":
                    times["its count query"].append(count.seconds)
    medians = {name: statistics.median(values) * 1000 for name, values in times.items()}
    for name, milliseconds in medians.items():
        print(f"{name:36}{milliseconds:10.2f} ms")
    last, first = medians[f"keyset page {LAST:,}"], medians["keyset page 1"]
    print(f"{'last keyset page to the first':36}{last / first:10.2f}")
    ratio = medians["its count query"] / medians["SELECT count(*) by hand"]
    print(f"{'count query to that by hand':36}{ratio:10.2f}")


if __name__ == "__main__":
    mariadb = MariaDB().start()
    try:
        bench_engine = create_engine(mariadb.url("mysql"), connect_args={"ssl_disabled": True})
        with filled(bench_engine):
            measure(bench_engine)
        bench_engine.dispose()
    finally:
        mariadb.remove()
