"""What an application of the portal knows: its name, its engine, its sessions."""

import gc
import itertools
import os
import sys
import threading
from contextlib import ExitStack, contextmanager

import pytest
from paste.deploy import loadapp
from pyramid import testing, threadlocal
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.paster import get_appsettings
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, declarative_base, mapped_column, registry

from pyramid_aalam_sqa import (
    Session,
    SettingError,
    get_database_name,
    get_sqa,
    init_engine,
    session_scope,
)
from pyramid_aalam_sqa.applications import directory
from support import portal

_numbers = itertools.count(1)


@pytest.fixture
def code():
    """The code of an application that no other test has."""
    return f"p{os.getpid()}a{next(_numbers)}"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A name to write an application's package under, importable from the test's folder."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"shop{next(_numbers)}"
    yield name
    portal.forget(name)


@pytest.fixture(autouse=True)
def _alone():
    """No application of another test is in the process, nor is a request of one going on."""
    threadlocal.manager.clear()
    directory.forget_all()


@contextmanager
def mariadb_application(mariadb_url, code):
    """An empty database on MariaDB that is called aalam_<code>."""
    from support.databases import Database

    server = Database(mariadb_url)
    server.run(f"CREATE DATABASE aalam_{code}")
    try:
        yield server, make_url(mariadb_url).set(database="").render_as_string(hide_password=False)
    finally:
        server.run(f"DROP DATABASE aalam_{code}")


@pytest.fixture(params=["sqlite", "mariadb"])
def place(request, tmp_path, code):
    """Yield a URL without a database, and what tells what others see of a table there."""
    if request.param == "sqlite":
        from support.databases import Database

        url = f"sqlite:///{tmp_path}/data/app.sqlite"
        database = Database(url)
        yield (
            url,
            lambda column, table: [
                row[0] for row in database.rows(f'SELECT {column} FROM "{table}" ORDER BY id')
            ],
        )
        return
    with mariadb_application(request.getfixturevalue("mariadb_url"), code) as (server, url):
        yield (
            url,
            lambda column, table: [
                row[0]
                for row in server.rows(f"SELECT {column} FROM aalam_{code}.`{table}` ORDER BY id")
            ],
        )


def named(code):
    return ("sqa.provider = aalam", f"sqa.app = {code}")


# The documents, as written.


@pytest.mark.parametrize("lines", [portal.AFTER, portal.BEFORE], ids=["after", "before"])
def test_the_portals_documents_run_as_written(  # noqa: PLR0913, PLR0917 - each is a part of it
    tmp_path, package, place, code, lines, monkeypatch
):
    """Models with schema=, init_engine in the entry point, request.sqa_session, Session(name)."""
    url, stored = place
    portal.write_package(tmp_path, package, lines)
    if lines is portal.BEFORE:
        monkeypatch.setenv("SQA_PROVIDER", "aalam")
        monkeypatch.setenv("SQA_APP", code)
    app = portal.load(portal.write_ini(tmp_path, package, url, *named(code)))

    app.get("/add?name=one")
    app.get("/add?name=two&refuse", status=400)
    answer = app.get("/job?name=three").text

    assert answer == f"aalam_{code}"
    assert app.get("/show").text == "one three"
    assert stored("name", "item") == ["one", "three"]
    assert stored("body", "note-1") == ["in the request"]


def test_the_name_is_known_when_the_include_has_returned(code):
    """Before config.commit(): models are imported and scanned there."""
    settings = {"sqa.provider": "aalam", "sqa.app": code}
    config = Configurator(settings=settings)
    config.include("pyramid_aalam_sqa")

    assert get_database_name() == f"aalam_{code}"


def test_the_name_is_known_through_pyramid_includes(code):
    """The include may be a line of the ini file."""
    settings = {"sqa.provider": "aalam", "sqa.app": code, "pyramid.includes": "pyramid_aalam_sqa"}
    config = Configurator(settings=settings)

    assert get_database_name() == f"aalam_{code}"
    del config


def test_the_environment_names_the_database_before_there_is_an_application(monkeypatch):
    """Models at the top of a module are imported before the entry point runs."""
    monkeypatch.setenv("SQA_PROVIDER", "aalam")
    monkeypatch.setenv("SQA_APP", "base")

    assert get_database_name() == "aalam_base"


