"""Greenlets of one thread have their own sessions, even if gevent has not patched Python."""

import gc
import subprocess
import sys
import textwrap

import greenlet
import pytest

from pyramid_aalam_sqa import Session, get_sqa
from support.models import INSERT
from support.processes import HERE, QUIET

START = """
import gc, gevent, sys
sys.path.insert(0, {here!r})
from sqlalchemy import text
from pyramid_aalam_sqa import Session, get_sqa
from support.apps import make_app
from support.models import INSERT

app = make_app({url!r})
pool = get_sqa(app).engine.pool
"""
PATCH = "from gevent import monkey; monkey.patch_all()\n"


def run(code, url, patched):
    """Run *code* in its own process. Return what it prints and what it logs."""
    program = PATCH * patched + START.format(here=str(HERE), url=url) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, *QUIET, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize("patched", [False, True], ids=["unpatched", "patched"])
@pytest.mark.sweep(1)
def test_a_greenlet_does_not_commit_what_another_one_has_written(mariadb, patched):
    """Each greenlet writes, lets the others run, and then commits or rolls back its own work."""
    mariadb.run("CREATE TABLE note (body VARCHAR(50))")
    code = """
    seen = set()

    def job(number):
        with Session(app) as session:
            me = session.scalar(text("SELECT CONNECTION_ID()"))
            session.execute(INSERT, {"body": f"job {number}"})
            gevent.sleep(0.01)
            assert session.scalar(text("SELECT CONNECTION_ID()")) == me
            seen.add((me, id(session())))
            session.commit() if number else session.rollback()

    gevent.joinall([gevent.spawn(job, number) for number in range(4)], raise_error=True)
    print(len({me for me, _ in seen}), len(seen), pool.checkedout())
    """
    printed, _ = run(code, mariadb.url, patched)

    assert printed == ["4", "4", "0"]
    assert [row[0] for row in mariadb.rows("SELECT body FROM note ORDER BY body")] == [
        "job 1",
        "job 2",
        "job 3",
    ]


@pytest.mark.parametrize("kept", [False, True], ids=["forgotten", "kept"])
@pytest.mark.sweep(1)
def test_a_greenlet_that_ends_without_remove_gives_its_connection_back(sqlite, kept):
    """It does so when it is freed, or when another greenlet of the thread needs a session."""
    sqlite.run("CREATE TABLE note (body VARCHAR(50))")
    code = f"""
    def leave():
        Session(app).execute(INSERT, {{"body": "lost"}})

    def after():
        with Session(app) as session:
            session.execute(INSERT, {{"body": "kept"}})
            session.commit()

    kept = [gevent.spawn(leave)]
    gevent.joinall(kept)
    {"" if kept else "kept.clear()"}
    gevent.sleep(0)
    gc.collect()
    gevent.spawn(after).join()
    print(pool.checkedout())
    """
    printed, complaints = run(code, sqlite.url, patched=False)

    assert printed == ["0"]
    assert complaints.count("was not closed, and what it did on sqlite:///") == 1
    assert sqlite.rows("SELECT body FROM note") == [("kept",)]


def test_the_session_of_a_thread_stays_the_same_when_greenlets_are_imported(sqlite):
    """Code outside greenlets has one session, before and after the import."""
    code = """
    del sys.modules["greenlet"]
    session = Session(app)()
    import greenlet
    print(Session(app)() is session, Session(app)() is Session(app)())
    Session(app).remove()
    """
    printed, _ = run(code, sqlite.url, patched=False)

    assert printed == ["True", "True"]


def test_a_greenlet_that_its_caller_keeps_gives_its_connection_back_too(sqlite, serve, caplog):
    """When another greenlet of the thread needs a session."""
    sqlite.run("CREATE TABLE note (body VARCHAR(50))")
    app = serve(sqlite.url)
    kept = greenlet.greenlet(lambda: Session(app).execute(INSERT, {"body": "lost"}) and None)
    kept.switch()
    assert get_sqa(app).engine.pool.checkedout() == 1

    greenlet.greenlet(lambda: Session(app)() and None).switch()
    gc.collect()

    assert kept.dead
    assert get_sqa(app).engine.pool.checkedout() == 0
    assert sqlite.rows("SELECT body FROM note") == []
    assert "was not closed, and what it did on sqlite:///" in caplog.text
