"""The first pages of the documentation, tried as a reader tries them.

The package is a wheel made from this tree, installed into a new environment, which borrows the
other packages from that of the tests. The files and the commands are the blocks of the pages, used
in an empty folder. test_new_application.py does the same for `psqa new`.
"""

import os
import re
import subprocess
import sys
import tomllib
import urllib.parse
import urllib.request

from support.pages import ROOT, blocks
from support.processes import serving
from support.servers import free_port

README = ROOT / "README.md"
START = ROOT / "docs" / "start.md"
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
PACKAGE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]


def serve(page, name, folder, python):
    """Do what *page* says for the application *name*. Only the port is the test's."""
    port = free_port()
    install, command = (code.strip() for code in blocks(page, "console")[:2])
    assert install == f"pip install {PACKAGE} waitress"
    # Everything is there already, so that no index is asked.
    without_index = {**os.environ, "PIP_NO_INDEX": "1"}
    subprocess.run([*PIP, "--python", python, *install.split()[1:]], check=True, env=without_index)
    assert command == f"python -m pyramid.scripts.pserve {name}.ini"
    application, ini = blocks(page, "python")[0], blocks(page, "ini")[0]
    (folder / f"{name}.py").write_text(application)
    (folder / f"{name}.ini").write_text(re.sub(r"\b6543\b", str(port), ini))
    return serving([python, *command.split()[1:]], folder, port), f"http://localhost:{port}"


def fetch(address, **fields):
    """Return the page at *address* after redirects. *fields* are posted."""
    data = urllib.parse.urlencode(fields).encode() if fields else None
    with urllib.request.urlopen(address, data, timeout=10) as response:
        return response.read().decode()


def test_the_wheel_holds_the_package(python, tmp_path):
    """A file that is missing in the wheel would be missing for a user."""
    code = f"import {PACKAGE}; print({PACKAGE}.__file__)"
    done = subprocess.run(
        [python, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith(str(python.parents[1]))


def test_the_first_screen_of_the_readme_serves(python, tmp_path):
    """With its hello.py, hello.ini and command, each visit is stored and counted."""
    served, address = serve(README, "hello", tmp_path, python)

    with served:
        counted = [fetch(address) for _ in range(2)]
    # The first visit was that of the test, which waited for the port.
    assert counted == ['{"visits": 2}', '{"visits": 3}']
    assert (tmp_path / "hello.sqlite").exists()


def test_the_start_page_creates_its_tables_and_serves_what_it_redirects_to(python, tmp_path):
    """With its notes.py, notes.ini and command, a note is added, shown and removed."""
    served, address = serve(START, "notes", tmp_path, python)

    with served:
        # As the page says it, in the address bar of a browser.
        assert fetch(f"{address}/add?body=milk") == "1 milk"
        assert fetch(f"{address}/add", body="bread") == "1 milk\n2 bread"
        assert fetch(f"{address}/remove", id="1") == "2 bread"
        assert fetch(address) == "2 bread"
