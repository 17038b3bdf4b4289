"""The mapping request.sqa_sessions has a session for each database, in one transaction."""

import gc
import weakref

import pytest
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import Integer, event, insert, select, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, PendingRollbackError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pyramid_aalam_sqa import (
    BindError,
    CommitNotAllowedError,
    OutsideTransactionError,
    Session,
    create_all,
    get_sqa,
    session_scope,
)
from support import bound
from support.bound import (
    KEYS,
    Author,
    Entry,
    Line,
    Tag,
    author,
    do,
    engines,
    entry,
    fail_after,
    serving,
)
from support.databases import Database


def test_a_session_is_wholly_on_its_database(place, client):
    """It sends everything there: models with other keys, Core, text, connections."""

    def write(request):
        for key in KEYS:
            session = request.sqa_sessions[key]
            session.add_all([Author(name="orm"), Entry(name="orm")])
            session.execute(insert(Line), [{"name": "many"}])
            session.execute(text("INSERT INTO mark (name) VALUES ('text')"))
            session.connection().execute(bound.stamp.insert(), {"name": "core"})
            assert session.scalar(select(author.c.name)) == key
            assert (
                session.scalar(
                    select(Author.name).union(select(Entry.name).where(Entry.id == 1)).limit(1)
                )
                == key
            )
            assert (
                session.scalar(select(author.c.name).join(entry, entry.c.id == author.c.id)) == key
            )
            assert session.get(Tag, 1).name == key
            assert session.get_bind().engine is request.sqa_sessions[key].get_bind().engine

    do(client, write)

    assert place.names() == {name: set(KEYS) for name in ("orm", "many", "text", "core")}


def test_the_sessions_share_the_connection(place, client):
    """Two sessions write to one SQLite file, and each sees what the other has written."""

    def write(request):
        sessions = request.sqa_sessions
        request.sqa_session.add(Entry(name="one"))
        request.sqa_session.flush()
        sessions["audit"].add(Entry(name="two"))
        assert "one" in sessions["audit"].scalars(select(Entry.name)).all()
        sessions["default"].add(Author(name="three"))
        request.sqa_session.add(Author(name="four"))
        # What was not flushed is flushed before the first COMMIT.

    do(client, write)

    assert place.names() == {
        "one": {"audit"},
        "two": {"audit"},
        "three": {"default"},
        "four": {"default"},
    }


def test_the_mapping_has_the_keys_of_the_databases(client):
    """It makes a session at the first access, and then returns the same session."""

    def look(request):
        sessions = request.sqa_sessions
        assert set(sessions) == set(KEYS)
        assert len(sessions) == 3
        assert "audit" in sessions
        assert "nobody" not in sessions
        assert sessions["audit"] is request.sqa_sessions["audit"]
        assert sessions["audit"] is get_sqa(request).session(request.tm, bind_key="audit")
        assert sessions["audit"] is not request.sqa_session
        for key in ("nobody", "", "Audit"):
            with pytest.raises(BindError, match="only: audit, default, log"):
                sessions[key]
        with pytest.raises(BindError, match="only: audit, default, log"):
            request.sqa_session.execute(text("SELECT 1"), bind_arguments={"bind_key": "adit"})
        with pytest.raises(BindError, match="'audit'"):
            sessions["audit"].scalar(text("SELECT 1"), bind_arguments={"bind_key": "log"})
        bind = engines(client)["log"]
        with pytest.raises(BindError, match="'audit'"):
            sessions["audit"].scalar(text("SELECT 1"), bind_arguments={"bind": bind})
        return sessions["audit"].scalar(text("SELECT 7"), bind_arguments={"bind_key": "audit"})

    assert do(client, look).text == "7"


def test_an_application_without_binds_has_the_default_one(tmp_path):
    """The only session is request.sqa_session. Any other key is an error."""

    def look(request):
        assert request.sqa_sessions["default"] is request.sqa_session
        with pytest.raises(BindError, match="only: default"):
            request.sqa_sessions["audit"]
        return list(request.sqa_sessions)

    with serving({"sqlalchemy.url": f"sqlite:///{tmp_path}/one.sqlite"}) as client:
        assert do(client, look).text == "['default']"
        with pytest.raises(BindError, match="only: default"):
            Session(client.app, bind_key="audit")()
        with pytest.raises(BindError), session_scope(client.app, bind_key="audit"):
            pass


