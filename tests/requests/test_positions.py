"""What a client is told of its writes, and where it reads then: on servers without replication.

PostgreSQL can be its own replica: it has reached what it has written. A MariaDB without a log has
no positions, and another one that knows nothing of it can be read from in its place.
"""

import logging
import re

import pytest
from pyramid.response import Response
from sqlalchemy import text
from sqlalchemy.engine import make_url
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa, session_scope
from pyramid_aalam_sqa.applications import replicas
from pyramid_aalam_sqa.backends import backend_of
from pyramid_aalam_sqa.backends.postgresql import end_of_record
from pyramid_aalam_sqa.debugging import recorded
from support.apps import application
from support.databases import own_database
from support.servers import free_port

SETTINGS = {
    "sqa.reader.secret": "a secret of the tests of positions",
    "sqa.reader.pause": "0",
    "sqa.retry_pause": "0",
    "sqa.mysql.tls": "off",
}
SERVER = "SELECT body FROM server"


def site(config):
    config.add_route("read", "/read", sqa_read_only=True)
    config.add_view(read, route_name="read")
    config.add_view(read, name="plain")
    config.add_view(write, name="write")
    config.add_view(job, name="job")
    config.add_route("many", "/many", sqa_read_only=True)
    config.add_view(many, route_name="many")
    config.add_sqa_health()


def read(request):
    return Response(request.sqa_session.scalar(text(SERVER)))


def many(request):
    rows = request.sqa_stream(text(SERVER))
    return Response(f"{request.sqa_session.scalar(text(SERVER))} {next(rows)[0]}")


def write(request):
    request.sqa_session.execute(text("INSERT INTO note VALUES ('x')"))
    return Response(status=int(request.params.get("status", "200")))


def job(request):
    @session_scope(request, attempts=2)
    def work(session):
        session.execute(text("INSERT INTO note VALUES ('x')"))

    work()
    return Response()


@pytest.fixture(params=["postgresql", pytest.param("mariadb", marks=pytest.mark.deep)])
def kind(request):
    return request.param


@pytest.fixture
def servers(kind, request):
    """Two databases that say which one they are; the second one is read from."""
    if kind == "postgresql":
        own = request.getfixturevalue("postgresql")
        with own_database(request.getfixturevalue("postgresql_server").url()) as other:
            yield _filled(own, other)
    else:
        own = request.getfixturevalue("mariadb")
        with own_database(request.getfixturevalue("second_mariadb_server").url()) as other:
            yield _filled(own, other)


def _filled(*databases):
    for name, database in zip(("writer", "replica"), databases, strict=True):
        database.run(
            "CREATE TABLE note (body VARCHAR(50))",
            "CREATE TABLE server (body VARCHAR(50))",
            f"INSERT INTO server VALUES ('{name}')",
        )
    return databases


@pytest.fixture
def client(servers):
    settings = {**SETTINGS, "sqa.reader.url": servers[1].url}
    with application(servers[0].url, site, **settings) as app:
        yield TestApp(app)


def test_who_has_written_nothing_reads_from_the_replica(client):
    """With the session, a stream, and in each request anew; other requests use the writer."""
    with recorded(client.app) as statements:
        assert client.get("/read").text == "replica"
    [name] = {each.database for each in statements}
    assert re.fullmatch(r"default\.reader 127\.0\.0\.1:\d+", name)
    assert get_sqa(client.app).stats().readers[name].idle == 1
    assert client.get("/many").text == "replica replica"
    assert client.get("/plain").text == "writer"
    assert "Set-Cookie" not in client.get("/read").headers


def test_who_has_written_is_told_the_position(client, kind):
    """In a cookie that scripts of the page cannot read, and in a header. A job counts too."""
    for path in ("/write", "/write?status=404", "/job"):
        response = client.get(path, status="*")
        cookie = response.headers["Set-Cookie"]
        assert cookie.startswith(f"sqa_position={response.headers['Sqa-Position']}; Path=/; ")
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "secure" not in cookie.lower()
    secure = TestApp(client.app).get("/write", extra_environ={"wsgi.url_scheme": "https"})
    assert "secure" in secure.headers["Set-Cookie"].lower()
    # MariaDB keeps no log here, so nothing is known, and the writer serves.
    expected = {"postgresql": "replica", "mariadb": "writer"}[kind]
    assert client.get("/read").text == expected


def test_the_header_serves_a_client_without_cookies(client, kind):
    """It is sent back as it came."""
    header = client.get("/write").headers["Sqa-Position"]
    other = TestApp(client.app)
    expected = {"postgresql": "replica", "mariadb": "writer"}[kind]

    assert other.get("/read", headers={"Sqa-Position": header}).text == expected


@pytest.mark.parametrize("text_of_position", ["nonsense", "AAAA", "\x00"])
@pytest.mark.sweep(1)
def test_a_position_that_cannot_be_read_leads_to_the_writer(client, text_of_position):
    """It was signed by another secret, which this client may have got before."""
    response = client.get("/read", headers={"Cookie": f"sqa_position={text_of_position}"})

    assert response.text == ("replica" if text_of_position == "\x00" else "writer")


