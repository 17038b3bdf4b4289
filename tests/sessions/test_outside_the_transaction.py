"""Outside its transaction, request.sqa_session can read but refuses to write."""

import pytest
import transaction
from pyramid.events import BeforeRender, NewRequest
from pyramid.response import Response
from pyramid_retry import RetryableException
from sqlalchemy import create_engine, text

from pyramid_aalam_sqa import OutsideTransactionError, get_sqa
from support.apps import with_tween_above, with_view
from support.late_use import (
    ALL_REFUSED,
    OUTSIDE,
    WRITES,
    act,
    after_the_handler,
    before_the_handler,
    change,
    checked_out,
    look_at,
    make_tables,
    read,
    response_callback,
    serve_on,
    shared_manager,
    touch,
    view_between_two_transactions,
    write_next,
)
from support.models import Note


@pytest.mark.parametrize("place", OUTSIDE, ids=lambda place: place.__name__)
@pytest.mark.sweep(9)
def test_outside_the_transaction_reading_works_and_no_way_of_writing_is_lost(place, database):
    """The error says where to write. The connection goes back, and the next request writes."""
    make_tables(database)

    assert look_at(place, database) == ALL_REFUSED


def test_outside_the_transaction_postgresql_loses_nothing_either(postgresql):
    """The same is true in all those places on PostgreSQL."""
    make_tables(postgresql)
    outcomes = {place.__name__: look_at(place, postgresql) for place in OUTSIDE}

    assert outcomes == {place.__name__: ALL_REFUSED for place in OUTSIDE}


@pytest.mark.parametrize(
    "place",
    # The thread's manager begins a transaction by itself, which pyramid_tm then commits.
    [place for place in OUTSIDE if place is not view_between_two_transactions],
    ids=lambda place: place.__name__,
)
@pytest.mark.sweep(4)
def test_outside_the_transaction_the_threads_own_manager_loses_nothing_either(place, sqlite):
    """That manager begins a transaction whenever it is asked, and nothing would end it."""
    make_tables(sqlite)
    # Left there by somebody else, in an earlier request of this thread.
    transaction.get()

    assert look_at(place, sqlite, **{"tm.manager_hook": shared_manager}) == ALL_REFUSED


def test_a_view_between_two_transactions_of_the_threads_own_manager_writes(serve_seeded, bodies):
    """That manager always has a transaction, and pyramid_tm commits it at the end."""

    def view(request):
        request.tm.commit()
        return write_next(request)

    serve_seeded(with_view(view), **{"tm.manager_hook": shared_manager}).get("/")

    assert bodies() == ["next", "seed"]


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("subscribed", [NewRequest, BeforeRender])
def test_the_subscribers_around_the_view_are_in_the_transaction(
    serve_seeded, bodies, subscribed, status
):
    """What they write is stored if the status of the response is 200 to 399."""

    def subscriber(event):
        request = event["request"] if subscribed is BeforeRender else event.request
        write_next(request)

    def view(request):
        request.response.status = status
        return {}

    def setup(config):
        config.add_subscriber(subscriber, subscribed)
        config.add_view(view, renderer="json")

    serve_seeded(setup).get("/", status=status)

    assert bodies() == (["next", "seed"] if status == 200 else ["seed"])


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
@pytest.mark.sweep(12)
def test_a_function_after_the_commit_reads_and_its_write_is_logged(
    serve_seeded, bodies, caplog, write
):
    """The transaction is stored, so the response is true and is sent."""

    def view(request):
        write_next(request)
        request.sqa_after_commit(late, request)
        return Response("stored")

    def late(request):
        assert request.sqa_session.scalar(text("SELECT count(*) FROM note")) == 2
        write(request.sqa_session)

    client = serve_seeded(with_view(view))
    response = client.get("/")

    assert response.text == "stored"
    assert "with request.tm:" in caplog.text
    assert bodies() == ["next", "seed"]
    assert checked_out(client) == 0


@pytest.mark.parametrize("manager_hook", [None, shared_manager])
def test_after_commit_outside_the_transaction_says_that_there_is_none(serve_seeded, manager_hook):
    """The function would never be called, so it is refused."""
    refused = []

    def tween_factory(handler, registry):
        def tween(request):
            with pytest.raises(OutsideTransactionError, match="needs the transaction") as caught:
                request.sqa_after_commit(print)
            refused.append(caught.value)
            return handler(request)

        return tween

    settings = {"tm.manager_hook": manager_hook} if manager_hook else {}
    serve_seeded(with_tween_above(tween_factory), with_view(touch), **settings).get("/")

    assert len(refused) == 1