@pytest.mark.parametrize("who", ["sqa_session", *KEYS])
@pytest.mark.sweep(2)
def test_a_rollback_of_one_is_a_rollback_of_all(place, client, who):
    """What is written after the rollback is committed."""

    def write(request):
        sessions = [request.sqa_session, *request.sqa_sessions.values()]
        for number, session in enumerate(sessions):
            session.add(Line(name=f"flushed {number}"))
            session.flush()
            session.add(Line(name=f"pending {number}"))
        dict(request.sqa_sessions, sqa_session=request.sqa_session)[who].rollback()
        for session in sessions:
            assert not session.new
            assert session.scalars(select(Line.name)).one() in KEYS
        request.sqa_session.add(Line(name="after"))
        request.sqa_sessions["audit"].add(Entry(name="after too"))

    do(client, write)

    assert place.names() == {"after": {"log"}, "after too": {"audit"}}


def test_objects_are_loaded_again_after_a_rollback(place, client):
    """In each session, objects show what is stored."""

    def change(request):
        session = request.sqa_sessions["audit"]
        one = session.get(Entry, 1)
        one.name = "changed"
        session.flush()
        request.sqa_session.rollback()
        assert one in session
        return one.name

    assert do(client, change).text == "audit"
    assert place.names() == {}


def test_a_session_commits_with_the_request_alone(place, client):
    """Its own commit() and that of its connection are refused. Its close() does not roll back."""

    def commit(request):
        request.sqa_sessions["audit"].add(Entry(name="half"))
        request.sqa_sessions["audit"].commit()

    def commit_connection(request):
        request.sqa_sessions["audit"].add(Entry(name="half"))
        request.sqa_sessions["audit"].flush()
        request.sqa_sessions["audit"].connection().commit()

    def close(request):
        request.sqa_sessions["audit"].add(Entry(name="half"))
        request.sqa_sessions["audit"].close()

    def close_and_go_on(request):
        close(request)
        request.sqa_sessions["audit"].add(Entry(name="other half"))

    for act in (commit, commit_connection):
        with pytest.raises(CommitNotAllowedError):
            do(client, act)
    for act in (close, close_and_go_on):
        with pytest.raises(OutsideTransactionError, match="was closed"):
            do(client, act)

    assert place.names() == {}


@pytest.mark.parametrize("also", ["nothing", "more", "rollback"])
def test_a_flush_that_fails_in_one_session_cannot_be_committed_in_part(place, client, also):
    """If the view swallows the error, the commit fails, unless the view has rolled back."""

    def write(request):
        session, audit = request.sqa_session, request.sqa_sessions["audit"]
        session.add_all([Author(name="lost"), Entry(name="lost")])
        session.flush()
        audit.add_all([Entry(name="lost too"), Tag(id=1, name="twice")])
        with pytest.raises(IntegrityError):
            audit.flush()
        if also == "more":
            session.add(Entry(name="more"))
            session.flush()
        if also == "rollback":
            session.rollback()
            audit.add(Entry(name="after"))
            session.add(Author(name="after"))

    if also == "rollback":
        do(client, write)
    else:
        with pytest.raises(PendingRollbackError):
            do(client, write)

    assert place.names() == ({"after": {"audit", "default"}} if also == "rollback" else {})


def test_what_is_pending_in_a_session_fails_before_others_vote(place, client):
    """Another data manager may send a mail when it votes, which cannot be undone."""
    voted = []

    class Mail:
        transaction_manager = None

        def sortKey(self):  # noqa: N802 - the name in transaction's interface
            return "mail"

        def tpc_begin(self, trans):
            pass

        def tpc_vote(self, trans):
            voted.append(trans)

        commit = tpc_finish = abort = tpc_abort = tpc_begin

    def write(request):
        request.tm.get().join(Mail())
        request.sqa_sessions["audit"].add(Tag(id=1, name="twice"))

    with pytest.raises(IntegrityError):
        do(client, write)

    assert voted == []


