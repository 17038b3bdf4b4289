"""The name of a portal's application, and the portal's documents run as they are."""

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from sqlalchemy import MetaData

from pyramid_aalam_sqa import (
    Session,
    SettingError,
    get_database_name,
    get_sqa,
    init_engine,
    session_scope,
)
from support import portal
from support.applications import configured, named


@pytest.mark.parametrize("lines", [portal.AFTER, portal.BEFORE], ids=["after", "before"])
def test_the_portals_documents_run_as_written(  # noqa: PLR0913, PLR0917 - each is a part of it
    tmp_path, package, place, code, lines, monkeypatch
):
    """They use schema=, init_engine(), request.sqa_session and Session(name)."""
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
    """It is known before config.commit(), because models are imported and scanned there."""
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
    """The engine has the same database name as the models."""
    monkeypatch.setenv("SQA_PROVIDER", "aalam")
    monkeypatch.setenv("SQA_APP", "base")
    with Configurator(settings={"sqlalchemy.url": f"sqlite:///{tmp_path}/a.sqlite"}) as config:
        config.include("pyramid_aalam_sqa")

    assert get_sqa(config).settings.name == "aalam_base"


def test_without_a_name_the_error_says_what_to_do():
    """If there is no application yet, it says: import later, or set the variables."""
    with pytest.raises(SettingError, match=r"import the models after.*SQA_PROVIDER and SQA_APP"):
        get_database_name()


@pytest.mark.parametrize("others", [0, 1])
def test_models_imported_too_early_never_get_the_name_of_another(tmp_path, package, code, others):
    """A module's top level runs before its entry point. The error says what to do."""
    config = configured({"sqa.provider": "aalam", "sqa.app": code}) if others else None
    portal.write_package(tmp_path, package, portal.BEFORE)
    ini = portal.write_ini(tmp_path, package, "sqlite://", *named(code))

    with pytest.raises(SettingError, match=r"import the models after"):
        portal.load(ini)
    del config


def test_an_application_without_a_name_says_which_settings_are_missing():
    """The application has included the package, but without sqa.provider and sqa.app."""
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
    """For a wrong name, the error names the setting and what to write, and no password."""
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
    """The URL need not repeat the name of the database."""
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
    """Each function that takes a name refuses it by the rule."""
    with (
        pytest.raises(SettingError, match=r"cannot be in a name|is not a database name"),
        function(name),
    ):
        pass
