"""After its request a session cannot be used, and its connection is always back in the pool."""

import gc
import threading

import pytest
import transaction
from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response
from pyramid.scripting import prepare
from pyramid.threadlocal import manager
from sqlalchemy import select, text

from pyramid_aalam_sqa import OutsideTransactionError
from support.apps import with_view
from support.late_use import (
    act,
    add,
    add_and_flush,
    change,
    checked_out,
    ddl,
    fail,
    read,
    shared_manager,
    text_insert,
    touch,
    write_next,
)
from support.models import BODIES, Note


@pytest.fixture(autouse=True)
def _threadlocals():
    """Pyramid 2.0 leaves the request of a closer that raises to the tests that come after."""
    depth = len(manager.stack)
    yield
    del manager.stack[depth:]


def unflushed(session):
    session.add(Note(body="late"))


USES = {
    "execute": lambda session: session.execute(text("SELECT 1")),
    "get": lambda session: session.get(Note, 1),
    "scalars": lambda session: session.scalars(select(Note)).all(),
    "connection": lambda session: session.connection(),
    "begin": lambda session: session.begin(),
    "begin_nested": lambda session: session.begin_nested(),
    "add": unflushed,
    "add and flush": add_and_flush,
    "merge": lambda session: session.merge(Note(id=1, body="late")),
    "stream": lambda session: next(iter(session.execute(select(Note)))),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.sweep(10)
def test_a_session_kept_after_its_request_is_dead_and_says_so(serve_seeded, bodies, use):
    """It does not connect again without an error, or accept a write that would be lost."""
    kept = []

    def view(request):
        kept.append(request.sqa_session)
        return touch(request)

    client = serve_seeded(with_view(view))
    client.get("/")
    with pytest.raises(OutsideTransactionError, match="ended with its request"):
        use(kept[0])

    assert checked_out(client) == 0
    assert bodies() == ["seed"]


def test_an_answer_that_was_not_read_to_its_end_is_not_in_the_way_of_the_next_request(
    serve_seeded, database, bodies
):
    """The traceback of a 404 keeps the result, and with it the database's state, alive."""

    def missing(request):
        result = request.sqa_session.execute(text(BODIES))
        assert result.fetchone().body == "one"
        raise HTTPNotFound

    def count(request):
        return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM note"))))

    client = serve_seeded(with_view(missing), with_view(count, name="count"))
    database.run("INSERT INTO note (body) VALUES ('one'), ('two')")
    gc.collect()
    gc.disable()
    try:
        client.get("/", status=404)
        database.run("DELETE FROM note WHERE body <> 'seed'")
        seen = client.get("/count").text
        client.get("/next")
    finally:
        gc.enable()

    assert seen == "1"
    assert bodies() == ["next", "seed"]


def test_a_request_kept_after_its_end_has_no_session_any_more(serve_seeded):
    """For example, a thread that got the request uses its session for the first time."""
    kept, told = [], []

    def view(request):
        kept.append(request)
        return Response()

    def work():
        with pytest.raises(OutsideTransactionError, match="ended with its request") as caught:
            kept[0].sqa_session.execute(text("SELECT 1"))
        told.append(caught.value)
        with pytest.raises(OutsideTransactionError, match="ended with its request") as caught:
            kept[0].sqa_stream(select(Note))
        told.append(caught.value)

    client = serve_seeded(with_view(view))
    client.get("/")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)

    assert len(told) == 2
    assert checked_out(client) == 0


def test_the_session_of_a_script_reads_before_its_transaction_and_dies_with_the_closer(
    serve_seeded, bodies
):
    """A script that calls pyramid.scripting.prepare() writes inside `with request.tm:`."""
    client = serve_seeded()
    with prepare(registry=client.app.registry) as env:
        session = env["request"].sqa_session
        read(session)
        for write in (text_insert, ddl, add):
            with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
                write(session)
            session.rollback()
        with env["request"].tm:
            session.get(Note, 1).body = "changed"
        assert session.get(Note, 1).body == "changed"
    with pytest.raises(OutsideTransactionError, match="ended with its request"):
        session.get(Note, 1)
    with pytest.raises(OutsideTransactionError, match="ended with its request"):
        env["request"].sqa_stream(select(Note))

    assert bodies() == ["changed"]
    assert checked_out(client) == 0


def test_a_script_that_changes_an_object_without_a_commit_is_told_by_the_closer(
    serve_seeded, bodies
):
    """The closer is the last place where an error can be raised."""
    client = serve_seeded()
    with (
        pytest.raises(OutsideTransactionError, match=r"with request\.tm"),
        prepare(registry=client.app.registry) as env,
    ):
        change(env["request"].sqa_session)

    assert bodies() == ["seed"]
    assert checked_out(client) == 0


def test_a_script_with_the_threads_own_manager_commits_as_ever(serve_seeded, bodies):
    """Such scripts call transaction.commit() without begin()."""
    client = serve_seeded(**{"tm.manager_hook": shared_manager})
    transaction.abort()
    with prepare(registry=client.app.registry) as env:
        write_next(env["request"])
        transaction.commit()

    assert bodies() == ["next", "seed"]
    assert checked_out(client) == 0


@pytest.mark.parametrize("first", ["the failing callback", "the session"])
@pytest.mark.parametrize("kind", ["response", "finished"])
def test_the_connection_comes_back_when_a_callback_raises(serve_seeded, kind, first):
    """The callback may be registered before or after the first use of the session."""

    def view(request):
        add_callback = getattr(request, f"add_{kind}_callback")
        if first == "the session":
            touch(request)
        # Opens a connection after the transaction, and then fails.
        add_callback(lambda request, *_: act(request))
        add_callback(fail)
        return touch(request)

    client = serve_seeded(with_view(view))
    with pytest.raises(ZeroDivisionError):
        client.get("/", extra_environ={"sqa.act": read})

    assert checked_out(client) == 0
    client.get("/next")


@pytest.mark.parametrize("first", ["the failing callback", "the session"])
def test_the_closer_of_a_script_gives_the_connection_back_when_a_callback_raises(
    serve_seeded, first
):
    """Pyramid does not call the callbacks after one that has raised."""
    client = serve_seeded()

    def script():
        with prepare(registry=client.app.registry) as env:
            request = env["request"]
            if first == "the session":
                read(request.sqa_session)
            request.add_finished_callback(fail)
            read(request.sqa_session)

    with pytest.raises(ZeroDivisionError):
        script()

    assert checked_out(client) == 0


@pytest.mark.parametrize("hook", ["a failing hook", "no commit"])
@pytest.mark.parametrize("status", [200, 500])
def test_a_transaction_that_is_never_ended_is_not_a_200(serve_seeded, bodies, hook, status):
    """It happens if a hook fails before the commit, or if code forgets to commit."""

    def view(request):
        if hook == "no commit":
            request.tm.begin()
            return page(None, request)
        request.tm.get().addBeforeCommitHook(fail)
        return touch(request)

    def page(error, request):
        text_insert(request.sqa_session)
        return Response(status=status)

    def setup(config):
        if hook == "no commit":
            config.add_settings({"tm.activate_hook": lambda request: request.path_info == "/next"})
        config.add_view(view)
        config.add_exception_view(page, context=ZeroDivisionError)

    client = serve_seeded(setup)
    if status == 200:
        with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
            client.get("/")
    else:
        client.get("/", status=500)
    client.get("/next")

    assert bodies() == ["next", "seed"]
    assert checked_out(client) == 0
