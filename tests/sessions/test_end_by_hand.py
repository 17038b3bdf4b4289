"""A commit, close or rollback by hand is refused, noticed, or taken as intended."""

import pytest
from pyramid.response import Response
from sqlalchemy import event, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session
from webtest import TestApp

from pyramid_aalam_sqa import (
    BrokenTransactionError,
    CommitNotAllowedError,
    OutsideTransactionError,
    TransactionError,
    get_sqa,
)
from support.apps import with_view
from support.late_use import (
    checked_out,
    make_tables,
    read,
    response_callback,
    serve_on,
    text_insert,
    write_next,
)
from support.models import BODIES, INSERT


def select_after_rollback(session, _ended):
    # As SQLAlchemy documents it.
    if session.is_active:
        session.execute(text("SELECT 1"))


class ReadsAfterRollback(Session):
    """A session class whose listener reads after each rollback."""


event.listen(ReadsAfterRollback, "after_soft_rollback", select_after_rollback)


@pytest.mark.parametrize("shortcuts", ["true", "false"])
def test_a_listener_may_read_after_a_rollback(sqlite, serve, shortcuts):
    """The rollback ends, and what the view writes in its next transaction is stored."""

    def view(request):
        request.sqa_session.execute(INSERT, {"body": "undone"})
        request.tm.abort()
        request.tm.begin()
        request.sqa_session.execute(INSERT, {"body": "kept"})
        return Response()

    def failing(request):
        request.sqa_session.execute(INSERT, {"body": "undone"})
        return Response(status=500)

    settings = {"sqa.session.class_": ReadsAfterRollback, "sqa.shortcuts": shortcuts}
    make_tables(sqlite)
    setups = with_view(view), with_view(failing, name="failing")
    client = TestApp(serve(sqlite.url, *setups, **settings))
    client.get("/")
    client.get("/failing", status=500)

    assert sqlite.rows(BODIES) == [("kept",), ("seed",)]


def commit_the_session(session):
    session.commit()


def commit_the_connection(session):
    session.connection().commit()


def commit_the_transaction_of_the_session(session):
    session.get_transaction().commit()


def commit_the_transaction_of_the_connection(session):
    session.connection().get_transaction().commit()


COMMITS = [
    commit_the_session,
    commit_the_connection,
    commit_the_transaction_of_the_session,
    commit_the_transaction_of_the_connection,
]


@pytest.mark.parametrize("commit", COMMITS, ids=lambda commit: commit.__name__)
def test_a_commit_by_hand_is_one_error_and_leaves_a_clean_connection(serve_seeded, bodies, commit):
    """Its work is not stored, neither now nor by the next request on that connection."""

    def view(request):
        text_insert(request.sqa_session)
        commit(request.sqa_session)

    client = serve_seeded(with_view(view))
    with pytest.raises(CommitNotAllowedError, match=r"session\.flush\(\).*request\.tm\.commit\(\)"):
        client.get("/")
    stored = bodies()
    client.get("/next")

    assert stored == ["seed"]
    assert bodies() == ["next", "seed"]
    assert checked_out(client) == 0


@pytest.mark.parametrize("commit", COMMITS, ids=lambda commit: commit.__name__)
def test_a_commit_by_hand_that_is_swallowed_is_never_a_half(serve_seeded, bodies, commit):
    """Either the end of the request stores everything, or the response is not a 200."""

    def view(request):
        text_insert(request.sqa_session)
        with pytest.raises(CommitNotAllowedError):
            commit(request.sqa_session)
        write_next(request)
        return Response()

    client = serve_seeded(with_view(view))
    try:
        client.get("/")
        told = 200
    except (TransactionError, InvalidRequestError):
        told = 500
    stored = bodies()
    client.get("/next")

    assert stored == (["late", "next", "seed"] if told == 200 else ["seed"])
    assert bodies() == sorted([*stored, "next"])


