"""In a process with several applications, which one code means if it gives no name."""

import gc
import sys
import threading

import pytest
from pyramid import testing
from pyramid.config import Configurator

from pyramid_aalam_sqa import (
    Session,
    SettingError,
    get_database_name,
    get_sqa,
    init_engine,
    session_scope,
)
from support import portal
from support.applications import NewBase, configured


def test_two_applications_in_one_process_have_their_own(tmp_path, monkeypatch):
    """A request, a thread with a request, and a package each lead to their application."""
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


def test_between_several_applications_the_package_does_not_guess(tmp_path):
    """Code that does not belong to one of them must give the name."""
    one, two = (
        configured({"sqa.provider": "aalam", "sqa.app": app, "sqlalchemy.url": "sqlite://"}, "json")
        for app in ("one", "two")
    )

    with pytest.raises(SettingError, match="Several applications are in this process"):
        get_database_name()
    assert Session("aalam_two").get_bind() is get_sqa(two).engine
    assert Session(one).get_bind() is get_sqa(one).engine


def two_of_one_package(tmp_path, *, named):
    """Yield two applications whose code is in one package. Each has its own file."""
    for app in ("one", "two"):
        settings = {"sqlalchemy.url": f"sqlite:///{tmp_path}/{app}.sqlite"}
        if named:
            settings |= {"sqa.provider": "aalam", "sqa.app": app}
        yield configured(settings, __name__)


@pytest.mark.parametrize("named", [True, False])
def test_two_applications_of_one_package_are_told_apart_by_name_alone(tmp_path, named):
    """Without a name an error is raised. The last application is not just taken."""
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
    """Tests do this. The last application is used; both have the same database."""
    settings = {"sqlalchemy.url": f"sqlite:///{tmp_path}/one.sqlite"}
    settings |= {"sqa.provider": "aalam", "sqa.app": "one"}
    first, last = (configured(settings, __name__) for _ in range(2))

    assert Session().get_bind() is get_sqa(last).engine
    assert get_sqa(first).engine is not get_sqa(last).engine


def test_applications_of_one_name_on_two_servers_have_one_name_and_two_databases(tmp_path):
    """The name is clear, but the database is not, so a session raises an error."""
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
    """Tests make one application after another. Python may not have freed the first one yet."""
    first, last = two_of_one_package(tmp_path, named=True)
    get_sqa(first).dispose()

    assert get_database_name() == "aalam_two"
    assert Session().get_bind() is get_sqa(last).engine
    get_sqa(last).dispose()
    with pytest.raises(SettingError, match="Several applications are in this process"):
        Session()


def test_in_a_request_it_is_the_application_of_the_request():
    """The same is true for a request that pyramid.testing has set up."""
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
    """Another application can have its name afterwards."""
    config = configured({"sqa.provider": "aalam", "sqa.app": "one", "sqlalchemy.url": "sqlite://"})
    assert get_database_name() == "aalam_one"
    del config
    gc.collect()

    with pytest.raises(SettingError, match="There is no application yet"):
        get_database_name()
    with pytest.raises(SettingError, match=r"'aalam_one' is not known .*Known databases: none"):
        Session("aalam_one")


def test_an_application_without_a_name_has_sessions_too(sqlite):
    """If it is the only application in its process, it does not need a name."""
    config = configured({"sqlalchemy.url": sqlite.url})

    assert Session().get_bind() is get_sqa(config).engine


def test_before_the_configuration_is_done_a_session_says_so():
    """An engine that is made before the commit could have settings that are not final."""
    config = Configurator(settings={"sqlalchemy.url": "sqlite://"})
    config.include("pyramid_aalam_sqa")

    with pytest.raises(SettingError, match=r"call config\.commit\(\) or init_engine\(\)"):
        Session()
    del config


def test_without_any_application_a_session_says_so():
    """The error lists the known names."""
    with pytest.raises(SettingError, match="There is no application yet"):
        Session()
