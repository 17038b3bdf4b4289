"""What the README says of this package and of the wiring by hand, counted on both.

By hand is what Pyramid's cookiecutter writes into an application: pyramid_tm, pyramid_retry,
zope.sqlalchemy and an engine without options. Both serve the same views on the same MariaDB, and
both have an error page of their own.
"""

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest
import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker
from webtest import TestApp

from support.accounts import (
    at_once,
    core_update,
    crossing,
    emptied,
    in_the_flush_of_the_commit,
    is_first,
    locked,
    tables,
)
from support.pages import ROOT
from support.retried import page_for_everything
from support.servers import free_port
from support.ways import WAYS, prepare

NUMBERS = ("none", "one", "two", "three", "four", "five", "six")
README = " ".join((ROOT / "README.md").read_text().split())
CLOSE_ALL = (
    "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
)


@contextmanager
def by_hand(url, *setups):
    """Make an application as the cookiecutter wires it; its session has our name for the views."""
    settings = {"tm.manager_hook": "pyramid_tm.explicit_manager", "retry.attempts": "3"}
    with Configurator(settings=settings) as config:
        config.include("pyramid_tm")
        config.include("pyramid_retry")
        engine = create_engine(url)
        factory = sessionmaker(engine)

        def session(request):
            session = factory(info={"request": request})
            zope.sqlalchemy.register(session, transaction_manager=request.tm)
            session.tm = request.tm
            return session

        config.add_request_method(session, "sqa_session", reify=True)
        for setup in setups:
            setup(config)
    yield config.make_wsgi_app()
    engine.dispose()


STACKS = ["ours", "by hand"]


@pytest.fixture
def stacks(serve):
    """What makes an application on a URL, for each of the two."""
    with ExitStack() as ends:
        yield {
            "ours": serve,
            "by hand": lambda url, *setups: ends.enter_context(by_hand(url, *setups)),
        }


def ways_that_store(make, database):
    """Return for each way to write whether its rows are stored; every answer is 200."""

    def view(request):
        WAYS[request.params["way"]][0](request.sqa_session)
        return Response()

    client = TestApp(make(database.url, lambda config: config.add_view(view)))
    stored = {}
    for name, (_, after, only) in WAYS.items():
        if "mariadb" in only:
            client.get(f"/?way={name}", status=200)
            stored[name] = set(database.rows("SELECT id, body FROM note")) == after
            database.run("DELETE FROM note", "INSERT INTO note (id, body) VALUES (1, 'before')")
    return stored


def test_the_readme_says_how_many_ways_to_write_are_stored(stacks, mariadb):
    """By hand, only what the unit of work of the ORM has written is stored."""
    prepare(mariadb)
    ours, other = (ways_that_store(stacks[name], mariadb) for name in STACKS)
    total, stored = len(other), sum(other.values())

    assert all(ours.values())
    assert [other[name] for name in ("orm_add", "text_update", "core_insert")] == [1, 0, 0]
    assert f"Of {total} ways to write with a session, this package stores {len(ours)}." in README
    others = f"and answers 200 to the other {total - stored} as well."
    assert f"The wiring by hand stores {stored}, {others}" in README


def accounts(make, database, view):
    """Make an application with one page, and an error page for everything."""

    def setup(config):
        config.add_route("any", "/{style}/{who}")
        config.add_view(view, route_name="any")
        page_for_everything(config)

    return make(database.url, setup)


def deadlock(make, database):
    """Two requests at once: each has a row, and wants that of the other."""
    app = accounts(make, database, crossing(core_update))
    return at_once(app, "/any/1", "/any/2")


def deadlock_while_committing(make, database):
    """The same, where the last statement is sent by the commit."""
    app = accounts(make, database, crossing(core_update, in_the_flush_of_the_commit))
    return at_once(app, "/any/1", "/any/2")


def lock_wait(make, database):
    """Another connection holds the row until the request has waited for it in vain."""

    def view(request):
        if not is_first(request):
            release()
        request.sqa_session.execute(text("SET SESSION innodb_lock_wait_timeout = 1"))
        core_update(request.sqa_session, 1, 1)
        return Response()

    app = accounts(make, database, view)
    with locked(database) as release:
        return at_once(app, "/any/1")


def closed_in_the_pool(make, database):
    """The server has closed the connections that the pool keeps, as after its restart."""

    def view(request):
        core_update(request.sqa_session, 1, 1)
        return Response()

    app = accounts(make, database, view)
    assert at_once(app, "/any/1") == [200]
    close_connections(database)
    return at_once(app, "/any/1")


def lost_between_two_statements(make, database):
    """The server closes the connection in the middle of the transaction."""

    def view(request):
        core_update(request.sqa_session, 1, 1)
        if is_first(request):
            close_connections(database)
        core_update(request.sqa_session, 2, 1)
        return Response()

    return at_once(accounts(make, database, view), "/any/1")


def close_connections(database):
    for (number,) in database.rows(CLOSE_ALL):
        database.run(f"KILL {number}")


ACCIDENTS = {
    deadlock: "two deadlocks",
    deadlock_while_committing: "two deadlocks",
    lock_wait: "a lock that was not free in time",
    closed_in_the_pool: "two lost connections",
    lost_between_two_statements: "two lost connections",
}


@pytest.mark.deep
def test_the_readme_says_how_many_accidents_a_visitor_sees(stacks, mariadb):
    """By hand, a deadlock in the view is tried again, and nothing else."""
    seen = dict.fromkeys(STACKS, 0)
    with tables(mariadb):
        for name, make in stacks.items():
            for accident in ACCIDENTS:
                emptied(mariadb)
                answers = accident(make, mariadb)
                assert set(answers) <= {200, 500}
                seen[name] += 500 in answers

    assert seen["ours"] == 0
    kinds = ", ".join(dict.fromkeys(ACCIDENTS.values()))
    assert f"Of {NUMBERS[len(ACCIDENTS)]} accidents ({kinds}) no visitor sees one." in README
    assert f"By hand, {NUMBERS[seen['by hand']]} are an error page." in README


def test_the_readme_says_what_an_outage_is_answered(stacks):
    """No server listens at the address."""

    def view(request):
        return Response(str(request.sqa_session.scalar(text("SELECT 1"))))

    nowhere = SimpleNamespace(url=f"mysql+pymysql://u@127.0.0.1:{free_port()}/nothing")
    ours, other = (at_once(accounts(stacks[name], nowhere, view), "/any/1") for name in STACKS)

    assert f"Without a database the answer is {ours[0]}" in README
    assert f"By hand it is {other[0]}" in README