def test_the_environment_names_the_database_of_an_ini_that_does_not(monkeypatch, tmp_path):
    """The engine has the name that the models have."""
    monkeypatch.setenv("SQA_PROVIDER", "aalam")
    monkeypatch.setenv("SQA_APP", "base")
    with Configurator(settings={"sqlalchemy.url": f"sqlite:///{tmp_path}/a.sqlite"}) as config:
        config.include("pyramid_aalam_sqa")

    assert get_sqa(config).settings.name == "aalam_base"


def test_without_a_name_the_error_says_what_to_do():
    """Before any application: import later, or set the variables."""
    with pytest.raises(SettingError, match=r"import the models after.*SQA_PROVIDER and SQA_APP"):
        get_database_name()


@pytest.mark.parametrize("others", [0, 1])
def test_models_imported_too_early_never_get_the_name_of_another(tmp_path, package, code, others):
    """A module's top is executed before its entry point: it is told what to do about it."""
    config = configured({"sqa.provider": "aalam", "sqa.app": code}) if others else None
    portal.write_package(tmp_path, package, portal.BEFORE)
    ini = portal.write_ini(tmp_path, package, "sqlite://", *named(code))

    with pytest.raises(SettingError, match=r"import the models after"):
        portal.load(ini)
    del config


def test_an_application_without_a_name_says_which_settings_are_missing():
    """An include without sqa.provider and sqa.app is no portal application."""
    config = Configurator()
    config.include("pyramid_aalam_sqa")

    with pytest.raises(SettingError, match=r"set sqa\.provider and sqa\.app in the ini file"):
        get_database_name()
    del config


@pytest.mark.parametrize(
    ("settings", "environment", "message"),
    [
        ({"sqa.provider": "aalam"}, {}, r"sqa\.app is missing"),
        ({"sqa.app": "base"}, {}, r"sqa\.provider is missing"),
        ({"sqa.provider": "test", "sqa.app": "base"}, {}, r"sqa\.provider = 'test': write"),
        ({"sqa.provider": "aalam", "sqa.app": "Base"}, {}, r"sqa\.app = 'Base': write"),
        ({"sqa.provider": "aalam", "sqa.app": ""}, {}, r"sqa\.app is blank"),
        ({"sqa.provider": "a" * 20, "sqa.app": "b" * 43}, {}, r"has 64 characters: use 63"),
        ({}, {"SQA_APP": "base"}, "Set both SQA_PROVIDER and SQA_APP"),
        (
            {},
            {"SQA_PROVIDER": "Aalam", "SQA_APP": "base"},
            "The provider 'Aalam' cannot be in a name",
        ),
        (
            {"sqa.provider": "aalam", "sqa.app": "base"},
            {"SQA_PROVIDER": "aalam", "SQA_APP": "shop"},
            "'aalam_base', but it was named 'aalam_shop' before",
        ),
        (
            {
                "sqa.provider": "aalam",
                "sqa.app": "base",
                "sqlalchemy.url": "mysql+pymysql://me:hidden@host/other",
            },
            {},
            r"sqlalchemy\.url: its database is 'other', but the application's is 'aalam_base'",
        ),
    ],
)
def test_a_name_that_is_none_is_one_sentence_at_start_up(
    settings, environment, message, monkeypatch
):
    """It names the setting and what to write, and repeats no password."""
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with (
        pytest.raises(ConfigurationError, match=message) as raised,
        Configurator(settings=settings) as config,
    ):
        config.include("pyramid_aalam_sqa")

    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("mysql+pymysql://me@host", "aalam_base"),
        ("mysql+pymysql://me@host/", "aalam_base"),
        ("mysql+pymysql://me@host/aalam_base", "aalam_base"),
        ("postgresql+psycopg://me@host/portal", "portal"),
        ("sqlite:////nowhere/app.sqlite", "/nowhere/app.sqlite"),
    ],
)
def test_the_database_of_the_url_is_filled_in(given, expected):
    """On a server with many databases it need not be written twice."""
    settings = {"sqa.provider": "aalam", "sqa.app": "base", "sqlalchemy.url": given}
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")

    assert get_sqa(config).engine.url.database == expected


