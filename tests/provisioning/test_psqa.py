"""The command psqa: what it takes, what it prints, and its exit status."""

import re
import tomllib
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from pyramid_aalam_sqa.provisioning.cli import main
from support.provisioned import INI, Provisioned, psqa, psqa_process

SECRET = "Tr0ub4dor"
MODELS = """
import os
from sqlalchemy import Column, Integer, MetaData
from sqlalchemy.orm import declarative_base
from sqlalchemy.types import NullType

NAME = os.environ["SQA_PROVIDER"] + "_" + os.environ["SQA_APP"]
Base = declarative_base()
other = MetaData()
broken = MetaData()
number = 7

class Book(Base):
    __tablename__ = "book"
    id = Column(Integer, primary_key=True)

from sqlalchemy import Table
Table("page", other, Column("id", Integer, primary_key=True))
Table("gap", broken, Column("id", NullType(), primary_key=True))
"""


@pytest.fixture
def app(tmp_path, monkeypatch):
    """An application on a file of SQLite, and its models."""
    for name in ("SQA_PROVIDER", "SQA_APP", "SQA_ADMIN_URL"):
        monkeypatch.delenv(name, raising=False)
    # What the command sets for the models goes again after the test.
    monkeypatch.setenv("SQA_PROVIDER", "aalam")
    monkeypatch.setenv("SQA_APP", "base")
    (tmp_path / "shelf_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    return Provisioned(tmp_path, f"sqlite:///{tmp_path}/app.sqlite")


def one_sentence(text):
    return text.count("\n") == 1 and text.startswith("psqa: ") and "Traceback" not in text


def test_the_life_of_an_application(app, tmp_path):
    """From nothing to nothing, each command twice: the second changes nothing."""
    file = tmp_path / "app.sqlite"
    told = {}
    for command, *options in (
        ("create",),
        ("tables", "--base", "shelf_models:Base", "--base", "shelf_models:other"),
        ("drop", "--yes"),
    ):
        if command == "drop":
            assert inspect(create_engine(f"sqlite:///{file}")).get_table_names() == ["book", "page"]
            assert app.psqa("check").status == 0
        dry = [option for option in options if option != "--yes"]
        told[command] = [
            app.psqa(command, *dry, "--dry-run"),
            app.psqa(command, *options),
            app.psqa(command, *dry, "--dry-run"),
            app.psqa(command, *options),
        ]

    for planned, done, unplanned, undone in told.values():
        assert [each.status for each in (planned, done, unplanned, undone)] == [1, 0, 0, 0]
        assert {each.err for each in (planned, done, unplanned, undone)} == {""}
        assert planned.out != unplanned.out == "Nothing to change.\n"
        assert undone.out.startswith("Nothing to change.\n")
    assert not file.exists()


def test_drop_asks_for_yes(app):
    """Status 2: nothing is lost by a slip of the hand."""
    app.psqa("create")
    told = app.psqa("drop")

    assert told.status == 2
    assert told.err == (
        "psqa: All that is stored in aalam_base would be lost: add --yes, "
        "or --dry-run to see how.\n"
    )


def test_rotate_says_that_there_is_nothing_to_rotate(app):
    """A file of SQLite has no password."""
    told = app.psqa("rotate")

    assert told.status == 1
    assert one_sentence(told.err)
    assert "SQLite" in told.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: <command>"),
        (["crate", "x.ini"], "invalid choice: 'crate'"),
        (["create"], "the following arguments are required: ini"),
        (["create", "x.ini", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["create", "x.ini", "--admin-url", "root"], "unrecognized arguments: --admin-url"),
    ],
)
def test_a_wrong_call_is_told_with_the_usage(arguments, says):
    """Status 2. A URL is never taken from the command line, where everybody can see it."""
    told = psqa(*arguments)

    assert told.status == 2
    assert says in told.err
    assert told.err.startswith("usage: psqa")


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "x.ini", "--admin-url", f"mysql+pymysql://root:{SECRET}@h/"],
        ["create", "x.ini", f"--admin-url=mysql+pymysql://root:{SECRET}@h/"],
        ["create", f"mysql+pymysql://root:{SECRET}@h/", "x.ini"],
        ["create", "x.ini", "--admin-url-file", f"mysql+pymysql://root:{SECRET}@h/"],
        ["create", "x.ini", f"--admin-url-file=root:{SECRET}@h"],
        ["create", "x.ini", "--owner-password", SECRET],
        ["create", "x.ini", f"--password={SECRET}"],
        ["drop", "x.ini", SECRET],
        ["show", f"postgresql://root:{SECRET}@h/"],
        [f"mysql://root:{SECRET}@h/"],
    ],
)
def test_a_secret_on_the_command_line_is_refused_and_not_repeated(arguments):
    """Every user of the system could read it there, and the output is kept in logs."""
    told = psqa(*arguments)

    assert told.status == 2
    assert SECRET not in told.out + told.err


