"""Commits beside a request's session: nothing is stored twice, and no part is stored alone."""

import pytest
from pyramid.response import Response
from pyramid_retry import RetryableException
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session as PlainSession
from webtest import TestApp

from pyramid_aalam_sqa import (
    BrokenTransactionError,
    OutcomeUnknownError,
    PartialCommitError,
    Session,
    SettingError,
    get_sqa,
    session_scope,
)
from support.apps import with_view
from support.databases import Database, own_database
from support.models import BODIES, INSERT
from support.proxied_app import visitors
from support.proxy import Then

PAID = {"body": "paid"}


@pytest.fixture
def bodies(any_database):
    any_database.run("CREATE TABLE note (body VARCHAR(50))")
    return lambda: [row[0] for row in any_database.rows(BODIES)]


def by_a_session_of_the_thread(request):
    with Session(request) as session:
        session.execute(INSERT, PAID)
        session.commit()


def by_a_plain_engine(request):
    with get_sqa(request).engine.begin() as connection:
        connection.execute(INSERT, PAID)


def by_a_scope(request):
    with session_scope(request) as session:
        session.execute(INSERT, PAID)


def by_a_job_with_attempts(request):
    @session_scope(request, attempts=3)
    def pay(session):
        session.execute(INSERT, PAID)

    pay()


def by_an_autocommitting_connection(request):
    engine = get_sqa(request).engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(INSERT, PAID)


def by_a_plain_session(request):
    with PlainSession(get_sqa(request).engine) as session, session.begin():
        session.execute(INSERT, PAID)


def by_a_part_of_the_request(request):
    request.sqa_session.execute(INSERT, PAID)
    request.tm.commit()
    request.tm.begin()


def by_a_subrequest(request):
    request.invoke_subrequest(request.blank("/pay"), use_tweens=True)


WAYS = [
    by_a_session_of_the_thread,
    by_a_plain_engine,
    by_a_scope,
    by_a_job_with_attempts,
    by_an_autocommitting_connection,
    by_a_plain_session,
    by_a_part_of_the_request,
    by_a_subrequest,
]


def pay(request):
    request.sqa_session.execute(INSERT, PAID)
    return Response()


@pytest.mark.parametrize("way", WAYS, ids=lambda each: each.__name__)
@pytest.mark.sweep(12)
def test_after_a_commit_beside_it_a_request_is_not_tried_again(serve, any_database, bodies, way):
    """Otherwise a later conflict would repeat that commit, and a customer would pay twice."""
    attempts = []

    def view(request):
        attempts.append(request)
        way(request)
        raise RetryableException

    app = serve(any_database.url, with_view(view), with_view(pay, name="pay"))
    with pytest.raises(RetryableException):
        TestApp(app).get("/")

    assert len(attempts) == 1
    assert bodies() == ["paid"]


def test_without_a_commit_beside_it_a_request_is_tried_again(serve, any_database, bodies):
    """To read beside the session, or to roll back there, stores nothing."""
    attempts = []

    def view(request):
        attempts.append(request)
        with Session(request) as session, get_sqa(request).engine.connect() as connection:
            assert session.scalar(text("SELECT count(*) FROM note")) == 0
            connection.execute(text("SELECT count(*) FROM note"))
            connection.rollback()
        if len(attempts) < 3:
            raise RetryableException
        return Response()

    settings = {"sqa.retry_pause": "0"}
    TestApp(serve(any_database.url, with_view(view), **settings)).get("/")

    assert len(attempts) == 3


def test_a_job_is_not_repeated_after_a_part_was_committed_by_hand(serve, any_database, bodies):
    """Otherwise @session_scope(attempts=3) would store the part three times."""
    attempts = []

    @session_scope(serve(any_database.url), attempts=3)
    def job(session):
        attempts.append(session)
        session.execute(INSERT, PAID)
        session.tm.commit()
        session.tm.begin()
        raise RetryableException

    with pytest.raises(RetryableException):
        job()

    assert len(attempts) == 1
    assert bodies() == ["paid"]