@pytest.fixture(params=[None, shared_manager], ids=["explicit", "the thread's"])
def manager(request):
    """Return the setting for one of the two kinds of transaction managers."""
    return {"tm.manager_hook": request.param} if request.param else {}


@pytest.mark.parametrize("status", [200, 404])
def test_a_session_read_above_is_joined_in_the_view(serve_seeded, bodies, manager, status):
    """It is one session. The view can change objects that a tween above has loaded."""
    seen = []

    def above(session):
        seen.append((session, session.get(Note, 1)))

    def view(request):
        session, note = seen[-1]
        assert request.sqa_session is session
        assert note.body == "seed"
        note.body = "changed"
        write_next(request)
        return Response(status=status)

    def setup(config):
        with_tween_above(before_the_handler)(config)
        config.add_view(view)

    client = serve_seeded(setup, **manager)
    client.get("/", extra_environ={"sqa.act": above}, status=status)

    assert bodies() == (["changed", "next"] if status == 200 else ["seed"])
    assert checked_out(client) == 0


def test_what_was_changed_above_is_not_forgotten_by_the_view(serve_seeded, bodies, manager):
    """The change is noticed even if the view does not use the session and answers 200."""

    def setup(config):
        with_tween_above(before_the_handler)(config)
        config.add_view(lambda request: Response())

    client = serve_seeded(setup, **manager)
    with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
        client.get("/", extra_environ={"sqa.act": change})

    assert bodies() == ["seed"]
    assert checked_out(client) == 0
    client.get("/")


def test_closing_the_session_above_does_not_forget_what_was_changed(serve_seeded, bodies):
    """A tween that calls close() out of habit must not hide that a change is lost."""

    def change_and_close(session):
        change(session)
        session.close()

    def setup(config):
        with_tween_above(after_the_handler)(config)
        config.add_view(touch)

    with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
        serve_seeded(setup).get("/", extra_environ={"sqa.act": change_and_close})

    assert bodies() == ["seed"]


def test_a_late_change_that_is_taken_back_is_not_a_lost_write(serve_seeded):
    """A call of session.rollback() shows that the change is not wanted."""

    def change_and_roll_back(session):
        change(session)
        session.rollback()

    def setup(config):
        with_tween_above(after_the_handler)(config)
        config.add_view(touch)

    serve_seeded(setup).get("/", extra_environ={"sqa.act": change_and_roll_back})


def test_a_late_read_of_a_failed_attempt_does_not_keep_the_connection_from_the_next(serve_seeded):
    """With a pool of one, the second attempt would otherwise wait for the first."""
    attempts = []

    def view(request):
        attempts.append(touch(request))
        request.add_finished_callback(act)
        if len(attempts) == 1:
            raise RetryableException
        return Response()

    serve_seeded(with_view(view)).get("/", extra_environ={"sqa.act": read})

    assert len(attempts) == 2


@pytest.mark.parametrize("kind", ["core", "raw"])
def test_after_a_late_read_the_engine_of_the_application_writes(
    serve_seeded, database, bodies, kind
):
    """The connection was read-only only while the session used it."""
    client = serve_seeded(response_callback)
    client.get("/", extra_environ={"sqa.act": read})
    engine = get_sqa(client.app).engine
    statement = "INSERT INTO note (body) VALUES ('core')"
    if kind == "core":
        with engine.begin() as connection:
            connection.execute(text(statement))
    else:
        connection = engine.raw_connection()
        connection.cursor().execute(statement)
        connection.commit()
        connection.close()

    assert bodies() == ["core", "seed"]


def test_an_engine_that_was_handed_in_writes_after_a_late_read(database, bodies):
    """A ready Engine does not have our settings, but its connection is made writable again too."""
    make_tables(database)
    engine = create_engine(database.url, pool_size=1, max_overflow=0)
    client = serve_on(database, response_callback, **{"sqlalchemy.engine": engine})

    client.get("/", extra_environ={"sqa.act": read})
    client.get("/next")

    assert bodies() == ["next", "seed"]
    engine.dispose()
