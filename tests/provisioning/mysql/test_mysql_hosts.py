"""psqa works on that one of several hosts which takes writes, or says why it does not."""

import json

import pytest
from sqlalchemy.engine import make_url

from support.databases import Database
from support.mysql_accounts import PASSWORD, PLAIN
from support.provisioned import Provisioned
from support.servers import MariaDB, free_port

pytestmark = pytest.mark.deep


@pytest.fixture(scope="module")
def replica():
    """Another server, which takes no writes but those of its administrator."""
    server = MariaDB("--read-only")
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def app(server, replica, admin, tmp_path, make):
    """Make an application whose first host is down, the second a replica, the third the writer."""
    ports = [free_port(), replica.port, server.port]
    hosts = [f"127.0.0.1:{port}" for port in ports]
    url = make_url(server.url()).set(username="aalam_base", password=PASSWORD, host="", port=None)

    def app(admin_url):
        settings = [PLAIN, f"sqa.hosts = {' '.join(hosts)}"]
        shown = url.render_as_string(hide_password=False)
        return Provisioned(tmp_path, shown, admin_url, settings=settings)

    return app


def databases(server):
    return {row[0] for row in Database(server.url("mysql")).rows("SHOW DATABASES")}


def test_psqa_goes_to_the_host_that_takes_writes(app, server, replica):
    """The administrator's URL names any host of the list."""
    site = app(replica.url())
    told = site.psqa("create")

    assert (told.status, told.err) == (0, "")
    assert f"at 127.0.0.1:{server.port}, as root" in told.server
    assert "aalam_base" in databases(server) - databases(replica)
    assert site.psqa("create").lines[0] == "Nothing to change."
    assert site.psqa("show").lines[-1] == f"aalam_base: answers at 127.0.0.1:{server.port}."
    [shown] = json.loads(site.psqa("show", "--json").out)["databases"]
    assert (shown["problem"], shown["host"]) == (None, f"127.0.0.1:{server.port}")
    assert site.psqa("check").status == 0


def test_psqa_finds_the_host_that_an_administrator_outside_of_the_list_is_on(app, server):
    """It is a login on a socket, or at another name of the server."""
    told = app(f"mysql+pymysql://root@localhost:{server.port}/").psqa("create")

    assert (told.status, told.err) == (0, "")
    assert f"at 127.0.0.1:{server.port}, as root" in told.server


def test_psqa_changes_nothing_on_a_host_that_takes_no_writes(app, replica):
    """The administrator may write there, but the replica would differ from its source."""
    told = app(f"mysql+pymysql://root@localhost:{replica.port}/").psqa("create")

    assert told.status == 1
    assert f"The administrator is on 127.0.0.1:{replica.port}, which takes no writes" in told.err
    assert "aalam_base" not in databases(replica)


def test_psqa_says_of_each_host_why_the_administrator_is_not_there(app, server):
    """None of them is the administrator's server."""
    other = MariaDB()
    try:
        told = app(other.start().url()).psqa("create")
    finally:
        other.remove()

    assert told.status == 1
    assert told.err.count("the administrator is on another server") == 2
    assert "does not answer" in told.err
