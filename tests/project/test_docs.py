"""The code in the README and in the documentation works."""

import configparser
import importlib
import re
import runpy
import subprocess
import sys
import tomllib

import pytest
from paste.deploy import loadapp, loadserver
from pyramid.config import Configurator
from pyramid.router import Router
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from support.pages import BLOCK, ROOT, blocks, write_file
from support.processes import QUIET

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with what a page expects to exist: an application and its ini file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "taken_for_granted.py").write_text(
        "from pyramid.config import Configurator\n"
        "def main(global_config, **settings):\n"
        "    return Configurator(settings=settings).make_wsgi_app()\n"
    )
    (tmp_path / "development.ini").write_text(
        "[app:main]\n"
        "use = call:taken_for_granted:main\n"
        "pyramid.includes = pyramid_aalam_sqa\n"
        "sqlalchemy.url = sqlite:///%(here)s/data/app.sqlite\n"
    )
    (tmp_path / "shop.password").write_text("secret")
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def run(folder):
    """Run the Python blocks of a page as one module, and return the module."""
    modules = []

    def run(page):
        file = folder / f"{page.stem}_page.py"
        code = [block for block in blocks(page, "python") if not write_file(folder, block)]
        file.write_text("\n".join(code))
        modules.append(importlib.import_module(file.stem))
        return modules[-1]

    yield run
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, (Configurator, Router)):
                get_sqa(value).dispose()
            elif isinstance(value, Engine):
                value.dispose()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, run):
    """A reader can copy all blocks of a page into one file."""
    assert run(page)


def test_the_views_of_the_start_page_work(run, database):
    """A note is added, shown and removed; an unknown number is a 404."""
    run(ROOT / "docs" / "start.md")
    app = importlib.import_module("notes").main({}, **{"sqlalchemy.url": database.url})
    client = TestApp(app)
    client.post("/add", {"body": "first"}, status=303)
    assert client.post("/add", {"body": "second"}, status=303).follow().text == "1 first\n2 second"
    client.post("/remove", {"id": "1"}, status=303)
    client.post("/remove", {"id": "7"}, status=404)
    get_sqa(app).dispose()

    assert database.rows("SELECT id, body FROM note") == [(2, "second")]


def test_the_views_of_the_transactions_page_work(run, database):
    """What the page says of each view agrees with what an independent connection finds."""
    database.run("CREATE TABLE note (body VARCHAR(200))")
    page = run(ROOT / "docs" / "guide" / "transactions.md")

    def broken(request):
        request.sqa_session.execute(page.text("INSERT INTO note (body) VALUES ('half')"))
        raise RuntimeError

    with Configurator(settings={"sqlalchemy.url": database.url}) as config:
        config.include("pyramid_aalam_sqa")
        config.add_exception_view(page.failure, context=RuntimeError)
        for view in (page.stored, page.forgotten, page.batch, page.lenient, broken):
            config.add_view(view, name=view.__name__)
    client = TestApp(config.make_wsgi_app())
    client.get("/stored", status=303)
    client.get("/forgotten", status=400)
    client.get("/batch?body=one&body=two")
    client.get("/lenient")
    client.get("/broken", status=200)

    stored = [row[0] for row in database.rows("SELECT body FROM note")]
    assert stored == ["stored", "one", "two", "kept", "an error page"]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_settings_of_a_page_start_an_application(page, folder):
    """Each ini block is accepted, with its own section or as lines of [app:main]."""
    for code in blocks(page, "ini"):
        text = code if code.startswith("[") else "[app:main]\n" + code
        parser = configparser.ConfigParser({"here": str(folder)})
        parser.read_string(text)
        settings = {key: value for key, value in parser["app:main"].items() if key != "here"}
        if parser.has_section("sqlalchemy"):
            settings["sqlalchemy.url"] = parser["sqlalchemy"]["url"]
        settings.setdefault("pyramid.includes", "pyramid_aalam_sqa")
        config = Configurator(settings=settings)
        config.make_wsgi_app()
        get_sqa(config).dispose()


def test_the_application_of_the_readme_has_about_twenty_lines():
    """It is complete, with a model and its table, and short enough to read at once."""
    [application] = blocks(ROOT / "README.md", "python")

    assert len([line for line in application.splitlines() if line]) <= 20


def test_the_readme_names_every_dependency():
    """It says what each one is for, from which version on, and has the pip command for extras."""
    readme = (ROOT / "README.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [line.replace(">=", " ") for line in project["dependencies"]]

    needs = readme.split("## What it needs")[1].lower()
    assert [name for name in names if name.lower() not in needs] == []
    assert 'pip install "pyramid_aalam_sqa[postgresql]"' in readme


def slug(heading):
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page):
    """The linked files and headings exist."""
    broken = []
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            broken.append(target)
        elif anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            broken += [] if anchor in map(slug, headings) else [target]

    assert broken == []


def after_heading(text, anchor):
    """Return *text* from the heading with *anchor* on; all of it without an anchor."""
    for heading in re.finditer(r"^#+ (.+)$", text, re.MULTILINE) if anchor else ():
        if slug(heading[1]) == anchor:
            return text[heading.start() :]
    return text


