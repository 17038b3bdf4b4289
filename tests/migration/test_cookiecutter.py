"""The application in tests/cookiecutter: its tests, migrations, scripts and pages."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pyramid.paster import get_app
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa

HOME = Path(__file__).parent / "cookiecutter"
WARNINGS = (
    "error,ignore:'cgi' is deprecated:DeprecationWarning,"
    "ignore:pkg_resources is deprecated as an API:UserWarning,"
    "ignore:Deprecated call to `pkg_resources:DeprecationWarning"
)


class Project:
    """The application with ini files of the test's own."""

    def __init__(self, folder, url):
        self.folder = folder
        self.ini = folder / "development.ini"
        for name in ("development.ini", "testing.ini"):
            shutil.copy(HOME / name, folder)
            self.rewrite(name, "sqlalchemy.url", url)

    def rewrite(self, name, key, value):
        """Set *key* in the ini file *name* to another *value*."""
        path = self.folder / name
        line = f"{key} = {value}".replace("%", "%%")
        text, count = re.subn(rf"(?m)^{key} = .*$", lambda _: line, path.read_text())
        assert count == 1
        path.write_text(text)

    def run(self, *arguments, typed=""):
        """Run a module in a process of its own, where every warning is an error."""
        paths = os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": WARNINGS},
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )

    def succeed(self, *arguments, typed=""):
        """As run, for what must go well; return all that was printed."""
        done = self.run(*arguments, typed=typed)
        printed = done.stdout + done.stderr
        assert done.returncode == 0, printed
        # An error in a destructor, such as a connection that nobody closed, is only printed.
        assert "Exception ignored" not in printed
        return printed

    def alembic(self, *arguments):
        return self.succeed("alembic", "-c", "development.ini", *arguments)


@pytest.fixture
def project(tmp_path, database):
    """The application on the test's database, which has no tables yet."""
    return Project(tmp_path, database.url)


@pytest.fixture
def tables(database, monkeypatch):
    """The application's tables, where Alembic is not what is tested."""
    monkeypatch.syspath_prepend(HOME)
    from myapp.models.meta import Base

    engine = create_engine(database.url, poolclass=NullPool)
    Base.metadata.create_all(engine)


@pytest.fixture
def names(database):
    """The stored names, as others see them."""
    return lambda: [name for (name,) in database.rows("SELECT name FROM models ORDER BY id")]


@pytest.mark.deep
def test_the_application_s_own_tests_pass_and_leave_no_row(project, database, names):
    """Its fixtures are those of pyramid_aalam_sqa.testing; its tables are made by Alembic."""
    printed = project.succeed(
        # The plugin of pytest-alembic 0.13 does not go with pytest 9.
        *("pytest", "-p", "no:cacheprovider", "-p", "no:pytest_alembic"),
        *("-c", str(HOME / "pytest.ini")),
        *(
            "--sqa-reuse",
            f"--rootdir={HOME}",
            f"--confcutdir={HOME / 'tests'}",
            str(HOME / "tests"),
        ),
    )

    assert " passed" in printed
    assert database.scalar("SELECT version_num FROM alembic_version") == "r0001"
    assert names() == []


@pytest.mark.deep
def test_alembic_makes_the_tables_and_sees_no_difference(project, names):
    """The engine of engine_from_settings compares and migrates as any other."""
    project.alembic("upgrade", "head")

    assert names() == []
    assert "No new upgrade operations" in project.alembic("check")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.deep
def test_alembic_prints_sql_from_the_url_alone(project):
    """sqlalchemy.url is a plain key of the ini file, which env.py reads itself."""
    assert "CREATE TABLE models" in project.alembic("upgrade", "head", "--sql")


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
@pytest.mark.deep
def test_an_env_that_calls_engine_from_config_goes_on_working(project, database, names):
    """Autogenerate and upgrade run on SQLAlchemy's own engine from the same settings."""
    scripts = project.folder / "alembic"
    shutil.copytree(HOME / "myapp/alembic", scripts, ignore=shutil.ignore_patterns("r0001*"))
    project.rewrite("development.ini", "script_location", scripts)
    env = scripts / "env.py"
    original = env.read_text()
    env.write_text(
        original.replace(
            "from pyramid_aalam_sqa import engine_from_settings",
            "from sqlalchemy import engine_from_config",
        ).replace("engine_from_settings(settings)", 'engine_from_config(settings, "sqlalchemy.")')
    )
    assert "pyramid_aalam_sqa" not in env.read_text()
    assert env.read_text().count("engine_from_config") == 2

    project.alembic("revision", "--autogenerate", "-m", "tables", "--rev-id", "auto")
    project.alembic("upgrade", "head")

    assert database.scalar("SELECT version_num FROM alembic_version") == "auto"
    assert names() == []


@pytest.mark.sweep(1)
def test_the_script_stores_all_its_rows_or_none(project, tables, names):
    """`with request.tm` decides in a script, where no request is answered."""
    project.succeed("myapp.scripts.initialize_db", "development.ini")
    assert names() == ["one"]

    again = project.run("myapp.scripts.initialize_db", "development.ini", "two", "one")

    assert again.returncode == 1
    assert "IntegrityError" in again.stderr
    assert "Exception ignored" not in again.stderr
    assert names() == ["one"]


@pytest.mark.deep
def test_the_shell_stores_what_its_user_commits(project, tables, names):
    """Both names of the session work, in the shell's transaction and in `with request.tm`."""
    printed = project.succeed(
        *("pyramid.scripts.pshell", "development.ini", "-p", "python"),
        typed="""\
dbsession.add(models.MyModel(name="by tm"))
tm.commit()
with request.tm:
    request.sqa_session.add(models.MyModel(name="by with"))

tm.begin()
dbsession.add(models.MyModel(name="neither"))
dbsession.flush()
""",
    )

    assert "Traceback" not in printed
    assert names() == ["by tm", "by with"]


def test_the_application_answers_its_page(project, tables, names):
    """The views are those of the cookiecutter, and so are their answers."""
    application = get_app(str(project.ini))
    browser = TestApp(application)

    empty = browser.get("/", status=500)
    page = browser.post("/add/one", status=303).follow(status=200)
    browser.get("/no/such/page", status=404)

    assert "run alembic" in empty.text
    assert "myapp: one is 1" in page.text
    assert names() == ["one"]
    get_sqa(application).dispose()
