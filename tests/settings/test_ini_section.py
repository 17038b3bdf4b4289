"""The section [sqlalchemy] of the ini file that an application is loaded from."""

import logging
import sys
import traceback
from urllib.request import urlopen

import pytest
from paste.deploy import loadapp
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.paster import bootstrap, get_app, get_appsettings
from pyramid.response import Response
from sqlalchemy import MetaData

from pyramid_aalam_sqa import SettingError, engine_from_settings, get_sqa, init_engine
from support import processes

APPLICATION = """
from pyramid.config import Configurator
from pyramid.response import Response

def url(request):
    return Response(str(request.sqa_session.bind.url))

def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.add_view(url, name="url")
    return config.make_wsgi_app()

def included(global_config):
    return main(global_config, **{"pyramid.includes": "pyramid_aalam_sqa"})

def all_of_it(global_config, **settings):
    return main(global_config, **global_config, **settings)

def second(global_config, other, **settings):
    return main(global_config, __file__=other, **settings)
"""
MAIN = """
[app:main]
use = call:shop:main
pyramid.includes = pyramid_aalam_sqa
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write an ini file beside the module ``shop``, and return its path."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shop.py").write_text(APPLICATION)

    def write(*parts, name="shop.ini"):
        (tmp_path / name).write_text("".join(parts))
        return str(tmp_path / name)

    yield write
    sys.modules.pop("shop", None)


@pytest.fixture
def load(write):
    """Load the application of an ini file; its engine is disposed at the end."""
    loaded = []

    def load(*parts, **how):
        app = get_app(write(*parts), **how)
        loaded.append(get_sqa(app))
        return loaded[-1]

    yield load
    for sqa in loaded:
        sqa.dispose()


def refused(path, **how):
    with pytest.raises(ConfigurationError) as caught:
        get_app(path, **how)
    assert isinstance(caught.value.evalue, SettingError)
    assert str(caught.value.evalue) in str(caught.value)
    return str(caught.value.evalue)


def test_a_url_in_the_section_is_the_applications(load, tmp_path):
    """The portal's documents use this form. %(here)s works in it."""
    sqa = load(MAIN, "[sqlalchemy]\nurl = sqlite:///%(here)s/shop.sqlite\n")

    assert sqa.engine.url.database == f"{tmp_path}/shop.sqlite"


def test_the_section_holds_every_option(load):
    """Each option in the section is read in its real type."""
    sqa = load(
        MAIN,
        "[sqlalchemy]\nurl = sqlite:///shop.sqlite\npool_size = 7\nhide_parameters = yes\n"
        "connect_args.cached_statements = 5\n",
    )

    assert sqa.engine.pool.size() == 7
    assert sqa.engine.hide_parameters is True
    assert sqa.settings.database.options["connect_args"] == {"cached_statements": 5}


def test_the_applications_section_wins_and_the_log_says_so(load, caplog):
    """If only one of the two sections has a key, that key is used, from either section."""
    caplog.set_level(logging.INFO)
    sqa = load(
        MAIN,
        "sqlalchemy.url = sqlite:///main.sqlite\nsqlalchemy.echo = false\n",
        "[sqlalchemy]\nurl = sqlite:///section.sqlite\npool_size = 7\n",
    )
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("pyramid_aalam_sqa")]

    assert sqa.engine.url.database == "main.sqlite"
    assert sqa.engine.pool.size() == 7
    assert lines == [
        "sqlalchemy.url in the application's section wins over [sqlalchemy] url",
    ]


