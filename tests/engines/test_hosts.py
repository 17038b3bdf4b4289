"""New connections go to the first of several hosts that takes writes, and follow it."""

import gc
import threading

import pytest
from pyramid.response import Response
from sqlalchemy import MetaData, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool
from webtest import TestApp

from pyramid_aalam_sqa import engine_from_settings, get_sqa, init_engine
from pyramid_aalam_sqa.engines import host_in_use, hosts
from support.apps import with_view
from support.drivers import drivers
from support.hosts import NAME, SECRET, Pair, silent
from support.models import INSERT
from support.servers import free_port

URL = f"mysql+pymysql://{NAME}:{SECRET}@/{NAME}"


@pytest.fixture(scope="module")
def servers(mariadb_server, second_mariadb_server):
    pair = Pair(mariadb_server, second_mariadb_server)
    yield pair
    pair.remove()


@pytest.fixture
def pair(servers):
    """The application's database on two servers. The first takes writes."""
    servers.writer(servers.first, servers.second)
    for each in (servers.first, servers.second):
        each.run("DELETE FROM note")
    servers.writer(servers.first)
    return servers


@pytest.fixture
def nowhere():
    """A host where nothing listens."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def engine():
    """Make engines with hosts; dispose them in the end."""
    made = []

    def engine(*names, url=URL, **settings):
        given = {"sqlalchemy.url": url, "sqa.hosts": " ".join(names), **settings}
        made.append(engine_from_settings(given))
        return made[-1]

    yield engine
    for each in made:
        each.dispose()


@pytest.fixture
def serve_notes(serve):
    """Make a client of an application that reads and writes notes."""

    def write(request):
        request.sqa_session.execute(INSERT, {"body": request.params["body"]})
        return Response()

    def read(request):
        return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM note"))))

    def serve_notes(names, *setups, url=URL, **settings):
        views = with_view(write, name="write"), with_view(read, name="read")
        given = {"sqa.hosts": " ".join(names), "sqa.retry_pause": "0", **settings}
        return TestApp(serve(url, *views, *setups, **given))

    return serve_notes


def port_of(engine):
    """The port of the server that a connection of *engine* leads to."""
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT @@port").scalar()


def said(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "pyramid_aalam_sqa.engines.hosts"
    ]


@pytest.mark.parametrize("driver", drivers("mysql+pymysql", "mysql+mysqldb"))
def test_the_first_host_that_takes_writes_is_used(pair, engine, nowhere, driver, caplog):
    """A replica is passed over, and so is a host where nothing answers. One log line says so."""
    pair.writer(pair.second)
    found = engine(nowhere, *pair.hosts, url=URL.replace("mysql+pymysql", driver))

    assert host_in_use(found) is None
    assert port_of(found) == pair.servers[1].port
    assert host_in_use(found) == pair.hosts[1]
    with found.connect(), found.connect():
        [line] = said(caplog)
    assert line.startswith(f"New connections to {NAME} go to {pair.hosts[1]} ({nowhere}: 2")
    assert f"{pair.hosts[0]}: it takes no writes)" in line


def test_nothing_is_asked_on_a_connection_that_is_open(pair, engine, monkeypatch):
    """A new connection costs one question more, and one that is lent again costs none."""
    asked = []
    monkeypatch.setattr(hosts.WriterHosts, "_refuses", lambda *_: asked.append(1))
    found = engine(*pair.hosts)
    for _ in range(5):
        port_of(found)

    assert asked == [1]


def test_a_switchover_is_followed_without_a_restart(pair, serve_notes, caplog):
    """The old writer still accepts connections. Its first refused write empties the pool."""
    client = serve_notes(pair.hosts)
    client.get("/write?body=before")
    pair.writer(pair.second)
    client.get("/write?body=after")

    assert pair.notes() == [["before"], ["after"]]
    assert said(caplog) == [
        f"New connections to {NAME} go to {pair.hosts[1]} ({pair.hosts[0]}: it takes no writes)"
    ]
    pair.writer(pair.first)
    client.get("/write?body=back")
    assert pair.notes() == [["back", "before"], ["after"]]
    assert len(said(caplog)) == 2


def test_when_no_host_takes_writes_the_answer_is_503_and_the_log_says_why(
    pair, serve_notes, nowhere, caplog
):
    """The log has what each host has answered, and no password."""
    pair.writer()
    client = serve_notes([nowhere, *pair.hosts])
    answer = client.get("/write?body=never", status=503)

    assert answer.headers["Retry-After"] == "5"
    [line] = [text for text in caplog.messages if "no database" in text]
    for host in (nowhere, *pair.hosts):
        assert f"{host}: " in line
    assert line.count("it takes no writes") == 2
    assert SECRET not in caplog.text + answer.text
    pair.writer(pair.second)
    client.get("/write?body=then")
    assert pair.notes() == [[], ["then"]]


def test_a_host_that_gave_no_connection_is_asked_after_the_others_for_a_while(
    pair, engine, monkeypatch
):
    """Each new connection would wait connect_timeout for it."""
    monkeypatch.setattr(hosts, "ASIDE", 1000)
    timeout = {"sqlalchemy.connect_args.connect_timeout": "0.3"}
    with silent() as first:
        found = engine(first.host, *pair.hosts, **timeout, **{"sqlalchemy.poolclass": "NullPool"})
        for _ in range(4):
            assert port_of(found) == pair.servers[0].port
        assert first.asked() == 1
        pair.writer()
        with pytest.raises(OperationalError, match="no host takes writes"):
            port_of(found)
        assert first.asked() == 1


def test_hosts_that_are_silent_again_cost_the_time_of_one(engine, monkeypatch):
    """The one that was asked longest ago is asked, and the others at the next request."""
    monkeypatch.setattr(hosts, "ASIDE", 1000)
    with silent() as one, silent() as two:
        found = engine(one.host, two.host, **{"sqlalchemy.connect_args.connect_timeout": "0.3"})
        asked = []
        for _ in range(3):
            with pytest.raises(OperationalError, match="no host takes writes") as caught:
                port_of(found)
            asked.append((one.asked(), two.asked(), "not asked again" in str(caught.value)))

    assert asked == [(1, 1, False), (1, 0, True), (0, 1, True)]


def test_after_that_while_one_thread_asks_it_first(pair, engine, monkeypatch):
    """Meanwhile the other threads go on with the host that answers."""
    timeout = {"sqlalchemy.connect_args.connect_timeout": "1"}
    with silent() as first:
        found = engine(first.host, *pair.hosts, **timeout, **{"sqlalchemy.poolclass": "NullPool"})
        monkeypatch.setattr(hosts, "ASIDE", 0)
        port_of(found)
        assert first.asked() == 1
        monkeypatch.setattr(hosts, "ASIDE", 1000)
        threads = [threading.Thread(target=port_of, args=[found]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert first.asked() == 1


def test_a_host_that_is_back_gets_all_connections_again(pair, engine, monkeypatch, caplog):
    """Of two that take writes, as in a cluster, it is better that all processes use one."""
    monkeypatch.setattr(hosts, "ASIDE", 0)
    pair.writer(pair.second)
    found = engine(*pair.hosts)
    with found.connect(), found.connect():
        assert host_in_use(found) == pair.hosts[1]
    assert found.pool.checkedin() == 2
    pool = found.pool
    pair.writer(pair.first, pair.second)
    with found.connect(), found.connect(), found.connect():
        assert host_in_use(found) == pair.hosts[0]
    with found.connect() as one, found.connect() as two, found.connect() as three:
        ports = [each.exec_driver_sql("SELECT @@port").scalar() for each in (one, two, three)]
    assert ports == [pair.servers[0].port] * 3
    assert found.pool is pool
    assert said(caplog)[-1] == f"New connections to {NAME} go to {pair.hosts[0]}"


def test_a_server_that_hangs_up_on_the_question_is_passed_over(pair, engine, monkeypatch):
    """Its connection is closed, whatever that raises."""
    pair.writer(pair.second)
    closed = []

    def refuses(backend, connection):
        if connection.port == pair.servers[1].port:
            return False
        connection.close()
        closed.append(connection)
        raise connection.OperationalError(2013, "lost")

    monkeypatch.setattr("pyramid_aalam_sqa.backends.mysql.MySQLBackend.refuses_writes", refuses)

    assert port_of(engine(*pair.hosts)) == pair.servers[1].port
    assert len(closed) == 1


def test_the_password_in_a_file_is_used_for_each_host(pair, engine, tmp_path):
    """The next password too, while psqa rotate changes it on one server after the other."""
    (tmp_path / "password").write_text("old\n")
    (tmp_path / "password.next").write_text(SECRET)
    pair.writer(pair.second)
    given = {"sqa.password_file": str(tmp_path / "password")}
    found = engine(*pair.hosts, url=URL.replace(f":{SECRET}", ""), **given)

    assert port_of(found) == pair.servers[1].port


@pytest.mark.usefixtures("alone")
def test_an_application_that_is_named_in_the_portals_way_follows_its_hosts(pair):
    """init_engine() completes the URL by the name of the database."""
    pair.writer(pair.second)
    settings = {"sqlalchemy.url": URL.removesuffix(NAME), "sqa.hosts": " ".join(pair.hosts)}
    engine = init_engine(NAME, MetaData(), settings=settings)

    assert port_of(engine) == pair.servers[1].port
    engine.dispose()


def test_a_pool_that_has_lost_its_engine_follows_too(pair, engine):
    """Nothing is left whose connections would have to be replaced."""
    lonely = engine_from_settings({"sqlalchemy.url": URL, "sqa.hosts": " ".join(pair.hosts)})
    pool = lonely.pool
    ports = []
    for writer in (pair.first, pair.second):
        pair.writer(writer)
        connection = pool.connect()
        cursor = connection.cursor()
        cursor.execute("SELECT @@port")
        ports += cursor.fetchone()
        connection.invalidate()
        lonely = None
        gc.collect()

    assert ports == [server.port for server in pair.servers]


def test_a_read_only_request_is_served_by_the_same_host(pair, serve_notes):
    """Its connections are others, and they find the writer by themselves."""

    def port(request):
        return Response(str(request.sqa_session.scalar(text("SELECT @@port"))))

    pair.writer(pair.second)
    client = serve_notes(pair.hosts, with_view(port, name="port", sqa_read_only=True))

    assert client.get("/port").text == str(pair.servers[1].port)


def test_the_statistics_name_the_host(pair, serve_notes):
    """It is the one that new connections go to."""
    client = serve_notes(pair.hosts)
    assert get_sqa(client.app).stats().databases["default"].host is None
    client.get("/read")
    assert get_sqa(client.app).stats().databases["default"].host == pair.hosts[0]


def test_readiness_follows_the_writer(pair, serve_notes):
    """Also in a process that has not written since, so that it gets requests again."""
    client = serve_notes(pair.hosts, lambda config: config.add_sqa_health())
    assert client.get("/healthz").json["databases"] == {"default": "ok"}
    pair.writer()
    assert client.get("/healthz", status=503).json["databases"] == {"default": "down"}
    pair.writer(pair.second)

    assert client.get("/healthz").json["databases"] == {"default": "ok"}
    assert get_sqa(client.app).stats().databases["default"].host == pair.hosts[1]


READ_ONLY = "ALTER DATABASE {} SET default_transaction_read_only = {}"


@pytest.mark.parametrize("driver", drivers("postgresql+psycopg", "postgresql+psycopg2"))
def test_on_postgresql_the_first_host_that_takes_writes_is_used(
    postgresql, serve_notes, nowhere, driver, caplog
):
    """The driver itself asks; a server from 14 on says it as it greets."""
    port = postgresql._engine.url.port  # noqa: SLF001 - the server's
    name = postgresql._engine.url.database  # noqa: SLF001 - as above
    postgresql.run("CREATE TABLE note (body VARCHAR(50))")
    url = f"{driver}://postgres@/{name}"
    client = serve_notes([nowhere, f"localhost:{port}", f"127.0.0.1:{port}"], url=url)
    client.get("/write?body=first")
    assert get_sqa(client.app).stats().databases["default"].host == f"localhost:{port}"
    get_sqa(client.app).dispose()
    postgresql.run(READ_ONLY.format(name, "on"))
    try:
        client.get("/write?body=never", status=503)
    finally:
        outside = create_engine(postgresql.url, poolclass=NullPool)
        with outside.begin() as connection:
            connection.execute(text("SET TRANSACTION READ WRITE"))
            connection.execute(text(READ_ONLY.format(name, "off")))
    client.get("/write?body=second")

    assert postgresql.rows("SELECT body FROM note") == [("first",), ("second",)]
    [line] = [text for text in caplog.messages if "no database" in text]
    assert line.count("session is read-only") == 2
    assert f"{nowhere}: " in line


def test_a_listener_of_the_application_is_asked_for_each_host(postgresql, engine, nowhere):
    """It may put a password there that is made for that host, or connect by itself."""
    url = postgresql._engine.url  # noqa: SLF001 - the server's address
    found = engine(
        nowhere, f"127.0.0.1:{url.port}", url=f"postgresql+psycopg://postgres@/{url.database}"
    )
    asked = []

    def listener(_dialect, _record, _args, kwargs):
        asked.append(f"{kwargs['host']}:{kwargs['port']}")

    event.listen(found, "do_connect", listener)
    found.connect().close()

    assert asked == [nowhere, f"127.0.0.1:{url.port}"]
