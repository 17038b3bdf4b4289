"""On MariaDB `psqa drop` removes everything, whatever the application is doing."""

import re
import threading
from queue import Queue

import pymysql
import pytest
from pyramid.response import Response
from sqlalchemy import create_engine, event, text
from sqlalchemy.pool import NullPool

from pyramid_aalam_sqa import ProvisioningError
from pyramid_aalam_sqa.provisioning import Provisioning
from pyramid_aalam_sqa.provisioning.mysql.server import MySQLServer
from support.mysql_accounts import PASSWORD, as_account, denied
from support.provisioned import ask, status_or_unknown


def test_drop_with_a_connected_application_is_a_503_for_its_next_request(created, admin):
    """Nothing hangs: its connection is ended, and a new one is refused."""
    with created.served(ask) as client:
        assert client.get("/ask").text == "42"
        told = created.psqa("drop", "--yes")
        client.get("/ask", status=503)
        client.get("/ask", status=503)

    assert told.status == 0
    kinds = [line.split()[0] for line in told.lines]
    assert kinds == ["ALTER", "ALTER", "KILL", "DROP", "DROP", "DROP"]
    assert admin.rows("SHOW DATABASES LIKE 'aalam%'") == []
    assert admin.rows("SELECT User FROM mysql.user WHERE User LIKE 'aalam%'") == []
    assert created.psqa("drop", "--yes").lines == ["Nothing to change."]


def test_drop_ends_a_statement_that_is_running(created, admin, server):
    """It does not wait until that has ended by itself."""
    started, ended = threading.Event(), []

    def run():
        with as_account(server, "aalam_base", PASSWORD, "aalam_base") as connection:
            started.set()
            ended.append(denied(connection, "SELECT SLEEP(60)"))

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    sleeping = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP%'"
    while not admin.scalar(sleeping):
        pass
    told = created.psqa("drop", "--yes")
    thread.join(10)

    assert told.status == 0
    assert ended in ([2013], [1317], [1927])


def test_a_crowd_that_keeps_coming_is_locked_out_before_it_is_ended(created, server):
    """No connection is there when the database goes."""
    stop, refused = threading.Event(), set()

    def come():
        while not stop.is_set():
            try:
                with as_account(server, "aalam_base", PASSWORD, "aalam_base") as connection:
                    denied(connection, "SELECT 1")
            except pymysql.err.MySQLError as error:
                refused.add(error.args[0])
            except OSError:
                pass  # Ended while it was saying goodbye.

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    told = created.psqa("drop", "--yes")
    stop.set()
    for thread in threads:
        thread.join(10)

    assert told.status == 0


def count(request):
    """A view that reads rows."""
    return Response(str(request.sqa_session.scalar(text("SELECT COUNT(*) FROM note, note b"))))


def test_a_request_at_the_moment_of_the_drop_is_a_503(created, admin):
    """Whatever its connection is doing: logging in, reading, waiting. A COMMIT may be unknown."""
    answers = Queue()

    def visit(client, stop):
        while not stop.is_set():
            answers.put(status_or_unknown(client, "/count"))

    for _ in range(3):
        assert created.psqa("create").status == 0
        admin.run("CREATE TABLE aalam_base.note (id INT PRIMARY KEY)")
        stop = threading.Event()
        settings = {"sqa.reset_connection": "true", "retry.attempts": "1"}
        with created.served(count, **settings) as client:
            threads = [threading.Thread(target=visit, args=(client, stop)) for _ in range(4)]
            for thread in threads:
                thread.start()
            first = [answers.get(timeout=30) for _ in range(8)]
            assert created.psqa("drop", "--yes").status == 0
            last = [answers.get(timeout=30) for _ in range(8)]
            stop.set()
            for thread in threads:
                thread.join(30)
        seen = {*first, *last, *answers.queue}
        answers.queue.clear()

        assert set(first) == {200}
        assert {200, 503} <= seen <= {200, 503, "unknown"}


def test_connections_that_do_not_end_are_told(created, server):
    """The command does not wait for ever."""
    with (
        as_account(server, "aalam_base", PASSWORD),
        Provisioning(created.settings, created.admin_url, wait=0) as provisioning,
        pytest.raises(ProvisioningError, match="The connections of 'aalam_base' do not end"),
    ):
        list(provisioning.remove())


def test_an_administrator_who_may_end_no_connection_is_told(created, server, admin):
    """The accounts are locked by then, and the next drop goes on."""
    admin.run(
        "CREATE USER clerk IDENTIFIED BY 'c'",
        "GRANT CREATE USER, PROCESS ON *.* TO clerk",
        "GRANT SELECT ON mysql.* TO clerk",
        "GRANT ALL ON aalam_base.* TO clerk",
    )
    clerk = server.url().replace("root", "clerk:c")
    with as_account(server, "aalam_base", PASSWORD):
        told = created.psqa("drop", "--yes", admin_url=clerk)
        assert created.psqa("drop", "--yes").status == 0

    assert told.status == 1
    assert re.match(r"psqa: KILL CONNECTION \d+: You are not owner of thread", told.err)


def test_a_connection_that_has_gone_by_itself_is_not_an_error(created, server, admin):
    """It was there when the command looked for it."""
    engine = create_engine(admin.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    @event.listens_for(engine, "before_cursor_execute")
    def be_faster(_connection, _cursor, statement, *_):
        if statement.startswith("KILL"):
            admin.run(statement)
            while admin.rows("SELECT ID FROM information_schema.PROCESSLIST WHERE USER LIKE 'aa%'"):
                pass

    with Provisioning(created.settings) as provisioning:
        dropping = MySQLServer(provisioning.tenant, engine, wait=10)
    with as_account(server, "aalam_base", PASSWORD):
        steps = [str(step).split()[0] for step in dropping.remove()]

    assert steps == ["ALTER", "ALTER", "KILL", "DROP", "DROP", "DROP"]


def test_an_administrator_who_may_drop_no_database_is_told(created, server, admin):
    """The accounts are gone by then, and the next drop goes on."""
    admin.run(
        "CREATE USER clerk IDENTIFIED BY 'c'",
        "GRANT CREATE USER, PROCESS ON *.* TO clerk",
        "GRANT SELECT ON mysql.* TO clerk",
        "GRANT SELECT ON aalam_base.* TO clerk",
    )
    told = created.psqa("drop", "--yes", admin_url=server.url().replace("root", "clerk:c"))

    assert told.status == 1
    assert told.err.startswith("psqa: DROP DATABASE `aalam_base`: Access denied")
    assert created.psqa("drop", "--yes").status == 0
