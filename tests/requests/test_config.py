"""The package behaves as a Pyramid add-on should."""

import pytest
from pyramid import testing
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from pyramid.response import Response
from pyramid.tweens import EXCVIEW
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from transaction import TransactionManager
from webtest import TestApp

import pyramid_aalam_sqa
from pyramid_aalam_sqa import SettingError, commit_veto, get_sqa

MEMORY = {"sqlalchemy.url": "sqlite://"}


def one(request):
    return Response(str(request.sqa_session.scalar(text("SELECT 1"))))


def serve(config):
    config.add_view(one)
    return TestApp(config.make_wsgi_app())


INCLUDES = {
    "by name": ["pyramid_aalam_sqa"],
    "the module": [pyramid_aalam_sqa],
    "twice": ["pyramid_aalam_sqa", "pyramid_aalam_sqa"],
    "after its neighbours": ["pyramid_tm", "pyramid_retry", "pyramid_aalam_sqa"],
    "before its neighbours": ["pyramid_aalam_sqa", "pyramid_tm", "pyramid_retry"],
}


@pytest.mark.parametrize("includes", INCLUDES.values(), ids=INCLUDES)
def test_an_application_may_include_it_in_any_way(includes):
    """The package may be included twice, and before or after pyramid_tm and pyramid_retry."""
    config = Configurator(settings=MEMORY)
    for include in includes:
        config.include(include)

    assert serve(config).get("/").text == "1"


@pytest.mark.parametrize(
    "names",
    ["pyramid_aalam_sqa", "pyramid_tm pyramid_aalam_sqa", "pyramid_aalam_sqa\npyramid_retry"],
)
def test_an_ini_may_include_it(names):
    """The line pyramid.includes in the ini file is enough."""
    config = Configurator(settings={**MEMORY, "pyramid.includes": names})

    assert serve(config).get("/").text == "1"


def test_an_include_inside_an_include_works():
    """For example, the application's package of models may include this package."""

    def models(config):
        config.include("pyramid_aalam_sqa")

    config = Configurator(settings=MEMORY)
    config.include(models)

    assert serve(config).get("/").text == "1"


def test_tm_settings_have_our_defaults():
    """They are our veto, an explicit manager, and no look-up of the user in each request."""
    config = Configurator(settings=MEMORY)
    config.include("pyramid_aalam_sqa")
    serve(config)
    settings = config.registry.settings

    assert settings["tm.commit_veto"] == "pyramid_aalam_sqa.commit_veto"
    assert settings["tm.annotate_user"] == "false"
    assert settings["tm.manager_hook"].__name__ == "request_manager"


def hook(request):
    return TransactionManager()


@pytest.mark.parametrize("late", [False, True])
def test_the_applications_own_tm_settings_win(late):
    """They may be set in the ini file, or in code after the include."""
    own = {
        "tm.commit_veto": "pyramid_tm.default_commit_veto",
        "tm.annotate_user": "true",
        "tm.manager_hook": "test_config.hook",
    }
    config = Configurator(settings=MEMORY if late else {**MEMORY, **own})
    config.include("pyramid_aalam_sqa")
    if late:
        config.add_settings(own)
    config.commit()

    assert config.registry.settings["tm.commit_veto"] == "pyramid_tm.default_commit_veto"
    assert config.registry.settings["tm.annotate_user"] == "true"
    assert config.registry.settings["tm.manager_hook"] is hook


def test_a_veto_under_its_old_name_is_the_applications_own():
    """If tm.commit_veto is not set, pyramid_tm reads pyramid_tm.commit_veto."""
    config = Configurator(settings={**MEMORY, "pyramid_tm.commit_veto": commit_veto})
    config.include("pyramid_aalam_sqa")
    config.commit()

    assert "tm.commit_veto" not in config.registry.settings