HOSTILE = ["aalam", "Aalam_base", "aalam_base`", "test_base", "", "a__b", "a_b; DROP DATABASE a_b"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "function", [Session, session_scope, lambda name: init_engine(name, MetaData())]
)
def test_a_hostile_name_reaches_no_database(name, function):
    """It is refused by the rule wherever a name can be given."""
    with (
        pytest.raises(SettingError, match=r"cannot be in a name|is not a database name"),
        function(name),
    ):
        pass


# Two applications in one process.


def test_two_applications_in_one_process_have_their_own(tmp_path, monkeypatch):
    """Each has its name and its database, in a request, in a thread of it, and by its package."""
    monkeypatch.syspath_prepend(tmp_path)
    apps = {}
    for package in ("shopone", "shoptwo"):
        portal.write_package(tmp_path, package)
        url = f"sqlite:///{tmp_path}/{package}.sqlite"
        ini = portal.write_ini(
            tmp_path, package, url, "sqa.provider = aalam", f"sqa.app = {package}"
        )
        apps[package] = portal.load(ini)
    for package, app in apps.items():
        app.get(f"/add?name={package}")
        app.get(f"/job?name=job-{package}")
    names = {}
    for package in apps:
        job = sys.modules[f"{package}.views"].name_in_a_thread
        thread = threading.Thread(target=job, args=(names, package))
        thread.start()
        thread.join()
    for package in apps:
        portal.forget(package)

    assert names == {"shopone": "aalam_shopone", "shoptwo": "aalam_shoptwo"}
    assert {package: app.get("/show").text for package, app in apps.items()} == {
        "shopone": "shopone job-shopone",
        "shoptwo": "shoptwo job-shoptwo",
    }


def configured(settings, package=None):
    """A configuration that was committed, of an application whose code is in *package*."""
    config = Configurator(settings=settings, package=package)
    config.include("pyramid_aalam_sqa")
    config.commit()
    return config


def test_between_several_applications_nobody_guesses(tmp_path):
    """Code that belongs to none of them has to give the name."""
    one, two = (
        configured({"sqa.provider": "aalam", "sqa.app": app, "sqlalchemy.url": "sqlite://"}, "json")
        for app in ("one", "two")
    )

    with pytest.raises(SettingError, match="Several applications are in this process"):
        get_database_name()
    assert Session("aalam_two").get_bind() is get_sqa(two).engine
    assert Session(one).get_bind() is get_sqa(one).engine


def two_of_one_package(tmp_path, *, named):
    """Two applications whose code is in one package, each with a file of its own."""
    for app in ("one", "two"):
        settings = {"sqlalchemy.url": f"sqlite:///{tmp_path}/{app}.sqlite"}
        if named:
            settings |= {"sqa.provider": "aalam", "sqa.app": app}
        yield configured(settings, __name__)


@pytest.mark.parametrize("named", [True, False])
def test_two_applications_of_one_package_are_told_apart_by_name_alone(tmp_path, named):
    """Nothing is written into the one that was made last."""
    one, two = two_of_one_package(tmp_path, named=named)

    def scope():
        with session_scope():
            pass

    for call in (Session, scope, lambda: init_engine("aalam_three", NewBase)):
        with pytest.raises(SettingError, match="Several applications are in this process"):
            call()
    if named:
        with pytest.raises(SettingError, match="Several applications are in this process"):
            get_database_name()
        assert Session("aalam_one").get_bind() is get_sqa(one).engine
    assert Session(two).get_bind() is get_sqa(two).engine


def test_an_application_that_is_made_twice_with_the_same_settings_is_one_database(tmp_path):
    """As in tests: it is the last one, and either would do."""
    settings = {"sqlalchemy.url": f"sqlite:///{tmp_path}/one.sqlite"}
    settings |= {"sqa.provider": "aalam", "sqa.app": "one"}
    first, last = (configured(settings, __name__) for _ in range(2))

    assert Session().get_bind() is get_sqa(last).engine
    assert get_sqa(first).engine is not get_sqa(last).engine


def test_applications_of_one_name_on_two_servers_have_one_name_and_two_databases(tmp_path):
    """The name is no doubt; where to write is one."""
    name = {"sqa.provider": "aalam", "sqa.app": "one"}
    both = [
        configured({"sqlalchemy.url": f"sqlite:///{tmp_path}/{file}.sqlite", **name}, __name__)
        for file in ("here", "there")
    ]

    assert get_database_name() == "aalam_one"
    with pytest.raises(SettingError, match="Several applications are in this process"):
        Session()
    assert len(both) == 2


