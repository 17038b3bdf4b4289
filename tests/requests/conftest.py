"""Applications and databases that several test modules of this room use."""

from functools import partial

import pytest
from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from support.accounts import emptied, tables
from support.apps import with_view
from support.databases import own_database
from support.models import INSERT


@pytest.fixture
def unique_notes(sqlite):
    """Return what others see of a table in which a body can be stored only once."""
    sqlite.run("CREATE TABLE note (body VARCHAR(100) PRIMARY KEY)")
    return lambda: [row[0] for row in sqlite.rows("SELECT body FROM note ORDER BY body")]


@pytest.fixture
def attempts():
    """The requests that reached a view of serve_pages, one item for each attempt."""
    return []


@pytest.fixture
def serve_pages(serve, attempts):
    """Make a client of an application that reads and writes the table note."""
    engines = []

    def read(request):
        attempts.append("read")
        return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM note"))))

    def write(request):
        attempts.append("write")
        request.sqa_session.execute(INSERT, {"body": request.params["body"]})
        return Response()

    def serve_pages(url, *setups, **settings):
        own = (with_view(read, name="read"), with_view(write, name="write"))
        app = serve(url, *own, *setups, **{"sqa.retry_pause": "0", **settings})
        engines.append(get_sqa(app).engine)
        return TestApp(app)

    yield serve_pages
    for engine in engines:
        assert not hasattr(engine.pool, "checkedout") or engine.pool.checkedout() == 0


@pytest.fixture
def serve_view(serve, sqlite, unique_notes):
    """Make a client of an application with one view. Retries have no pause."""

    def serve_view(view, *, setup=None, url=sqlite.url, view_options=(), **settings):
        setups = [lambda config: config.add_view(view, **dict(view_options))]
        setups += [setup] if setup else []
        return TestApp(serve(url, *setups, **{"sqa.retry_pause": "0", **settings}))

    return serve_view


@pytest.fixture
def serve_view_on(serve_view, request):
    """Make such a client on the database with a given name. Return that database too."""

    def serve_view_on(kind, view, **settings):
        target = request.getfixturevalue(kind)
        if kind != "sqlite":
            target.run("CREATE TABLE note (body VARCHAR(100) PRIMARY KEY)")
        return serve_view(view, url=target.url, **settings), target

    return serve_view_on


@pytest.fixture(scope="session")
def mariadb_tables(mariadb_url):
    """The tables of support.accounts on MariaDB, once for all tests."""
    hit = "UPDATE account SET hits = hits + 1 WHERE id ="
    with own_database(mariadb_url) as database, tables(database):
        database.run(
            f"CREATE TRIGGER made AFTER INSERT ON entry FOR EACH ROW {hit} NEW.account",
            f"CREATE TRIGGER gone AFTER DELETE ON ticket FOR EACH ROW {hit} OLD.account",
            f"CREATE PROCEDURE hit(IN account_id INT) {hit} account_id",
        )
        yield database


@pytest.fixture(scope="session")
def postgresql_tables(postgresql_server):
    """The tables of support.accounts on PostgreSQL, once for all tests."""
    with own_database(postgresql_server.url()) as database, tables(database):
        yield database


@pytest.fixture
def bank(mariadb_tables):
    """Accounts, entries, tickets and notes on MariaDB."""
    tickets = ", ".join(
        f"({100 * key + who}, {key})" for key in range(1, 10) for who in {1, 2, key}
    )
    mariadb_tables.run(f"INSERT IGNORE INTO ticket (id, account) VALUES {tickets}")
    return emptied(mariadb_tables)


@pytest.fixture
def ledger(postgresql_tables):
    """Accounts and notes on PostgreSQL."""
    return emptied(postgresql_tables)


@pytest.fixture
def book(sqlite):
    """Accounts and notes on SQLite."""
    with tables(sqlite):
        return sqlite


@pytest.fixture(params=["book", "bank", "ledger"])
def anywhere(request):
    """Accounts and notes on each of the three databases."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def serve_accounts(serve):
    """Make an application with one view at /{style}/{who}."""

    def serve_accounts(url, view, *, page=False, **settings):
        def setup(config):
            config.add_route("view", "/{style}/{who}")
            config.add_view(view, route_name="view")
            if page:
                config.add_exception_view(lambda error, request: Response("Sorry", status=500))

        return serve(url, setup, **{"sqa.retry_pause": "0.01", **settings})

    return serve_accounts


@pytest.fixture(params=[False, True], ids=["no_page", "page_for_every_error"])
def serve_accounts_either_way(request, serve_accounts):
    """The application has an exception view for everything, or none."""
    return partial(serve_accounts, page=request.param)
