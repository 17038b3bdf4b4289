"""Runs psqa as a user of the system who is not root: a process that gives its rights up."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from support.processes import HERE, TRACED
from support.provisioned import Told, psqa

NOBODY = 65534


@contextmanager
def home():
    """Lend a folder that an ordinary user owns, in one that every user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="sqa-user-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


TABLES = """\
from sqlalchemy import Column, Integer, MetaData, Table
Base = MetaData()
Table("note", Base, Column("id", Integer, primary_key=True))
"""
INI = """\
[app:main]
use = call:user_tables:main
sqlalchemy.url = {url}
sqa.base = user_tables:Base
{lines}
"""
COMMANDS = (
    ["create", "--dry-run"],
    ["create"],
    ["tables"],
    ["check"],
    ["rotate"],
    ["create"],
    ["show"],
    ["drop", "--dry-run"],
    ["drop", "--yes"],
)
# Where there is nothing to rotate, the status of the command is 1.
STATUSES = [1, 0, 0, 0, 0, 0, 0, 1, 0]


def whole_life(folder, url, *lines, admin_url=""):
    """Run every command on an application at *url* whose files all belong to the ordinary user."""
    ini = folder / "development.ini"
    ini.write_text(INI.format(url=url, lines="\n".join(lines)))
    (folder / "user_tables.py").write_text(TABLES)
    (folder / "password").write_text("first\n")
    (folder / "password").chmod(0o600)
    for path in (folder, *folder.iterdir()):
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    return psqa_as_user(folder, [[words[0], str(ini), *words[1:]] for words in COMMANDS], admin_url)


def psqa_as_user(folder, commands, admin_url=""):
    """Run the *commands* one after the other; return what each answered."""
    paths = os.pathsep.join([str(HERE), str(folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", __name__, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, **TRACED, "PYTHONPATH": paths, "SQA_ADMIN_URL": admin_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Told(**each) for each in json.loads(done.stdout)]


def _run(commands, admin_url):
    """Give up root's rights, and then run *commands*.

    They are run once before, because the user may not be able to read what they import.
    """
    if os.geteuid() == 0:
        for words in commands:
            psqa(*words, admin_url=admin_url)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    return [vars(psqa(*words, admin_url=admin_url)) for words in commands]


if __name__ == "__main__":
    print(json.dumps(_run(json.loads(sys.argv[1]), os.environ["SQA_ADMIN_URL"])))