def test_the_log_says_it_once_beside_another_application(alone, load, caplog, tmp_path):
    """The settings are read again, to see whether init_engine() was called with the same ones."""
    url = f"sqlite:///{tmp_path}/other.sqlite"
    other = init_engine("aalam_other", MetaData(), settings={"sqlalchemy.url": url})
    caplog.set_level(logging.INFO)
    load(MAIN, "sqlalchemy.url = sqlite:///main.sqlite\n", "[sqlalchemy]\nurl = sqlite://\n")
    other.dispose()

    assert caplog.text.count("wins over") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pool_size = many", "[sqlalchemy] pool_size = 'many': write a whole number from 0 up."),
        ("pool_size =", "[sqlalchemy] pool_size is blank: write a whole number from 0 up, or"),
        ("pol_size = 7", "There is no setting [sqlalchemy] pol_size; did you mean"),
        ("Pool_size = 7", "did you mean sqlalchemy.pool_size?"),
        ("url = hidden", "[sqlalchemy] url: this is not a database URL"),
        ("url = mysql+pymysql://me:hid@den@host", "[sqlalchemy] url: in the user name and the"),
        ("url = mysql+pymysql://me:hid%den@host", "[sqlalchemy] url: write a percent sign as %%"),
        ("url = mysql+pymysql://me:%(hidden)s@host", "and give each %(name)s a value"),
        ("isolation_level = NONE\nurl = sqlite://", "[sqlalchemy] isolation_level = 'NONE': write"),
        ("engine = shop", "[sqlalchemy] engine = 'shop': write a ready Engine"),
    ],
)
@pytest.mark.sweep(6)
def test_what_is_wrong_is_named_as_it_stands_in_the_file(write, line, message):
    """The error quotes the key as it stands in the file, and shows no password."""
    path = write(MAIN, f"[sqlalchemy]\n{line}\n")
    found = refused(path)

    assert message in found
    assert "hid" not in found.replace("%(hidden)s", "")


def test_a_password_that_the_parser_stumbles_over_is_in_no_traceback(write):
    """The error of configparser quotes the whole line, so our error is not chained to it."""
    path = write(MAIN, "[sqlalchemy]\nurl = mysql+pymysql://me:%(hidden)s@host\n")
    with pytest.raises(ConfigurationError) as caught:
        get_app(path)

    assert "hidden" not in "".join(traceback.format_exception(caught.value))


def test_a_mistake_among_the_defaults_is_named_with_its_section(write):
    """An application that PasteDeploy has not loaded reads the file itself."""
    path = write(
        "[DEFAULT]\nbase = mysql+pymysql://me:%(hidden)s@host\n", "[sqlalchemy]\necho = no\n"
    )
    config = Configurator(settings={"__file__": path})
    config.include("pyramid_aalam_sqa")

    with pytest.raises(ConfigurationError) as caught:
        config.make_wsgi_app()
    assert "[DEFAULT] base: write a percent sign as %%" in str(caught.value)
    assert "hidden" not in "".join(traceback.format_exception(caught.value))


def test_variables_of_the_command_line_are_known(load):
    """`pserve shop.ini base=other` sets %(base)s in this section too."""
    sqa = load(
        MAIN,
        "[sqlalchemy]\nurl = sqlite:///%(base)s.sqlite\n",
        options={"base": "of-the-command-line"},
    )

    assert sqa.engine.url.database == "of-the-command-line.sqlite"


def test_keys_of_the_default_section_are_not_options(load):
    """Keys of [DEFAULT] are not read as options, unless the section repeats them."""
    sqa = load(
        "[DEFAULT]\nshop_name = Corner\nhide_parameters = maybe\nmode = 100%%\n",
        MAIN,
        "[sqlalchemy]\nurl = sqlite://\nhide_parameters = true\n",
    )

    assert sqa.engine.hide_parameters is True


def test_bootstrap_finds_the_section(write):
    """Scripts and pshell load an application as pserve does."""
    path = write(MAIN, "[sqlalchemy]\nurl = sqlite:///of-bootstrap.sqlite\n")
    with bootstrap(path) as env:
        found = get_sqa(env["request"]).engine.url.database

    assert found == "of-bootstrap.sqlite"


