"""psqa and all its processes are killed at any moment: no revision runs twice, none is left out."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.migrated import CREATE, PASSWORD
from support.processes import PATHS

ROUNDS = 4


@pytest.mark.deep
def test_killed_at_any_moment(make, server_url, revisions, tmp_path):
    """Each revision leaves one row each time it runs; a half-way one is told and repaired."""
    sites = [make(server_url) for _ in range(4)]
    revisions.add("0", "op.create_table('ran', sa.Column('revision', sa.String(10)))")
    for site in sites:
        assert site.migrate()["state"] == "done"
    chance = random.Random(17)
    for number in range(1, ROUNDS + 1):
        flag = tmp_path / f"flag{number}"
        revisions.add(
            str(number),
            f"import pathlib, time\npathlib.Path({str(flag)!r}).touch()\n"
            + CREATE.format(f"t{number}")
            + f"\ntime.sleep(0.1)\nop.execute(\"INSERT INTO ran VALUES ('{number}')\")",
        )
        killed(sites, flag, chance.uniform(0, 0.5))
        for site in sites:
            report = site.migrate()
            if report["state"] == "failed":
                # On MariaDB: what the report says is what there is.
                assert site.kind == "mysql", report
                assert report["statements"][0]["statement"].startswith("CREATE TABLE")
                site.eyes.run(
                    f"DROP TABLE IF EXISTS t{number}",
                    f"DELETE FROM ran WHERE revision = '{number}'",
                )
                report = site.migrate(repaired="undone")
            assert report["state"] in {"done", "current"}, report
            rows = site.eyes.rows(f"SELECT revision FROM {site.table('ran')}")
            assert sorted(row[0] for row in rows) == [str(each + 1) for each in range(number)]


def killed(sites, flag, seconds):
    """Kill psqa and its workers *seconds* after the first revision has begun."""
    command = [sys.executable, "-W", "ignore", "-m", "pyramid_aalam_sqa.provisioning.cli"]
    process = subprocess.Popen(
        [*command, "upgrade", *(str(site.ini) for site in sites), "--jobs", "2"],
        env={
            **os.environ,
            "SQA_ADMIN_URL": sites[0].admin_url or "",
            "PYTHONPATH": os.pathsep.join(PATHS),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not flag.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    words = b"".join(
        path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()
    )
    assert PASSWORD.encode() not in words
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # The servers notice that the connections are gone, and free the locks.
    time.sleep(1)
