"""docs/guide/deployment.md: its commands serve, and its files agree with each other."""

import configparser
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from support.pages import ROOT, blocks, write_file
from support.processes import serving
from support.servers import free_port

PAGE = ROOT / "docs" / "guide" / "deployment.md"
COMMANDS = dict(re.findall(r"^\| ([\w ']+) \| `(.+)` \|$", PAGE.read_text(), re.MULTILINE))
BIN = Path(sys.executable).parent
# The programs as the tests have them: pyuwsgi is uWSGI from a wheel.
PROGRAMS = {"uwsgi": "pyuwsgi", "pserve": "pserve", "gunicorn": "gunicorn", "python": "python"}
APPLICATION = """
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import text

def show(request):
    return Response(str(request.sqa_session.scalar(text("SELECT 1"))))

def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.add_view(show)
    return config.make_wsgi_app()
"""
INI = """
[app:main]
use = call:shop:main
pyramid.includes = pyramid_aalam_sqa
sqlalchemy.url = sqlite:///%(here)s/shop.sqlite

[server:main]
use = egg:waitress#main
listen = 127.0.0.1:{port}

[loggers]
keys = root
[handlers]
keys =
[formatters]
keys =
[logger_root]
handlers =
"""


def at_port(command, port):
    """Return *command* as the tests run it: from their environment, on a port of their own."""
    program, *arguments = shlex.split(command)
    arguments = [part.replace("127.0.0.1:8000", f"127.0.0.1:{port}") for part in arguments]
    bind = ["--bind", f"127.0.0.1:{port}"] if program == "gunicorn" else []
    return [str(BIN / PROGRAMS[program]), *bind, *arguments]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(COMMANDS[name], id=name.replace(" ", "-"))
        for name in ("waitress", "gunicorn", "gunicorn with gevent", "uWSGI")
    ]
    + [pytest.param("python -m gevent.monkey serve.py", id="gevent")],
)
@pytest.mark.deep
def test_each_command_serves(command, tmp_path):
    """The application of wsgi.py, or of the ini file, answers from its database."""
    port = free_port()
    for code in blocks(PAGE, "python"):
        assert write_file(tmp_path, code.replace(":8000", f":{port}").replace("8000", str(port)))
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "production.ini").write_text(INI.format(port=port))
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    with serving(at_port(command, port), tmp_path, port, PYTHONPATH=paths, PYTHONWARNINGS="ignore"):
        assert list(tmp_path.glob("shop.sqlite"))


def test_the_console_block_is_the_command_that_is_tried():
    """The server of gevent is started as the page says."""
    assert blocks(PAGE, "console") == ["python -m gevent.monkey serve.py\n"]


def test_the_unit_of_systemd_starts_what_the_table_says():
    """One command, in the folder of the virtual environment."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(blocks(PAGE, "systemd")[0])
    service = unit["Service"]

    assert service["ExecStart"] == f"{service['WorkingDirectory']}/.venv/bin/{COMMANDS['gunicorn']}"


def test_the_container_starts_what_the_table_says():
    """Waitress, with the ini file."""
    [command] = re.findall(r"^CMD \[(.+)\]$", blocks(PAGE, "docker")[0], re.MULTILINE)

    assert [part.strip('"') for part in command.split(", ")] == COMMANDS["waitress"].split()


def test_waitress_knows_the_arguments_behind_a_proxy():
    """Its own check of arguments accepts the lines of the page."""
    from waitress.adjustments import Adjustments

    [block] = (code for code in blocks(PAGE, "text") if code.startswith("[server:main]"))
    parser = configparser.ConfigParser()
    parser.read_string(block)
    arguments = {key: value for key, value in parser["server:main"].items() if key != "use"}

    assert Adjustments(**arguments).trusted_proxy == "127.0.0.1"


def test_the_settings_that_need_a_file_exist():
    """The lines about TLS name a file that no test has; their keys are in the table of settings."""
    settings = (ROOT / "docs" / "reference" / "settings.md").read_text()
    text = "".join(blocks(PAGE, "text"))
    shown = re.findall(r"^(sqa\.\S+) =", text, re.MULTILINE)

    assert shown == ["sqa.mysql.tls_ca"]
    assert f"| `{shown[0]}` |" in settings