def test_a_row_that_another_one_has_changed_is_a_conflict_in_each_session(tmp_path):
    """The request is tried again, for a flush in any session."""

    class Versions(DeclarativeBase):
        __bind_key__ = "audit"

    class Version(Versions):
        __tablename__ = "version"
        id: Mapped[int] = mapped_column(primary_key=True)
        number = mapped_column(Integer)
        name: Mapped[str]
        __mapper_args__ = {"version_id_col": number}  # noqa: RUF012 - SQLAlchemy's

    url = f"sqlite:///{tmp_path}/audit.sqlite"
    settings = {"sqlalchemy.url": "sqlite://", "sqlalchemy.binds.audit.url": url}
    attempts = []

    def change(request):
        attempts.append(request.environ["retry.attempt"])
        one = request.sqa_sessions["audit"].get(Version, 1)
        if len(attempts) == 1:
            update = text("UPDATE version SET number = 7")
            request.sqa_session.execute(update, bind_arguments={"bind_key": "audit"})
        one.name = "changed"

    with serving({**settings, "sqa.retry_pause": "0"}) as client:
        create_all(client.app, Versions)
        do(client, lambda request: request.sqa_session.add(Version(id=1, name="first")))
        do(client, change)

    assert attempts == [0, 1]
    assert Database(url).rows("SELECT name, number FROM version") == [("changed", 2)]


def test_a_savepoint_of_either_session_undoes_its_part(place, client):
    """Savepoints may be released or rolled back, in the order of the with blocks."""

    def write(request):
        session, audit = request.sqa_session, request.sqa_sessions["audit"]
        audit.add(Entry(name="kept 1"))
        with audit.begin_nested():
            audit.add(Entry(name="kept 2"))
            with session.begin_nested():
                session.add(Entry(name="kept 3"))
        with audit.begin_nested(), session.begin_nested():
            audit.execute(insert(entry).values(name="kept 6", kind="entry"))
        with session.begin_nested():
            session.add(Entry(name="kept 4"))
            with audit.begin_nested():
                audit.add(Entry(name="kept 5"))
        with pytest.raises(ZeroDivisionError), audit.begin_nested():
            fail_after(audit.add, Entry(name="lost 1"))
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            fail_after(audit.bulk_save_objects, [Entry(name="lost 2")])
        assert sorted(audit.scalars(select(Entry.name))) == [
            "audit",
            *(f"kept {n}" for n in range(1, 7)),
        ]

    do(client, write)

    assert place.names() == {f"kept {n}": {"audit"} for n in range(1, 7)}


def test_savepoints_of_the_transaction_cover_all_sessions(place, client):
    """There may be several of them, and any of them may be rolled back."""

    def write(request):
        session, sessions, tm = request.sqa_session, request.sqa_sessions, request.tm
        sessions["audit"].add(Entry(name="kept 1"))
        first = tm.savepoint()
        sessions["audit"].add(Entry(name="lost 1"))
        session.add_all([Author(name="lost 2"), Entry(name="lost 3")])
        second = tm.savepoint()
        sessions["log"].add(Line(name="lost 4"))
        sessions["audit"].add(Entry(name="lost 5"))
        second.rollback()
        assert "lost 1" in sessions["audit"].scalars(select(Entry.name)).all()
        first.rollback()
        session.add(Entry(name="kept 2"))
        tm.savepoint()
        sessions["audit"].add(Entry(name="kept 3"))
        tm.savepoint()
        sessions["audit"].add(Entry(name="kept 4"))
        session.add(Entry(name="kept 5"))

    do(client, write)

    assert place.names() == {f"kept {n}": {"audit"} for n in range(1, 6)}


def test_one_request_may_have_several_transactions(place, client):
    """The sessions join each transaction."""

    def write(request):
        for number in range(3):
            request.sqa_sessions["audit"].add(Entry(name=f"part {number}"))
            request.sqa_session.add(Line(name=f"part {number}"))
            if number == 1:
                request.tm.abort()
            else:
                request.tm.commit()
            request.tm.begin()

    do(client, write)

    assert place.names() == {f"part {number}": {"audit", "log"} for number in (0, 2)}


def test_an_exception_view_finds_clean_sessions(place):
    """The view's writes to all databases are undone. The writes of the page are stored."""

    def page(error, request):
        assert request.sqa_sessions["audit"].scalars(select(Entry.name)).all() == ["audit"]
        request.sqa_sessions["audit"].add(Entry(name="page"))
        request.sqa_session.add(Author(name="page"))
        return Response("Sorry")

    def fail(request):
        request.sqa_sessions["audit"].add(Entry(name="view"))
        request.sqa_sessions["audit"].flush()
        raise ZeroDivisionError

    with serving(
        place.settings, lambda config: config.add_exception_view(page, context=ZeroDivisionError)
    ) as client:
        assert do(client, fail).text == "Sorry"

    assert place.names() == {"page": {"audit", "default"}}