@pytest.mark.parametrize("options", [["--help"], ["create", "--help"]])
def test_help_tells_of_the_administrator_and_of_the_exit_status(options):
    """In its last lines."""
    told = psqa(*options)

    assert told.status == 0
    assert "SQA_ADMIN_URL" in told.out
    assert "Exit status: 0" in told.out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file or directory"),
        ("", "No section 'main'"),
        ("sqlalchemy.url = mysql://u:Tr0ub4dor@h/d\n", "this is not an ini file"),
        ("[app:main]\nTr0ub4dor\n", "this is not an ini file"),
        (
            "[app:main]\nuse = call:support.rule_app:main\nx = Tr0ub4dor%h\n",
            "[app:main] x: write a percent",
        ),
        (INI.format(url="mysql+pymysql://u:p@h", settings=""), "sqlalchemy.url: write a database"),
        (INI.format(url="postgresql+psycopg://h/d", settings=""), "sqlalchemy.url: write a user"),
        (INI.format(url="sqlite://", settings="sqa.app = base"), "sqa.provider is missing"),
        (
            INI.format(url="", settings="").replace(
                "sqlalchemy.url = \n", "sqa.provider = a\nsqa.app = b\n"
            ),
            "No database is set",
        ),
        (
            INI.format(url="sqlite://", settings="sqa.provider = te`st\nsqa.app = b"),
            "sqa.provider = 'te`st'",
        ),
        (INI.format(url="sqlite://", settings="sqa.provider = a\nsqa.app = b'; --"), "sqa.app = "),
        (INI.format(url="sqlite://", settings="sqa.provider = a\nsqa.app = ü"), "sqa.app = 'ü'"),
        (
            INI.format(url="mysql+pymysql://localhost", settings="sqa.provider = a\nsqa.app = b"),
            "write the application's account, for example a_b",
        ),
        (
            INI.format(
                url="mysql+pymysql://a_b__own@localhost", settings="sqa.provider = a\nsqa.app = b"
            ),
            "write the application's account, for example a_b",
        ),
        (
            INI.format(url="mysql+pymysql://u@localhost", settings="sqa.provider = a\nsqa.app = b"),
            "sqlalchemy.url has no password",
        ),
        (
            INI.format(
                url="mysql+pymysql://u:Tr0ub4dor@h/d", settings="sqa.provider = a\nsqa.app = b"
            ),
            "its database is 'd', but the application's is 'a_b'",
        ),
        (
            INI.format(url="sqlite://", settings="sqa.provider = a\nsqa.app = b")
            + "sqlalchemy.engine = psqa_ready:engine\n",
            "psqa needs a URL",
        ),
        (INI.format(url="sqlite://", settings="sqa.frob = 1"), "There is no setting sqa.frob"),
    ],
)
def test_an_ini_file_that_will_not_do_is_told_in_one_sentence(tmp_path, monkeypatch, text, says):
    """Status 2; nothing that may be a password is repeated."""
    for name in ("SQA_PROVIDER", "SQA_APP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "psqa_ready.py").write_text(
        "from sqlalchemy import create_engine\nengine = create_engine('sqlite://')\n"
    )
    ini = tmp_path / "wrong.ini"
    if text is not None:
        ini.write_text(text, "utf-8")
    told = psqa("create", ini, "--dry-run")

    assert (told.status, told.out) == (2, "")
    assert one_sentence(told.err)
    assert says in told.err
    assert SECRET not in told.err


def test_a_server_that_psqa_does_not_know_is_refused(tmp_path):
    """Status 1, with those it knows."""
    app = Provisioned(tmp_path, "mssql+pyodbc://u:p@h", settings=["sqlalchemy.module = sqlite3"])
    told = app.psqa("create")

    assert told.status == 1
    assert told.err == (
        "psqa: Databases on mssql are made by hand: "
        "psqa knows mariadb, mysql, postgresql, sqlite.\n"
    )


