"""A loopback proxy in front of a MySQL server, which has an accident where a test wants one.

It reads the protocol: packets of three bytes of length, a number and what is said. The client asks
in one packet, the server answers in one or more; that is one exchange. An accident names the
exchange, by how it begins (``COMMIT``) or by its place in the log of what was asked, and how many
bytes of the question or of the answer still get through.
"""

import socket
import struct
import threading
from dataclasses import dataclass, field
from enum import Enum

from support.relay import Relay, readable

HEADER = 4
QUIT, QUERY = 0x01, 0x03
COMMANDS = {0x0E: "PING"}
# The two exchanges before the first command; in the first one nothing is asked.
GREETING, LOGIN = "GREETING", "LOGIN"
# Closing with this option and no time to linger sends a reset.
TORN = struct.pack("ii", 1, 0)


class Then(Enum):
    """What becomes of the connection once the bytes are through."""

    CUT = "both ends are closed, as when a process ends"
    RESET = "both ends are torn down, as by a firewall"
    SILENCE = "nothing comes any more, and nobody says so"
    INSTEAD = "the client gets another answer than the server's, and the connection goes on"
    DELAY = "the rest comes later, and the connection goes on"


@dataclass
class Accident:
    """One accident, at the exchange *at*; it happens *times* times."""

    at: str | int
    then: Then
    # How many bytes of the question get through; None: all of it, and the answer is waited for.
    asked: int | None = None
    # How many bytes of the answer get through.
    answered: int = 0
    instead: bytes = b""
    seconds: float = 0
    times: int = 1
    happened: int = 0
    at_last: threading.Event = field(default_factory=threading.Event)

    def meets(self, said, number):
        wanted = said.startswith(self.at) if isinstance(self.at, str) else number == self.at
        return wanted and self.happened < self.times


class Proxy(Relay):
    """``said`` is what the clients have asked, in order."""

    def __init__(self, host, port):
        self.said = []
        self.accidents = []
        self._lock = threading.Lock()
        super().__init__(host, port)

    def have(self, at, then, **how):
        """Have an accident at *at*; see :class:`Accident`."""
        accident = Accident(at, then, **how)
        self.accidents.append(accident)
        return accident

    def refuse(self, at, code, message="No.", **how):
        """Answer *at* with an error; the server never hears of it."""
        error = b"\xff" + struct.pack("<H", code) + b"#HY000" + message.encode()
        return self.have(at, Then.INSTEAD, asked=0, instead=error, **how)

    def forget(self):
        """Begin a new log, without accidents, and return the old one."""
        with self._lock:
            said, self.accidents, self.said = self.said, [], []
        return said

    def note(self, said):
        """Write *said* into the log and return the accident that it meets."""
        with self._lock:
            number = len(self.said)
            self.said.append(said)
            return next((it for it in self.accidents if it.meets(said, number)), None)

    def serve(self, client):
        with socket.socket() as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                _Link(self, client, server).run()
            except ConnectionError:
                # One end is gone; leaving closes the other.
                return


class _Link:
    """One client's connection to the server; its methods return whether it goes on."""

    def __init__(self, proxy, client, server):
        self.proxy, self.client, self.server = proxy, client, server
        self.question = b""
        self.accident = None
        self.answered = 0
        # The number of the answer's first packet.
        self.number = 0

    def run(self):
        self.server.connect(self.proxy.server)
        goes_on = self.begin(GREETING, b"")
        while goes_on:
            ready = readable(self.client, self.server, self.proxy.end)
            goes_on = self.proxy.end not in ready
            if goes_on and self.server in ready:
                goes_on = self.answer(self.server.recv(1 << 16))
            if goes_on and self.client in ready:
                goes_on = self.ask(self.client.recv(1 << 16))

    def ask(self, data):
        """Send *data* of the client on, packet by packet."""
        self.question += data
        goes_on = bool(data)
        while goes_on and len(self.question) >= HEADER + length_of(self.question):
            end = HEADER + length_of(self.question)
            packet, self.question = self.question[:end], self.question[end:]
            # Nobody answers a QUIT, nor waits for it to be heard.
            goes_on = packet[HEADER - 1 :] != bytes([0, QUIT])
            if goes_on:
                self.number = packet[HEADER - 1] + 1
                goes_on = self.begin(said_by(packet), packet)
        return goes_on

    def begin(self, said, packet):
        """Begin an exchange."""
        self.accident, self.answered = self.proxy.note(said), 0
        if self.accident is None or self.accident.asked is None:
            self.server.sendall(packet)
            return True
        self.server.sendall(packet[: self.accident.asked])
        return self.happen(b"")

    def answer(self, data):
        """Send *data* of the server on."""
        if self.accident is None:
            self.client.sendall(data)
            return bool(data)
        room = self.accident.answered - self.answered
        self.client.sendall(data[:room])
        self.answered += len(data[:room])
        missing = self.answered < self.accident.answered
        return bool(data) if missing else self.happen(data[room:])

    def happen(self, rest):
        accident, self.accident = self.accident, None
        accident.happened += 1
        accident.at_last.set()
        if accident.then is Then.INSTEAD:
            self.client.sendall(framed(self.number, accident.instead))
            return True
        if accident.then is Then.DELAY:
            readable(self.proxy.end, seconds=accident.seconds)
            self.client.sendall(rest)
            return True
        if accident.then is Then.RESET:
            for end in (self.client, self.server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, TORN)
        if accident.then is Then.SILENCE:
            # Until the client gives up.
            while self.proxy.end not in readable(self.client, self.proxy.end):
                if not self.client.recv(1 << 16):
                    break
        return False


def length_of(packet):
    """How many bytes come after the header; more than any has when the header is not whole."""
    return int.from_bytes(packet[:3], "little") if len(packet) >= HEADER else 1 << 24


def framed(number, payload):
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


def said_by(packet):
    """Name what the client asks: its SQL, or the name of the command."""
    if packet[HEADER - 1]:
        return LOGIN
    if packet[HEADER] == QUERY:
        return packet[HEADER + 1 :].decode()
    return COMMANDS.get(packet[HEADER], f"COMMAND {packet[HEADER]}")