def test_a_job_around_a_job_is_not_repeated_after_the_inner_one(serve, any_database, bodies):
    """The outer job notices the inner one's commit. The inner job itself is repeated."""
    app = serve(any_database.url, **{"sqa.retry_pause": "0"})
    inner_attempts, outer_attempts = [], []

    @session_scope(app, attempts=3)
    def inner(session):
        inner_attempts.append(session)
        if len(inner_attempts) == 1:
            raise RetryableException
        session.execute(INSERT, PAID)

    @session_scope(app, attempts=3)
    def outer(session):
        outer_attempts.append(session)
        inner()
        raise RetryableException

    with pytest.raises(RetryableException):
        outer()

    assert (len(inner_attempts), len(outer_attempts)) == (2, 1)
    assert bodies() == ["paid"]


def test_a_lost_answer_beside_the_session_is_unknown_and_never_tried_again(proxied, proxy):
    """Each way to commit raises OutcomeUnknownError, and the log has the path."""
    database, _, url = proxied
    ways = {
        "thread": by_a_session_of_the_thread,
        "engine": by_a_plain_engine,
        "scope": by_a_scope,
        "job": by_a_job_with_attempts,
        "plain": by_a_plain_session,
    }
    settings = {"sqa.mysql.tls": "off", "sqlalchemy.pool_size": "2"}
    with visitors(database, url) as make:
        for name, way in ways.items():
            visitor = make(settings=settings)
            visitor.warm_up()
            proxy.forget()
            attempts = []

            def step(at, request, way=way, attempts=attempts):
                if at == "begun":
                    attempts.append(request)
                    way(request)

            # The first COMMIT is the one beside the session.
            cut = proxy.have("COMMIT", Then.CUT)
            told = visitor.visit(step)

            assert isinstance(told.error, OutcomeUnknownError), name
            assert (told.status, len(attempts), cut.happened) == (500, 1, 1), name
            assert told.lines == 1, name


@pytest.fixture
def broken(serve, mariadb):
    """An application, and a statement that fails as in a deadlock."""
    mariadb.run("CREATE TABLE note (body VARCHAR(50))")
    return serve(mariadb.url)


CONFLICT = text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock'")


def swallow(execute):
    execute(INSERT, {"body": "first half"})
    with pytest.raises(Exception, match="1213"):
        execute(CONFLICT)
    execute(INSERT, {"body": "second half"})


def test_the_session_of_a_thread_refuses_a_half(broken, mariadb):
    """If a deadlock was swallowed, commit() fails, with one database and with binds."""
    with Session(broken) as session:
        swallow(session.execute)
        with pytest.raises(BrokenTransactionError, match="1213"):
            session.commit()

    assert mariadb.rows(BODIES) == []


def test_a_begin_block_of_the_session_of_a_thread_refuses_a_half(broken, mariadb):
    """The end of `with session.begin():` commits too, without a call of commit()."""
    with (
        pytest.raises(BrokenTransactionError, match="1213"),
        Session(broken) as session,
        session.begin(),
    ):
        swallow(session.execute)

    assert mariadb.rows(BODIES) == []


def test_a_plain_engine_refuses_a_half(broken, mariadb):
    """The same is true for engine.begin() of the application's engine."""
    with (
        pytest.raises(BrokenTransactionError, match="1213"),
        get_sqa(broken).engine.begin() as connection,
    ):
        swallow(connection.execute)

    assert mariadb.rows(BODIES) == []


@pytest.mark.parametrize("way", ["request", "thread"])
def test_a_second_engine_without_binds_is_committed_first(serve, tmp_path, way):
    """The session's own database is the last, so it stores nothing if the other one fails."""
    own, other = (Database(f"sqlite:///{tmp_path}/{name}.sqlite") for name in ("own", "other"))
    for database in (own, other):
        database.run("CREATE TABLE note (body VARCHAR(50))")
    second = get_sqa(serve(other.url)).engine
    order = []

    def write(session):
        session.execute(INSERT, {"body": "here"})
        session.execute(INSERT, {"body": "there"}, bind_arguments={"bind": second})

    def view(request):
        write(request.sqa_session)
        return Response()

    app = serve(own.url, with_view(view))
    for name, engine in (("own", get_sqa(app).engine), ("other", second)):
        event.listen(engine, "commit", lambda connection, name=name: order.append(name))
    for _ in range(5):
        if way == "request":
            TestApp(app).get("/")
        else:
            with Session(app) as session:
                write(session)
                session.commit()

    assert order == ["other", "own"] * 5
    assert own.scalar("SELECT count(*) FROM note") == other.scalar("SELECT count(*) FROM note") == 5


