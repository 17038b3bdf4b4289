"""Galera: a lock of one node is not known to another one, so psqa asks a person."""

from pathlib import Path

import pytest

from support.servers import MariaDB, find, running

PROVIDER = next(
    (
        path
        for path in ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")
        if Path(path).exists()
    ),
    None,
)


@pytest.fixture(scope="module")
def node():
    """A cluster of one node."""
    if PROVIDER is None or find("mariadbd") is None:
        pytest.skip("Galera tests skipped: no libgalera_smm.so found; install galera-4.")
    server = MariaDB(
        "--wsrep-on=ON",
        f"--wsrep-provider={PROVIDER}",
        "--wsrep-new-cluster",
        "--wsrep-cluster-address=gcomm://",
        "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
        "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:0",
    )
    yield from running(server)


@pytest.mark.deep
def test_a_node_of_galera_is_refused_unless_a_person_says_so(node, make, revisions):
    """GET_LOCK() keeps out the runs on its own node alone."""
    revisions.add_table("1", "note")
    site = make(node.url())
    report = site.migrate()
    assert report["error"].startswith("The server is a node of Galera")
    assert site.migrate(on_galera=True)["state"] == "done"
    assert site.versions() == ["1"]
