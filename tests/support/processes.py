"""Real server processes: pserve with a real ini file, stopped by its own pid."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from support.servers import free_port

HERE = Path(__file__).parents[1]
# Where a process finds what a test serves: the test modules, and `support`.
PATHS = [str(HERE), *(str(room) for room in HERE.iterdir() if room.is_dir())]
# What makes coverage trace a new process, which takes long. Here a worker of the tests keeps it
# for those processes where something happens that happens nowhere else.
_TRACE = "COVERAGE_PROCESS_CONFIG"
_IN_WORKER = "PYTEST_XDIST_WORKER" in os.environ
TRACED = {_TRACE: os.environ.pop(_TRACE)} if _IN_WORKER and _TRACE in os.environ else {}
# For a Python that is to print nothing but errors: with newer ones Pyramid's imports warn.
QUIET = ("-W", "ignore::UserWarning", "-W", "ignore::DeprecationWarning")
INI = """
[app:main]
use = call:{app}:main
pyramid.includes = pyramid_aalam_sqa
sqlalchemy.url = {url}
{settings}

[server:main]
use = egg:waitress#main
listen = 127.0.0.1:{port}
threads = 8
"""


@contextmanager
def pserve(folder, url, app="support.rule_app", settings="", path=HERE):
    """Serve *app* as a user does; yield the port and the log file."""
    port = free_port()
    ini = folder / "test.ini"
    escaped = url.replace("%", "%%")
    ini.write_text(INI.format(app=app, url=escaped, settings=settings, port=port))
    paths = os.pathsep.join([str(path), *PATHS, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", "from pyramid.scripts.pserve import main; main()", str(ini)]
    with serving(command, folder, port, PYTHONPATH=paths) as log:
        yield port, log


@contextmanager
def serving(command, folder, port, **environ):
    """Run *command* in *folder* until the end of the block; yield its log when *port* answers."""
    log = folder / "pserve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environ}, stdout=output, stderr=output
        )
    try:
        _wait(process, port, log)
        yield log
    finally:
        # SIGINT, as Ctrl-C: the interpreter ends in good order and coverage is written.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process, port, log):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://localhost:{port}/", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(log.read_text())
