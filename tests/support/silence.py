"""A proxy of bytes that falls silent: it accepts, and then nothing comes any more."""

import select
import socket
import threading


class SilentProxy:
    """Stands before a server; ``limit`` is how many bytes of it reach each new client.

    None: everything, until :meth:`fall_silent`. ``answer`` is sent to a new client in place of all
    that the server says.
    """

    def __init__(self, host, port, limit=None, answer=None):
        self.server = host, port
        self.limit = limit
        self.answer = answer
        self._silent = threading.Event()
        self._end, self._ending = socket.socketpair()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = []
        self._start(self._accept)

    def fall_silent(self):
        """Let nothing through any more, in either direction."""
        self._silent.set()

    def close(self):
        self._ending.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._listener.close()
        self._end.close()

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while self._end not in select.select([self._listener, self._end], [], [])[0]:
            client, _ = self._listener.accept()
            self._start(self._serve, client)

    def _serve(self, client):
        with client, socket.create_connection(self.server) as server:
            if self.answer is not None:
                client.recv(1 << 16)
                client.sendall(self.answer)
                self.fall_silent()
            left = self.limit
            while self._end not in (ready := select.select([client, server, self._end], [], [])[0]):
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
