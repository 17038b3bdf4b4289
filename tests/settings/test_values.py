"""Every value is read in its type, and every wrong value is an error that helps."""

import re
import traceback

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyramid.config import Configurator
from pyramid.response import Response
from webtest import TestApp

from pyramid_aalam_sqa import SettingError, commit_veto, engine_from_settings
from pyramid_aalam_sqa.settings.reader import read_settings
from support.settings_app import (
    MYSQL,
    NUMBER,
    OPTIONS,
    POOL,
    SQLITE,
    accept,
    refused,
    start,
)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("connect_timeout", "3", 3),
        ("connect_timeout", "2.5", 2.5),
        ("local_infile", "True", True),
        ("use_unicode", "no", False),
        ("init_command", "SELECT 1", "SELECT 1"),
        ("ssl", '{"ca": "a.pem"}', {"ca": "a.pem"}),
        ("bind_address", "null", None),
        ("program_name", "[" * 100_000, "[" * 100_000),
        ("password", "0123", "0123"),
        ("password", "12345", "12345"),
        ("password", "true", "true"),
        ("user", "7", "7"),
        ("password", b"\xff", b"\xff"),
    ],
)
def test_an_argument_of_the_driver_is_text_or_json(name, text, value):
    """Other values become a number or a boolean if they look like one; a password stays text."""
    found = read_settings({"sqlalchemy.url": MYSQL, f"sqlalchemy.connect_args.{name}": text})

    assert found.database.options["connect_args"] == {name: value}
    assert type(found.database.options["connect_args"][name]) is type(value)


BOOLEANS = [key for key, option in OPTIONS.items() if option.type.write == "true or false"]
SPELLINGS = {
    True: ["true", "True", "TRUE", "yes", "on", "1", " true ", True],
    False: ["false", "False", "no", "No", "off", "0", False],
}


@pytest.mark.parametrize("key", BOOLEANS)
@pytest.mark.parametrize("value", SPELLINGS)
def test_every_boolean_has_its_usual_spellings(key, value):
    """SQLAlchemy's own engine_from_config reads pool_pre_ping = false as true."""
    assert [OPTIONS[key].type.value(str(word).strip()) for word in SPELLINGS[value]] == [
        value
    ] * len(SPELLINGS[value])
    for word in SPELLINGS[value]:
        accept({key: word})


NO_NUMBERS = ["1_000", "\u0663", "\uff11", "nan", "inf", "1e3", "0x10", "five", "--1", "1,5", "."]
NUMBERS = {
    "a whole number from 0 up": ["-1", "1.0", 1.0],
    "a whole number from 1 up": ["0", "1.0", 0],
    "a whole number from 0 up, or -1 for no limit": ["-2", "1.0", -2],
    "seconds, a number from 0 to 1000000": ["-0.1", "1000000.5", -1, 10**7, float("nan")],
}


@pytest.mark.parametrize(
    "option", [o for o in OPTIONS.values() if o.type.write in NUMBERS], ids=lambda o: o.key
)
def test_a_value_that_is_not_a_number_of_the_right_size_is_refused(option):
    """Digits of other scripts, underscores and booleans are refused too."""
    for value in [*NO_NUMBERS, "9" * 5000 + ".", True, [], None, *NUMBERS[option.type.write]]:
        with pytest.raises(SettingError, match=re.escape(option.type.write)):
            accept({option.key: value})


