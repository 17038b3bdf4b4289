"""A worker of Celery loads the application, uses its database, and forks then."""

import os
import subprocess
import sys
import time

import pytest

from support.processes import HERE, QUIET

TASKS = 40
WORKER = ("worker", "--concurrency", "3", "--without-gossip", "--without-mingle")
SEND = f"from support.celery_app import note; [note.delay(f't{{n}}') for n in range({TASKS})]"


@pytest.fixture
def environ(mariadb, tmp_path):
    """Where the worker finds the database and its messages."""
    (tmp_path / "control").mkdir()
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    places = {"SQA_TEST_WARMED_URL": mariadb.url, "SQA_TEST_CELERY_FOLDER": str(tmp_path)}
    return {**os.environ, "PYTHONPATH": paths, **places}


@pytest.mark.deep
def test_each_process_of_a_celery_worker_has_its_own_connections(mariadb, environ, tmp_path):
    """Each task is stored once, and no connection is used by two processes."""
    mariadb.run("CREATE TABLE seen (token VARCHAR(9), process INT, connection INT)")
    python = [sys.executable, *QUIET]
    subprocess.run([*python, "-c", SEND], env=environ, cwd=tmp_path, check=True)
    command = [*python, "-m", "celery", "--app", "support.celery_app:celery", *WORKER]
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=environ, cwd=tmp_path, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while len(mariadb.rows("SELECT * FROM seen")) < TASKS and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        worker.terminate()
        worker.wait(30)
    seen = mariadb.rows("SELECT token, process, connection FROM seen")

    assert sorted(token for token, _, _ in seen) == sorted(f"t{number}" for number in range(TASKS))
    processes = {process for _, process, _ in seen}
    assert worker.pid not in processes
    assert len({connection for *_, connection in seen}) >= len(processes)
    pairs = {(connection, process) for _, process, connection in seen}
    assert len(pairs) == len({connection for connection, _ in pairs})
