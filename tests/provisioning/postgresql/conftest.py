"""A PostgreSQL that asks everybody but its administrator for a password, and sites on it."""

import pytest

from support.databases import MISSING
from support.postgresql_site import HBA, Far, Site
from support.servers import find


@pytest.fixture(scope="session")
def server():
    if find("initdb") is None:
        pytest.skip(MISSING["initdb"])
    server = Far()
    try:
        (server.folder / "data" / "pg_hba.conf").write_text(HBA)
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def site(server):
    site = Site(server)
    yield site
    site.remove()


@pytest.fixture(scope="session")
def pair(server):
    """Two applications that are in order, each with a table note that holds one row."""
    site = Site(server, "near")
    for app in ("base", "other"):
        site.create(app)
        site.table(app)
    yield site
    site.remove()