def test_the_applications_own_request_method_wins():
    """An application may define request.sqa_session itself."""

    def own(request):
        return "its own"

    config = Configurator(settings=MEMORY)
    config.include("pyramid_aalam_sqa")
    config.add_request_method(own, "sqa_session", reify=True)
    config.add_view(lambda request: Response(request.sqa_session))

    assert TestApp(config.make_wsgi_app()).get("/").text == "its own"


def test_settings_changed_after_the_include_are_the_ones_that_count():
    """The settings are read when the configuration is committed."""
    config = Configurator(settings={"sqlalchemy.url": "no url"})
    config.include("pyramid_aalam_sqa")
    config.add_settings(MEMORY)

    assert serve(config).get("/").text == "1"


def test_the_applications_own_directive_wins_over_the_ini():
    """The directive is config.add_sqa_database(url, **options)."""
    config = Configurator(settings={"sqlalchemy.url": "sqlite:///of-the-ini.sqlite"})
    config.include("pyramid_aalam_sqa")
    config.add_sqa_database("sqlite://", echo=False, hide_parameters="true")

    assert serve(config).get("/").text == "1"
    assert str(get_sqa(config).engine.url) == "sqlite://"
    assert get_sqa(config).engine.hide_parameters is True


def test_the_directive_completes_the_ini():
    """If the directive has only options, the ini file's URL is used."""
    config = Configurator(settings=MEMORY)
    config.include("pyramid_aalam_sqa")
    config.add_sqa_database(hide_parameters=True)
    config.commit()

    assert get_sqa(config).engine.hide_parameters is True


def test_two_directives_conflict_and_both_places_are_named():
    """A database is never replaced without an error."""
    config = Configurator(settings=MEMORY)
    config.include("pyramid_aalam_sqa")
    config.add_sqa_database("sqlite:///one.sqlite")
    config.add_sqa_database("sqlite:///two.sqlite")

    with pytest.raises(ConfigurationConflictError) as caught:
        config.commit()
    assert str(caught.value).count("test_config.py") == 2


def test_a_wrong_directive_names_its_file_and_line():
    """The reader of the error finds the line to change."""
    config = Configurator(settings={})
    config.include("pyramid_aalam_sqa")
    config.add_sqa_database("no url")

    with pytest.raises(ConfigurationError) as caught:
        config.commit()
    assert isinstance(caught.value.evalue, SettingError)
    assert "sqlalchemy.url: this is not a database URL" in str(caught.value)
    assert "test_config.py" in str(caught.value)


@pytest.mark.parametrize("first", ["pyramid_retry", "pyramid_aalam_sqa"])
@pytest.mark.parametrize("attempts", ["0", "-1", "three", ""])
def test_a_wrong_number_of_attempts_is_our_error(first, attempts):
    """pyramid_retry alone would stop with an empty AssertionError."""
    config = Configurator(settings={**MEMORY, "retry.attempts": attempts})
    config.include(first)
    config.include("pyramid_aalam_sqa")

    with pytest.raises(ConfigurationError, match=r"retry\.attempts.* a whole number from 1 up"):
        config.make_wsgi_app()


@pytest.mark.parametrize("name", ["nowhere.veto", "pyramid_tm.nothing", "pyramid_tm.EXCVIEW"])
def test_a_veto_that_cannot_be_imported_is_our_error(name):
    """The error names the setting, and not only the missing module."""
    config = Configurator(settings={**MEMORY, "tm.commit_veto": name})
    config.include("pyramid_aalam_sqa")

    with pytest.raises(ConfigurationError, match=rf"tm\.commit_veto = '{name}'"):
        config.make_wsgi_app()


def test_two_applications_in_one_process_do_not_mix(tmp_path):
    """Each has its own engine, session class and settings."""
    apps = []
    for name in ("one", "two"):
        url = f"sqlite:///{tmp_path}/{name}.sqlite"
        settings = {"sqlalchemy.url": url, "sqa.session.class_": f"test_config:{name.title()}"}
        config = Configurator(settings=settings)
        config.include("pyramid_aalam_sqa")
        config.add_view(
            lambda request: Response(f"{request.sqa_session.mark} {request.sqa_session.bind.url}")
        )
        apps.append(TestApp(config.make_wsgi_app()))

    assert apps[0].get("/").text == f"one sqlite:///{tmp_path}/one.sqlite"
    assert apps[1].get("/").text == f"two sqlite:///{tmp_path}/two.sqlite"


