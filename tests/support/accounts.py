"""Accounts that several requests change at once, in every way that SQLAlchemy has."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pymysql
from pyramid.response import Response
from sqlalchemy import event, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from support.databases import plain_engine

# Nobody waits longer for the other: what hangs fails.
PATIENCE = 30
ROWS = 20
ALL = "SELECT * FROM account FOR UPDATE"
SECOND = "SELECT * FROM account WHERE id = 2 FOR UPDATE"
READ = text("SELECT count(*) FROM account")


class Base(DeclarativeBase):
    """The models of this test."""


class Account(Base):
    """A row that several requests change."""

    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    hits: Mapped[int]


class Entry(Base):
    """Its insertion counts as a hit, by a trigger."""

    __tablename__ = "entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[int]


class Ticket(Base):
    """Its deletion counts as a hit, by a trigger."""

    __tablename__ = "ticket"
    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[int]


class Note(Base):
    """Who was there."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    who: Mapped[int]


class Versioned(Base):
    """A row that notices by itself when somebody else has changed it."""

    __tablename__ = "versioned"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy's way to say it


MORE = {Account.hits: Account.hits + 1}
HIT = update(Account.__table__).values(hits=Account.__table__.c.hits + 1)
STYLES = {}


def style(function):
    """Register a way to count a hit of an account."""
    STYLES[function.__name__] = function
    return function


@style
def attribute_change(session, key, who):
    session.get(Account, key).hits = Account.hits + 1


@style
def orm_add(session, key, who):
    session.add(Entry(account=key))


@style
def orm_delete(session, key, who):
    session.delete(session.get(Ticket, 100 * key + who))


@style
def core_update(session, key, who):
    session.execute(HIT.where(Account.__table__.c.id == key))


@style
def text_update(session, key, who):
    session.execute(text("UPDATE account SET hits = hits + 1 WHERE id = :id"), {"id": key})


@style
def connection(session, key, who):
    session.connection().execute(HIT.where(Account.__table__.c.id == key))


@style
def driver_sql(session, key, who):
    statement = f"UPDATE account SET hits = hits + 1 WHERE id = {key}"
    session.connection().exec_driver_sql(statement)


@style
def legacy_query(session, key, who):
    session.query(Account).filter_by(id=key).update(MORE, synchronize_session=False)


@style
def stored_procedure(session, key, who):
    session.execute(text("CALL hit(:id)"), {"id": key})


def in_the_view(session, write):
    write()
    session.flush()


def in_the_flush_of_the_commit(session, write):
    event.listen(session, "before_flush", lambda *_: write(), once=True)


PLACES = [in_the_view, in_the_flush_of_the_commit]


@contextmanager
def tables(database):
    """Make the tables, for all tests."""
    Base.metadata.create_all(plain_engine(database.url))
    keys = range(1, ROWS + 1)
    database.run(
        f"INSERT INTO account (id, hits) VALUES {', '.join(f'({key}, 0)' for key in keys)}",
        "INSERT INTO versioned (id, n, version) VALUES (1, 0, 1)",
    )
    yield database


def emptied(database):
    """The tables as they are at the beginning of a test."""
    database.run(
        "UPDATE account SET hits = 0",
        "UPDATE versioned SET n = 0, version = 1",
        "DELETE FROM note",
    )
    return database


def at_once(app, *paths):
    """Visit *paths* in a thread each; return each one's status, or what it raised."""

    def visit(path):
        try:
            return TestApp(app).get(path, expect_errors=True).status_int
        except Exception as error:  # noqa: BLE001 - it is the answer: the test looks at it
            return error

    with ThreadPoolExecutor(len(paths)) as threads:
        return list(threads.map(visit, paths, timeout=2 * PATIENCE))


def who_of(request):
    return int(request.matchdict["who"])


def is_first(request):
    return request.environ["retry.attempt"] == 0


def meet(barrier, request):
    """Wait for the others at the first attempt: the next is on its own."""
    if is_first(request):
        barrier.wait(PATIENCE)


def retries(caplog):
    """The lines about requests that are tried again."""
    return [line for name, _, line in caplog.record_tuples if name.endswith(".retry")]


def hits(database):
    """What was stored, as others see it: the accounts that were hit, and how often."""
    return dict(database.rows("SELECT id, hits FROM account WHERE hits > 0"))


def notes(database):
    return [row[0] for row in database.rows("SELECT who FROM note ORDER BY who")]


@contextmanager
def locked(database, statement=ALL):
    """Somebody else holds the rows; yield the function that lets them go."""
    with plain_engine(database.url).connect() as connection:
        connection.execute(text(statement)).all()
        yield connection.rollback


def crossing(write, place=in_the_view):
    """Two requests that each hold a row and then want the other's: a deadlock."""
    barrier = threading.Barrier(2)

    def view(request):
        session, who = request.sqa_session, who_of(request)
        write(session, who, who)
        session.flush()
        session.add(Note(who=who))
        meet(barrier, request)
        place(session, lambda: write(session, 3 - who, who))
        return Response()

    return view


def swallowing(session, write):
    """A view that thinks it knows better."""
    with suppress(Exception):
        write()
        session.flush()


def refuse_first_commit(app, code):
    """Have the server roll back at the first COMMIT, as a cluster does for a conflict."""
    dialect = get_sqa(app).engine.dialect
    commit, refused, lock = dialect.do_commit, [], threading.Lock()

    def do_commit(connection):
        with lock:
            first = not refused
            refused.append(code)
        if first:
            connection.rollback()
            raise pymysql.err.OperationalError(code, "conflict")
        commit(connection)

    dialect.do_commit = do_commit


def flush_a_duplicate(session):
    session.add(Account(id=2, hits=0))
    session.flush()
