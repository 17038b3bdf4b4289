"""With Session(db_name) each thread has one session, which is closed when the thread ends."""

import logging
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyramid.config import Configurator
from sqlalchemy import event, text
from sqlalchemy.orm import Session as PlainSession

from pyramid_aalam_sqa import Session, get_sqa
from support.models import INSERT
from support.processes import HERE, QUIET, TRACED

COUNT = text("SELECT count(*) FROM note")


class Shop(PlainSession):
    """An application's own session class."""

    color = "green"


@pytest.fixture
def app(serve, database, notes):
    """An application whose engine has two connections at most."""
    settings = {
        "sqlalchemy.pool_size": "2",
        "sqlalchemy.max_overflow": "0",
        "sqlalchemy.pool_timeout": "1",
        "sqa.session.class_": Shop,
    }
    app = serve(database.url, **settings)
    yield app
    Session(app).remove()


def in_a_thread(work, *args):
    thread = threading.Thread(target=work, args=args, name="worker-7")
    thread.start()
    thread.join()


def open_connections(app):
    return get_sqa(app).engine.pool.checkedout()


def test_it_is_used_as_the_session_itself(app, notes):
    """It can do everything that a SQLAlchemy session can, and stores what is committed."""
    session = Session(app)
    session.execute(INSERT, {"body": "kept"})
    with session.begin_nested():
        session.execute(INSERT, {"body": "kept too"})
    session.commit()
    session.execute(INSERT, {"body": "undone"})
    session.rollback()

    assert notes() == ["kept", "kept too"]
    assert isinstance(session(), PlainSession)
    assert session().color == "green"


def test_without_a_class_of_its_own_it_is_sqlalchemys(sqlite):
    """An application usually does not set a session class."""
    config = Configurator(settings={"sqlalchemy.url": sqlite.url})
    config.include("pyramid_aalam_sqa")
    config.commit()
    session = Session(config)

    assert session.scalar(text("SELECT 42")) == 42
    session.remove()


@pytest.mark.parametrize(
    "remove", [lambda session: session.remove(), lambda session: session().remove()]
)
def test_remove_gives_the_connection_back(app, notes, remove):
    """Session(app) has remove(), and so has what it returns. It undoes uncommitted work."""
    first = Session(app)()
    Session(app).execute(INSERT, {"body": "lost"})
    remove(Session(app))

    assert open_connections(app) == 0
    assert Session(app)() is not first
    assert notes() == []


def test_remove_without_a_session_does_nothing(app):
    """So a job may always call it at its end."""
    Session(app).remove()
    Session(app).remove()

    assert open_connections(app) == 0


def test_a_session_that_was_removed_closes_itself(app):
    """The thread's present session is another one, and is not closed."""
    old = Session(app)()
    Session(app).remove()
    new = Session(app)()
    old.execute(COUNT)
    new.execute(COUNT)
    old.remove()

    assert Session(app)() is new
    assert new.in_transaction()
    assert open_connections(app) == 1


