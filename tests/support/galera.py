"""A real cluster of Galera on loopback, each node a process that a test may kill or freeze."""

import shutil
import signal
import time
from pathlib import Path

import pymysql
import pytest

from support.servers import AS_ROOT, MariaDB, find, free_port

PROVIDER = next(
    (
        path
        for path in ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")
        if Path(path).exists()
    ),
    None,
)
MISSING = "Galera tests skipped: no libgalera_smm.so found; install galera-4."
# A node that says nothing for so long is left out by the others. Galera's own 5 and 15 seconds
# would only make the tests longer.
TIMEOUTS = "evs.keepalive_period=PT0.5S;evs.suspect_timeout=PT2S;evs.inactive_timeout=PT4S"


def require_galera():
    """Skip the test where Galera is missing."""
    if PROVIDER is None or find("mariadbd") is None:
        pytest.skip(MISSING)


class Node(MariaDB):
    """One node; it can be killed and started again, or frozen and thawed."""

    def __init__(self, number, address, group):
        ports = free_port(), free_port()
        super().__init__(
            "--wsrep-on=ON",
            f"--wsrep-provider={PROVIDER}",
            f"--wsrep-cluster-address={address}",
            f"--wsrep-node-name=node{number}",
            "--wsrep-node-address=127.0.0.1",
            f"--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{group};"
            f"ist.recv_addr=127.0.0.1:{ports[0]};gcache.size=32M;{TIMEOUTS}",
            f"--wsrep-sst-receive-address=127.0.0.1:{ports[1]}",
            "--wsrep-sst-method=rsync",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
        )
        self.host = f"127.0.0.1:{self.port}"
        self.first = []
        if AS_ROOT:
            # The daemon of rsync, which copies the data to a new node, gives up the rights of root.
            self.account = ["--user=nobody"]
            for path in (self.folder, *self.folder.rglob("*")):
                shutil.chown(path, "nobody", "nogroup")

    def command(self):
        return [*super().command(), *self.first]

    def view(self):
        """What it knows of its cluster: the number of the view and the nodes; None if it is out."""
        wanted = "'wsrep_local_state_comment', 'wsrep_cluster_conf_id', 'wsrep_cluster_size'"
        try:
            with self.connect() as connection, connection.cursor() as cursor:
                cursor.execute(f"SHOW STATUS WHERE Variable_name IN ({wanted})")
                found = dict(cursor.fetchall())
        except pymysql.err.MySQLError:
            return None
        if found["wsrep_local_state_comment"] != "Synced":
            return None
        return int(found["wsrep_cluster_conf_id"]), int(found["wsrep_cluster_size"])

    def rows(self, statement):
        """What it has, all that the others have stored before included."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET SESSION wsrep_sync_wait = 1")
            cursor.execute(statement)
            return cursor.fetchall()

    def freeze(self):
        """Stop it as a machine that hangs: its connections stay open and say nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)


class Cluster:
    """As many nodes as asked for, all of them in one cluster."""

    def __init__(self, size):
        groups = [free_port() for _ in range(size)]
        address = "gcomm://" + ",".join(f"127.0.0.1:{port}" for port in groups)
        self.nodes = [Node(number, address, group) for number, group in enumerate(groups)]

    def start(self):
        first = self.nodes[0]
        # Only at its first start: later it joins the others.
        first.first = ["--wsrep-new-cluster"]
        for number, node in enumerate(self.nodes):
            node.start()
            self.wait(*self.nodes[: number + 1])
        first.first = []
        return self

    def wait(self, *nodes):
        """Wait until *nodes*, or all nodes, are in one cluster, and no others."""
        nodes = nodes or self.nodes
        deadline = time.monotonic() + 60
        while True:
            views = {node.view() for node in nodes}
            if None not in views and len(views) == 1 and views.pop()[1] == len(nodes):
                return
            assert time.monotonic() < deadline, (nodes[-1].folder / "log").read_text()[-3000:]
            time.sleep(0.1)

    def remove(self):
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                # At once: one that leaves in good order waits for the others.
                node.process.send_signal(signal.SIGCONT)
                node.kill()
            node.remove()
