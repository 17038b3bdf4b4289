"""When PyMySQL encrypts a connection, and which certificates it accepts."""

import logging
import socket
import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from pyramid_aalam_sqa import SettingError, engine_from_settings
from pyramid_aalam_sqa.backends.pymysql_driver import tls_context
from support.engines import driver_of
from support.servers import MariaDB, running


@pytest.fixture(scope="module")
def plain_server(mariadb_server):
    """A MariaDB that cannot encrypt, and has another sql_mode than ours."""
    yield from running(MariaDB("--skip-ssl", "--sql-mode=ANSI_QUOTES"))


def elsewhere(server):
    """Return the server's URL with a host name that does not mean this machine."""
    return server.url().replace("127.0.0.1", "127.1")


def encrypted(engine):
    with engine.connect() as connection:
        return bool(connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1])


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_a_connection_is_encrypted_when_the_server_can(make, tls_server, mode):
    """Encryption needs no setting if the server offers it."""
    engine = make(tls_server.url(), {"sqa.mysql.tls": mode})

    assert encrypted(engine)


def test_encryption_can_be_turned_off(make, tls_server):
    """Both sqa.mysql.tls = off and the driver's own argument do this."""
    assert not encrypted(make(tls_server.url(), {"sqa.mysql.tls": "off"}))
    assert not encrypted(make(tls_server.url(), {"sqlalchemy.connect_args.ssl_disabled": "true"}))


def test_a_unix_socket_is_not_encrypted(make, tls_server):
    """A unix socket connection stays on this machine."""
    engine = make(f"mysql+pymysql://root@/?unix_socket={tls_server.folder}/socket")

    assert not encrypted(engine)


def test_a_server_without_tls_is_used_as_it_is_with_one_warning(make, plain_server, caplog):
    """The warning is logged once for all connections to that server."""
    engine = make(elsewhere(plain_server), poolclass="NullPool")
    assert [encrypted(engine) for _ in range(3)] == [False] * 3

    [record] = [r for r in caplog.records if r.name.startswith("pyramid_aalam_sqa")]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "127.1 has no TLS: connections to it are not encrypted."


def test_no_warning_is_given_of_this_machine(make, plain_server, caplog):
    """A connection inside one machine need not be encrypted."""
    assert not encrypted(make(plain_server.url()))
    assert caplog.records == []


@pytest.mark.parametrize("mode", ["required", "verify_ca", "verify_identity"])
def test_required_encryption_is_never_given_up(make, plain_server, mode):
    """The connection fails rather than being unencrypted."""
    with pytest.raises(OperationalError, match="2026"):
        encrypted(make(plain_server.url(), {"sqa.mysql.tls": mode}))


def test_an_authority_makes_encryption_required(make, plain_server, certificates):
    """This is true for auto too, because a server without TLS cannot prove its identity."""
    with pytest.raises(OperationalError, match="2026"):
        encrypted(make(plain_server.url(), {"sqa.mysql.tls_ca": f"{certificates}/authority.pem"}))


@pytest.mark.parametrize("mode", ["auto", "verify_ca", "verify_identity"])
def test_the_right_authority_is_accepted_and_no_other(make, tls_server, certificates, mode):
    """The server's certificate must be signed by the authority in sqa.mysql.tls_ca."""
    right = {"sqa.mysql.tls": mode, "sqa.mysql.tls_ca": f"{certificates}/authority.pem"}
    wrong = {"sqa.mysql.tls": mode, "sqa.mysql.tls_ca": f"{certificates}/other.pem"}

    assert encrypted(make(tls_server.url(), right))
    with pytest.raises(OperationalError, match="certificate verify failed"):
        encrypted(make(tls_server.url(), wrong))


@pytest.mark.parametrize(
    ("mode", "accepted"), [("verify_ca", True), ("verify_identity", False), ("auto", False)]
)
def test_the_name_in_the_certificate_is_looked_at(make, tls_server, certificates, mode, accepted):
    """With verify_identity, or with auto and an authority, it must be the name of the host."""
    settings = {"sqa.mysql.tls": mode, "sqa.mysql.tls_ca": f"{certificates}/authority.pem"}
    engine = make(elsewhere(tls_server), settings)

    if accepted:
        assert encrypted(engine)
    else:
        with pytest.raises(OperationalError, match="certificate verify failed"):
            encrypted(engine)


def test_without_an_authority_those_of_the_system_are_asked(make, tls_server):
    """They refuse the test's certificate, because they have not signed it."""
    with pytest.raises(OperationalError, match="certificate verify failed"):
        encrypted(make(tls_server.url(), {"sqa.mysql.tls": "verify_identity"}))


