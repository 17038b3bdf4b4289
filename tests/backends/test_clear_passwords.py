"""No driver sends a password in clear text to a server that has not proved who it is."""

import socket
import struct
import threading
from contextlib import contextmanager

import pytest
from psycopg import pq
from sqlalchemy.exc import OperationalError

from pyramid_aalam_sqa import engine_from_settings

SECRET = "Tr0ub4dor"
# Of a server that takes a password over TCP: long password, protocol 4.1, secure, plugins.
CAPABILITIES = 0x1 | 0x200 | 0x8000 | 0x80000 | 0x8


def packet(number, content):
    return len(content).to_bytes(3, "little") + bytes([number]) + content


@contextmanager
def server(greeting, answer):
    """Lend the port of a server that greets, reads the login, answers, and records the rest."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            connection.settimeout(10)
            with connection:
                if greeting:
                    connection.sendall(greeting)
                heard.append(connection.recv(4096))
                connection.sendall(answer)
                heard.append(connection.recv(4096))

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], heard
        thread.join(10)


def mysql_greeting():
    low, high = CAPABILITIES & 0xFFFF, CAPABILITIES >> 16
    content = b"\x0a8.0.36\x00" + struct.pack("<I", 7) + b"12345678\x00"
    content += struct.pack("<H", low) + b"\x2d" + struct.pack("<H", 2) + struct.pack("<H", high)
    content += bytes([21]) + bytes(10) + b"123456789012\x00mysql_native_password\x00"
    return packet(0, content)


@pytest.mark.parametrize("plugin", ["mysql_clear_password", "dialog"])
@pytest.mark.parametrize("tls", ["auto", "off"])
def test_a_mysql_that_asks_for_the_password_itself_does_not_get_it(plugin, tls):
    """An attacker on the network could ask in this way."""
    prompt = b"\x02Password: " if plugin == "dialog" else b""
    answer = packet(2, b"\xfe" + plugin.encode() + b"\x00" + prompt)
    with server(mysql_greeting(), answer) as (port, heard):
        url = f"mysql+pymysql://u:{SECRET}@127.0.0.1:{port}/d"
        engine = engine_from_settings({"sqlalchemy.url": url, "sqa.mysql.tls": tls})
        with pytest.raises(OperationalError, match="in clear text, and nothing proves"):
            engine.connect()
        engine.dispose()

    assert len(heard) == 2
    assert SECRET.encode() not in b"".join(heard)


def test_an_application_may_bring_a_plugin_of_its_own():
    """The application has decided that this is safe."""

    class Mine:
        def __init__(self, connection):
            self.connection = connection

        def authenticate(self, _packet):
            raise self.connection.OperationalError(1, "mine")

    answer = packet(2, b"\xfemysql_clear_password\x00")
    with server(mysql_greeting(), answer) as (port, _heard):
        settings = {
            "sqlalchemy.url": f"mysql+pymysql://u:{SECRET}@127.0.0.1:{port}/d",
            "sqlalchemy.connect_args": {"auth_plugin_map": {"mysql_clear_password": Mine}},
        }
        engine = engine_from_settings(settings)
        with pytest.raises(OperationalError, match="mine"):
            engine.connect()
        engine.dispose()


def postgresql_answer():
    return b"R" + struct.pack(">II", 8, 3)  # AuthenticationCleartextPassword


# Libpq has require_auth since version 16.
REFUSES = pq.version() >= 160000


def test_a_postgresql_that_asks_for_the_password_itself_does_not_get_it():
    """A new libpq refuses to send it. An old one cannot be told to, and sends it."""
    with server(b"", postgresql_answer()) as (port, heard):
        url = (
            f"postgresql+psycopg://u:{SECRET}@127.0.0.1:{port}/d?sslmode=disable&gssencmode=disable"
        )
        engine = engine_from_settings({"sqlalchemy.url": url})
        with pytest.raises(OperationalError):
            engine.connect()
        engine.dispose()

    assert (SECRET.encode() in b"".join(heard)) is not REFUSES


@pytest.mark.parametrize(
    ("query", "environment", "expected"),
    [
        ("", {}, "!password"),
        ("?sslmode=require", {}, "!password"),
        ("?sslmode=verify-full", {}, None),
        ("?require_auth=md5", {}, None),
        ("", {"PGREQUIREAUTH": "md5"}, None),
    ],
)
def test_what_proves_the_server_or_says_otherwise_wins(monkeypatch, query, environment, expected):
    """Verified TLS, the URL or the environment can allow a password in clear text."""
    from pyramid_aalam_sqa.backends import backend_for
    from pyramid_aalam_sqa.settings import read_settings

    monkeypatch.delenv("PGREQUIREAUTH", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = read_settings({"sqlalchemy.url": f"postgresql+psycopg://u:x@h/d{query}"})
    defaults = backend_for(settings.database.url, settings.sqa_options, None).engine_defaults()

    if "require_auth" not in query:
        told = expected if REFUSES else None
        assert defaults.get("connect_args.require_auth") == told