@pytest.mark.parametrize("commit", COMMITS, ids=lambda commit: commit.__name__)
def test_a_late_commit_by_hand_is_refused_too(serve_seeded, bodies, commit):
    """After the transaction there is nothing to commit."""

    def read_and_commit(session):
        read(session)
        commit(session)

    client = serve_seeded(response_callback)
    with pytest.raises(TransactionError, match=r"with request\.tm"):
        client.get("/", extra_environ={"sqa.act": read_and_commit})
    client.get("/next")

    assert bodies() == ["next", "seed"]


def test_a_begin_block_in_a_view_stores_nothing(serve_seeded, bodies):
    """The end of `with session.begin():` commits, so it is refused at its begin or its end."""

    def fresh(request):
        with request.sqa_session.begin():
            text_insert(request.sqa_session)

    def used(request):
        text_insert(request.sqa_session)
        with request.sqa_session.begin():
            text_insert(request.sqa_session)

    client = serve_seeded(with_view(fresh, name="fresh"), with_view(used, name="used"))
    with pytest.raises(CommitNotAllowedError, match=r"session\.flush\(\)"):
        client.get("/fresh")
    with pytest.raises(InvalidRequestError, match="already begun"):
        client.get("/used")
    client.get("/next")

    assert bodies() == ["next", "seed"]


@pytest.mark.parametrize("end", ["close", "invalidate", "reset"])
def test_a_session_that_is_thrown_away_after_a_write_is_not_a_200(serve_seeded, bodies, end):
    """The write is lost, so the client is not told that all went well."""

    def view(request):
        text_insert(request.sqa_session)
        getattr(request.sqa_session, end)()
        return Response()

    def goes_on(request):
        view(request)
        return write_next(request)

    client = serve_seeded(with_view(view), with_view(goes_on, name="on"))
    for path in ("/", "/on"):
        with pytest.raises(OutsideTransactionError, match=r"remove the close\(\)"):
            client.get(path)

    assert bodies() == ["seed"]
    assert checked_out(client) == 0


def test_a_rollback_of_the_session_is_on_purpose(serve_seeded, bodies):
    """Work before the rollback is undone, and work after it is stored."""

    def view(request):
        text_insert(request.sqa_session)
        request.sqa_session.rollback()
        return write_next(request)

    serve_seeded(with_view(view)).get("/")

    assert bodies() == ["next", "seed"]


@pytest.mark.parametrize("commit", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_after_a_rollback_of_the_connection_nothing_goes_on_unnoticed(
    serve_seeded, bodies, late, commit
):
    """The session does not notice the rollback. So later writes would have no transaction."""

    def roll_back(session):
        connection = session.connection()
        connection.execute(text("SELECT 1"))
        connection.rollback()
        connection.execute(INSERT, {"body": "late"})
        if commit:
            connection.commit()

    def view(request):
        roll_back(request.sqa_session)
        return Response()

    client = serve_seeded(response_callback if late else with_view(view))
    with pytest.raises(BrokenTransactionError, match=r"session\.rollback\(\)"):
        client.get("/", extra_environ={"sqa.act": roll_back})
    client.get("/next")

    assert bodies() == ["next", "seed"]


def test_a_connection_that_was_killed_before_a_commit_by_hand_is_thrown_away(mariadb):
    """The client gets the error about the commit. The next request has another connection."""
    make_tables(mariadb)

    def by_hand(request):
        text_insert(request.sqa_session)
        number = request.sqa_session.scalar(text("SELECT CONNECTION_ID()"))
        mariadb.run(f"KILL {number}")
        request.sqa_session.connection().commit()

    client = serve_on(mariadb, with_view(by_hand))
    with pytest.raises(CommitNotAllowedError):
        client.get("/")
    client.get("/next")

    assert [row[0] for row in mariadb.rows(BODIES)] == ["next", "seed"]
    assert checked_out(client) == 0
    get_sqa(client.app).dispose()
