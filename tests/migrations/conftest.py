"""Applications whose databases are migrated: on SQLite, MariaDB and PostgreSQL."""

import pytest

from support.migrated import Migrated, Revisions


@pytest.fixture
def revisions(tmp_path):
    """The folder of an application's revisions; it has no env.py."""
    return Revisions(tmp_path / "migrations")


@pytest.fixture
def make(tmp_path, revisions, monkeypatch):
    """Make applications and their databases; whatever is there afterwards is removed."""
    for name in ("SQA_PROVIDER", "SQA_APP", "SQA_ADMIN_URL"):
        # Set first, so that what psqa sets for the models goes again after the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    made = []

    def make(server_url, *, created=True, settings=(), app=None, revisions=revisions):
        site = Migrated(tmp_path, server_url, revisions, settings, app)
        made.append(site)
        if created:
            told = site.psqa("create")
            assert (told.status, told.err) == (0, "")
        return site

    yield make
    for site in made:
        site.psqa("drop", "--yes")


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def server_url(request):
    """The test runs on each of the three databases."""
    if request.param == "sqlite":
        return "sqlite://"
    if request.param == "mariadb":
        return request.getfixturevalue("mariadb_server").url()
    return request.getfixturevalue("postgresql_accounts").url()


@pytest.fixture(scope="session")
def postgresql_accounts():
    """A private PostgreSQL that asks everybody but its administrator for a password."""
    from support.databases import MISSING
    from support.postgresql_site import HBA
    from support.servers import PostgreSQL, find, running

    if find("initdb") is None:
        pytest.skip(MISSING["initdb"])
    server = PostgreSQL()
    (server.folder / "data" / "pg_hba.conf").write_text(HBA)
    yield from running(server)


@pytest.fixture
def site(make, server_url):
    """An application on each of the three databases."""
    return make(server_url)


@pytest.fixture
def mariadb_site(make, mariadb_server):
    """An application on MariaDB."""
    return make(mariadb_server.url())
