"""psqa works for an application without a provider, and imports it only where it has to."""

import sys

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from support.ordinary_user import home, whole_life
from support.provisioned import psqa

# The README's application, and one that says what its tables are in another way.
APPLICATION = """
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)


def add(request):
    request.sqa_session.add(Note())
    request.sqa_session.flush()
    return Response(str(len(request.sqa_session.scalars(select(Note)).all())))


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(add)
    return config.make_wsgi_app()
"""
INI = """
[app:main]
use = call:{package}:main
sqlalchemy.url = {url}
{lines}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the application, from which it can be imported."""
    (tmp_path / "ten_lines.py").write_text(APPLICATION)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("SQA_PROVIDER", "SQA_APP", "SQA_ADMIN_URL"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    sys.modules.pop("ten_lines", None)


def write(folder, url, *lines, package="ten_lines"):
    ini = folder / "development.ini"
    shown = str(url).replace("%", "%%")
    ini.write_text(INI.format(package=package, url=shown, lines="\n".join(lines)))
    return ini


def served(ini):
    from pyramid.paster import get_app

    app = get_app(str(ini))
    try:
        return TestApp(app).get("/").text
    finally:
        get_sqa(app).dispose()


def life(ini, **how):
    """Run every command; return their statuses, and what the application answers in between."""
    option = ("--base", "ten_lines:Base")
    statuses = [
        psqa("create", ini, **how).status,
        psqa("tables", ini, *option, "--dry-run", **how).status,
        psqa("tables", ini, *option, **how).status,
        psqa("check", ini, **how).status,
    ]
    again = psqa("create", ini, **how).lines[0]
    answer = served(ini)
    statuses += [
        psqa("show", ini, **how).status,
        psqa("drop", ini, "--dry-run", **how).status,
        psqa("drop", ini, "--yes", **how).status,
    ]
    return statuses, again, answer


RIGHT = ([0, 1, 0, 0, 0, 1, 0], "Nothing to change.", "1")


def test_on_sqlite_the_file_is_named_by_the_url(folder):
    """From nothing to nothing, without a provider, a server and an administrator."""
    assert life(write(folder, f"sqlite:///{folder}/app.sqlite")) == RIGHT
    assert not (folder / "app.sqlite").exists()


def test_on_mariadb_the_database_and_the_account_are_named_by_the_url(folder, mariadb_server):
    """As those of a bind are; and the password is rotated in its file."""
    file = folder / "password"
    file.write_text("first\n")
    file.chmod(0o600)
    url = make_url(mariadb_server.url("ten_lines")).set(username="ten", password=None)
    ini = write(folder, url, f"sqa.password_file = {file}")
    how = {"admin_url": mariadb_server.url()}
    assert psqa("create", ini, **how).status == 0
    rotated = psqa("rotate", ini, **how)

    assert rotated.status == 0
    assert file.read_text() != "first\n"
    assert life(ini, **how) == RIGHT


def test_on_postgresql_the_schema_is_called_as_the_user(folder, postgresql_server):
    """The search_path of the role leads there."""
    url = make_url(postgresql_server.url()).set(username="ten_lines", password="x")
    ini = write(folder, url.render_as_string(hide_password=False))
    statuses, again, answer = life(ini, admin_url=postgresql_server.url())

    # The tests' server asks for no password and has a database that is open to everybody.
    assert (statuses[:3], statuses[4:], again, answer) == (
        RIGHT[0][:3],
        RIGHT[0][4:],
        "Nothing to change.",
        "1",
    )


# Where the tables are found.


def tables(folder):
    engine = create_engine(f"sqlite:///{folder}/app.sqlite", poolclass=NullPool)
    return inspect(engine).get_table_names()


def test_the_setting_names_the_bases(folder):
    """sqa.base may name several."""
    (folder / "others.py").write_text(
        "from sqlalchemy import Column, Integer, MetaData, Table\n"
        "metadata = MetaData()\n"
        "Table('other', metadata, Column('id', Integer, primary_key=True))\n"
    )
    line = "sqa.base = ten_lines:Base others:metadata"
    ini = write(folder, f"sqlite:///{folder}/app.sqlite", line)
    assert psqa("create", ini).status == 0
    told = psqa("tables", ini)

    assert (told.status, told.out) == (0, "Created note\nCreated other\n")
    assert tables(folder) == ["note", "other"]


def test_without_the_setting_init_engine_names_them(folder, monkeypatch):
    """The application is made as pserve makes it."""
    monkeypatch.setenv("SQA_PROVIDER", "ten")
    monkeypatch.setenv("SQA_APP", "lines")
    call = "config.add_view(add)\n        from pyramid_aalam_sqa import init_engine\n"
    call += '        init_engine("ten_lines", Base)\n        init_engine("ten_lines", Base)'
    (folder / "with_init.py").write_text(APPLICATION.replace("config.add_view(add)", call))
    lines = ("sqa.provider = ten", "sqa.app = lines")
    ini = write(folder, f"sqlite:///{folder}/app.sqlite", *lines, package="with_init")
    assert psqa("create", ini).status == 0
    told = psqa("tables", ini)

    assert (told.status, told.out) == (0, "Created note\n")


def test_an_application_that_names_none_is_told(folder):
    """With the setting and the option."""
    ini = write(folder, f"sqlite:///{folder}/app.sqlite")
    told = psqa("tables", ini)

    assert told.status == 2
    assert "calls no init_engine(): write sqa.base = package.module:Base" in told.err


@pytest.mark.parametrize("how", ["the application", "the setting", "the option"])
def test_what_cannot_be_imported_is_told_with_the_folder_and_the_path(folder, monkeypatch, how):
    """The console script does not look into the folder that it is called in."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    lines = ["sqa.base = no_such:Base"] if how == "the setting" else []
    ini = write(folder, f"sqlite:///{folder}/app.sqlite", *lines, package="no_such")
    option = ("--base", "no_such:Base") if how == "the option" else ()
    told = psqa("tables", ini, *option)
    monkeypatch.delenv("PYTHONPATH")
    without = psqa("tables", ini, *option)

    assert told.status == without.status == 2
    assert "No module named 'no_such'" in told.err
    assert f"psqa was called in {folder}, and PYTHONPATH is /somewhere: install" in told.err
    assert "PYTHONPATH is not set" in without.err


@pytest.mark.parametrize("command", ["create", "check", "show", "drop", "rotate"])
def test_a_command_that_needs_the_ini_file_alone_imports_nothing(folder, command):
    """Sudo psqa create must not run the application's code as root."""
    (folder / "no_psqa.py").write_text(
        f"open({str(folder / 'imported')!r}, 'w').close()\nraise SystemExit('imported')\n"
    )
    ini = write(folder, f"sqlite:///{folder}/app.sqlite", package="no_psqa")
    assert psqa("create", ini).status == 0
    option = ["--yes"] if command == "drop" else []
    told = psqa(command, ini, *option)

    assert told.status == (1 if command == "rotate" else 0)
    assert not (folder / "imported").exists()


@pytest.mark.parametrize(
    "section",
    [
        "[pipeline:main]\npipeline = egg:nothing#filter app\n[app:app]\n",
        "[app:main]\nuse = app\n[app:app]\n",
        "[composite:main]\nuse = egg:nothing#urlmap\n/ = app\n",
        "[app:main]\nfilter-with = wrapped\n[filter:wrapped]\nuse = egg:nothing#f\n[app:unused]\n",
        "[filter-app:main]\nuse = egg:nothing#f\nnext = app\n[app:app]\n",
        "[DEFAULT]\nname = app\n[app:main]\nset name = app\nget x = name\n",
        "[app:main]\npaste.app_factory = no_such:main\n",
    ],
)
def test_sections_are_found_as_pserve_finds_them(folder, section):
    """Behind pipelines and filters too, without their packages."""
    ini = folder / "development.ini"
    use = "" if "paste.app" in section else "use = call:no_such:main\n"
    here = section + (use if "use = egg:nothing#urlmap" not in section else "")
    if "[app:unused]" in section:
        here = here.replace(
            "filter-with",
            "use = call:no_such:main\nsqlalchemy.url = sqlite:///%(here)s/app.sqlite\nfilter-with",
        )
    ini.write_text(here + "sqlalchemy.url = sqlite:///%(here)s/app.sqlite\n")
    told = psqa("create", ini)

    assert (told.status, told.err) == (0, "")
    assert (folder / "app.sqlite").exists()


@pytest.mark.parametrize(
    "name", ["config:other.ini", "config:other.ini#app", "config://{}/other.ini#app"]
)
def test_an_ini_file_may_use_another_one(folder, name):
    """What it says itself comes on top."""
    (folder / "other.ini").write_text(
        "[app:main]\nuse = app\n[app:app]\nuse = egg:no_such\n"
        "sqlalchemy.url = sqlite:///%(here)s/other.sqlite\nsqa.lock_timeout = 7\n"
    )
    ini = folder / "development.ini"
    ini.write_text(
        f"[app:main]\nuse = {name.format(folder)}\nsqlalchemy.url = sqlite:///%(here)s/app.sqlite\n"
    )
    told = psqa("show", ini, columns=300)

    assert "sqa.lock_timeout = 7  ([app:main])" in told.lines
    assert f"sqlalchemy.url = sqlite:///{folder}/app.sqlite  ([app:main])" in told.lines


def test_an_ordinary_user_needs_no_sudo_on_sqlite():
    """Every command in a process of that user; there is no password to rotate."""
    with home() as folder:
        told = whole_life(folder, f"sqlite:///{folder}/app.sqlite")

    assert [each.status for each in told] == [1, 0, 0, 0, 1, 0, 0, 1, 0]
    assert "there is nothing to rotate" in told[4].err