def test_an_application_that_was_disposed_is_not_meant(tmp_path):
    """Tests make one after the other, and the collector has not seen the first one yet."""
    first, last = two_of_one_package(tmp_path, named=True)
    get_sqa(first).dispose()

    assert get_database_name() == "aalam_two"
    assert Session().get_bind() is get_sqa(last).engine
    get_sqa(last).dispose()
    with pytest.raises(SettingError, match="Several applications are in this process"):
        Session()


def test_in_a_request_it_is_the_application_of_the_request():
    """Or of what pyramid.testing has set up."""
    one, two = (
        configured({"sqa.provider": "aalam", "sqa.app": app, "sqlalchemy.url": "sqlite://"}, "json")
        for app in ("one", "two")
    )

    with testing.testConfig(registry=one.registry, request=testing.DummyRequest()):
        assert get_database_name() == "aalam_one"
        assert Session().get_bind() is get_sqa(one).engine
    with testing.testConfig(registry=two.registry):
        assert get_database_name() == "aalam_two"


def test_an_application_that_is_gone_is_forgotten(tmp_path):
    """Its name can be another's from then on."""
    config = configured({"sqa.provider": "aalam", "sqa.app": "one", "sqlalchemy.url": "sqlite://"})
    assert get_database_name() == "aalam_one"
    del config
    gc.collect()

    with pytest.raises(SettingError, match="There is no application yet"):
        get_database_name()
    with pytest.raises(SettingError, match=r"No database 'aalam_one' is known here, only: none"):
        Session("aalam_one")


def test_an_application_without_a_name_has_sessions_too(sqlite):
    """The only one in its process needs none."""
    config = configured({"sqlalchemy.url": sqlite.url})

    assert Session().get_bind() is get_sqa(config).engine


def test_before_the_configuration_is_done_a_session_says_so():
    """An engine made too early would have settings that are not final."""
    config = Configurator(settings={"sqlalchemy.url": "sqlite://"})
    config.include("pyramid_aalam_sqa")

    with pytest.raises(SettingError, match=r"call config\.commit\(\) or init_engine\(\)"):
        Session()
    del config


def test_without_any_application_a_session_says_so():
    """The names that are known are in the error."""
    with pytest.raises(SettingError, match="There is no application yet"):
        Session()


# init_engine.


class NewBase(DeclarativeBase):
    pass


class Thing(NewBase):
    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(primary_key=True)


def old_base():
    base = declarative_base()
    type("Thing", (base,), {"__tablename__": "thing", "id": Column(Integer, primary_key=True)})
    return base


def mapped_registry():
    mapper = registry()
    table = Table("thing", mapper.metadata, Column("id", Integer, primary_key=True))
    mapper.map_imperatively(type("Thing", (), {}), table)
    return mapper


def bare_metadata():
    metadata = MetaData()
    Table("thing", metadata, Column("id", Integer, primary_key=True))
    return metadata


@pytest.mark.parametrize("make", [lambda: NewBase, old_base, mapped_registry, bare_metadata])
def test_any_declarative_base_will_do(make, sqlite):
    """DeclarativeBase, declarative_base(), a registry, a MetaData."""
    settings = {"sqlalchemy.url": sqlite.url, "sqa.provider": "aalam", "sqa.app": "base"}

    init_engine("aalam_base", make(), create_tables=True, settings=settings)

    assert sqlite.scalar("SELECT count(*) FROM thing") == 0


def test_what_is_no_declarative_base_is_refused():
    """The error says what to write."""
    with pytest.raises(SettingError, match="write the declarative base of the models"):
        init_engine("aalam_base", object())


def test_without_create_tables_nothing_is_created(sqlite):
    """Tables are the business of migrations, or of psqa."""
    settings = {"sqlalchemy.url": sqlite.url}

    engine = init_engine("aalam_base", NewBase, settings=settings)

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM sqlite_master")) == 0
    assert sqlite.scalar("SELECT count(*) FROM sqlite_master") == 0


def test_init_engine_returns_the_engine_of_the_requests(sqlite):
    """However often it is called, and when: before the commit and after it."""
    settings = {"sqlalchemy.url": sqlite.url, "sqa.provider": "aalam", "sqa.app": "base"}
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        first = init_engine("aalam_base", NewBase)
        second = init_engine("aalam_base", old_base())
        config.commit()
        third = init_engine("aalam_base", NewBase)

    assert first is second is third is get_sqa(config).engine