def test_pserve_finds_the_section(tmp_path, monkeypatch):
    """A real pserve process answers a real request from the database of the section."""
    (tmp_path / "shop.py").write_text(APPLICATION)
    moved = processes.INI.replace("sqlalchemy.url =", "[sqlalchemy]\nurl =")
    monkeypatch.setattr(processes, "INI", moved)
    url = f"sqlite:///{tmp_path}/of-pserve.sqlite"
    with (
        processes.pserve(tmp_path, url, app="shop", path=tmp_path) as (port, _log),
        urlopen(f"http://127.0.0.1:{port}/url", timeout=10) as response,
    ):
        assert response.read().decode() == url


def test_an_application_may_hand_the_global_configuration_over(write):
    """An application that Python code calls directly finds the file by __file__."""
    path = write(MAIN, "[sqlalchemy]\nurl = sqlite:///by-hand.sqlite\n")
    settings = get_appsettings(path)
    config = Configurator(settings={**settings.global_conf, **settings})
    config.make_wsgi_app()

    assert get_sqa(config).engine.url.database == "by-hand.sqlite"


def test_a_file_named_by_file_and_being_loaded_is_read_once(write, monkeypatch, tmp_path):
    """__file__ and the file that PasteDeploy is loading may be the same file."""
    write(
        MAIN.replace("shop:main", "shop:all_of_it"),
        "[sqlalchemy]\nurl = sqlite:///%(base)s.sqlite\n",
    )
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    app = get_app("../shop.ini", options={"base": "same"})

    assert get_sqa(app).engine.url.database == "same.sqlite"


def test_a_file_that_is_named_wins_over_the_one_being_loaded(write, load, tmp_path):
    """An application may build a second application from another ini file."""
    other = write("[sqlalchemy]\nurl = sqlite:///other.sqlite\n", name="other.ini")
    sqa = load(
        MAIN.replace("shop:main", "shop:second"),
        f"other = {other}\n[sqlalchemy]\nurl = sqlite://\n",
    )

    assert sqa.engine.url.database == "other.sqlite"


def test_applications_of_one_file_share_the_section(write):
    """The applications of one file have the section's database, unless they name their own."""
    path = write(
        MAIN,
        "[app:other]\nuse = call:shop:main\npyramid.includes = pyramid_aalam_sqa\n"
        "sqlalchemy.url = sqlite:///other.sqlite\n"
        "[sqlalchemy]\nurl = sqlite:///shared.sqlite\n",
    )
    found = [get_sqa(get_app(path, name)).engine.url.database for name in ("main", "other")]

    assert found == ["shared.sqlite", "other.sqlite"]


def test_an_application_inside_a_pipeline_finds_the_section(load):
    """PasteDeploy loads a pipeline, and the pipeline's last member is the application."""
    sqa = load(
        MAIN.replace("app:main", "app:inner"),
        "[pipeline:main]\npipeline = inner\n",
        "[sqlalchemy]\nurl = sqlite:///in-a-pipeline.sqlite\n",
    )

    assert sqa.engine.url.database == "in-a-pipeline.sqlite"


def test_an_application_that_extends_another_file_has_its_own_section(write, load):
    """The section of the file that was loaded is used, not that of the file it extends."""
    write(MAIN, "[sqlalchemy]\nurl = sqlite:///base.sqlite\n", name="base.ini")
    sqa = load("[app:main]\nuse = config:base.ini\n[sqlalchemy]\nurl = sqlite:///extended.sqlite\n")

    assert sqa.engine.url.database == "extended.sqlite"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.ini", None),
        ("app.yaml", b"app: shop\n"),
        ("app.bin", b"\xff\xfe\xff"),
        ("plain.ini", b"[app:main]\nsqlalchemy.url = sqlite:///unread\n"),
    ],
)
def test_a_file_without_the_section_sets_nothing(tmp_path, name, content):
    """A file that is missing, or that is not an ini file, sets nothing either."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    config = Configurator(settings={"__file__": str(path)})
    config.include("pyramid_aalam_sqa")
    config.make_wsgi_app()

    assert get_sqa(config).settings.database is None


def test_an_application_of_a_distribution_has_no_file(write, tmp_path):
    """PasteDeploy loads it by its entry point, so no ini file is involved."""
    write(name="unread.ini")
    information = tmp_path / "shop-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[paste.app_factory]\nmain = shop:included\n")

    assert get_sqa(loadapp("egg:shop")).settings.database is None


def test_no_file_at_all_is_fine():
    """The application is configured in Python alone."""

    def view(request):
        return Response("ok")

    context = "a local variable of the same name as PasteDeploy's"
    config = Configurator(settings={})
    config.include("pyramid_aalam_sqa")
    config.add_view(view)
    config.make_wsgi_app()

    assert get_sqa(config).settings.database is None
    assert context


def test_the_settings_of_get_appsettings_lead_to_the_section(tmp_path):
    """Alembic's env.py finds the same database as the application does."""
    ini = tmp_path / "app.ini"
    ini.write_text(
        "[app:main]\nuse = call:support.rule_app:main\n"
        "[sqlalchemy]\nurl = sqlite:///%(here)s/found.sqlite\npool_size = 3\n"
    )
    engine = engine_from_settings(get_appsettings(str(ini)))

    assert engine.url.database == f"{tmp_path}/found.sqlite"
    assert engine.pool.size() == 3
    engine.dispose()


