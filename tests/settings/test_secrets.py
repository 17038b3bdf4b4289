"""No password is in any message, log line, repr or traceback, at any level."""

import json
import logging
import traceback

import pytest
from pyramid.config import Configurator
from pyramid.paster import get_app
from pyramid.response import Response
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from webtest import TestApp

from pyramid_aalam_sqa import SettingError, engine_from_settings, get_sqa
from pyramid_aalam_sqa.settings.parsing import RawSetting
from pyramid_aalam_sqa.settings.reader import read_settings

SECRET = "Tr0ub4dor"
APPLICATION = """
from pyramid.config import Configurator

def main(global_config, **settings):
    return Configurator(settings=settings).make_wsgi_app()
"""


@pytest.fixture
def everything(caplog, capfd):
    """Return all that any logger has logged, at every level, and all that was printed."""
    for name in (None, "sqlalchemy", "pyramid_aalam_sqa", "txn"):
        caplog.set_level(logging.DEBUG, name)
    return lambda: caplog.text + "".join(capfd.readouterr())


@pytest.fixture
def account(mariadb_server):
    """An account whose password is the secret, and its own database."""
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE USER guarded IDENTIFIED BY %s", (SECRET,))
        cursor.execute("CREATE DATABASE IF NOT EXISTS guarded")
        cursor.execute("GRANT ALL ON guarded.* TO guarded")
    return make_url(mariadb_server.url("guarded")).set(username="guarded")


def in_the_url(url, password):
    given = url.set(password=password).render_as_string(hide_password=False)
    return {"sqlalchemy.url": given}


def in_a_ready_url(url, password):
    return {"sqlalchemy.url": url.set(password=password)}


def in_json(url, password):
    return {"sqlalchemy.url": url, "sqlalchemy.connect_args": json.dumps({"password": password})}


def in_an_option(url, password):
    return {"sqlalchemy.url": url, "sqlalchemy.connect_args.password": password}


def as_bytes(url, password):
    return {"sqlalchemy.url": url, "sqlalchemy.connect_args.password": password.encode()}


