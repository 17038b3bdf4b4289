"""How often each kind of work speaks to its server: a count that is exact, and may only shrink.

MariaDB is heard by a proxy, PostgreSQL by its own log. psycopg sends BEGIN before the first
statement of a transaction; PyMySQL sends none.
"""

import re
from contextlib import suppress

import pytest
from pyramid.response import Response
from sqlalchemy import Column, Integer, MetaData, Table, insert, select
from webtest import TestApp

from pyramid_aalam_sqa import Session, get_sqa, session_scope
from support.apps import with_view

NOTE = Table("trip", MetaData(), Column("body", Integer))
AUDIT = Table("trip", MetaData(info={"bind_key": "audit"}), Column("body", Integer))
READ, WRITE, WRITE_AUDIT = select(NOTE), insert(NOTE).values(body=1), insert(AUDIT).values(body=1)
LOGGED = re.compile(r"LOG:  (?:statement|execute [^:]*): (\w+)")


class ViewError(Exception):
    """What a view raises."""


def read(request):
    request.sqa_session.execute(READ).all()
    return Response()


def write(request):
    request.sqa_session.execute(WRITE)
    return Response()


def not_found(request):
    request.sqa_session.execute(WRITE)
    return Response(status=404)


def fail(request):
    request.sqa_session.execute(WRITE)
    raise ViewError


def nothing(request):
    return Response()


def both(request):
    request.sqa_session.execute(WRITE)
    request.sqa_session.execute(WRITE_AUDIT)
    return Response()


def thread(request):
    with Session(request) as session:
        session.execute(WRITE)
        session.commit()
    return Response()


def scope(request):
    with session_scope(request) as session:
        session.execute(WRITE)
    return Response()


def stream(request):
    return Response(app_iter=(b"." for _ in request.sqa_stream(READ)))


VIEWS = (read, write, not_found, fail, nothing, both, thread, scope, stream)
# The words that go to MariaDB; to PostgreSQL there is a BEGIN before each transaction.
WORK = {
    "read": "SELECT COMMIT",
    "write": "INSERT COMMIT",
    "not_found": "INSERT ROLLBACK",
    "fail": "INSERT ROLLBACK",
    "nothing": "",
    "thread": "INSERT COMMIT",
    "scope": "INSERT COMMIT",
}


@pytest.fixture(scope="module")
def mariadb_ears(proxied):
    """Return the URL of MariaDB, and a function that returns what it has heard since the last."""
    database, proxy, url = proxied
    database.run("CREATE TABLE trip (body INTEGER)")
    return url, lambda: [said.split()[0] for said in proxy.forget()]


@pytest.fixture(scope="module")
def postgresql_ears(postgresql_server, postgresql_database):
    """Return the same of PostgreSQL."""
    name = postgresql_database.scalar("SELECT current_database()")
    postgresql_database.run(
        "CREATE TABLE IF NOT EXISTS trip (body INTEGER)",
        f'ALTER DATABASE "{name}" SET log_statement = "all"',
    )
    log = postgresql_server.folder / "log"
    place = 0

    def heard():
        nonlocal place
        text = log.read_text(errors="replace")
        new, place = text[place:], len(text)
        return LOGGED.findall(new)

    yield postgresql_database.url, heard
    postgresql_database.run(
        f'ALTER DATABASE "{name}" RESET log_statement', "DROP TABLE IF EXISTS trip"
    )


@pytest.fixture(params=["mariadb", "postgresql"])
def kind(request):
    return request.param


@pytest.fixture
def hear(kind, serve, request):
    """Return a function that returns what the server hears of a second visit of a view."""
    url, heard = request.getfixturevalue(f"{kind}_ears")
    settings = {
        "sqlalchemy.pool_size": "1",
        # Another engine, as another database has.
        "sqlalchemy.binds.audit.url": url,
        "sqlalchemy.binds.audit.pool_size": "2",
        "sqa.mysql.tls": "off",
    }
    app = serve(
        url,
        *(with_view(view, name=view.__name__) for view in VIEWS),
        with_view(read, name="read_only", sqa_read_only=True),
        with_view(read, name="snapshot", sqa_read_only="snapshot"),
        **settings,
    )
    assert len(set(get_sqa(app).engines.values())) == 2

    def visit(name):
        with suppress(ViewError):
            TestApp(app).get(f"/{name}", expect_errors=True)

    def hear(name):
        visit(name)
        heard()
        visit(name)
        return heard()

    return hear


@pytest.mark.parametrize(("name", "words"), WORK.items())
def test_a_unit_of_work_costs_its_statement_and_one_more(hear, kind, name, words):
    """COMMIT or ROLLBACK, and nothing else; a request without a database costs nothing."""
    begin = ["BEGIN"] if kind == "postgresql" and words else []

    assert hear(name) == [*begin, *words.split()]


def test_a_read_only_request_costs_its_statement_alone(hear):
    """It has neither BEGIN nor COMMIT: one round trip, where a bare driver needs two."""
    assert hear("read_only") == ["SELECT"]


def test_a_snapshot_costs_its_begin_and_its_end(hear, kind):
    """No more than a transaction that only reads."""
    begin = {"mariadb": "START", "postgresql": "BEGIN"}[kind]

    assert hear("snapshot") == [begin, "SELECT", "ROLLBACK"]


def test_two_databases_cost_twice_as_much(hear, kind):
    """PostgreSQL is asked to check its deferred constraints before the first of two COMMITs."""
    assert (
        sorted(hear("both"))
        == {
            "mariadb": ["COMMIT", "COMMIT", "INSERT", "INSERT"],
            "postgresql": ["BEGIN", "BEGIN", "COMMIT", "COMMIT", "INSERT", "INSERT", "SET"],
        }[kind]
    )


def test_a_stream_costs_what_its_read_only_transaction_needs(hear, kind):
    """Nothing repeats a stream, so its connection is asked first; PostgreSQL does not log that."""
    cursor = ["DECLARE", "FETCH", "FETCH", "FETCH", "CLOSE"]
    assert (
        hear("stream")
        == {
            "mariadb": ["PING", "SET", "SELECT", "ROLLBACK", "SET"],
            "postgresql": ["BEGIN", "SET", *cursor, "ROLLBACK"],
        }[kind]
    )
