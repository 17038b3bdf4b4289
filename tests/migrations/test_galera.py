"""Galera: a lock of one node is not known to another one, so psqa asks a person."""

import pytest

from support.galera import Node, require_galera
from support.servers import free_port, running


@pytest.fixture(scope="module")
def node():
    """A cluster of one node."""
    require_galera()
    node = Node(0, "gcomm://", free_port())
    node.first = ["--wsrep-new-cluster"]
    yield from running(node)


@pytest.mark.deep
def test_a_node_of_galera_is_refused_unless_a_person_says_so(node, make, revisions):
    """GET_LOCK() keeps out the runs on its own node alone."""
    revisions.add_table("1", "note")
    site = make(node.url())
    report = site.migrate()
    assert report["error"].startswith("The server is a node of Galera")
    assert site.migrate(on_galera=True)["state"] == "done"
    assert site.versions() == ["1"]