def test_a_subrequest_in_the_same_transaction_has_the_same_sessions(place, client):
    """The work of both requests is stored, or of none."""
    same = []

    def outer(request):
        inner = Request.blank("/", environ={"sqa.status": 200, "tm.active": True})
        inner.environ["tm.manager"] = request.tm
        inner.environ["sqa.act"] = lambda inner: same.append(
            (inner.sqa_sessions["audit"], inner.sqa_sessions["audit"].add(Entry(name="inner")))[0]
        )
        request.invoke_subrequest(inner)
        same.append(request.sqa_sessions["audit"])
        assert "inner" in same[1].scalars(select(Entry.name)).all()

    do(client, outer, status=404, expect_errors=True)
    lost = place.names()
    same.clear()
    do(client, outer)

    assert lost == {}
    assert same[0] is same[1]
    assert place.names() == {"inner": {"audit"}}


def test_after_the_request_no_session_can_be_used(client):
    """The mapping that makes them cannot be used either."""
    kept = []

    def keep(request):
        kept.append((request.sqa_sessions, request.sqa_sessions["audit"], request.sqa_session))
        request.sqa_sessions["audit"].scalar(text("SELECT 1"))

    do(client, keep)

    [(sessions, audit, session)] = kept
    for use in (
        lambda: audit.scalar(text("SELECT 1")),
        lambda: session.scalar(select(Entry)),
        lambda: sessions["log"].scalar(text("SELECT 1")),
    ):
        with pytest.raises(OutsideTransactionError, match="has ended"):
            use()


def test_a_request_is_freed_at_its_end(client):
    """The garbage collector is not needed: the mapping and sessions do not refer to the request."""
    seen = []

    def touch(request):
        seen.append(weakref.ref(request))
        request.sqa_sessions["audit"].scalar(text("SELECT 1"))

    gc.disable()
    try:
        do(client, touch)
        assert seen[0]() is None
    finally:
        gc.enable()


def test_a_listener_cannot_change_what_was_written_already(place, client):
    """What a listener adds to a session after its last flush would be lost."""

    def listen(request):
        audit, session = request.sqa_sessions["audit"], request.sqa_session
        audit.add(Entry(name="first"))
        event.listen(session, "before_commit", lambda _: audit.add(Entry(name="late")))

    def listen_in_time(request):
        audit, session = request.sqa_sessions["audit"], request.sqa_session
        audit.add(Entry(name="first"))
        event.listen(audit, "before_commit", lambda _: session.add(Entry(name="in time")))

    with pytest.raises(OutsideTransactionError, match="written already"):
        do(client, listen)
    lost = place.names()
    do(client, listen_in_time)

    assert lost == {}
    assert place.names() == {"first": {"audit"}, "in time": {"audit"}}


def test_a_listener_that_fails_after_the_commits_does_not_deny_them(place, client, caplog):
    """For a listener of either session, everything is stored and the error is logged."""

    def listen(request, key):
        one = request.sqa_sessions[key] if key else request.sqa_session

        def fail(session):
            raise RuntimeError("no mail today")

        event.listen(one, "after_commit", fail)
        request.sqa_session.add_all([Author(name=f"stored {key}"), Entry(name=f"stored {key}")])
        one.scalar(text("SELECT 1"))

    for key in ("", "audit"):
        assert do(client, lambda request, key=key: listen(request, key)).status_int == 200

    assert place.names() == {f"stored {key}": {"audit", "default"} for key in ("", "audit")}
    assert caplog.text.count("a listener for its end failed") == 2


def test_a_statement_on_a_closed_follower_is_refused_in_the_transaction(client):
    """The view has closed request.sqa_session, which the follower depends on."""

    def close(request):
        request.sqa_sessions["audit"].scalar(select(Entry.name))
        request.sqa_session.close()
        with pytest.raises(InvalidRequestError):
            request.sqa_sessions["audit"].scalar(select(Entry.name))

    with pytest.raises(OutsideTransactionError, match="was closed"):
        do(client, close)


def test_an_object_is_got_from_the_database_that_its_caller_names(client):
    """As with SQLAlchemy alone; what is no model is SQLAlchemy's own error."""

    def get(request):
        session = request.sqa_session
        with pytest.raises(InvalidRequestError):
            session.get(int, 1)
        return session.get(Author, 1, bind_arguments={"bind_key": "audit"}).name

    assert do(client, get).text == "audit"