def test_the_section_of_a_file_that_is_used_is_read_too(write, load):
    """The site's ini file uses the application's ini file: the sections of both are read."""
    write(
        MAIN, "[sqlalchemy]\nurl = sqlite:///%(here)s/base.sqlite\necho = false\n", name="base.ini"
    )

    assert load("[app:main]\nuse = config:base.ini\n").engine.url.database.endswith("base.sqlite")
    site = load("[app:main]\nuse = config:base.ini\n[sqlalchemy]\nurl = sqlite:///site.sqlite\n")
    assert site.engine.url.database == "site.sqlite"
    assert site.engine.echo is False


def test_the_section_is_found_over_several_files_and_names(write, load, tmp_path):
    """Each `use` may name another application, in the same file or in another file."""
    folder = tmp_path / "inner"
    folder.mkdir()
    write(
        "[app:other]\nuse = call:shop:main\n"
        "[app:real]\nuse = call:shop:main\npyramid.includes = pyramid_aalam_sqa\n"
        "[sqlalchemy]\nurl = sqlite:///%(here)s/%(name)s.sqlite\necho = true\n",
        name="inner/base.ini",
    )
    write(
        "[DEFAULT]\nname = middle\n"
        "[application:stage]\nuse = config:inner/base.ini#real\n"
        "[sqlalchemy]\necho = false\n",
        name="middle.ini",
    )
    sqa = load("[app:first]\nuse = config:middle.ini#stage\n[app:main]\nuse = first\n")

    assert sqa.engine.url.database == f"{folder}/middle.sqlite"
    assert sqa.engine.echo is False


def test_of_several_applications_each_has_the_section_of_the_file_that_it_uses(write):
    """The package tells the applications of a file apart by their options."""
    for name in ("one", "two"):
        write(MAIN, f"[sqlalchemy]\nurl = sqlite:///{name}.sqlite\n", name=f"{name}.ini")
    path = write(
        "[app:one]\nuse = config:one.ini\nsqa.page_size = 1\n"
        "[app:two]\nuse = config:two.ini\nsqa.page_size = 2\n"
    )

    for name in ("one", "two"):
        assert get_sqa(loadapp(f"config:{path}#{name}")).engine.url.database == f"{name}.sqlite"


def test_get_appsettings_leads_to_the_file_that_is_used(write, tmp_path):
    """Alembic's env.py and psqa find this file too. A file that is missing sets nothing."""
    write(MAIN, f"[sqlalchemy]\nurl = sqlite:///{tmp_path}/base.sqlite\n", name="base.ini")
    path = write("[app:main]\nuse = config:base.ini\n")

    settings = get_appsettings(path)
    assert engine_from_settings(settings).url.database == f"{tmp_path}/base.sqlite"
    (tmp_path / "base.ini").unlink()
    with pytest.raises(SettingError, match="No database is set"):
        engine_from_settings(settings)