def test_a_cookie_that_is_not_text_fails_no_request(client):
    """What was stored before the cookie is read is answered with success."""
    cookie = {"Cookie": r'sqa_position="\377"'}

    assert client.get("/read", headers=cookie).text == "writer"
    assert "Sqa-Position" in client.get("/write", headers=cookie, status=200).headers


@pytest.mark.parametrize("position", ["FFFFFFFF/0", "0-1-999999", "'; DROP TABLE note; --"])
@pytest.mark.sweep(1)
def test_a_replica_without_what_was_written_is_left_alone(client, servers, caplog, position):
    """The writer answers, in the bound; others, who have written nothing, are not sent there."""
    reading = get_sqa(client.app).reading
    [engine] = reading.replicated
    with caplog.at_level(logging.WARNING):
        chosen = reading.choose(engine, {"default": position})

    assert chosen is reading.engine_of(engine)
    [replica] = reading.replicas_of(engine)
    assert replica.lacks == position
    assert "it is behind" in caplog.text
    assert client.get("/read").text == "writer"
    assert client.get("/healthz").json["readers"] == {replica.name: "behind"}


def test_a_replica_is_tried_again_and_used_when_it_has_what_it_lacked(servers, caplog):
    """One request tries it; the pause of the others goes on."""
    settings = {**SETTINGS, "sqa.reader.url": servers[1].url, "sqa.reader.wait": "0.01"}
    with application(servers[0].url, site, **settings) as app:
        client, reading = TestApp(app), get_sqa(app).reading
        [replica] = reading.replicas_of(reading.replicated[0])
        replica.leave_alone("of the test")
        with caplog.at_level(logging.INFO):
            assert client.get("/read").text == "replica"
        assert "is used again" in caplog.text
        assert client.get("/healthz").json["readers"] == {replica.name: "ok"}
        replica._pause = 60  # noqa: SLF001 - so that it is not over
        replica.leave_alone("of the test")
        assert client.get("/read").text == "writer"


def test_a_position_that_is_never_reached_is_forgotten(client, monkeypatch, caplog):
    """A failover may have lost it. One client must not take the replica from all the others."""
    reading = get_sqa(client.app).reading
    [engine] = reading.replicated
    reading.choose(engine, {"default": "FFFFFFFF/0"})
    assert client.get("/read").text == "writer"

    monkeypatch.setattr(replicas, "GIVEN_UP", -1)
    [replica] = reading.replicas_of(engine)
    replica.lacks = ""
    reading.choose(engine, {"default": "FFFFFFFE/0"})

    with caplog.at_level(logging.WARNING):
        assert client.get("/read").text == "replica"
    assert "has not reached a position" in caplog.text
    assert client.get("/healthz").json["readers"] == {replica.name: "ok"}


@pytest.mark.sweep(1)
def test_a_replica_that_is_down_fails_no_request(servers, caplog):
    """Of several, the next one is asked, else the writer; the health view tells."""
    gone = make_url(servers[1].url).set(port=free_port()).render_as_string(hide_password=False)
    for urls, expected in (([gone], "writer"), ([gone, servers[1].url], "replica")):
        settings = {**SETTINGS, "sqa.reader.url": " ".join(urls)}
        with application(servers[0].url, site, **settings) as app:
            client = TestApp(app)
            assert {client.get("/read").text for _ in range(6)} == {expected}
            health = client.get("/healthz").json
            assert health["status"] == "ok"
            assert sorted(health["readers"].values()) == sorted(["down", "ok"][: len(urls)])
    assert "is left alone for 0 seconds" in caplog.text


@pytest.mark.sweep(1)
def test_a_connection_that_is_lost_in_the_middle_is_another_attempt(servers, kind):
    """It is made on the writer, because the replica is left alone."""
    own = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT CONNECTION_ID()"}[kind]
    kill = {"postgresql": "SELECT pg_terminate_backend({})", "mariadb": "KILL {}"}[kind]
    attempts = []

    def view(request):
        session = request.sqa_session
        attempts.append(session.scalar(text(own)))
        if len(attempts) == 1:
            servers[1].rows(kill.format(attempts[0])) if kind == "postgresql" else servers[1].run(
                kill.format(attempts[0])
            )
        return Response(session.scalar(text(SERVER)))

    settings = {**SETTINGS, "sqa.reader.url": servers[1].url, "sqa.reader.pause": "60"}
    setup = lambda config: config.add_view(view, sqa_read_only=True)  # noqa: E731 - short
    with application(servers[0].url, setup, **settings) as app:
        assert TestApp(app).get("/").text == "writer"
    assert len(attempts) == 2


