"""What all proxies of the tests have in common: a port, and a thread for each client."""

import select
import socket
import threading


class Relay:
    """Listens on a port of its own, and serves each client in a thread until it is closed.

    ``end`` can be read from then on.
    """

    def __init__(self, host, port):
        self.server = host, port
        self.end, self._ending = socket.socketpair()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = []
        self._start(self._accept)

    def serve(self, client):
        """Serve the connection *client*, which is closed afterwards."""
        raise NotImplementedError

    def close(self):
        self._ending.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._listener.close()
        self.end.close()

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while self.end not in readable(self._listener, self.end):
            client, _ = self._listener.accept()
            self._start(self._serve, client)

    def _serve(self, client):
        with client:
            self.serve(client)


def readable(*sockets, seconds=None):
    return select.select(sockets, [], [], seconds)[0]