@pytest.mark.parametrize("way", ["request", "thread"])
def test_a_second_engine_without_binds_that_commits_alone_is_said(serve, mariadb_url, caplog, way):
    """PartialCommitError names both databases. The request is never tried again."""
    attempts = []
    with own_database(mariadb_url) as own, own_database(mariadb_url) as other:
        for database in (own, other):
            database.run("CREATE TABLE note (body VARCHAR(50))")
        second = get_sqa(serve(other.url)).engine

        def write(session):
            session.execute(INSERT, {"body": "here"})
            session.execute(INSERT, {"body": "there"}, bind_arguments={"bind": second})

        def view(request):
            attempts.append(request)
            write(request.sqa_session)
            return Response()

        app = serve(own.url, with_view(view))

        def refuse(connection):
            raise RetryableException

        event.listen(get_sqa(app).engine, "commit", refuse)

        def in_a_thread():
            with Session(app) as session:
                write(session)
                session.commit()

        with pytest.raises(PartialCommitError) as caught:
            TestApp(app).get("/") if way == "request" else in_a_thread()

        assert caught.value.not_stored == ("default",)
        assert len(caught.value.stored) == 1
        assert "in part" in caplog.text
        assert len(attempts) == (way == "request")
        assert (own.rows(BODIES), other.rows(BODIES)) == ([], [("there",)])


class TwoPhases(PlainSession):
    """A session class that asks for a two-phase commit."""

    def __init__(self, *args, **options):
        super().__init__(*args, twophase=True, **options)


@pytest.mark.parametrize("shortcuts", ["true", "false"])
def test_a_flush_of_the_session_class_may_write_more(serve, sqlite, shortcuts):
    """It is called before each COMMIT, also when no object was changed."""
    sqlite.run("CREATE TABLE note (body VARCHAR(50))")

    class WritesMore(PlainSession):
        def flush(self, objects=None):
            super().flush(objects)
            if not self.info.get("written"):
                self.info["written"] = True
                self.execute(INSERT, {"body": "more"})

    def view(request):
        with request.sqa_session.no_autoflush:
            request.sqa_session.execute(text("SELECT 1"))
        return Response()

    settings = {"sqa.session.class_": WritesMore, "sqa.shortcuts": shortcuts}
    TestApp(serve(sqlite.url, with_view(view), **settings)).get("/")

    assert sqlite.rows(BODIES) == [("more",)]


@pytest.mark.parametrize("way", ["request", "thread", "scope"])
def test_a_session_class_with_two_phases_is_refused(serve, sqlite, way):
    """The error says why, and what to remove."""

    def view(request):
        return Response(str(request.sqa_session))

    app = serve(sqlite.url, with_view(view), **{"sqa.session.class_": TwoPhases})
    ways = {
        "request": lambda: TestApp(app).get("/"),
        "thread": lambda: Session(app).execute(text("SELECT 1")),
        "scope": lambda: session_scope(app).__enter__(),
    }
    with pytest.raises(SettingError, match="twophase=True"):
        ways[way]()


def test_a_commit_of_an_engine_that_is_not_watched_is_not_known(serve, sqlite, tmp_path):
    """The package does not know engines that it did not get or make, as documented."""
    other = Database(f"sqlite:///{tmp_path}/other.sqlite")
    other.run("CREATE TABLE note (body VARCHAR(50))")
    engine = create_engine(other.url)
    attempts = []

    def view(request):
        attempts.append(request)
        with engine.begin() as connection:
            connection.execute(INSERT, PAID)
        if len(attempts) == 1:
            raise RetryableException
        return Response()

    TestApp(serve(sqlite.url, with_view(view), **{"sqa.retry_pause": "0"})).get("/")
    engine.dispose()

    assert other.rows(BODIES) == [("paid",), ("paid",)]