def test_each_wish_leads_to_a_page_whose_first_block_answers_it():
    """The row names it, and the first block after the link has that name; pip comes before."""
    table = (ROOT / "README.md").read_text().split("## I want to ...")[1].split("\n## ")[0]
    wishes = re.findall(r"^\| .+ \| `(.+?)`.* \| \[.+\]\((.+)\) \|$", table, re.MULTILINE)
    wrong = []
    for answer, link in wishes:
        path, _, anchor = link.partition("#")
        found = BLOCK.findall(after_heading((ROOT / path).read_text(), anchor))
        first = next(code for _, code in found if not re.fullmatch("pip install .+\n", code))
        # psqa new, get_sqa, sqa_paginate: without arguments and values, and without the request.
        name = re.split(r"[(=]| development\.ini| --", answer)[0].strip().rpartition("request.")[2]
        wrong += [] if name in first else [(answer, link)]

    assert len(wishes) >= 30
    assert wrong == []


def test_the_reference_is_what_the_docstrings_say():
    """`make docs` was run after the last change of a docstring."""
    generator = runpy.run_path(str(ROOT / "tools" / "make_reference.py"))

    assert (ROOT / "docs" / "reference" / "api.md").read_text() == generator["page"]()


def test_every_target_of_the_makefile_is_in_its_help():
    """The command make help lists every target."""
    output = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    listed = {line.split()[0] for line in output.stdout.splitlines() if line and line[0] != "#"}
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert set(phony[1].split()) <= listed


def test_the_page_about_a_portal_leads_from_nothing_to_serving(folder, mariadb_server, monkeypatch):
    """Its ini file, modules and commands work on MariaDB. Only the port is the test's."""
    page = ROOT / "docs" / "portal" / "applications.md"
    for code in blocks(page, "python"):
        assert write_file(folder, code)
    server, development = blocks(page, "ini")
    port = f"localhost:{mariadb_server.port}"
    (folder / "shop.ini").write_text(server.replace("localhost", port))
    (folder / "development.ini").write_text(development)
    monkeypatch.setenv("SQA_ADMIN_URL", mariadb_server.url())
    password, path, create, tables, serve = blocks(page, "console")[0].splitlines()
    subprocess.run(["sh", "-c", password], cwd=folder, check=True)
    monkeypatch.setenv("PYTHONPATH", path.removeprefix("export PYTHONPATH="))
    for command in (create, tables):
        program, *arguments = command.split()
        assert program == "psqa"
        # -P: the folder is on the path because of the line above, as for the command itself.
        done = subprocess.run(
            [sys.executable, "-P", *QUIET, "-m", "pyramid_aalam_sqa.provisioning.cli", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert serve == "pserve shop.ini"
    assert loadserver("config:shop.ini", relative_to=str(folder))
    app = TestApp(loadapp("config:shop.ini", relative_to=str(folder)))
    jobs = importlib.import_module("shop.jobs")
    jobs.restock("tee")
    jobs.rename("tee", "tea")

    assert app.get("/sell?name=tea").json == {"sold": "tea"}
    app.get("/sell?name=coffee", status=404)
    assert app.get("/sales").json == {"sales": 1}
    jobs.forget_sales()
    assert app.get("/sales").json == {"sales": 0}
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name FROM aalam_shop.product")
        assert cursor.fetchall() == (("tea",),)
        cursor.execute("DROP DATABASE aalam_shop")
        cursor.execute("DROP USER aalam_shop, aalam_shop__own")
    get_sqa(app.app).dispose()


def test_the_views_of_the_binds_page_work(run, database, tmp_path):
    """Each row is in the database that the page names."""
    page = run(ROOT / "docs" / "guide" / "binds.md")
    files = {key: f"sqlite:///{tmp_path}/{key}.sqlite" for key in ("audit", "log")}
    settings = {f"sqlalchemy.binds.{key}.url": url for key, url in files.items()}
    with Configurator(settings={"sqlalchemy.url": database.url, **settings}) as config:
        config.include("pyramid_aalam_sqa")
        for view in (page.buy, page.history, page.count, page.note):
            config.add_view(view, name=view.__name__)
        config.add_exception_view(page.half, context=page.PartialCommitError)
    client = TestApp(config.make_wsgi_app())
    page.set_up(client.app)
    client.get("/buy")
    client.get("/note")

    assert client.get("/history").text == "bought"
    assert client.get("/count").text == "2"
    assert page.job(client.app) == 4
    assert database.rows("SELECT name FROM item") == [("book",)]
    for key, statement, rows in (
        ("audit", "SELECT what FROM entry", [("bought",), ("noted",), ("job",), ("thread",)]),
        ("log", "SELECT id FROM visit UNION ALL SELECT id FROM page", [(1,), (1,)]),
    ):
        eyes = create_engine(files[key])
        with eyes.connect() as connection:
            found = [tuple(row) for row in connection.execute(text(statement))]
        eyes.dispose()
        assert sorted(found) == sorted(rows)
    get_sqa(client.app).dispose()
