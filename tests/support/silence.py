"""A proxy of bytes that falls silent: it accepts, and then nothing comes any more."""

import socket
import threading

from support.relay import Relay, readable


class SilentProxy(Relay):
    """Stands before a server; ``limit`` is how many bytes of it reach each new client.

    None: everything, until :meth:`fall_silent`. ``answer`` is sent to a new client in place of all
    that the server says.
    """

    def __init__(self, host, port, limit=None, answer=None):
        self.limit = limit
        self.answer = answer
        self._silent = threading.Event()
        super().__init__(host, port)

    def fall_silent(self):
        """Let nothing through any more, in either direction."""
        self._silent.set()

    def serve(self, client):
        with socket.create_connection(self.server) as server:
            if self.answer is not None:
                client.recv(1 << 16)
                client.sendall(self.answer)
                self.fall_silent()
            left = self.limit
            while self.end not in (ready := readable(client, server, self.end)):
                if client in ready:
                    data = client.recv(1 << 16)
                    if not data:
                        return
                    if not self._silent.is_set():
                        server.sendall(data)
                if server in ready:
                    data = server.recv(1 << 16)
                    if not data:
                        return
                    if self._silent.is_set():
                        continue
                    data = data if left is None else data[:left]
                    left = None if left is None else left - len(data)
                    client.sendall(data)
