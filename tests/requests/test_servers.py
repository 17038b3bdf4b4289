"""Real servers, with processes, threads and greenlets: each request has its own connection."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.processes import HERE
from support.servers import free_port

POSTS = 100
APPLICATION = "support.warmed_app:application"
UWSGI = (
    *("pyuwsgi", "--master", "--processes", "4", "--threads", "2", "--need-app"),
    *("--die-on-term", "--http-socket", "127.0.0.1:{port}"),
    *("--wsgi-file", f"{HERE}/support/warmed_app.py"),
)
GUNICORN = (
    *("gunicorn", "--preload", "--workers", "4", "--threads", "2"),
    *("--bind", "127.0.0.1:{port}", APPLICATION),
)


GEVENT = (
    *("python", "-c"),
    """from gevent.pywsgi import WSGIServer
from support.warmed_app import application
WSGIServer(('127.0.0.1', {port}), application).serve_forever()
""",
)
PATCHED = (*GEVENT[:2], f"from gevent import monkey\nmonkey.patch_all()\n{GEVENT[2]}")


@contextmanager
def serving(command, url, folder, **environ):
    """Start a server, yield its URL, and stop it."""
    port = free_port()
    log = folder / "server.log"
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    program = str(Path(sys.executable).with_name(command[0]))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *(part.format(port=port) for part in command[1:])],
            env={**os.environ, "PYTHONPATH": paths, "SQA_TEST_WARMED_URL": url, **environ},
            stdout=output,
            stderr=output,
            cwd=folder,
        )
    try:
        wait_until_it_answers(process, port, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    print(log.read_text())


def wait_until_it_answers(process, port, log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


def post(base, token):
    """Post one token, and return what the answer says about it."""
    try:
        with urllib.request.urlopen(f"{base}/post?token={token}", b"", timeout=60) as answer:
            return token, json.load(answer)
    except urllib.error.HTTPError as error:
        return token, {"status": error.code}


def post_all(base):
    with ThreadPoolExecutor(20) as threads:
        return list(threads.map(lambda number: post(base, f"t{number}"), range(POSTS)))


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        pytest.param(UWSGI, "sqlite", id="uwsgi-sqlite"),
        pytest.param(UWSGI, "mariadb", id="uwsgi-mariadb"),
        pytest.param(UWSGI, "postgresql", id="uwsgi-postgresql"),
        pytest.param(GUNICORN, "mariadb", id="gunicorn-mariadb"),
        pytest.param(GEVENT, "mariadb", id="gevent-mariadb"),
        pytest.param(PATCHED, "mariadb", id="gevent_patched-mariadb"),
        pytest.param(PATCHED, "postgresql", id="gevent_patched-postgresql"),
    ],
)
@pytest.mark.sweep(1)
def test_each_process_and_each_greenlet_of_a_server_has_its_own_connections(
    request, server, kind, tmp_path
):
    """A hundred posts at once are stored once each, and each post reads its own answer."""
    database = request.getfixturevalue(kind)
    database.run("CREATE TABLE note (body VARCHAR(50))")
    with serving(server, database.url, tmp_path) as base:
        told = post_all(base)

    wrong = [(token, answer) for token, answer in told if answer.get("echo") != token]
    processes = {}
    for _, answer in told:
        processes.setdefault(answer["process"], set()).add(answer["connection"])
    stored = [row[0] for row in database.rows("SELECT body FROM note ORDER BY body")]

    assert wrong == []
    assert stored == sorted(token for token, _ in told)
    assert (len(processes) > 1) == (server in {UWSGI, GUNICORN})
    if database.kind != "sqlite":
        assert sum(map(len, processes.values())) == len(set().union(*processes.values()))