@pytest.mark.sweep(1)
def test_each_bind_has_replicas_of_its_own(servers):
    """A bind without any is read on its own server."""
    settings = {
        **SETTINGS,
        "sqlalchemy.binds.audit.url": servers[0].url,
        "sqlalchemy.binds.audit.pool_size": "2",
        "sqa.binds.audit.reader.url": servers[1].url,
    }

    def view(request):
        sessions = request.sqa_sessions
        return Response(" ".join(sessions[key].scalar(text(SERVER)) for key in sorted(sessions)))

    setup = lambda config: config.add_view(view, sqa_read_only=True)  # noqa: E731 - short
    with application(servers[0].url, setup, **settings) as app:
        assert TestApp(app).get("/").text == "replica writer"
        assert min(get_sqa(app).reading.by_name()).startswith("audit.reader 127.0.0.1:")


@pytest.mark.sweep(1)
def test_an_unreachable_writer_leaves_the_answer_as_it_is(client, monkeypatch, caplog):
    """The position is not known, so the client reads from the writer next time."""
    reading = get_sqa(client.app).reading
    engine = reading.engine_of(reading.replicated[0])
    monkeypatch.setattr(backend_of(engine), "position", _fail)
    assert reading.position_of(reading.replicated[0]) == ""
    assert "The position of default is not known" in caplog.text


def _fail(*_):
    raise OSError


@pytest.mark.sweep(1)
def test_a_very_long_position_is_not_sent(client, monkeypatch):
    """A browser would refuse the cookie."""
    reading = get_sqa(client.app).reading
    engine = reading.engine_of(reading.replicated[0])
    monkeypatch.setattr(backend_of(engine), "position", lambda _: "0" * 3000)

    assert reading.position_of(reading.replicated[0]) == ""


@pytest.mark.sweep(1)
def test_the_positions_of_several_databases_fit_into_one_cookie(servers, monkeypatch):
    """Browsers keep 4096 bytes of a cookie; they ignore a longer one."""
    binds = {f"sqlalchemy.binds.{key}.url": servers[0].url for key in ("a", "b")}
    replicas = {f"sqa.binds.{key}.reader.url": servers[1].url for key in ("a", "b")}
    settings = {**SETTINGS, **binds, **replicas, "sqa.reader.url": servers[1].url}
    # Otherwise the three would have one pool.
    settings |= {
        f"sqlalchemy.binds.{key}.pool_size": size for key, size in (("a", "2"), ("b", "3"))
    }

    def view(request):
        for session in request.sqa_sessions.values():
            session.execute(text("INSERT INTO note VALUES ('x')"))
        return Response()

    setup = lambda config: config.add_view(view)  # noqa: E731 - short
    with application(servers[0].url, setup, **settings) as app:
        reading = get_sqa(app).reading
        for length in (833, 834):
            for each in reading.replicated:
                backend = backend_of(reading.engine_of(each))
                monkeypatch.setattr(backend, "position", lambda _, long=length: "0" * long)
            cookie = TestApp(app).get("/").headers["Set-Cookie"]
            assert (length == 833) == (len(cookie) > 3000)
            assert len(cookie) < 4096


def test_positions_that_were_reached_are_not_asked_for_again(servers, monkeypatch):
    """A thousand of them are remembered, the newest ones; here it is one."""
    monkeypatch.setattr(replicas, "REMEMBERED", 1)
    settings = {**SETTINGS, "sqa.reader.url": servers[1].url}
    with application(servers[0].url, site, **settings) as app:
        reading = get_sqa(app).reading
        [replica] = reading.replicas_of(reading.replicated[0])
        asked = []
        monkeypatch.setattr(
            backend_of(replica.engine), "has_reached", lambda *given: asked.append(given[1]) or True
        )
        for position in ("0/1", "0/1", "0/2", "0/1"):
            assert replica.is_ready(position)

    assert asked == ["0/1", "0/2", "0/1"]


def test_a_replica_whose_pool_is_full_is_passed_over(servers):
    """Nobody waits for its connections while another server has one. It is not left alone."""
    settings = {
        **SETTINGS,
        "sqa.reader.url": servers[1].url,
        "sqlalchemy.pool_size": "1",
        "sqlalchemy.max_overflow": "0",
        "sqlalchemy.pool_timeout": "0.01",
    }
    with application(servers[0].url, site, **settings) as app:
        client, reading = TestApp(app), get_sqa(app).reading
        [replica] = reading.replicas_of(reading.replicated[0])
        with replica.engine.connect():
            assert client.get("/read").text == "writer"
            replica._is_full = bool  # noqa: SLF001 - the last one is taken after it was asked
            assert client.get("/read").text == "writer"
        assert client.get("/read").text == "replica"


@pytest.mark.parametrize(
    ("position", "end"),
    [("0/2000018", "0/2000000"), ("1/28", "1/0"), ("0/16B3748", "0/16B3748")],
)
def test_the_end_of_a_record_is_not_behind_the_header_of_the_next_page(position, end):
    """No replica would get there before the next record is written."""
    assert end_of_record(position) == end