def test_init_engine_names_a_database_that_the_ini_does_not(sqlite):
    """The portal's own form: a URL, and a name in code."""
    with Configurator(settings={"sqlalchemy.url": sqlite.url}) as config:
        config.include("pyramid_aalam_sqa")
        init_engine("aalam_base", NewBase)
        assert get_database_name() == "aalam_base"

    assert get_sqa(config).settings.name == "aalam_base"
    assert Session("aalam_base").get_bind() is get_sqa(config).engine


def other_name(config):
    init_engine("aalam_other", NewBase)


def later_url(config):
    init_engine("aalam_base", NewBase)
    config.registry.settings["sqlalchemy.url"] = "sqlite:////nowhere/other.sqlite"


def later_directive(config):
    init_engine("aalam_base", NewBase)
    config.add_sqa_database("sqlite:////nowhere/other.sqlite")


def second_name(config):
    config.commit()
    init_engine("aalam_second", NewBase)


@pytest.mark.parametrize("change", [other_name, later_url, later_directive, second_name])
def test_a_second_call_with_other_settings_is_an_error(change, sqlite):
    """Two engines for one name would be two answers to one question."""
    settings = {"sqlalchemy.url": sqlite.url, "sqa.provider": "aalam", "sqa.app": "base"}

    def start():
        with Configurator(settings=settings) as config:
            config.include("pyramid_aalam_sqa")
            change(config)

    with pytest.raises(ConfigurationError, match=r"another name|but it was named"):
        start()


def test_an_application_that_serves_gets_no_second_engine(sqlite):
    """Its requests have the first one, which has no name, or other settings."""
    nameless = configured({"sqlalchemy.url": sqlite.url})
    named = configured(
        {"sqlalchemy.url": sqlite.url, "sqa.provider": "aalam", "sqa.app": "base"}, "json"
    )
    for config, settings in ((nameless, None), (named, {"sqlalchemy.url": "sqlite://"})):
        with testing.testConfig(registry=config.registry):
            before = get_sqa(config)
            with pytest.raises(SettingError, match="another name or other settings"):
                init_engine("aalam_base", NewBase, settings=settings)
            assert Session().get_bind() is get_sqa(config).engine
            assert get_sqa(config) is before


def test_a_directive_before_init_engine_is_heeded_after_the_commit(sqlite):
    """What add_sqa_database() has set is final then."""
    settings = {"sqa.provider": "aalam", "sqa.app": "base"}
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.add_sqa_database(sqlite.url)
        config.commit()

        assert init_engine("aalam_base", NewBase) is get_sqa(config).engine


def test_settings_may_be_given_outside_an_application(tmp_path, package, sqlite):
    """A script has no entry point; the section [sqlalchemy] is found all the same."""
    portal.write_package(tmp_path, package)
    ini = portal.write_ini(tmp_path, package, sqlite.url)
    settings = get_appsettings(str(ini))

    engine = init_engine("aalam_base", NewBase, settings=settings)

    assert init_engine("aalam_base", NewBase, settings=settings) is engine
    assert Session("aalam_base").get_bind() is engine
    with pytest.raises(SettingError, match="other settings"):
        init_engine("aalam_base", NewBase, settings={"sqlalchemy.url": "sqlite://"})
    assert Session("aalam_base").get_bind() is engine
    assert init_engine("aalam_base", NewBase, settings=settings) is engine


def entry_point(settings, *, named, block):
    """An entry point as the documents write it, called by hand; return the engine and the rest."""
    given = {**settings, **({"sqa.provider": "aalam", "sqa.app": "base"} if named else {})}
    with ExitStack() as ends:
        if not block:
            engine = init_engine("aalam_base", NewBase, settings=given)
        config = Configurator(settings=given)
        if block:
            ends.enter_context(config)
            engine = init_engine("aalam_base", NewBase)
        config.include("pyramid_aalam_sqa")
        names = get_database_name()
        config.commit()
    return engine, names, config


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("block", [True, False])
def test_init_engine_before_the_include_is_the_engine_of_the_requests(sqlite, named, block):
    """In an entry point that is called by hand: with settings, or in the Configurator's block."""
    settings = {"sqlalchemy.url": sqlite.url}
    engine, name, config = entry_point(settings, named=named, block=block)

    assert get_sqa(config).engine is engine
    assert name == get_sqa(config).settings.name == "aalam_base"
    assert Session().get_bind() is Session("aalam_base").get_bind() is engine
    assert init_engine("aalam_base", NewBase) is engine
    if not block and not named:
        assert init_engine("aalam_base", NewBase, settings=settings) is engine