def test_all_connections_share_one_tls_context(make, tls_server):
    """PyMySQL would build a context for each connection, at 20 to 45 ms of CPU."""
    contexts = {
        driver_of(make(tls_server.url(), poolclass="NullPool")).ctx,
        driver_of(make(tls_server.url())).ctx,
        tls_context("auto", None),
    }

    assert len(contexts) == 1


def test_arguments_of_pymysqls_own_are_left_to_it(make, tls_server, certificates, tmp_path):
    """The arguments ssl_* and option files are used instead of sqa.mysql.tls."""
    file = tmp_path / "my.cnf"
    file.write_text(f"[client]\nuser = root\nssl-ca = {certificates}/other.pem\n")
    right = {"sqlalchemy.connect_args.ssl_ca": f"{certificates}/authority.pem"}
    url = make_url(tls_server.url())

    assert encrypted(make(url, right))
    with pytest.raises(OperationalError, match="certificate verify failed"):
        encrypted(
            make(url.set(username=None), {"sqlalchemy.connect_args.read_default_file": str(file)})
        )


@pytest.mark.parametrize("mode", ["off", "required"])
def test_an_authority_that_would_not_be_asked_is_refused(make, certificates, mode):
    """In these modes the setting would have no effect."""
    settings = {"sqa.mysql.tls": mode, "sqa.mysql.tls_ca": f"{certificates}/authority.pem"}
    with pytest.raises(SettingError, match=rf"sqa\.mysql\.tls = '{mode}' does not look at"):
        make("mysql+pymysql://host/base", settings)


def test_a_file_without_a_certificate_is_refused_at_start_up(make, certificates):
    """The setting is refused at start-up, not at the first request."""
    with pytest.raises(SettingError, match=r"sqa\.mysql\.tls_ca = .*: write a file of PEM"):
        make("mysql+pymysql://host/base", {"sqa.mysql.tls_ca": f"{certificates}/key.pem"})


def test_our_tls_settings_are_refused_for_another_driver(make):
    """The settings would have no effect on another driver."""
    assert make("mysql://host/base", module="pymysql")
    with pytest.raises(SettingError, match=r"sqa\.mysql\.tls, sqa\.mysql\.tls_ca: these are for"):
        make("mysql://host/base", {"sqa.mysql.tls": "required"}, module="pymysql")


def test_names_are_quoted_as_our_sql_mode_wants_it(make, plain_server):
    """SQLAlchemy would quote by the server's own sql_mode, which differs from ours."""
    engine = make(plain_server.url())
    with engine.begin() as connection:
        connection.execute(text("CREATE DATABASE IF NOT EXISTS quoted"))
    table = Table("order", MetaData(schema="quoted"), Column("select", Integer))
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert().values(select=7))

        assert connection.execute(table.select()).scalar() == 7


@contextmanager
def hiding_tls_once(port):
    """Lend the port of a proxy that hides the server's TLS in its first greeting."""
    hidden = []

    def pump(source, target, change=None):
        try:
            while data := source.recv(65536):
                target.sendall(change(data) if change else data)
                change = None
        except OSError:
            pass
        finally:
            target.close()

    def hide(greeting):
        if hidden:
            return greeting
        hidden.append(True)
        at = greeting.index(b"\x00", 5) + 1 + 4 + 8 + 1
        flags = int.from_bytes(greeting[at : at + 2], "little") & ~0x800
        return greeting[:at] + flags.to_bytes(2, "little") + greeting[at + 2 :]

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            try:
                while True:
                    client, _ = listener.accept()
                    upstream = socket.create_connection(("127.0.0.1", port))
                    threading.Thread(target=pump, args=(client, upstream), daemon=True).start()
                    threading.Thread(
                        target=pump, args=(upstream, client, hide), daemon=True
                    ).start()
            except OSError:
                pass  # The test is over.

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def test_tls_that_was_hidden_once_is_used_for_the_next_connection(tls_server):
    """TLS is not switched off for the rest of the process."""
    from sqlalchemy import text
    from sqlalchemy.pool import NullPool

    with hiding_tls_once(tls_server.port) as port:
        url = f"mysql+pymysql://root@127.0.0.1:{port}/mysql"
        engine = engine_from_settings({"sqlalchemy.url": url, "sqlalchemy.poolclass": NullPool})
        ciphers = []
        for _ in range(2):
            with engine.connect() as connection:
                [(_, cipher)] = connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'")).all()
                ciphers.append(cipher)
        engine.dispose()

    assert ciphers[0] == ""
    assert ciphers[1] != ""
