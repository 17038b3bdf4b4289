"""Engines, databases and models that the tests of the backends use."""

import shutil
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme

from pyramid_aalam_sqa import engine_from_settings
from support.places import PLACES, in_a_file, places
from support.portable_app import created
from support.servers import MariaDB, PostgreSQL, running


@pytest.fixture
def make():
    """Make an engine from settings. It is disposed at the end."""
    made = []

    def make(url, settings=(), **options):
        given = {f"sqlalchemy.{name}": value for name, value in options.items()}
        made.append(engine_from_settings({"sqlalchemy.url": url, **given, **dict(settings)}))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


@pytest.fixture(params=PLACES)
def place(request):
    """The test runs on each kind of database that can belong to one application."""
    for place in places(request.param, request):
        yield place
        place.dispose()


@pytest.fixture
def file(tmp_path):
    """An SQLite file that belongs to one application."""
    place = in_a_file(tmp_path)
    yield place
    place.dispose()


@pytest.fixture
def named(place):
    """Models that name their schema, and their tables on *place*."""
    return created(place, place.name)


@pytest.fixture(params=["named", "bare"])
def made(request, place):
    """Models with and without a schema, and their tables on *place*."""
    return created(place, place.name if request.param == "named" else None)


@pytest.fixture(scope="session")
def postgresql_16_server():
    """A private PostgreSQL 16, from the package pgserver."""
    found = find_spec("pgserver")
    if found is None:
        pytest.skip("PostgreSQL 16 tests skipped: pip install pgserver.")
    # A copy, because the server's account may not be able to enter the virtual environment.
    with TemporaryDirectory(dir="/tmp", prefix="sqa-pgserver-") as folder:
        Path(folder).chmod(0o755)
        # With the libraries beside it, which the programs look for at the same distance.
        package = Path(found.origin).parent
        shutil.copytree(package / "pginstall", f"{folder}/pgserver/pginstall")
        libraries = package.parent / "pgserver.libs"
        if libraries.exists():
            shutil.copytree(libraries, f"{folder}/pgserver.libs")
        server = PostgreSQL(lambda program: f"{folder}/pgserver/pginstall/bin/{program}")
        yield from running(server)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, another one, and a certificate for 127.0.0.1 from the first."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    return folder


@pytest.fixture(scope="module")
def tls_server(certificates, mariadb_server):
    """A MariaDB server that can encrypt connections."""
    yield from running(
        MariaDB(f"--ssl-cert={certificates}/certificate.pem", f"--ssl-key={certificates}/key.pem")
    )
