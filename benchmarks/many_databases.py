"""What a budget of connections costs a process that serves a thousand databases.

    python benchmarks/many_databases.py [DATABASES] [BARE]

One MariaDB, which is started and stopped here, with an account for each database; one process with
8 threads. Some databases are asked for much more often than others, as applications are: the
second half as often as the first, the third a third. A unit of work is what a request of an
application does, in one transaction: it gets two objects by their keys, counts, lists ten rows, and
in every fourth case changes one.

With BARE as the last argument a unit is one object by its key and nothing else, so that what a new
connection costs weighs as much as it can.

The floor is the same engines without a budget, which end up with a connection for each database.
Both run in turn, so that the ratio holds on a busy machine too; it is the median of many rounds.
"""

import random
import statistics
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from transaction import TransactionManager

from pyramid_aalam_sqa.applications import SessionFactory, Sqa
from pyramid_aalam_sqa.settings.reader import read_settings

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.servers import MariaDB

BARE = "BARE" in sys.argv
BUDGET = 32
THREADS = 8
ROUNDS = 30
UNITS = 40
SERVER = ("--max-connections=4000", "--table-open-cache=4000", "--performance-schema=OFF")
CREATE = (
    "CREATE DATABASE {name}",
    "CREATE TABLE {name}.item (id INTEGER PRIMARY KEY, number INTEGER NOT NULL)",
    "INSERT INTO {name}.item SELECT seq, 0 FROM mysql.seq_1_to_20",
    "CREATE USER {name} IDENTIFIED BY 'secret'",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO {name}",
)
errors = Counter()


class Base(DeclarativeBase):
    """The models of the benchmark."""


class Item(Base):
    """A row to read and to change."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


COUNT = select(func.count()).select_from(Item)
TEN = select(Item).where(Item.id > 1).order_by(Item.number, Item.id).limit(10)


def applications(server, names, **settings):
    """Return what the application of each database has; nothing but the budget differs."""
    own = f"127.0.0.1:{server.port}"
    given = {
        "sqlalchemy.pool_size": "1",
        "sqlalchemy.max_overflow": "4",
        "sqlalchemy.query_cache_size": "50",
        **settings,
    }
    return [
        Sqa(
            SessionFactory(
                read_settings(
                    {"sqlalchemy.url": f"mysql+pymysql://{name}:secret@{own}/{name}", **given}
                )
            )
        )
        for name in names
    ]


def work(plan):
    """Do the units of one thread."""
    for sqa, change in plan:
        tm = TransactionManager(explicit=True)
        try:
            with sqa.session(tm) as session, tm:
                item = session.get(Item, 1)
                if not BARE:
                    session.get(Item, 2)
                    session.scalar(COUNT)
                    session.scalars(TEN).all()
                if change:
                    item.number += 1
        except Exception as error:  # noqa: BLE001 - each is counted
            errors[str(error)[:100]] += 1


def in_threads(plans):
    """Do each plan in a thread; return the seconds until the last one is done."""
    barrier = threading.Barrier(len(plans) + 1)

    def run(plan):
        barrier.wait()
        work(plan)

    threads = [threading.Thread(target=run, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    barrier.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def plans(made, seed):
    """Return what each thread does: the same for the same *seed*."""
    chance = random.Random(seed)  # noqa: S311 - a plan, no secret
    weights = [1 / (place + 1) for place in range(len(made))]
    return [
        [(sqa, chance.random() < 0.25) for sqa in chance.choices(made, weights, k=UNITS)]
        for _ in range(THREADS)
    ]


def everyone(made):
    """Return plans that use each engine once: a first use asks the server what it can do."""
    return [[(sqa, False) for sqa in made[start::THREADS]] for start in range(THREADS)]


def most_open(watcher):
    """Return how many connections the server has had at once since the last call."""
    watcher.execute("SHOW GLOBAL STATUS LIKE 'Max_used_connections'")
    most = int(watcher.fetchone()[1]) - 1  # the watcher's own
    watcher.execute("FLUSH STATUS")
    return most


def measure(server, watcher, names):
    """Print what has to be 0, what has to be 32 at most, and the ratio."""
    ours = applications(server, names, **{"sqa.max_connections": str(BUDGET)})
    floor = applications(server, names)
    watcher.execute("FLUSH STATUS")
    in_threads(everyone(ours))
    for seed in range(ROUNDS):
        in_threads(plans(ours, seed))
    most = most_open(watcher)
    in_threads(everyone(floor))
    ratios = []
    for seed in range(ROUNDS):
        stacks = [ours, floor] if seed % 2 else [floor, ours]
        seconds = {id(made): in_threads(plans(made, seed)) for made in stacks}
        ratios.append(seconds[id(floor)] / seconds[id(ours)])
    print(f"refused                  {sum(errors.values()):6}")
    print(f"most open with a budget  {most:6}")
    print(f"most open without        {most_open(watcher) - BUDGET:6}")
    print(f"throughput with / without{statistics.median(ratios):6.2f}")
    print(f"from {min(ratios):.2f} to {max(ratios):.2f}, {dict(errors) or 'no errors'}")
    for sqa in ours + floor:
        sqa.dispose()


if __name__ == "__main__":
    databases = int(sys.argv[1]) if sys.argv[1:2] and sys.argv[1].isdigit() else 1000
    mariadb = MariaDB(*SERVER).start()
    try:
        with mariadb.connect() as connection, connection.cursor() as cursor:
            every = [f"app{number:04}" for number in range(databases)]
            for database in every:
                for statement in CREATE:
                    cursor.execute(statement.format(name=database))
            measure(mariadb, cursor, every)
    finally:
        mariadb.remove()