WRONG = {
    "blank": ("sqlalchemy.pool_size", " ", "pool_size is blank: write a whole number from 0 up"),
    "blank url": ("sqlalchemy.url", "", "sqlalchemy.url is blank: write a database URL, or remove"),
    "blank switch": ("sqa.lock_timeout", "", "sqa.lock_timeout is blank: write seconds"),
    "misspelt boolean": ("sqlalchemy.pool_pre_ping", "ture", "= 'ture': write true or false."),
    "negative size": ("sqlalchemy.pool_size", "-3", "sqlalchemy.pool_size = '-3': write a whole"),
    "too many zeros": ("sqa.statement_timeout", "55000000", "from 0 to 1000000"),
    "echo": ("sqlalchemy.echo", "loud", "write true, false or debug"),
    "reset": ("sqlalchemy.pool_reset_on_return", "reset", "write rollback."),
    "reset object": ("sqlalchemy.pool_reset_on_return", {}, "= dict: write rollback"),
    "no module": ("sqlalchemy.json_serializer", "nowhere:dumps", "No module named 'nowhere'"),
    "no such name": ("sqlalchemy.json_serializer", "json:dump5", "has no attribute 'dump5'"),
    "no dotted name": ("sqlalchemy.creator", "a b", "write the dotted name of a callable"),
    "not callable": (
        "sqlalchemy.creator",
        "support.settings_app:NUMBER",
        "dotted name of a callable",
    ),
    "no driver": ("sqlalchemy.module", "json", "write the dotted name of a driver's module"),
    "no pool": ("sqlalchemy.poolclass", "QueuePol", "write a pool of sqlalchemy.pool"),
    "other class": ("sqlalchemy.poolclass", "collections.OrderedDict", "write a pool"),
    "pool made": ("sqlalchemy.poolclass", POOL, "sqlalchemy.poolclass = QueuePool: write a pool"),
    "no ready pool": ("sqlalchemy.pool", 5, "sqlalchemy.pool = 5: write a ready pool"),
    "no engine": ("sqlalchemy.engine", MYSQL, "sqlalchemy.engine: write a ready Engine"),
    "no json": ("sqlalchemy.execution_options", "a=b", "write a JSON object"),
    "deep json": ("sqlalchemy.execution_options", "[" * 100_000, "write a JSON object"),
    "json list": ("sqlalchemy.connect_args", "[1]", "sqlalchemy.connect_args: write a JSON object"),
    "paramstyle": ("sqlalchemy.paramstyle", "dollar", "pyformat or numeric_dollar"),
    "future": ("sqlalchemy.future", "false", "sqlalchemy.future: this does not fit"),
    "plugin": ("sqlalchemy.plugins", "unheard", "sqlalchemy.plugins: this does not fit"),
    "level": (
        "sqlalchemy.isolation_level",
        "READ COMMITTED",
        "= 'READ COMMITTED': write READ UNCOMMITTED or SERIALIZABLE.",
    ),
    "level object": ("sqlalchemy.isolation_level", 5, "= 5: write READ UNCOMMITTED or"),
    "session class": ("sqa.session.class_", "sqlalchemy.orm:sessionmaker", "a subclass of"),
    "expire": ("sqa.session.expire_on_commit", "never", "= 'never': write true or false"),
    "tls": ("sqa.mysql.tls", "on", "write auto, off, required, verify_ca or verify_identity"),
    "no file": ("sqa.mysql.tls_ca", "/nowhere/ca.pem", "= '/nowhere/ca.pem': write the path"),
    "sql mode": ("sqa.mysql.sql_mode", "ANSI', x = '", "write the server's names, separated"),
    "sql mode object": ("sqa.mysql.sql_mode", 5, "write the server's names"),
    "time zone": ("sqa.mysql.time_zone", "Europe/'", "write an offset, +00:00, or a zone"),
    "journal": ("sqa.sqlite.journal_mode", "fast", "write wal, delete"),
    "attempts": ("retry.attempts", "0", "retry.attempts = '0': write a whole number from 1 up"),
    "veto": ("tm.commit_veto", "nowhere.veto", "tm.commit_veto = 'nowhere.veto': write"),
    "veto object": ("tm.commit_veto", NUMBER, "tm.commit_veto = 7: write"),
    "hook": (
        "tm.manager_hook",
        "support.settings_app.NUMBER",
        "tm.manager_hook = 'support.settings_app.NUMBER'",
    ),
    "annotate": ("tm.annotate_user", "maybe", "tm.annotate_user = 'maybe': write true or false"),
    "argument": (
        "sqlalchemy.connect_args.",
        "5",
        "There is no setting sqlalchemy.connect_args.; did you mean sqlalchemy.connect_args?",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_one_sentence_that_names_the_key(case):
    """Pyramid's own error contains our sentence, with the key and what to write instead."""
    key, value, expected = WRONG[case]
    message = refused({"sqlalchemy.url": SQLITE, key: value})

    assert key.removesuffix(".") in message
    assert expected in message


@pytest.mark.parametrize("key", [key for key in OPTIONS if key != "tm.commit_veto"])
def test_every_option_refuses_a_blank_value(key):
    """A line that was left empty by mistake must not become a value."""
    with pytest.raises(SettingError, match=f"^{re.escape(key)} is blank: write .*, or remove"):
        accept({"sqlalchemy.url": SQLITE, key: ""})


@pytest.mark.parametrize("veto", ["", None, commit_veto, "pyramid_tm.default_commit_veto"])
def test_a_veto_may_be_blank(veto):
    """pyramid_tm reads a blank veto as: every response commits."""
    assert start({"sqlalchemy.url": "sqlite://", "tm.commit_veto": veto})


@pytest.mark.parametrize("includes", [[], ["pyramid_retry", "pyramid_tm"]])
@pytest.mark.parametrize(
    ("key", "value"),
    [("retry.attempts", "no"), ("tm.commit_veto", "no.veto"), ("tm.manager_hook", "no.hook")],
)
def test_our_error_comes_first_also_if_pyramid_tm_was_included_before(includes, key, value):
    """Our error is raised before pyramid_retry and pyramid_tm raise theirs."""
    settings = {"sqlalchemy.url": SQLITE, key: value}

    assert refused(settings, *includes).startswith(f"{key} = '{value}': write")


def test_an_error_of_an_imported_module_is_the_cause(tmp_path, monkeypatch):
    """The error of the imported module is the cause of the SettingError."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    with pytest.raises(SettingError, match=r"\(ZeroDivisionError: division by zero\)") as caught:
        read_settings({"sqlalchemy.creator": "broken_module:connect"})

    assert "1 / 0" in "".join(traceback.format_exception(caught.value))


UNKNOWN = {
    "sqlalchemy.pool_szie": "sqlalchemy.pool_size",
    "sqlalchemy.poolsize": "sqlalchemy.pool_size",
    "sqlalchemy.uri": "sqlalchemy.url",
    "sqlalchemy.native_datetme": "sqlalchemy.native_datetime",
    "sqlalchemy.Echo": "sqlalchemy.echo",
    "sqa.url": "sqlalchemy.url",
    "sqa.session.expire_on_comit": "sqa.session.expire_on_commit",
    "sqa.session.class": "sqa.session.class_",
    "sqa.lock_timout": "sqa.lock_timeout",
    "sqa.tls": "sqa.mysql.tls",
}


@pytest.mark.parametrize("key", UNKNOWN)
def test_an_unknown_key_is_refused_with_the_nearest_spelling(key):
    """A misspelt key stops the application when it starts."""
    message = refused({"sqlalchemy.url": SQLITE, key: "5"})

    assert message.startswith(f"There is no setting {key}; did you mean {UNKNOWN[key]}")


@pytest.mark.parametrize("key", ["sqlalchemy.dbapi", "sqlalchemy.compiler_linting", "sqa.???"])
def test_an_internal_argument_of_sqlalchemy_cannot_be_set(key):
    """Arguments that SQLAlchemy passes between its own parts cannot be set."""
    assert refused({"sqlalchemy.url": SQLITE, key: "5"}).startswith(f"There is no setting {key};")


def test_a_key_that_resembles_no_other_gets_the_advice_to_see_the_table():
    """The error names no other key if none is similar."""
    message = refused({"sqlalchemy.url": SQLITE, "sqa." + "%" * 40: "5"})

    assert message.endswith("see the table of settings.")


def test_without_a_url_the_first_touch_names_the_key():
    """Without a database, an application starts and serves pages that do not need one."""

    def view(request):
        if "touch" in request.params:
            request.sqa_session.execute("SELECT 1")
        return Response("ok")

    config = Configurator(settings={"sqlalchemy.pool_size": "5"})
    config.include("pyramid_aalam_sqa")
    config.add_view(view)
    app = TestApp(config.make_wsgi_app())
    assert app.get("/").text == "ok"

    with pytest.raises(SettingError, match=r"write sqlalchemy\.url in the application's section"):
        app.get("/?touch=1")
    with pytest.raises(SettingError, match="No database is set"):
        engine_from_settings({})


def test_without_a_url_a_wrong_option_is_still_refused():
    """Options are checked even if no URL is set."""
    assert "sqlalchemy.pool_size = 'x'" in refused({"sqlalchemy.pool_size": "x"})
    assert "did you mean sqlalchemy.pool_size?" in refused({"sqlalchemy.pool_siz": "5"})


ANY_TEXT = st.one_of(
    st.text(),
    st.text("0123456789.-+e_", max_size=8),
    st.sampled_from(["true", "none", "debug", "{}", "json:loads", "NullPool", "os", "[]", "null"]),
)


@hypothesis_settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(OPTIONS)), ANY_TEXT)
@example("sqlalchemy.poolclass", "__name__")
@example("sqlalchemy.module", "\x00")
@example("sqa.mysql.tls_ca", "\x00")
@example("sqa.mysql.tls_ca", "x" * 5000)
def test_any_text_has_its_real_type_or_is_refused(key, text):
    """Any text is either a value of the right type or a SettingError that names the key."""
    settings = {"sqlalchemy.url": "sqlite://", key: text}
    type_ = OPTIONS[key].type
    try:
        accept(settings)
        engine_from_settings(settings).dispose()
        right = type_.fits(type_.value(text.strip()))
    except SettingError as error:
        right = key in str(error)

    assert right