class One(Session):
    """The session class of the first application."""

    mark = "one"


class Two(Session):
    """The session class of the second."""

    mark = "two"


def test_the_database_is_an_introspectable_with_its_password_masked():
    """Debug toolbars and similar tools show introspectables."""
    config = Configurator(settings={"sqlalchemy.url": "mysql+pymysql://me:hidden@host/base"})
    config.include("pyramid_aalam_sqa")
    config.commit()
    [found] = config.introspector.get_category("sqa databases")
    shown = found["introspectable"]

    assert shown.title == "mysql+pymysql://me:***@host/base"
    assert shown.type_name == "sqa database"
    assert "hidden" not in str(dict(shown))


def test_an_autocommitting_configurator_configures_again(tmp_path):
    """With pyramid.testing.setUp each action runs at once. A second one replaces the first."""
    with testing.testConfig(settings={"sqlalchemy.url": f"sqlite:///{tmp_path}/a"}) as config:
        config.include("pyramid_aalam_sqa")
        first = get_sqa(config)
        with first.engine.connect():
            pass
        config.add_sqa_database("sqlite://")

        assert str(get_sqa(config).engine.url) == "sqlite://"
        assert first.engine.pool.checkedin() == 0


def test_a_ready_engine_is_used_and_never_disposed(tmp_path):
    """A test passes its own engine, and uses it after the application has ended."""
    engine = create_engine(f"sqlite:///{tmp_path}/a")
    config = Configurator(settings={"sqlalchemy.engine": engine})
    config.include("pyramid_aalam_sqa")
    serve(config).get("/")
    get_sqa(config).dispose()

    assert get_sqa(config).engine is engine
    assert engine.pool.checkedin() == 1
    engine.dispose()


RETRY, TM = "pyramid_aalam_sqa.retry_tween_factory", "pyramid_tm.tm_tween_factory"
EXCEPTION, ROLLBACK = EXCVIEW, "pyramid_aalam_sqa.rollback_tween_factory"


def with_tweens(*tweens):
    with Configurator(settings={**MEMORY, "pyramid.tweens": "\n".join(tweens)}) as config:
        config.include("pyramid_aalam_sqa")
    return config


@pytest.mark.parametrize(
    ("tweens", "message"),
    [
        ([EXCEPTION], f"{RETRY} is missing, so that the attempts"),
        ([TM, EXCEPTION, ROLLBACK], f"{RETRY} is missing, so that the attempts"),
        ([RETRY, EXCEPTION, ROLLBACK], f"{TM} is missing, so that nothing would be committed"),
        ([RETRY, TM, EXCEPTION], f"{ROLLBACK} is missing, so that what a view wrote"),
        ([RETRY, EXCEPTION, TM, ROLLBACK], "the order has to be"),
        ([TM, RETRY, EXCEPTION, ROLLBACK], "the order has to be"),
    ],
)
def test_a_list_of_tweens_that_breaks_the_promise_is_refused(tweens, message):
    """The error says what would happen, and what to write."""
    with pytest.raises(ConfigurationError, match=message) as raised:
        with_tweens(*tweens)

    assert f"{RETRY} {TM} {EXCEPTION} {ROLLBACK}" in str(raised.value)


def test_a_list_of_tweens_that_is_complete_is_taken():
    """There may be other tweens between, and a tween may be named by any of its names."""
    own = "pyramid_aalam_sqa.requests.outcome.rollback_tween_factory"
    other = f"{__name__}.other_tween_factory"

    for tweens in ([RETRY, other, TM, EXCEPTION, own], [RETRY, TM, own]):
        assert serve(with_tweens(*tweens)).get("/").text == "1"


def other_tween_factory(handler, registry):
    return handler