@pytest.mark.parametrize(
    ("url", "says", "status"),
    [
        ("postgresql+psycopg://root@localhost", "is that of another kind of server", 1),
        (f"root:{SECRET}@localhost", "The administrator's URL: this is not a database URL", 2),
    ],
)
def test_an_administrators_url_that_will_not_do_is_never_shown(tmp_path, url, says, status):
    """From the environment and from a file alike."""
    app = Provisioned(tmp_path, "mysql+pymysql://u:p@127.0.0.1")
    file = tmp_path / "admin"
    file.write_text(url)
    tolds = [app.psqa("check", admin_url=url), app.psqa("check", "--admin-url-file", file)]

    assert [told.status for told in tolds] == [status, status]
    assert all(one_sentence(told.err) and says in told.err for told in tolds)
    assert SECRET not in str(tolds)


@pytest.mark.parametrize("option", ["--admin-url-file", "--owner-password-file"])
def test_a_file_that_is_not_there_is_named(app, tmp_path, option):
    """Status 2."""
    told = app.psqa("create", option, tmp_path / "no-file")

    assert told.status == 2
    assert told.err == (
        f"psqa: The password in {tmp_path}/no-file cannot be read: No such file or directory.\n"
    )


def test_a_server_that_is_not_there_is_one_sentence(tmp_path):
    """Status 1."""
    app = Provisioned(tmp_path, "mysql+pymysql://u:p@127.0.0.1:1", "mysql+pymysql://r@127.0.0.1:1")
    tolds = [app.psqa(*words) for words in (["create"], ["check"], ["rotate"], ["drop", "--yes"])]

    assert [told.status for told in tolds] == [1, 1, 1, 1]
    assert all(one_sentence(told.err) for told in tolds)
    assert {"Can't connect to MySQL server" in told.err for told in tolds} == {True}


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("no_such_module:Base", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("shelf_models:Shelf", "AttributeError: module 'shelf_models' has no attribute 'Shelf'"),
        ("shelf_models:number", "write the dotted name of a declarative base, package.module:Base"),
        ("x'; DROP TABLE book; --", "ValueError"),
        ("ü`%\\\n:", "ValueError"),
        ("", "ValueError"),
    ],
)
def test_a_base_that_is_none_is_told(app, base, says):
    """Status 2."""
    told = app.psqa("tables", "--base", base, "--dry-run")

    assert told.status == 2
    assert one_sentence(told.err)
    assert says in told.err


def test_a_table_that_cannot_be_made_is_told(app):
    """Status 1, in SQLAlchemy's words."""
    told = app.psqa("tables", "--base", "shelf_models:broken", "--dry-run")

    assert told.status == 1
    assert one_sentence(told.err)
    assert "column 'id'" in told.err


def test_show_tells_where_each_setting_comes_from(tmp_path, monkeypatch):
    """The section, [sqlalchemy], the environment, or the defaults."""
    monkeypatch.setenv("SQA_PROVIDER", "aalam")
    monkeypatch.setenv("SQA_APP", "base")
    ini = tmp_path / "two.ini"
    ini.write_text(
        "[app:other]\nuse = call:support.rule_app:main\nsqa.lock_timeout = 3\n"
        "sqlalchemy.echo = false\n\n"
        f"[sqlalchemy]\nurl = sqlite:///{tmp_path}/app.sqlite\necho = true\npool_size = 2\n"
    )
    (tmp_path / "app.sqlite").touch()
    told = psqa("show", "--all", f"{ini}#other")

    assert told.status == 0
    for line in (
        f"sqlalchemy.url = sqlite:///{tmp_path}/app.sqlite ([sqlalchemy])",
        "sqlalchemy.pool_size = 2 ([sqlalchemy])",
        "sqlalchemy.echo = false ([app:other])",
        "sqa.lock_timeout = 3 ([app:other])",
        "sqa.provider = aalam (SQA_PROVIDER)",
        "sqa.app = base (SQA_APP)",
        "sqa.sqlite.journal_mode = wal (default)",
        "aalam_base: answers.",
    ):
        assert line in [re.sub(r"\s+", " ", each) for each in told.lines]
    assert "sqa.mysql" not in told.out


