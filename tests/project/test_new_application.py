"""What `psqa new` writes works at once, as its README says.

The package is the wheel of this tree in a new environment. The packages that pip would fetch are
those of the tests, so `pip install` runs as it is written, but without an index.
"""

import http.cookiejar
import os
import re
import shlex
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest

from pyramid_aalam_sqa.provisioning.cli import main
from support.databases import Database
from support.pages import ROOT, blocks
from support.processes import QUIET, serving
from support.servers import free_port

# Plugins of these tests' own, which do not belong to an application.
PLAIN_PYTEST = {"PYTEST_ADDOPTS": "-p no:pytest_alembic -p no:queryguard -p no:cacheprovider"}
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")
PSQA = (sys.executable, *QUIET, "-m", "pyramid_aalam_sqa.provisioning.cli")
ALONE = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}


@pytest.fixture
def bakery(tmp_path):
    """A new application."""
    assert main(["new", str(tmp_path / "bakery")]) == 0
    return tmp_path / "bakery"


def run(command, folder, **environ):
    """Run *command* in *folder* to its end, and return what it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**os.environ, **PLAIN_PYTEST, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Visitor:
    """A browser: it keeps cookies, follows redirects and sends the token of a form."""

    def __init__(self, address):
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._open = urllib.request.build_opener(jar).open
        self._address = address

    def get(self, path="/"):
        with self._open(self._address + path, timeout=10) as answer:
            return answer.read().decode()

    def add(self, body):
        token = re.search('name="csrf_token" value="(.+?)"', self.get())[1]
        fields = urllib.parse.urlencode({"csrf_token": token, "body": body}).encode()
        with self._open(self._address, fields, timeout=10) as answer:
            return answer.read().decode()


def use_second_url(ini, url):
    """Take the second line with the URL, as the file says, with the database of the tests."""
    text = ini.read_text()
    first, second = re.findall(r"^(?:# )?sqlalchemy\.url = .+$", text, re.MULTILINE)
    assert second.startswith("# sqlalchemy.url = mysql+pymysql://bakery:password@localhost/")
    changed = text.replace(first, f"# {first}").replace(second, f"sqlalchemy.url = {url}")
    ini.write_text(changed)


def pytest_in(folder, *options):
    return run([sys.executable, *QUIET, "-m", "pytest", "-q", *options], folder)


@pytest.mark.deep
def test_its_own_tests_pass(bakery):
    """On SQLite, without a change, and nothing of their database is left."""
    assert "10 passed" in pytest_in(bakery)
    assert list((bakery / "data").iterdir()) == []


@pytest.mark.deep
@pytest.mark.parametrize("options", [[], ["--sqa-commits"], ["--sqa-admin-url"]], ids=str)
def test_its_own_tests_pass_on_mariadb(bakery, mariadb_server, options):
    """With one other line in testing.ini; also with the account that an administrator makes."""
    root = mariadb_server.url()
    url = root + "bakery_testing"
    if "--sqa-admin-url" in options:
        options = [*options, root]
        url = url.replace("root@", "bakery:password@")
    use_second_url(bakery / "testing.ini", url)

    assert "10 passed" in pytest_in(bakery, *options)
    assert Database(root).rows("SHOW DATABASES LIKE 'bakery%'") == []


@pytest.fixture
def words(python):
    """Return what runs a command of a page in the environment with the wheel."""
    how = {
        "pip": [sys.executable, *PIP, "--python", python],
        "psqa": [python.with_name("psqa")],
        "pytest": [python, *QUIET, "-m", "pytest"],
        "pserve": [python, "-m", "pyramid.scripts.pserve"],
    }

    def words(command):
        program, *rest = shlex.split(command)
        return [*how[program], *rest]

    yield words
    run([*how["pip"], "uninstall", "--yes", "shop"], python.parent)


@pytest.mark.deep
def test_each_command_of_the_pages_works(words, tmp_path):
    """From the wheel to a page that has stored a row, and to a changed table.

    The pages are docs/new.md, what psqa prints, and the README of the new application.
    """

    def do(command, folder):
        return run(words(command), folder, **ALONE)

    first, new, *following = blocks(ROOT / "docs" / "new.md", "console")[0].splitlines()
    do(first, tmp_path)
    told = do(new, tmp_path)
    shop = tmp_path / "shop"
    start, change, _production = (
        block.splitlines() for block in blocks(shop / "README.md", "console")
    )
    assert start[:2] == ["python -m venv .venv", ". .venv/bin/activate"]
    assert re.findall("^    (.+)$", told, re.MULTILINE) == following == ["cd shop", *start[2:]]

    _cd, install, test, *prepare, serve = following
    do(install, shop)
    assert "10 passed" in do(test, shop)
    for command in prepare:
        do(command, shop)
    port = free_port()
    with serving([*words(serve), f"http_port={port}"], shop, port):
        visitor = Visitor(f"http://localhost:{port}")
        assert "fresh rye" in visitor.add("fresh rye")
        assert visitor.get("/healthz")
    database = Database(f"sqlite:///{shop}/data/shop.sqlite")
    assert database.rows("SELECT body FROM note") == [("fresh rye",)]

    models = shop / "shop" / "models.py"
    models.write_text(f"{models.read_text()}    done: Mapped[bool | None]\n")
    for command in change:
        do(command, shop)
    assert database.rows("SELECT body, done FROM note") == [("fresh rye", None)]


@pytest.mark.deep
def test_its_production_works_on_mariadb(bakery, mariadb_server):
    """As its README says; the server of the tests listens elsewhere, and its root needs no sudo."""
    ini, root = bakery / "production.ini", mariadb_server.url()
    port = free_port()
    text = ini.read_text().replace("bakery@localhost/", f"bakery@127.0.0.1:{mariadb_server.port}/")
    ini.write_text(text.replace("localhost:6543", f"localhost:{port}"))
    *_, production = blocks(bakery / "README.md", "console")
    _install, password, create, upgrade, serve = production.splitlines()
    run(["sh", "-c", password], bakery)
    path = {"PYTHONPATH": str(bakery), "SQA_ADMIN_URL": root}
    for command in (create, upgrade):
        assert command.startswith("sudo .venv/bin/psqa ")
        run([*PSQA, *command.split()[2:]], bakery, **path)
    assert serve == "pserve production.ini"
    pserve = [sys.executable, "-m", "pyramid.scripts.pserve", "production.ini"]
    with serving(pserve, bakery, port, **path):
        visitor = Visitor(f"http://localhost:{port}")
        assert "fresh rye" in visitor.add("fresh rye")
        assert visitor.get("/healthz")
    stored = Database(f"{root}bakery").rows("SELECT body FROM note")
    run([*PSQA, "drop", "production.ini", "--yes"], bakery, **path)

    assert stored == [("fresh rye",)]
    assert oct((bakery / "bakery.password").stat().st_mode & 0o777) == "0o600"


@pytest.mark.deep
def test_it_is_formatted_and_typed(bakery):
    """Ruff and mypy find nothing in it; pyramid's decorators have no types."""
    pytest.importorskip("mypy", reason="mypy is installed by make test")
    run([sys.executable, "-m", "ruff", "format", "--check", "."], bakery)
    run([sys.executable, "-m", "ruff", "check", "--select", "E,F,I,B,UP,W", "."], bakery)
    options = ("--strict", "--ignore-missing-imports", "--disable-error-code", "untyped-decorator")
    run([sys.executable, "-m", "mypy", *options, "bakery"], bakery)
