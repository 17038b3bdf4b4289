"""The function init_engine() returns the application's one engine, whenever it is called."""

import gc
from contextlib import ExitStack

import pytest
from paste.deploy import loadapp
from pyramid import testing
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.paster import get_appsettings
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.orm import declarative_base, registry

from pyramid_aalam_sqa import (
    Session,
    SettingError,
    get_database_name,
    get_sqa,
    init_engine,
)
from support import portal
from support.applications import NewBase, configured


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
    """A DeclarativeBase, declarative_base(), a registry and a MetaData are accepted."""
    settings = {"sqlalchemy.url": sqlite.url, "sqa.provider": "aalam", "sqa.app": "base"}

    engine = init_engine("aalam_base", make(), create_tables=True, settings=settings)

    assert sqlite.scalar("SELECT count(*) FROM thing") == 0
    engine.dispose()


def test_a_class_that_is_not_a_declarative_base_is_refused():
    """The error says what to write."""
    with pytest.raises(SettingError, match="write the declarative base of the models"):
        init_engine("aalam_base", object())


def test_without_create_tables_nothing_is_created(sqlite):
    """Migrations or psqa create the tables."""
    settings = {"sqlalchemy.url": sqlite.url}

    engine = init_engine("aalam_base", NewBase, settings=settings)

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM sqlite_master")) == 0
    assert sqlite.scalar("SELECT count(*) FROM sqlite_master") == 0
    engine.dispose()


def test_init_engine_returns_the_engine_of_the_requests(sqlite):
    """Each call returns it, before and after the configuration is committed."""
    settings = {"sqlalchemy.url": sqlite.url, "sqa.provider": "aalam", "sqa.app": "base"}
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        first = init_engine("aalam_base", NewBase)
        second = init_engine("aalam_base", old_base())
        config.commit()
        third = init_engine("aalam_base", NewBase)

    assert first is second is third is get_sqa(config).engine


def test_init_engine_names_a_database_that_the_ini_does_not(sqlite):
    """The portal's own form: the ini file has the URL, and the code has the name."""
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
    """Otherwise one name would have two engines."""
    settings = {"sqlalchemy.url": sqlite.url, "sqa.provider": "aalam", "sqa.app": "base"}

    def start():
        with Configurator(settings=settings) as config:
            config.include("pyramid_aalam_sqa")
            change(config)

    with pytest.raises(ConfigurationError, match=r"another name|but it was named"):
        start()


def test_an_application_that_serves_gets_no_second_engine(sqlite):
    """Requests use the first engine already. The second would have another name or settings."""
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
    """After config.commit(), what add_sqa_database() has set is final."""
    settings = {"sqa.provider": "aalam", "sqa.app": "base"}
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.add_sqa_database(sqlite.url)
        config.commit()

        assert init_engine("aalam_base", NewBase) is get_sqa(config).engine


def test_settings_may_be_given_outside_an_application(tmp_path, package, sqlite):
    """A script has no entry point. The section [sqlalchemy] is still found."""
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
    """Call an entry point as the documents write it. Return the engine and the rest."""
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
    """The entry point is called directly, with settings= or in the Configurator's block."""
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
    """When the configuration is committed, the settings turn out to be the same."""
    name = {"sqa.provider": "aalam", "sqa.app": "base"}
    engine = init_engine("aalam_base", NewBase, settings={"sqlalchemy.url": sqlite.url, **name})
    config = Configurator(settings=name)
    config.include("pyramid_aalam_sqa")
    config.add_sqa_database(sqlite.url)
    config.commit()

    assert get_sqa(config).engine is engine


def test_an_application_with_other_settings_than_init_engine_had_is_an_error(sqlite):
    """Otherwise one name would have two engines."""
    init_engine("aalam_base", NewBase, settings={"sqlalchemy.url": sqlite.url})
    settings = {"sqlalchemy.url": "sqlite://", "sqa.provider": "aalam", "sqa.app": "base"}

    with pytest.raises(ConfigurationError, match="another name or other settings"):
        configured(settings)


def test_a_script_that_has_called_init_engine_needs_no_name(sqlite):
    """Its database is the only one in the process, also after an application on it is gone."""
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
    """The other application has settings for SQLAlchemy, but did not include the package."""
    config = configured({"sqlalchemy.url": sqlite.url})
    request = testing.DummyRequest()
    with testing.testConfig(settings={"sqlalchemy.url": "sqlite://"}, request=request):
        assert Session().get_bind() is get_sqa(config).engine


@pytest.mark.parametrize("others", [0, 1, 2])
def test_before_the_include_init_engine_needs_settings(others, sqlite):
    """In an entry point that is called by hand; whatever other applications are in the process.

    The error says what to write, and the other applications stay what they are.
    """
    names = ["aalam_one", "aalam_two"][:others]
    made = [
        configured(
            {"sqlalchemy.url": sqlite.url, "sqa.provider": "aalam", "sqa.app": name[6:]},
            ("json", "email")[number],
        )
        for number, name in enumerate(names)
    ]
    with pytest.raises(SettingError, match=r"init_engine\(\.\.\., settings=settings\)"):
        init_engine("aalam_base", NewBase)
    engine = init_engine("aalam_base", NewBase, settings={"sqlalchemy.url": sqlite.url})

    assert [get_sqa(config).settings.name for config in made] == names
    assert engine not in [get_sqa(config).engine for config in made]


def test_a_second_application_of_one_entry_point_has_its_own(tmp_path, package, sqlite):
    """A composite in the ini file loads several applications."""
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