WAYS = [in_the_url, in_a_ready_url, in_json, in_an_option, as_bytes]
# What is asked of whom, with what password.
VISITS = {
    "all is well": ("SELECT 1", {}, SECRET),
    "a wrong statement": ("SELECT nothing FROM nowhere", {}, SECRET),
    "a wrong password": ("SELECT 1", {}, SECRET * 2),
    "a wrong database": ("SELECT 1", {"database": "nowhere"}, SECRET),
    "a wrong port": ("SELECT 1", {"port": 1}, SECRET),
    "a wrong host": ("SELECT 1", {"host": "nowhere.invalid"}, SECRET),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("visit", VISITS)
@pytest.mark.sweep(15)
def test_a_request_shows_no_password(account, everything, way, visit):
    """The log at every level, the errors and the reprs are searched for the password."""
    statement, changed, password = VISITS[visit]
    config = Configurator(settings=way(account.set(**changed), password))
    config.include("pyramid_aalam_sqa")
    config.add_view(lambda request: Response(str(request.sqa_session.scalar(text(statement)))))
    app = config.make_wsgi_app()
    sqa = get_sqa(app)
    answer = None
    try:
        response = TestApp(app).get("/", status="*")
        answer = response.text if response.status_int == 200 else None
        failed = "" if answer else response.text
    except DBAPIError as error:
        failed = "".join(traceback.format_exception(error)) + repr(error)
    engine = sqa.engine
    things = [sqa, sqa.settings.database, engine, engine.url, engine.pool, config.registry, app]
    logged = everything()
    shown = [*map(repr, things), *map(str, things), failed, logged]
    sqa.dispose()

    assert answer == ("1" if visit == "all is well" else None)
    assert bool(failed) == (visit != "all is well")
    assert "sqlalchemy.pool" in logged
    assert not [text for text in shown if SECRET in text]


@pytest.mark.parametrize("way", WAYS[:4])
@pytest.mark.parametrize("port", [1, None])
def test_postgresql_shows_no_password(postgresql, everything, way, port):
    """Its driver's repr and errors are searched as well."""
    url = make_url(postgresql.url)
    engine = engine_from_settings(way(url.set(port=port or url.port), SECRET))
    shown = []
    try:
        with engine.connect() as connection:
            shown.append(repr(connection.connection.driver_connection))
            connection.execute(text("SELECT nothing"))
    except DBAPIError as error:
        shown.append("".join(traceback.format_exception(error)))
    shown += [repr(engine), everything()]
    engine.dispose()

    assert len(shown) == (4 if port is None else 3)
    assert not [text for text in shown if SECRET in text]


URL = f"mysql+pymysql://me:{SECRET}@host/base"
WRONG = {
    "an option beside it": {"sqlalchemy.url": URL, "sqlalchemy.pool_size": "x"},
    "a blank beside it": {"sqlalchemy.url": URL, "sqlalchemy.pool_size": ""},
    "an unknown key beside it": {"sqlalchemy.url": URL, "sqlalchemy.passwort": SECRET},
    "options that do not go together": {
        "sqlalchemy.url": URL,
        "sqlalchemy.poolclass": "NullPool",
        "sqlalchemy.pool_size": "5",
    },
    "no port": {"sqlalchemy.url": URL.replace("host", "host:x")},
    "no dialect": {"sqlalchemy.url": URL.replace("mysql+", "mysqql+")},
    "no driver": {"sqlalchemy.url": URL.replace("+pymysql", "")},
    "an at": {"sqlalchemy.url": f"mysql+pymysql://me:p@{SECRET}@host/base"},
    "an at and a slash": {"sqlalchemy.url": f"mysql+pymysql://me:p@x/{SECRET}@host/base"},
    "quotes": {"sqlalchemy.url": f"'{URL}'"},
    "no url": {"sqlalchemy.url": SECRET},
    "a parameter": {"sqlalchemy.url": f"mysql+pymysql://host/base?user=me&password={SECRET}"},
    "another parameter": {"sqlalchemy.url": f"postgresql://host/base?sslpassword={SECRET}"},
    "a wrong parameter": {"sqlalchemy.url": f"{URL}?connect_timeout=soon"},
    "an SQLite host": {"sqlalchemy.url": f"sqlite://me:{SECRET}@host/base"},
    "no json": {"sqlalchemy.url": URL, "sqlalchemy.connect_args": f"password={SECRET}"},
    "a json list": {"sqlalchemy.url": URL, "sqlalchemy.connect_args": f'["{SECRET}"]'},
    "no dict": {"sqlalchemy.url": URL, "sqlalchemy.connect_args": [SECRET]},
    "an unknown argument": {"sqlalchemy.url": URL, "sqlalchemy.connect_args.pasword": SECRET},
    "of a wrong type": {"sqlalchemy.url": URL.encode()},
    "two settings mixed up": {"sqlalchemy.creator": URL},
    "three": {"sqlalchemy.url": "sqlite://", "sqlalchemy.isolation_level": URL},
    "four": {"sqa.session.class_": URL},
    "five": {"sqlalchemy.engine": URL},
    "six": {"sqlalchemy.pool_size": {"url": URL}},
    "seven": {"retry.attempts": URL},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting_shows_no_password(everything, only_our_drivers, case):
    """A password is not shown even if a user wrote it into the wrong setting."""
    config = Configurator(settings=WRONG[case])
    config.include("pyramid_aalam_sqa")
    with pytest.raises(Exception, match=r"sqlalchemy\.|sqa\.|retry\.") as caught:
        config.make_wsgi_app()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)

    assert isinstance(caught.value.evalue, SettingError)
    assert SECRET not in shown
    assert SECRET not in everything()


@pytest.mark.parametrize("line", ["", "pool_size = x", "pol_size = 5", "connect_args = x"])
def test_the_section_shows_no_password(tmp_path, monkeypatch, everything, line):
    """An error about the section quotes the wrong line, not the URL."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "guarded_shop.py").write_text(APPLICATION)
    ini = tmp_path / "shop.ini"
    ini.write_text(
        "[app:main]\nuse = call:guarded_shop:main\npyramid.includes = pyramid_aalam_sqa\n"
        f"[sqlalchemy]\nurl = {URL}\n{line}\n"
    )
    try:
        shown = repr(get_sqa(get_app(str(ini))).settings.database)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at
        shown = "".join(traceback.format_exception(error))

    assert ("[sqlalchemy]" in shown) is bool(line)
    assert SECRET not in shown + everything()


def test_the_settings_that_were_read_show_no_password():
    """The reprs of Settings, Database and RawSetting hide it."""
    settings = read_settings(
        {
            "sqlalchemy.url": URL,
            "sqlalchemy.connect_args": f'{{"ssl_key_password": "{SECRET}"}}',
            "sqlalchemy.connect_args.password": SECRET,
        }
    )
    given = RawSetting("sqlalchemy.url", "url", URL)

    assert settings.database.options["connect_args"]["password"] == SECRET
    assert SECRET not in repr(settings) + str(settings) + str(settings.database) + repr(given)


@pytest.mark.parametrize("ready", [True, False])
def test_the_introspectable_shows_the_url_masked(ready):
    """A debug toolbar shows the introspectable to everyone who opens it."""
    settings = {"sqlalchemy.engine": create_engine(URL)} if ready else {"sqlalchemy.url": URL}
    config = Configurator(settings=settings)
    config.include("pyramid_aalam_sqa")
    config.commit()
    [entry] = config.introspector.get_category("sqa databases")
    shown = entry["introspectable"]

    assert shown["url"] == shown.title == "mysql+pymysql://me:***@host/base"