def test_show_makes_no_file_and_needs_no_name(tmp_path):
    """An application outside a portal has settings too, and SQLite would make its file."""
    ini = tmp_path / "plain.ini"
    ini.write_text(
        f"[app:main]\nuse = call:support.rule_app:main\nsqlalchemy.url = sqlite:///{tmp_path}/app.sqlite\n"
    )
    told = psqa("show", str(ini))

    assert told.status == 1
    assert "app.sqlite is not there." in " ".join(told.lines)
    assert not (tmp_path / "app.sqlite").exists()


def test_show_without_a_database_says_which_setting_is_missing(tmp_path):
    """As the first touch of the session does."""
    ini = tmp_path / "none.ini"
    ini.write_text("[app:main]\nuse = call:support.rule_app:main\n")
    told = psqa("show", str(ini))

    assert told.status == 2
    assert "write sqlalchemy.url" in told.err


def test_show_masks_what_may_be_secret(tmp_path):
    """The password in the URL, and every argument of the driver."""
    app = Provisioned(
        tmp_path,
        f"mysql+pymysql://u:{SECRET}@127.0.0.1:1/?charset=utf8mb4",
        settings=[
            f"sqlalchemy.connect_args.ssl_key_password = {SECRET}",
            f'sqlalchemy.connect_args = {{"init_command": "SET @x = {SECRET!r}"}}',
            "sqlalchemy.connect_args.connect_timeout = 1",
        ],
    )
    told = app.psqa("show")

    assert told.status == 1
    assert SECRET not in told.out + told.err
    assert (
        "sqlalchemy.url = mysql+pymysql://u:***@127.0.0.1:1/aalam_base?...  ([app:main])"
        in told.lines
    )
    assert "sqlalchemy.connect_args.ssl_key_password = ***  ([app:main])" in told.lines
    assert "sqlalchemy.connect_args.connect_timeout = 1  ([app:main])" in told.lines
    assert "aalam_base: Can't connect to MySQL server" in told.out


def test_show_masks_every_option_that_is_secret(tmp_path):
    """Of the default database, of a bind, of the package, and URLs in the wrong place."""
    app = Provisioned(
        tmp_path,
        f"mysql+pymysql://u:{SECRET}@127.0.0.1:1",
        settings=[
            f"sqa.cursor_secret = {SECRET}-of-the-cursors-of-pages",
            f"sqlalchemy.binds.audit.url = mysql+pymysql://u:{SECRET}@127.0.0.1:1/audit",
            f"sqlalchemy.binds.audit.connect_args.passwd = {SECRET}",
            f'sqlalchemy.execution_options = {{"note": "https://u:{SECRET}@h/"}}',
            f"sqlalchemy.logging_name = mysql://u:{SECRET}@h/",
        ],
    )
    told = app.psqa("show", columns=200)

    assert SECRET not in told.out + told.err
    for key in (
        "sqa.cursor_secret",
        "sqlalchemy.binds.audit.connect_args.passwd",
        "sqlalchemy.execution_options",
        "sqlalchemy.logging_name",
    ):
        assert f"{key} = ***  ([app:main])" in told.lines


def test_show_needs_no_password_that_is_right(tmp_path):
    """A file without one is what is wrong, and shown so."""
    file = tmp_path / "password"
    file.write_text("")
    app = Provisioned(
        tmp_path, "mysql+pymysql://u@127.0.0.1:1", settings=[f"sqa.password_file = {file}"]
    )
    told = app.psqa("show")

    assert told.status == 1
    assert " ".join(told.out.split()).endswith("and nothing else, in its only line.")


@pytest.mark.parametrize("columns", [80, 50])
def test_what_is_printed_fits_the_terminal(app, columns):
    """No line is wider, unless a single word is."""
    outputs = [
        app.psqa(*words, columns=columns).out
        for words in (["create"], ["check"], ["show", "--all"])
    ]
    lines = "".join(outputs).splitlines()

    assert len(lines) > 20
    assert [line for line in lines if len(line) >= columns and " " in line.strip()] == []


def test_a_process_ends_with_the_status(app):
    """As the console script that the project installs."""
    refused = psqa_process("drop", app.ini)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())

    assert (refused.status, refused.out) == (2, "")
    assert one_sentence(refused.err)
    assert project["project"]["scripts"] == {"psqa": f"{main.__module__}:main"}