def test_a_with_block_removes_it(app, notes):
    """It does so even if the block raises."""
    with Session(app) as session:
        session.execute(INSERT, {"body": "kept"})
        session.commit()

    def fail():
        with Session(app) as session:
            session.execute(INSERT, {"body": "lost"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert open_connections(app) == 0
    assert notes() == ["kept"]


def test_threads_do_not_share_a_session(app):
    """Two threads at the same time have two sessions and two connections."""
    barrier = threading.Barrier(2)

    def job(_):
        with Session(app) as session:
            session.execute(COUNT)
            barrier.wait(10)
            seen = id(session()), id(session.connection().connection.dbapi_connection)
            barrier.wait(10)
            return seen

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(job, range(2))

    assert one[0] != two[0]
    assert one[1] != two[1]


def test_a_session_left_open_by_a_thread_is_given_back_and_reported_once(app, notes, caplog):
    """Its work is rolled back, its locks are released, and the log names the thread."""

    def leave():
        Session(app).execute(INSERT, {"body": "lost"})

    in_a_thread(leave)

    assert open_connections(app) == 0
    with Session(app) as session:
        session.execute(INSERT, {"body": "kept"})
        session.commit()
    assert notes() == ["kept"]
    reports = [record for record in caplog.records if record.name.endswith(".thread_local")]
    assert [record.levelno for record in reports] == [logging.ERROR]
    said = reports[0].getMessage()
    assert "thread worker-7 had opened was not closed" in said
    assert f"what it did on {get_sqa(app).settings.database} is rolled back" in said


def test_a_session_that_was_committed_needs_no_report(app, notes, caplog):
    """If a thread ends without remove() after commit(), nothing is lost."""

    def finish():
        Session(app).execute(INSERT, {"body": "kept"})
        Session(app).commit()

    in_a_thread(finish)

    assert open_connections(app) == 0
    assert notes() == ["kept"]
    assert caplog.records == []


def test_a_thread_pool_gives_everything_back_at_its_end(app, notes, caplog):
    """There is one log line for each thread, even after many jobs."""

    def leave(number):
        Session(app).execute(COUNT)

    with ThreadPoolExecutor(1) as pool:
        list(pool.map(leave, range(5)))

    assert open_connections(app) == 0
    assert len(caplog.records) == 1


def run(code, url):
    """Run *code* in its own Python process. Return what it printed and what it logged."""
    done = subprocess.run(
        [sys.executable, *QUIET, "-c", textwrap.dedent(code), url],
        env={
            **os.environ,
            **TRACED,
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, done.stderr


SCRIPT = """
    import sys
    from pyramid.config import Configurator
    from pyramid_aalam_sqa import Session, get_sqa
    from sqlalchemy import text
    from support.models import INSERT

    config = Configurator(settings={"sqlalchemy.url": sys.argv[1], "sqlalchemy.pool_size": "4"})
    config.include("pyramid_aalam_sqa")
    config.commit()
    pool = get_sqa(config).engine.pool
"""


@pytest.mark.sweep(1)
def test_a_script_that_ends_with_an_open_session_is_told(database, notes):
    """The session of the main thread is closed and reported when the interpreter ends."""
    code = (
        SCRIPT
        + """
    Session().execute(INSERT, {"body": "lost"})
    """
    )
    _, complaints = run(code, database.url)

    assert complaints.count("A session that thread MainThread had opened was not closed") == 1
    assert "Traceback" not in complaints
    assert notes() == []


def test_greenlets_do_not_share_a_session(mariadb):
    """With gevent's patched threads, a greenlet's end gives its connection back."""
    mariadb.run("CREATE TABLE note (body VARCHAR(50))")
    code = (
        "from gevent import monkey; monkey.patch_all()\nimport gc, gevent, threading\n"
        + textwrap.dedent(SCRIPT)
        + textwrap.dedent("""
    seen = []
    together = threading.Barrier(3)

    def job(number):
        session = Session()
        me = session.scalar(text("SELECT CONNECTION_ID()"))
        session.execute(INSERT, {"body": f"job {number}"})
        together.wait(30)
        assert session.scalar(text("SELECT CONNECTION_ID()")) == me
        seen.append((me, id(session())))
        if number:
            session.commit()

    gevent.joinall([gevent.spawn(job, number) for number in range(3)], raise_error=True)
    gevent.sleep(0)
    gc.collect()  # a greenlet lives as long as the last frame that knows it
    print(len({me for me, _ in seen}), len({session for _, session in seen}), pool.checkedout())
    """)
    )
    printed, complaints = run(code, mariadb.url)

    assert printed == "3 3 0\n"
    assert complaints.count("was not closed") == 1
    assert [row[0] for row in mariadb.rows("SELECT body FROM note ORDER BY body")] == [
        "job 1",
        "job 2",
    ]


def test_a_child_process_has_no_session_of_its_parent(mariadb):
    """It has neither the forking thread's session nor any other. The parent goes on as before."""
    mariadb.run("CREATE TABLE note (body VARCHAR(50))")
    code = (
        SCRIPT
        + """
    import gc, os, threading

    go, ready = threading.Event(), threading.Event()

    def other():
        Session().execute(INSERT, {"body": "of the other thread"})
        ready.set()
        go.wait(30)
        Session().commit()

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait(30)
    Session().execute(INSERT, {"body": "of the main thread"})
    child = os.fork()
    if child == 0:
        with Session() as session:
            session.execute(INSERT, {"body": "of the child"})
            session.commit()
        gc.collect()
        sys.exit()
    _, status = os.waitpid(child, 0)
    go.set()
    thread.join()
    Session().commit()
    Session().remove()
    print(status)
    """
    )
    printed, complaints = run(code, mariadb.url)

    assert printed == "0\n"
    assert "was not closed" not in complaints
    assert [row[0] for row in mariadb.rows("SELECT body FROM note ORDER BY body")] == [
        "of the child",
        "of the main thread",
        "of the other thread",
    ]


@pytest.mark.parametrize("error", [RuntimeError("no mail"), KeyboardInterrupt()], ids=repr)
def test_what_fails_after_the_commit_does_not_deny_it(app, notes, caplog, error):
    """The row is stored. A listener's error is logged, and an interrupt is raised."""

    def fail(session):
        raise error

    session = Session(app)
    session.execute(INSERT, {"body": "stored"})
    event.listen(session(), "after_commit", fail)
    if isinstance(error, Exception):
        session.commit()
        assert "a listener for its end failed" in caplog.text
    else:
        with pytest.raises(KeyboardInterrupt):
            session.commit()

    assert notes() == ["stored"]
    assert open_connections(app) == 0
    session.remove()
    Session(app).execute(INSERT, {"body": "next"})
    Session(app).commit()
    assert notes() == ["next", "stored"]
