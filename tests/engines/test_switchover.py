"""A switchover under load: writes go on at the new writer, and none is lost or stored twice."""

import pytest

from support.apps import application
from support.databases import MISSING
from support.ledger import PASSWORD, SETTINGS, TABLES, VIEWS, Visitors
from support.replicated import MariaDBPair, PostgreSQLPair
from support.servers import find, running

pytestmark = pytest.mark.deep


@pytest.fixture
def mariadb_pair():
    if find("mariadbd") is None:
        pytest.skip(MISSING["mariadbd"])
    for pair in running(MariaDBPair()):
        pair.run(
            pair.servers[0],
            *("CREATE DATABASE ledger", "USE ledger", *TABLES),
            f"CREATE USER ledger IDENTIFIED BY '{PASSWORD}'",
            "GRANT ALL ON ledger.* TO ledger",
        )
        pair.catch_up(*pair.servers)
        yield pair


@pytest.fixture
def postgresql_pair():
    if find("initdb") is None:
        pytest.skip(MISSING["initdb"])
    for pair in running(PostgreSQLPair()):
        writer = pair.servers[0]
        pair.asked(writer, f"CREATE ROLE ledger LOGIN PASSWORD '{PASSWORD}'")
        pair.asked(writer, "CREATE DATABASE ledger OWNER ledger")
        for statement in (*TABLES, "GRANT ALL ON ALL TABLES IN SCHEMA public TO ledger"):
            pair.asked(writer, statement, "ledger")
        yield pair


@pytest.mark.parametrize(
    ("kind", "driver"), [("mariadb", "mysql+pymysql"), ("postgresql", "postgresql+psycopg")]
)
def test_writes_go_on_after_a_switchover_and_none_is_lost(kind, driver, request):
    """Nothing is restarted. On MariaDB the old writer stays there, read-only, and they go back."""
    pair = request.getfixturevalue(f"{kind}_pair")
    hosts = " ".join(f"127.0.0.1:{server.port}" for server in pair.servers)
    url = f"{driver}://ledger:{PASSWORD}@/ledger"
    with (
        application(url, *VIEWS, **SETTINGS, **{"sqa.hosts": hosts}) as app,
        Visitors(app) as visitors,
    ):
        visitors.wait_for(200)
        pair.switch()
        visitors.wait_for_new(200)
        if kind == "mariadb":
            pair.switch()
            visitors.wait_for_new(200)
    tally = visitors.check(lambda query: pair.rows(pair.servers[0], query))

    assert tally[200, 1] >= 400
    if kind == "mariadb":
        pair.catch_up(*pair.servers)
        assert visitors.check(lambda query: pair.rows(pair.servers[1], query)) == tally
