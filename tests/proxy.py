"""A loopback proxy in front of a MySQL server, which has an accident where a test wants one.

It reads the protocol: packets of three bytes of length, a number and what is said. The client asks
in one packet, the server answers in one or more; that is one exchange. An accident names the
exchange, by how it begins (``COMMIT``) or by its place in the log of what was asked, and how many
bytes of the question or of the answer still get through.
"""

import select
import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

HEADER = 4
QUIT, QUERY = 0x01, 0x03
COMMANDS = {0x0E: "PING"}
# What the connection is asked before its first command.
GREETING, LOGIN = "GREETING", "LOGIN"


class Then(Enum):
    """What becomes of the connection once the bytes are through."""

    CUT = "both ends are closed, as when a process ends"
    RESET = "both ends are torn down, as by a firewall"
    SILENCE = "nothing comes any more, and nobody says so"
    INSTEAD = "the client gets another answer than the server's, and the connection goes on"
    DELAY = "it goes on, later"


@dataclass
class Accident:
    """One accident, at the exchange *at*; it happens *times* times."""

    at: str | int
    then: Then
    # How many bytes of the question get through; None: all of it.
    asked: int | None = None
    # How many bytes of the answer get through, once there are more than that.
    answered: int = 0
    instead: bytes = b""
    seconds: float = 0
    times: int = 1
    happened: int = 0

    def meets(self, said, number):
        wanted = said.startswith(self.at) if isinstance(self.at, str) else number == self.at
        return wanted and self.happened < self.times


class Proxy:
    """Listens on a port of its own; ``said`` is what the clients have asked, in order."""

    def __init__(self, server_port):
        self.server_port = server_port
        self.said = []
        self.accidents = []
        self._lock = threading.Lock()
        self._threads = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        # Wakes every thread at the end.
        self._end, self._ended = socket.socketpair()
        self._start(self._accept)

    def have(self, at, then, **how):
        """Have an accident at *at*; see :class:`Accident`."""
        accident = Accident(at, then, **how)
        self.accidents.append(accident)
        return accident

    def refuse(self, at, code, message, state="HY000", **how):
        """Answer *at* with an error; the server never hears of it."""
        packet = error_packet(1, code, message, state)
        return self.have(at, Then.INSTEAD, instead=packet, asked=0, **how)

    def forget(self):
        """Begin a new log, without accidents."""
        self.accidents = []
        self.said = []

    def count(self, beginning):
        return sum(said.startswith(beginning) for said in self.said)

    def close(self):
        self._ended.close()
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._end.close()

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            ready, _, _ = select.select([self._listener, self._end], [], [])
            if self._end in ready:
                return
            client, _ = self._listener.accept()
            self._start(self._serve, client)

    def _serve(self, client):
        with client, socket.socket() as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                _Link(self, client, server, self._end).run()
            except ConnectionError:
                # One end is gone; leaving closes the other.
                return

    def note(self, said):
        """Write *said* into the log and return the accident that it meets."""
        with self._lock:
            number = len(self.said)
            self.said.append(said)
            for accident in self.accidents:
                if accident.meets(said, number):
                    return accident
        return None


class _Link:
    """One client's connection."""

    def __init__(self, proxy, client, server, end):
        self.proxy, self.client, self.server, self.end = proxy, client, server, end
        self.accident = None
        self.answered = 0

    def run(self):
        self.accident = self.proxy.note(GREETING)
        if self.accident and self.accident.asked is not None and not self.happen(b""):
            return
        self.server.connect(("127.0.0.1", self.proxy.server_port))
        question = b""
        while True:
            ready, _, _ = select.select([self.client, self.server, self.end], [], [])
            if self.end in ready:
                return
            if self.server in ready:
                answer = self.server.recv(65536)
                if not answer or not self.answer(answer):
                    return
            if self.client in ready:
                more = self.client.recv(65536)
                question += more
                if not more:
                    return
                while len(question) >= HEADER + length_of(question):
                    packet = question[: HEADER + length_of(question)]
                    question = question[len(packet) :]
                    if not self.ask(packet):
                        return

    def ask(self, packet):
        """Send *packet* on to the server; false when that was the end."""
        if packet[3:] == bytes([0, QUIT]):
            # Nobody answers it, nor waits for it to be heard.
            return False
        self.accident = self.proxy.note(said_by(packet))
        self.answered = 0
        accident = self.accident
        if accident is None or accident.asked is None:
            self.server.sendall(packet)
            return True
        self.server.sendall(packet[: accident.asked])
        return self.happen(packet[accident.asked :])

    def answer(self, data):
        """Send *data* on to the client; false when that was the end."""
        accident = self.accident
        if accident is None:
            self.client.sendall(data)
            return True
        room = accident.answered - self.answered
        self.client.sendall(data[:room])
        self.answered += len(data[:room])
        if self.answered < accident.answered:
            return True
        return self.happen(data[room:])

    def happen(self, rest):
        accident, self.accident = self.accident, None
        accident.happened += 1
        match accident.then:
            case Then.INSTEAD:
                self.client.sendall(accident.instead)
                return True
            case Then.DELAY:
                select.select([self.end], [], [], accident.seconds)
                self.client.sendall(rest)
                return True
            case Then.RESET:
                for end in (self.client, self.server):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case Then.SILENCE:
                self.listen_in_vain()
        return False

    def listen_in_vain(self):
        """Say nothing to anybody until the client gives up."""
        while True:
            ready, _, _ = select.select([self.client, self.end], [], [])
            if self.end in ready or not self.client.recv(65536):
                return


def length_of(packet):
    """How many bytes come after the header; more than any when it is not whole."""
    return int.from_bytes(packet[:3], "little") if len(packet) >= HEADER else 1 << 24


def said_by(packet):
    """Name what the client asks: its SQL, or the name of the command."""
    if packet[3]:
        return LOGIN
    if packet[HEADER] == QUERY:
        return packet[HEADER + 1 :].decode()
    return COMMANDS.get(packet[HEADER], f"COMMAND {packet[HEADER]}")


def error_packet(number, code, message, state):
    payload = b"\xff" + struct.pack("<H", code) + f"#{state}{message}".encode()
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload
