"""`python -m pyramid_aalam_sqa.demo` and `make run` show the demo, or say in one line why not."""

import socket
import subprocess
import sys
import urllib.request

import pytest

from pyramid_aalam_sqa.demo import __main__ as command
from support.pages import ROOT
from support.processes import QUIET, TRACED, serving
from support.servers import free_port

DEMO = [sys.executable, *QUIET, "-m", "pyramid_aalam_sqa.demo"]


@pytest.fixture
def busy():
    """A port on which another program listens."""
    with socket.create_server(("localhost", 0)) as other:
        yield other.getsockname()[1]


def test_the_demo_is_served_from_any_folder_and_keeps_its_data_there(tmp_path):
    """No ini file is needed, and no clone."""
    port = free_port()
    with (
        serving([*DEMO, "--port", str(port)], tmp_path, port, **TRACED) as log,
        urllib.request.urlopen(f"http://localhost:{port}/", timeout=10) as page,
    ):
        assert "The answer decides." in page.read().decode()

    assert (tmp_path / "guestbook.sqlite").exists()
    assert (tmp_path / "ledger.sqlite").exists()
    assert f"http://localhost:{port} shows the demo" in log.read_text()


def test_a_port_in_use_is_one_line(busy, capsys):
    """It says how to take another port."""
    with pytest.raises(SystemExit) as ended:
        command.main(["--port", str(busy)])

    assert str(ended.value) == f"Port {busy} is in use. Choose another one: --port {busy + 1}"
    assert capsys.readouterr().out == ""


def test_make_run_says_in_one_line_that_the_port_is_in_use(busy):
    """It says what to type."""
    check = [sys.executable, "tools/free_port.py", str(busy)]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr == f"Port {busy} is in use. Choose another one: make run PORT={busy + 1}\n"


def test_make_run_goes_on_when_the_port_is_free():
    """The check leaves the port to the server."""
    check = [sys.executable, "tools/free_port.py", str(free_port())]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("missing", ["waitress", "pyramid_jinja2"])
def test_a_missing_package_is_told_with_the_pip_command(monkeypatch, missing):
    """The demo is an extra."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit, match=r'pip install "pyramid_aalam_sqa\[demo\]"'):
        command.main([])