def test_init_engine_with_settings_in_a_loaded_entry_point_is_the_engine_of_the_requests(
    tmp_path, package, sqlite
):
    """The section [sqlalchemy] of the ini file is read for both."""
    main = """
from pyramid.config import Configurator
from sqlalchemy import MetaData
from pyramid_aalam_sqa import get_sqa, init_engine

def main(global_config, **settings):
    engine = init_engine("aalam_base", MetaData(), settings=settings)
    config = Configurator(settings=settings)
    config.include("pyramid_aalam_sqa")
    config.commit()
    return engine, config
"""
    portal.write_package(tmp_path, package, main=main)
    engine, config = loadapp(f"config:{portal.write_ini(tmp_path, package, sqlite.url)}")

    assert get_sqa(config).engine is engine
    assert get_sqa(config).settings.name == "aalam_base"


def test_settings_that_a_directive_completes_share_the_engine_of_init_engine(sqlite):
    """They are known to be the same when the configuration is committed."""
    name = {"sqa.provider": "aalam", "sqa.app": "base"}
    engine = init_engine("aalam_base", NewBase, settings={"sqlalchemy.url": sqlite.url, **name})
    config = Configurator(settings=name)
    config.include("pyramid_aalam_sqa")
    config.add_sqa_database(sqlite.url)
    config.commit()

    assert get_sqa(config).engine is engine


def test_an_application_with_other_settings_than_init_engine_had_is_an_error(sqlite):
    """Else there would be two engines for one name."""
    init_engine("aalam_base", NewBase, settings={"sqlalchemy.url": sqlite.url})
    settings = {"sqlalchemy.url": "sqlite://", "sqa.provider": "aalam", "sqa.app": "base"}

    with pytest.raises(ConfigurationError, match="another name or other settings"):
        configured(settings)


def test_a_script_that_has_called_init_engine_needs_no_name(sqlite):
    """It is the only application of the process, and outlives one that was made of it."""
    settings = {"sqlalchemy.url": sqlite.url}
    engine = init_engine("aalam_base", NewBase, settings=settings)
    assert get_database_name() == "aalam_base"
    assert Session().get_bind() is engine
    config = configured(settings)
    assert get_sqa(config).engine is engine
    del config
    gc.collect()

    assert Session("aalam_base").get_bind() is Session().get_bind() is engine


def test_a_request_of_another_application_does_not_hide_the_only_one(sqlite):
    """It did not include the package, though it has settings for SQLAlchemy."""
    config = configured({"sqlalchemy.url": sqlite.url})
    request = testing.DummyRequest()
    with testing.testConfig(settings={"sqlalchemy.url": "sqlite://"}, request=request):
        assert Session().get_bind() is get_sqa(config).engine


def test_outside_an_application_init_engine_needs_settings():
    """The error says where to call it."""
    with pytest.raises(SettingError, match="There is no application yet"):
        init_engine("aalam_base", NewBase)


def test_a_second_application_of_one_entry_point_has_its_own(tmp_path, package, sqlite):
    """A composite loads several in one go."""
    main = """
from pyramid.config import Configurator
from pyramid_aalam_sqa import get_database_name, get_sqa

def make(app, settings):
    config = Configurator(settings={{**settings, "sqa.provider": "aalam", "sqa.app": app}})
    config.include("pyramid_aalam_sqa")
    name = get_database_name()
    config.commit()
    return name, get_sqa(config).settings.name, config

def main(global_config, **settings):
    one, two = make("one", settings), make("two", settings)
    return one, two
"""
    portal.write_package(tmp_path, package, main=main)
    ini = portal.write_ini(tmp_path, package, sqlite.url)
    one, two = loadapp(f"config:{ini}")

    assert one[:2] == ("aalam_one", "aalam_one")
    assert two[:2] == ("aalam_two", "aalam_two")
