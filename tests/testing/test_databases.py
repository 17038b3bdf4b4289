"""The databases of a test run: named by the worker, made as psqa makes them, used again."""

import shutil
import sys
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, event, inspect, select
from sqlalchemy.engine import make_url

from pyramid_aalam_sqa import engine_from_settings, get_sqa, session_scope
from pyramid_aalam_sqa.testing import SandboxError, database_for_tests, isolated
from support.apps import make_app
from support.databases import Database, own_database


def base(*columns):
    metadata = MetaData()
    Table("item", metadata, Column("id", Integer, primary_key=True), *columns)
    return metadata


BASE = base(Column("name", String(20), index=True))


def settings_of(database, **more):
    return {"sqlalchemy.url": database.url, **more}


def tables_of(settings):
    engine = engine_from_settings(settings)
    try:
        return sorted(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def count(settings):
    engine = engine_from_settings(settings)
    with engine.connect() as connection:
        found = connection.execute(select(BASE.tables["item"])).all()
    engine.dispose()
    return len(found)


def fill(settings):
    engine = engine_from_settings(settings)
    with engine.begin() as connection:
        connection.execute(BASE.tables["item"].insert().values(name="a"))
    engine.dispose()


@pytest.mark.sweep(1)
def test_a_worker_has_a_database_of_its_own(any_database):
    """It has the tables, and is gone afterwards."""
    name = make_url(any_database.url).database.removesuffix(".sqlite")
    with database_for_tests(settings_of(any_database), base=BASE, worker="gw3") as settings:
        url = make_url(settings["sqlalchemy.url"])
        assert url.database.removesuffix(".sqlite") == f"{name}_gw3"
        assert tables_of(settings) == ["item", "sqa_test_database"]
        fill(settings)
    with database_for_tests(settings_of(any_database), base=BASE, worker="gw3") as settings:
        assert count(settings) == 0


def test_an_empty_database_is_emptied_again(any_database):
    """One that an administrator has made for the tests stays."""
    any_database.run("CREATE TABLE other (id INTEGER)", "DROP TABLE other")
    with database_for_tests(settings_of(any_database), base=BASE) as settings:
        fill(settings)
    assert tables_of(settings) == []


def test_a_database_with_other_tables_is_never_touched(any_database):
    """The error says what to do."""
    any_database.run("CREATE TABLE customers (id INTEGER)", "INSERT INTO customers VALUES (1)")
    with pytest.raises(SandboxError, match="was not made for tests") as caught:
        with database_for_tests(settings_of(any_database), base=BASE):
            pass

    assert any_database.rows("SELECT id FROM customers") == [(1,)]
    assert "password" not in str(caught.value)


@pytest.mark.sweep(1)
def test_a_database_is_used_again_while_its_models_are_the_same(any_database):
    """A changed model makes it anew, and so does a run without --sqa-reuse."""
    given = settings_of(any_database, **{"sqlalchemy.pool_recycle": "60"})
    with database_for_tests(given, base=BASE, worker="w", reuse=True) as settings:
        fill(settings)
    with database_for_tests(given, base=BASE, worker="w", reuse=True) as settings:
        assert count(settings) == 1
    changed = base(Column("name", String(20)), Column("size", Integer))
    with database_for_tests(given, base=changed, worker="w", reuse=True) as settings:
        assert count(settings) == 0
    with database_for_tests(given, base=changed, worker="w") as settings:
        fill(settings)
    with pytest.raises(SandboxError, match="in memory"):
        with database_for_tests({"sqlalchemy.url": "sqlite://"}, base=BASE):
            pass
    with database_for_tests({"sqlalchemy.url": "sqlite://"}, worker="w") as settings:
        assert settings == {"sqlalchemy.url": "sqlite://"}


def test_a_run_that_was_interrupted_is_made_anew(sqlite):
    """Its tables may be half made."""

    class InterruptedRunError(Exception):
        pass

    def interrupt(*_, **__):
        raise InterruptedRunError

    metadata = base()
    event.listen(metadata, "before_create", interrupt)
    given = settings_of(sqlite)
    with pytest.raises(InterruptedRunError), database_for_tests(given, base=metadata, worker="w"):
        pass
    with database_for_tests(given, base=BASE, worker="w", reuse=True) as settings:
        assert "item" in tables_of(settings)


def test_each_bind_has_a_database_of_its_own(any_database, request, tmp_path):
    """The tables of a bind key are in its database."""
    metadata = MetaData()
    Table("item", metadata, Column("id", Integer))
    Table("entry", metadata, Column("id", Integer), info={"bind_key": "audit"})
    given = settings_of(
        any_database, **{"sqlalchemy.binds.audit.url": f"sqlite:///{tmp_path}/audit.sqlite"}
    )
    with database_for_tests(given, base=metadata, worker="gw0") as settings:
        engine = engine_from_settings(settings, bind_key="audit")
        assert engine.url.database == f"{tmp_path}/audit_gw0.sqlite"
        assert "entry" in inspect(engine).get_table_names()
        engine.dispose()
        assert "entry" not in tables_of(settings)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
@pytest.mark.sweep(2)
def test_an_administrator_makes_it_as_psqa_does(kind, named, request):
    """The application has an account of its own, which may do what psqa lets it do."""
    server = request.getfixturevalue(f"{kind}_server")
    with own_database(server.url()) as outer:
        url = make_url(outer.url).set(username="aalam_shop", password="of-the-tests")
        if kind == "mariadb":
            url = url.set(database="" if named else "aalam_shop")
        given = {"sqlalchemy.url": url.render_as_string(hide_password=False)}
        if named:
            given |= {"sqa.provider": "aalam", "sqa.app": "shop"}
        options = {"admin_url": server.url(), "worker": "gw1", "base": BASE}
        with database_for_tests(given, **options) as settings:
            assert make_url(settings["sqlalchemy.url"]).username == "aalam_shop_gw1"
            app = make_app(
                url=settings["sqlalchemy.url"],
                **{key: value for key, value in settings.items() if key.startswith("sqa.")},
            )
            with session_scope(app) as session:
                session.execute(BASE.tables["item"].insert().values(name="a"))
            with isolated(app, commits=True), session_scope(app) as session:
                session.execute(BASE.tables["item"].insert().values(name="b"))
            get_sqa(app).dispose()
            assert count(settings) == 1
        with pytest.raises(Exception, match=r"(?i)denied|authentication|does not exist"):
            count(settings)


COOKIECUTTER = Path(__file__).parents[1] / "migration" / "cookiecutter"


@pytest.fixture
def ini(tmp_path, any_database, monkeypatch):
    """The ini file of an application with migrations, on an empty database."""
    pytest.importorskip("alembic")
    monkeypatch.syspath_prepend(COOKIECUTTER)
    shutil.copy(COOKIECUTTER / "testing.ini", tmp_path)
    file = tmp_path / "testing.ini"
    text = file.read_text().replace("sqlite:///%(here)s/testing.sqlite", any_database.url)
    file.write_text(text)
    yield file
    for name in [name for name in sys.modules if name.partition(".")[0] == "myapp"]:
        del sys.modules[name]


@pytest.mark.sweep(1)
def test_alembic_makes_the_tables(ini):
    """The migrations run on the database of the worker, and a changed one makes it anew."""
    with database_for_tests(ini, alembic=ini, worker="gw0", reuse=True) as settings:
        assert tables_of(settings) == ["alembic_version", "models", "sqa_test_database"]
    with database_for_tests(str(ini), alembic=ini, worker="gw0") as settings:
        assert "models" in tables_of(settings)


def test_an_env_that_migrates_another_database_is_an_error(ini, tmp_path):
    """The error says what env.py has to use."""
    scripts = tmp_path / "scripts"
    shutil.copytree(COOKIECUTTER / "myapp" / "alembic", scripts)
    (scripts / "env.py").write_text("")
    text = ini.read_text().replace(
        "script_location = myapp:alembic", f"script_location = {scripts}"
    )
    ini.write_text(text)
    with pytest.raises(SandboxError, match=r"config.attributes\["):
        with database_for_tests(ini, alembic=ini, worker="gw0"):
            pass


def test_the_portal_s_section_is_read(tmp_path, sqlite):
    """`[sqlalchemy]` with `url` in the ini file is the application's database too."""
    file = tmp_path / "portal.ini"
    file.write_text(f"[app:main]\nuse = call:any:main\n[sqlalchemy]\nurl = {sqlite.url}\n")
    with database_for_tests(file, base=BASE, worker="gw0") as settings:
        assert settings["sqlalchemy.url"].endswith("test_gw0.sqlite")
        assert Database(settings["sqlalchemy.url"]).rows("SELECT * FROM item") == []
