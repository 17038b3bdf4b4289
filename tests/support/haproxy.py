"""HAProxy in front of several MariaDB servers: the first of them that answers gets everything."""

import socket

import pytest

from support.servers import Server, find

CONFIG = """
global
    maxconn 500
defaults
    mode tcp
    timeout connect 2s
    timeout client 60s
    timeout server 60s
listen database
    bind 127.0.0.1:{port}
    option mysql-check user haproxy
    default-server check inter 500ms fall 2 rise 2 on-marked-down shutdown-sessions
{servers}
"""
# The account that HAProxy looks in with.
ACCOUNT = "CREATE USER IF NOT EXISTS haproxy"


def require_haproxy():
    """Skip the test where HAProxy is missing."""
    if find("haproxy") is None:
        pytest.skip("HAProxy tests skipped: no haproxy found; install haproxy.")


class HAProxy(Server):
    """A process of its own, which leads to the first of *hosts* that answers."""

    def __init__(self, hosts):
        super().__init__("sqa-haproxy-")
        servers = [
            f"    server node{number} {host}{' backup' if number else ''}"
            for number, host in enumerate(hosts)
        ]
        config = CONFIG.format(port=self.port, servers="\n".join(servers))
        (self.folder / "haproxy.cfg").write_text(config)

    def command(self):
        return [find("haproxy"), "-db", "-f", f"{self.folder}/haproxy.cfg"]

    def answers(self):
        # The greeting of a server behind it.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                return bool(connection.recv(1))
        except OSError:
            return False
