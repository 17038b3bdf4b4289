"""What it costs to migrate a thousand databases of one MariaDB.

    python benchmarks/migrations.py [DATABASES]

One MariaDB, which is started and stopped here, with a database, an account that serves and an owner
account for each application, and an ini file for each. The commands are processes of their own, as
a person starts them. In turn:

- all databases get their first revision, and then psqa says that they have it;
- a tenth gets one revision more with one process at a time, another tenth with two;
- the others get it, and it fails in one of them, number 437; what is left is done;
- psqa is killed while all get another one, and run again.

Each revision leaves one row each time it runs, which is counted in each database at the end.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.migrated import CREATE, Revisions
from support.servers import MariaDB

PASSWORD = "s3cr3t"  # noqa: S105 - of a server that lives for minutes
SERVER = ("--max-connections=400", "--table-open-cache=4000", "--performance-schema=OFF")
SERVES = "SELECT, INSERT, UPDATE, DELETE, CREATE TEMPORARY TABLES, EXECUTE"
OWNS = (
    f"{SERVES}, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW, TRIGGER, "
    "LOCK TABLES"
)
CREATE_DATABASE = (
    "CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
    "CREATE USER {name}@'%' IDENTIFIED BY '{password}'",
    "GRANT {serves} ON `{escaped}`.* TO {name}@'%'",
    "CREATE USER {name}__own@'%' IDENTIFIED BY '{password}' ACCOUNT LOCK",
    "GRANT {owns} ON `{escaped}`.* TO {name}__own@'%'",
)
INI = """
[app:main]
use = call:support.rule_app:main
sqlalchemy.url = mysql+pymysql://{name}:{password}@127.0.0.1:{port}/
sqa.provider = bench
sqa.app = {app}
sqa.mysql.tls = off
sqa.migrations = {folder}/migrations
"""
# A revision makes a table, and notes that it has run.
NOTED = CREATE + "\nop.execute(\"INSERT INTO ran VALUES ('{0}')\")"  # noqa: S608 - it is a name
FAILING = "437"


class Site:
    """The server, the ini files and the revisions."""

    def __init__(self, server, folder, count):
        self.server, self.folder, self.count = server, folder, count
        self.revisions = Revisions(folder / "migrations")
        self.revisions.add(
            "r0", "op.create_table('ran', sa.Column('revision', sa.String(10), nullable=False))"
        )
        self.names = [f"app{number:04}" for number in range(1, count + 1)]
        self.list = folder / "all.txt"
        self.list.write_text("".join(f"{name}.ini\n" for name in self.names))
        admin = folder / "admin"
        admin.write_text(server.url())
        self.admin = ("--admin-url-file", str(admin))
        with server.connect() as connection, connection.cursor() as cursor:
            for app in self.names:
                name = f"bench_{app}"
                values = {"name": name, "escaped": name.replace("_", "\\_"), "password": PASSWORD}
                for statement in CREATE_DATABASE:
                    cursor.execute(statement.format(serves=SERVES, owns=OWNS, **values))
                text = INI.format(
                    name=name, password=PASSWORD, port=server.port, app=app, folder=folder
                )
                (folder / f"{app}.ini").write_text(text)

    def part(self, number):
        """Return a list of a tenth of the databases, the tenth *number* from the end."""
        tenth = len(self.names) // 10
        end = len(self.names) - number * tenth
        path = self.folder / f"part{number}.txt"
        path.write_text("".join(f"{name}.ini\n" for name in self.names[end - tenth : end]))
        return path

    def start(self, command, *options, databases=None):
        """Start psqa on all databases, or on those in the list *databases*."""
        words = [sys.executable, "-W", "ignore", "-m", "pyramid_aalam_sqa.provisioning.cli"]
        paths = str(Path(__file__).parent.parent / "tests")
        return subprocess.Popen(  # noqa: S603 - our own command
            [*words, command, "--databases", str(databases or self.list), *options],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, command, *options, databases=None):
        """Run psqa as start() does; return seconds, exit status and the states of its report."""
        report = self.folder / "report.json"
        more = [*self.admin, "--report", str(report)] if command == "upgrade" else []
        begin = time.perf_counter()
        process = self.start(command, *more, *options, databases=databases)
        out, err = process.communicate()
        seconds = time.perf_counter() - begin
        told = out + err
        states = {}
        if command == "upgrade":
            told += report.read_text()
            for each in json.loads(report.read_text())["databases"]:
                states[each["state"]] = states.get(each["state"], 0) + 1
        if PASSWORD in told:
            print("A password is in what psqa has told.")
        return seconds, process.returncode, states or out.splitlines()[-1]

    def ran(self, revision):
        """Return how many databases have run *revision* how often."""
        found = {}
        with self.server.connect() as connection, connection.cursor() as cursor:
            for app in self.names:
                cursor.execute(
                    f"SELECT COUNT(*) FROM bench_{app}.ran WHERE revision = %s",  # noqa: S608 - ours
                    (revision,),
                )
                [(number,)] = cursor.fetchall()
                found[number] = found.get(number, 0) + 1
        return found

    def asked(self):
        """Return how many statements of each kind the server has been asked for."""
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SHOW GLOBAL STATUS WHERE Variable_name IN ('Connections', 'Com_select')"
            )
            return {name: int(value) for name, value in cursor.fetchall()}


def killed(site):
    """Kill psqa alone while it works, and return after how many databases it was."""
    process = site.start("upgrade", *site.admin, "--jobs", "2")
    done = 0
    for line in process.stdout:
        done += bool(re.match(r"\d+/", line))
        if done >= site.count // 3:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stderr.close()
    # The two that were at work end their revision by themselves.
    time.sleep(5)
    return done


def measure(site):
    """Print what each run took."""
    seconds, _, states = site.run("upgrade", "--jobs", "2")
    print(f"first revision, 2 at a time        {seconds:7.1f} s  {states}")
    before = site.asked()
    seconds, status, last = site.run("migrations")
    asked = {key: value - before[key] for key, value in site.asked().items()}
    print(f"all are current: told in           {seconds:7.1f} s  {last} status {status}, {asked}")
    site.revisions.add("r1", NOTED.format("r1"))
    took = {}
    for number, jobs in enumerate(("1", "2")):
        took[jobs], _, states = site.run("upgrade", "--jobs", jobs, databases=site.part(number))
        print(f"a tenth, {jobs} at a time              {took[jobs]:7.1f} s  {states}")
    print(f"1 at a time / 2 at a time          {took['1'] / took['2']:7.2f}")
    fails = f"bench_app{FAILING.zfill(4)}" if site.count >= int(FAILING) else "bench_app0001"
    with site.server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {fails}.r1 (id INTEGER)")
    seconds, status, states = site.run("upgrade", "--jobs", "2")
    print(f"the others, one fails              {seconds:7.1f} s  {states} status {status}")
    with site.server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {fails}.r1")
    seconds, status, states = site.run("upgrade", "--jobs", "2")
    print(f"the next run does what is left     {seconds:7.1f} s  {states} status {status}")
    site.revisions.add("r2", NOTED.format("r2"))
    done = killed(site)
    seconds, status, states = site.run("upgrade", "--jobs", "2")
    print(f"killed after {done}, and run again   {seconds:7.1f} s  {states} status {status}")
    for number in ("r1", "r2"):
        print(f"{number} has run (times: databases)     {site.ran(number)}")


if __name__ == "__main__":
    databases = int(sys.argv[1]) if sys.argv[1:] else 1000
    mariadb = MariaDB(*SERVER).start()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            measure(Site(mariadb, Path(temporary), databases))
    finally:
        mariadb.remove()
