"""How psqa behaves in a terminal, in a pipe and in a program."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from importlib.metadata import version

import pytest

from pyramid_aalam_sqa.provisioning import Provisioning, cli
from support.processes import TRACED
from support.provisioned import HERE, Provisioned, psqa


@pytest.fixture
def app(tmp_path, monkeypatch):
    """An application on a file of SQLite."""
    for name in ("SQA_PROVIDER", "SQA_APP", "SQA_ADMIN_URL"):
        monkeypatch.delenv(name, raising=False)
    return Provisioned(tmp_path, f"sqlite:///{tmp_path}/app.sqlite")


def test_show_prints_what_was_written_and_how_many_defaults_there_are(app):
    """All of them with --all, what differs first."""
    app.psqa("create")
    short, whole = app.psqa("show"), app.psqa("show", "--all")
    lines = [line for line in whole.lines if " = " in line]
    own = [line for line in lines if not line.endswith("(default)")]
    count = len(lines) - len(own)

    assert lines[: len(own)] == own
    assert [line for line in short.lines if " = " in line] == own
    assert f"{count} settings more have their defaults: psqa show --all." in short.lines
    assert count > 20


def test_show_and_check_print_json_for_programs(app):
    """With the same status, and nothing else on the output."""
    missing = app.psqa("check", "--json")
    app.psqa("create")
    found, shown = app.psqa("check", "--json"), app.psqa("show", "--json")
    shown_settings = {each["key"]: each for each in json.loads(shown.out)["settings"]}

    assert missing.status == 1
    [finding] = json.loads(missing.out)["findings"]
    assert finding["advice"] == "psqa create makes it"
    assert (found.status, json.loads(found.out)["findings"]) == (0, [])
    assert json.loads(found.out)["server"].startswith("SQLite file /")
    assert shown.status == 0
    assert shown_settings["sqa.app"] == {"key": "sqa.app", "value": "base", "origin": "[app:main]"}
    assert json.loads(shown.out)["databases"][0]["problem"] is None


def test_the_version_is_told():
    """As pip knows it."""
    told = psqa("--version")

    assert (told.status, told.out.strip()) == (
        0,
        f"pyramid_aalam_sqa {version('pyramid_aalam_sqa')}",
    )


def test_a_reader_that_goes_ends_it_quietly(app):
    """Psqa show --all | head -1."""
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **TRACED, "PYTHONPATH": paths}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", cli.__name__, "show", "--all", str(app.ini)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()

    assert (process.wait(30), error) == (141, b"")


@pytest.mark.parametrize("columns", [80, 50])
def test_errors_are_wrapped_too(tmp_path, capsys, monkeypatch, columns):
    """At the width of the terminal, on the stream for errors."""
    monkeypatch.setenv("COLUMNS", str(columns))
    app = Provisioned(tmp_path, "mysql+pymysql://u:p@db.example.invalid")
    status = cli.main(["create", str(app.ini)])
    lines = capsys.readouterr().err.splitlines()

    assert status == 1
    assert len(lines) > 1
    assert [line for line in lines if len(line) >= columns and " " in line.strip()] == []
    assert all(line.startswith("    ") for line in lines[1:])


def test_what_was_called_wrongly_is_told_in_lines_that_fit():
    """Of each command, after how it is called."""
    tolds = [
        psqa(columns=50),
        psqa("create", columns=50),
        psqa("create", "a.ini", "--oops", columns=50),
    ]

    assert [told.status for told in tolds] == [2, 2, 2]
    assert "psqa: the following arguments are required: <command>" in tolds[0].err
    assert tolds[2].err.endswith("psqa: unrecognized arguments: --oops\n")
    assert all(told.err.startswith("usage: psqa ") for told in tolds)


def write_sqlite(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()


@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("a.sqlite", write_sqlite, "this is not an ini file, but a database of SQLite."),
        ("a.py", lambda path: path.write_text("import os\n"), "but a Python module."),
        ("a.toml", lambda path: path.write_text("x = 1\n"), "but TOML."),
        ("a.yaml", lambda path: path.write_text("x: 1\n"), "but YAML."),
        ("a.json", lambda path: path.write_text("{}\n"), "but JSON."),
        ("a.png", lambda path: path.write_bytes(b"\x89PNG\0\xff"), "and not even text."),
        ("a.ini", lambda path: path.write_text("x = 1\n"), "has sections such as [app:main]."),
        ("a", lambda path: path.mkdir(), "this is a folder; name an ini file in it (none)."),
    ],
)
def test_a_wrong_file_is_named_for_what_it_is(tmp_path, name, write, says):
    """Status 2; nothing of what is in it is repeated."""
    write(tmp_path / name)
    told = psqa("show", tmp_path / name)

    assert told.status == 2
    assert told.err.startswith(f"psqa: {tmp_path}/{name}: ")
    assert says in told.err


def test_a_file_that_is_not_there_is_told_with_those_that_are(app, tmp_path):
    """A slip of the hand is seen at once."""
    told = psqa("show", tmp_path / "aalam_bse.ini")

    assert told.status == 2
    assert "No such file or directory (found there: aalam_base.ini)" in told.err


def test_a_missing_password_file_is_told_with_how_to_make_it(tmp_path):
    """Readable by its owner alone."""
    file = tmp_path / "password"
    file.write_text("x\n")
    app = Provisioned(
        tmp_path, "mysql+pymysql://u@127.0.0.1:1", settings=[f"sqa.password_file = {file}"]
    )
    file.unlink()
    told = app.psqa("create")

    assert told.status == 2
    assert told.err == (
        f"psqa: sqa.password_file = '{file}': write the path of a file that is there; "
        "(umask 077; openssl rand -base64 24 > FILE) makes one.\n"
    )


def test_long_work_says_what_it_is_doing(app, monkeypatch, capsys):
    """On the stream for errors, so that the output stays what it is."""
    monkeypatch.setattr(cli, "PROGRESS_AFTER", 0.01)
    seen = threading.Event()

    def slowly(provisioning):
        assert provisioning.doing() == "connecting to the server"
        while "still at work" not in capsys.readouterr().err:
            seen.wait(0.02)
        return []

    monkeypatch.setattr(Provisioning, "plan_removal", slowly)
    monkeypatch.setattr(Provisioning, "describe_server", lambda _: "a slow one")
    status = cli.main(["drop", "--dry-run", str(app.ini)])

    assert status == 0


def test_the_wait_is_an_option(app):
    """It is told in the help, with its default."""
    told = psqa("drop", "--help", columns=200)

    assert "--wait SECONDS" in told.out
    assert "(default: 30)" in told.out
    assert app.psqa("create", "--wait", "0.5").status == 0
