"""While the database cannot be used the application says so, and it recovers by itself."""

import importlib
import signal
import socket
import threading
from contextlib import ExitStack, contextmanager

import pymysql
import pytest
from pyramid.events import NewRequest
from pyramid.exceptions import PredicateMismatch
from pyramid.response import Response
from pyramid.tweens import EXCVIEW
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool
from webtest import TestApp

from pyramid_aalam_sqa import IDatabaseUnavailable, get_sqa
from pyramid_aalam_sqa.settings.options import all_options
from support.apps import with_view
from support.databases import MISSING, Database
from support.models import INSERT
from support.pages import ROOT, blocks
from support.servers import MariaDB, PostgreSQL, find, free_port

ERROR_KINDS = ROOT / "docs" / "faults.md"
SECRETS = ["127.0.0.1", "top-secret", "notes_db", "select", "insert", "pymysql", "psycopg", "error"]
MYSQL = "mysql+pymysql://app:top-secret@127.0.0.1:{port}/notes_db"
POSTGRESQL = "postgresql+psycopg://app:top-secret@127.0.0.1:{port}/notes_db"
# Generous: what is bounded ends long before, what is not would never end.
BOUND = 30


class OwnMariaDB:
    """A server of this module alone, and an account that is no administrator's."""

    kind = "mariadb"

    def __init__(self):
        self.server = MariaDB(
            "--innodb-flush-log-at-trx-commit=1",
            # Cannot be set later when it was not set before.
            "--max-user-connections=100",
        )

    def start(self):
        self.server.start()
        self.url = MYSQL.format(port=self.server.port)
        self.admin = Database(self.server.url("notes_db"))
        Database(self.server.url()).run(
            "CREATE DATABASE notes_db",
            "CREATE USER app@'127.0.0.1' IDENTIFIED BY 'top-secret'",
            "GRANT ALL ON notes_db.* TO app@'127.0.0.1'",
        )

    def stop(self, how):
        if how == "killed":
            self.server.kill()
        else:
            self.server.stop()


class OwnPostgreSQL:
    """The same on PostgreSQL."""

    kind = "postgresql"

    def __init__(self):
        self.server = PostgreSQL()

    def start(self):
        self.server.start()
        self.url = POSTGRESQL.format(port=self.server.port)
        self.admin = Database(self.server.url("notes_db"))
        outside = create_engine(self.server.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with outside.connect() as connection:
            connection.execute(text("CREATE ROLE app LOGIN PASSWORD 'top-secret'"))
            connection.execute(text("CREATE DATABASE notes_db OWNER app"))

    def stop(self, how):
        # SIGTERM would wait until the clients have gone.
        self.server.process.send_signal(signal.SIGQUIT if how == "killed" else signal.SIGINT)
        self.server.process.wait(BOUND)


def own(program, make):
    if find(program) is None:
        pytest.skip(MISSING[program])
    site = make()
    try:
        site.start()
        site.admin.run("CREATE TABLE note (body VARCHAR(50))")
        if site.kind == "postgresql":
            site.admin.run("GRANT ALL ON note TO app")
        yield site
    finally:
        if site.server.process is not None and site.server.process.poll() is None:
            site.stop("stopped")
        site.server.remove()


@pytest.fixture(scope="module")
def own_mariadb():
    yield from own("mariadbd", OwnMariaDB)


@pytest.fixture(scope="module")
def own_postgresql():
    yield from own("initdb", OwnPostgreSQL)


@pytest.fixture
def maria(own_mariadb):
    own_mariadb.admin.run("DELETE FROM note")
    return own_mariadb


@pytest.fixture
def postgres(own_postgresql):
    own_postgresql.admin.run("DELETE FROM note")
    return own_postgresql


@pytest.fixture(params=["maria", "postgres"])
def site(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def attempts():
    """The requests that reached a view, one for each attempt."""
    return []


@pytest.fixture
def serve(serve, attempts):
    """Make a client of an application that reads and writes the table note."""
    engines = []

    def read(request):
        attempts.append("read")
        return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM note"))))

    def write(request):
        attempts.append("write")
        request.sqa_session.execute(INSERT, {"body": request.params["body"]})
        return Response()

    def make(url, *setups, **settings):
        own = (with_view(read, name="read"), with_view(write, name="write"))
        app = serve(url, *own, *setups, **{"sqa.retry_pause": "0", **settings})
        engines.append(get_sqa(app).engine)
        return TestApp(app)

    yield make
    for engine in engines:
        assert not hasattr(engine.pool, "checkedout") or engine.pool.checkedout() == 0


def unavailable(client, path, **options):
    """Get the 503 of *path*, which tells when to come back and gives nothing away."""
    response = client.get(path, status=503, **options)
    assert response.headers["Retry-After"] == "5"
    shown = f"{response.headers} {response.text}".lower()
    assert [secret for secret in SECRETS if secret in shown] == []
    return response


def lines(caplog):
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "pyramid_aalam_sqa.requests.service_unavailable"
    ]


@pytest.mark.parametrize("url", [MYSQL, POSTGRESQL], ids=["mysql", "postgresql"])
def test_where_nothing_listens_the_answer_is_503_at_once_and_the_log_says_why(
    serve, attempts, caplog, url
):
    """Trying again at once would not help, so that nothing is tried twice."""
    client = serve(url.format(port=free_port()))
    unavailable(client, "/read?secret=top-secret")

    assert attempts == ["read"]
    [(level, line)] = lines(caplog)
    assert level == "ERROR"
    assert line.startswith("GET /read: no database: ")
    assert "refused" in line
    assert "top-secret" not in line
    assert "SELECT" not in line


@pytest.mark.parametrize("url", [MYSQL, POSTGRESQL], ids=["mysql", "postgresql"])
def test_a_server_that_accepts_and_never_answers_is_given_up(serve, attempts, url):
    """The driver's own time limit ends the wait, and the answer is a 503."""
    limit = "read_timeout" if url == MYSQL else "connect_timeout"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = serve(
            url.format(port=silent.getsockname()[1]),
            # psycopg waits two seconds at least.
            **{f"sqlalchemy.connect_args.{limit}": "1" if url == MYSQL else "2"},
        )
        thread = threading.Thread(target=unavailable, args=(client, "/read"), daemon=True)
        thread.start()
        thread.join(BOUND)

    assert not thread.is_alive()
    assert attempts == ["read"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/html"),
        (None, "text/plain"),
        ("text/html", "text/html"),
        ("application/json", "application/json"),
        ("text/plain", "text/plain"),
    ],
)
def test_the_503_is_html_json_or_text_as_the_client_accepts(serve, accept, kind):
    """It is negotiated as Pyramid negotiates its own errors."""
    client = serve(MYSQL.format(port=free_port()))
    response = unavailable(client, "/read", headers={"Accept": accept} if accept else {})

    assert response.content_type == kind
    if kind == "application/json":
        assert response.json["code"] == "503 Service Unavailable"


@pytest.mark.parametrize("seconds", ["0", "120"])
def test_sqa_retry_after_is_what_the_503_asks_for(serve, seconds):
    """The header follows the setting."""
    client = serve(MYSQL.format(port=free_port()), **{"sqa.retry_after": seconds})
    response = client.get("/read", status=503)

    assert response.headers["Retry-After"] == seconds


@pytest.mark.parametrize("context", [Exception, DBAPIError, OperationalError, PoolTimeout])
def test_a_view_for_every_error_leaves_the_503_alone(serve, context):
    """A catch-all page, or one for SQLAlchemy's errors, would answer 500 without Retry-After."""

    def catch_all(config):
        config.add_exception_view(lambda error, request: Response(status=500), context=context)

    unavailable(serve(MYSQL.format(port=free_port()), catch_all), "/read")


def own_page(error, request):
    return Response("our own page", status=503)


def pages(config):
    config.add_exception_view(own_page, context=IDatabaseUnavailable)
    config.add_exception_view(own_page, context=PoolTimeout)


def included_pages(config):
    config.include(pages)


@pytest.mark.parametrize("setup", [pages, included_pages])
def test_the_applications_own_view_takes_the_place_of_the_503(serve, sqlite, setup):
    """Whether it is added by the application or by a module that the application includes."""
    refused = serve(MYSQL.format(port=free_port()), setup)
    exhausted = serve(sqlite.url, setup, **POOL_OF_ONE)

    assert refused.get("/read", status=503).text == "our own page"
    with get_sqa(exhausted.app).engine.connect():
        assert exhausted.get("/read", status=503).text == "our own page"


def test_the_applications_own_view_may_be_for_some_requests_only(serve):
    """With a predicate that does not fit, ours answers."""

    def some(config):
        config.add_exception_view(own_page, context=IDatabaseUnavailable, request_param="own")

    client = serve(MYSQL.format(port=free_port()), some)

    assert client.get("/read?own=1", status=503).text == "our own page"
    unavailable(client, "/read")


POOL_OF_ONE = {
    "sqlalchemy.pool_size": "1",
    "sqlalchemy.max_overflow": "0",
    "sqlalchemy.pool_timeout": "0.2",
}


def test_when_all_connections_are_in_use_the_next_request_gets_503(
    serve, database, attempts, caplog
):
    """One thread holds the only connection; the other waits for pool_timeout and no longer."""
    database.run("CREATE TABLE note (body VARCHAR(50))")
    holding, release = threading.Event(), threading.Event()
    held = []

    def hold(request):
        request.sqa_session.execute(INSERT, {"body": "held"})
        holding.set()
        assert release.wait(BOUND)
        return Response("held")

    client = serve(database.url, with_view(hold, name="hold"), **POOL_OF_ONE)
    thread = threading.Thread(target=lambda: held.append(client.get("/hold").text))
    thread.start()
    assert holding.wait(BOUND)
    try:
        unavailable(client, "/read")
    finally:
        release.set()
        thread.join(BOUND)

    assert held == ["held"]
    assert client.get("/read").text == "1"
    assert attempts == ["read", "read"]
    [(level, line)] = lines(caplog)
    assert level == "ERROR"
    assert line.startswith("GET /read: no database: QueuePool limit of size 1 overflow 0 reached")


@pytest.mark.parametrize("veto", ["pyramid_aalam_sqa.commit_veto", ""])
def test_a_503_stores_nothing_of_what_the_view_wrote_before(serve, database, veto):
    """It rolls back as every 5xx does, even where tm.commit_veto is blank and all else commits."""
    database.run("CREATE TABLE note (body VARCHAR(50))")

    def write_and_wait(request):
        request.sqa_session.execute(INSERT, {"body": "half"})
        get_sqa(request).engine.connect()

    client = serve(
        database.url,
        with_view(write_and_wait, name="half"),
        **POOL_OF_ONE,
        **{"tm.commit_veto": veto},
    )
    unavailable(client, "/half")
    client.get("/write?body=whole")

    assert database.rows("SELECT body FROM note") == [("whole",)]


def test_a_wrong_password_is_a_503_whose_reason_is_in_the_log(serve, maria, attempts, caplog):
    """Error 1045 is for whoever administers the server; the request is not tried again."""
    unavailable(serve(maria.url.replace("top-secret", "wrong")), "/read")

    assert attempts == ["read"]
    [(level, line)] = lines(caplog)
    assert level == "ERROR"
    assert "1045" in line


def test_a_database_that_does_not_exist_is_a_503_whose_reason_is_in_the_log(serve, maria, caplog):
    """So is error 1044 or 1049: it was dropped, or not made yet."""
    unavailable(serve(maria.url.replace("notes_db", "nowhere")), "/read")

    [(_level, line)] = lines(caplog)
    assert "1044" in line


def test_what_a_statement_is_denied_is_an_error_and_no_outage(serve, maria):
    """The application asked for another's database: to wait does not help."""

    def enter(request):
        request.sqa_session.execute(text("USE mysql"))

    client = serve(maria.url, with_view(enter, name="enter"))
    with pytest.raises(OperationalError, match="1044"):
        client.get("/enter")


def test_on_postgresql_the_log_tells_a_missing_database_from_a_missing_server(
    serve, postgres, caplog
):
    """Its driver has no code for why it could not connect, so that both are a 503."""
    unavailable(serve(postgres.url.replace("notes_db", "nowhere")), "/read")

    [(_level, line)] = lines(caplog)
    assert 'database "nowhere" does not exist' in line


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_an_application_outlives_its_server(serve, site, attempts, how):
    """200, then 503 while the server is down, then 200 again: the same application throughout."""
    client = serve(site.url)
    client.get("/write?body=before")
    assert client.get("/read").text == "1"
    site.stop(how)
    attempts.clear()
    for _ in range(3):
        unavailable(client, "/read")
        unavailable(client, "/write?body=never")
    assert attempts == ["read", "write"] * 3
    site.server.start()

    assert client.get("/read").text == "1"
    client.get("/write?body=after")
    assert site.admin.rows("SELECT body FROM note ORDER BY body") == [("after",), ("before",)]


def test_an_application_starts_while_its_database_is_down(serve, site):
    """The first request after the server has come up is served."""
    site.stop("stopped")
    client = serve(site.url)
    unavailable(client, "/read")
    site.server.start()

    assert client.get("/read").text == "0"


def test_a_server_that_dies_under_a_request_stores_nothing_and_answers_503(
    serve, site, attempts, caplog
):
    """The lost connection is tried again, the refused one is not, and one line says what it was."""

    def interrupted(request):
        attempts.append("write")
        request.sqa_session.execute(INSERT, {"body": "half"})
        site.stop("killed")
        request.sqa_session.execute(INSERT, {"body": "other half"})
        return Response()

    client = serve(site.url, with_view(interrupted, name="interrupted"))
    client.get("/read")
    attempts.clear()
    unavailable(client, "/interrupted")
    site.server.start()

    assert attempts == ["write", "write"]
    assert client.get("/read").text == "0"
    assert [level for level, _line in lines(caplog)] == ["ERROR"]


@contextmanager
def read_only(site):
    """Have the server refuse writes, as after a switchover to another one."""
    on, off = {
        "mariadb": ("SET GLOBAL read_only = ON", "SET GLOBAL read_only = OFF"),
        "postgresql": (
            "ALTER DATABASE notes_db SET default_transaction_read_only = on",
            "ALTER DATABASE notes_db RESET default_transaction_read_only",
        ),
    }[site.kind]
    site.admin.run(on)
    try:
        yield
    finally:
        # The administrator's own session would be read-only too.
        allowed = "SET TRANSACTION READ WRITE"
        site.admin.run(*([allowed] if site.kind == "postgresql" else []), off)


def test_a_read_only_server_serves_reads_and_answers_writes_with_503(serve, site, attempts):
    """Writes are tried again, on other connections, and work as soon as the server takes them."""
    client = serve(site.url)
    if site.kind == "mariadb":
        client.get("/write?body=before")
    with read_only(site):
        attempts.clear()
        for _ in range(2):
            unavailable(client, "/write?body=never")
            assert client.get("/read").text == str(int(site.kind == "mariadb"))
        assert attempts == [*["write"] * 3, "read"] * 2
    client.get("/write?body=after")

    told = {"mariadb": [("after",), ("before",)], "postgresql": [("after",)]}[site.kind]
    assert site.admin.rows("SELECT body FROM note ORDER BY body") == told


def test_a_pool_of_connections_to_a_read_only_server_heals_within_one_request(
    serve, postgres, attempts
):
    """The connection that was read-only when it was made is dropped, and the request succeeds."""
    client = serve(postgres.url)
    with read_only(postgres):
        client.get("/read")
    attempts.clear()
    client.get("/write?body=after")

    assert attempts == ["write", "write"]
    assert postgres.admin.rows("SELECT body FROM note") == [("after",)]


def connect(site):
    """A connection of the application's own account, by the driver alone."""
    return pymysql.connect(
        host="127.0.0.1",
        port=site.server.port,
        user="app",
        password="top-secret",
        database="notes_db",
    )


def take_all_connections(site, stack):
    while True:
        stack.callback(connect(site).close)


def wait_for_room(site):
    """The server counts a connection for a moment longer than its client has it."""
    for _ in range(1000):
        try:
            connect(site).close()
        except pymysql.err.OperationalError:
            continue
        return
    raise AssertionError


FULL = {
    "1040": ("SET GLOBAL max_connections = 10", "SET GLOBAL max_connections = 200"),
    "1203": ("SET GLOBAL max_user_connections = 1", "SET GLOBAL max_user_connections = 100"),
    "1226": (
        "ALTER USER app@'127.0.0.1' WITH MAX_USER_CONNECTIONS 1",
        "ALTER USER app@'127.0.0.1' WITH MAX_USER_CONNECTIONS 0",
    ),
}


@pytest.mark.parametrize("code", FULL)
def test_a_server_without_a_free_connection_answers_503_until_it_has_one(
    serve, maria, attempts, caplog, code
):
    """No connection at all (1040), or none for this account (1203, 1226)."""
    client = serve(maria.url)
    limit, reset = FULL[code]
    with ExitStack() as stack:
        maria.admin.run(limit)
        stack.callback(maria.admin.run, reset)
        with ExitStack() as others:
            with pytest.raises(pymysql.err.OperationalError, match=code):
                take_all_connections(maria, others)
            unavailable(client, "/read")
        wait_for_room(maria)

        assert client.get("/read").text == "0"
        get_sqa(client.app).engine.dispose()

    assert attempts == ["read", "read"]
    [(_level, line)] = lines(caplog)
    assert code in line


def test_an_account_without_a_free_connection_on_postgresql_answers_503(serve, postgres, attempts):
    """The same on PostgreSQL, 53300."""
    postgres.admin.run("ALTER ROLE app CONNECTION LIMIT 1")
    client = serve(postgres.url)
    other = create_engine(postgres.url, poolclass=NullPool)
    with other.connect():
        unavailable(client, "/read")
    postgres.admin.run("ALTER ROLE app CONNECTION LIMIT -1")

    assert client.get("/read").text == "0"
    assert attempts == ["read", "read"]


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("mysql+pymysql://h/d", {"connect_timeout": 5, "read_timeout": 60, "write_timeout": 60}),
        ("postgresql+psycopg://h/d", {"connect_timeout": 5}),
        ("sqlite:///file.sqlite", {"timeout": 10}),
    ],
    ids=["mysql", "postgresql", "sqlite"],
)
def test_every_wait_of_the_driver_and_of_the_pool_is_bounded_by_default(
    serve, monkeypatch, tmp_path, url, arguments
):
    """Without a line in the ini file nothing waits for ever."""
    monkeypatch.chdir(tmp_path)
    engine = get_sqa(serve(url).app).engine
    given = {}

    def look(*_arguments, **options):
        given.update(options)
        raise ConnectionRefusedError

    monkeypatch.setattr(engine.dialect, "connect", look)
    with pytest.raises(ConnectionRefusedError):
        engine.connect()

    assert given.items() >= arguments.items()
    assert engine.pool.timeout() == 5


def test_every_wait_of_the_server_is_bounded_by_default(serve, any_database):
    """Each server says itself how long a statement may wait for a lock, and how long it may run."""
    asked, bounds = {
        "mysql": (
            "SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout, @@max_statement_time",
            (10, 10, 55),
        ),
        "postgresql": (
            "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')",
            ("10s", "55s"),
        ),
        "sqlite": ("PRAGMA busy_timeout", (10000,)),
    }[any_database.kind]
    with get_sqa(serve(any_database.url).app).engine.connect() as connection:
        assert tuple(connection.execute(text(asked)).one()) == bounds


def test_every_bound_is_in_the_table_of_settings():
    """With its meaning, so that it can be found and changed."""
    bounds = {"sqlalchemy.pool_timeout", "sqlalchemy.connect_args"}
    bounds |= {"sqa.lock_timeout", "sqa.statement_timeout", "sqa.retry_after"}

    assert bounds <= {option.key for option in all_options() if option.meaning}


def test_the_views_of_the_faults_page_work(serve, sqlite, tmp_path, monkeypatch, capsys):
    """What is stored is confirmed, the rows are streamed, the page of the application wins."""
    (tmp_path / "page_of_faults.py").write_text("\n".join(blocks(ERROR_KINDS, "python")))
    monkeypatch.syspath_prepend(tmp_path)
    page = importlib.import_module("page_of_faults")
    sqlite.run("CREATE TABLE note (body VARCHAR(50))")

    def setup(config):
        config.add_view(page.order, name="order")
        config.add_view(page.export, name="export")
        config.scan(page)

    client = serve(sqlite.url, setup, **POOL_OF_ONE)
    client.get("/order?address=me")
    client.get("/charge")

    assert capsys.readouterr().out == "a mail to me\n"
    assert client.get("/export").text == "charged\nordered\n"
    with get_sqa(client.app).engine.connect():
        response = client.get("/read", status=503)
    assert (response.text, response.headers["Retry-After"]) == ("Back in a minute", "60")


def broken_tween(handler, registry):
    def tween(request):
        if "before" in request.params:
            request.sqa_session.scalar(text("SELECT 1"))
        response = handler(request)
        if "after" in request.params:
            request.sqa_session.scalar(text("SELECT 1"))
        return response

    return tween


class Users:
    """A security policy that asks the database who the user is."""

    def authenticated_userid(self, request):
        return request.sqa_session.scalar(text("SELECT 'me'")) if "user" in request.params else None

    identity = authenticated_userid

    def permits(self, request, context, permission):
        return True


def above_everything(config):
    config.add_tween(f"{__name__}.broken_tween")


def above_the_exception_views(config):
    config.add_tween(f"{__name__}.broken_tween", over=EXCVIEW)


def above_the_transaction(config):
    config.add_tween(f"{__name__}.broken_tween", over="pyramid_tm.tm_tween_factory")


def secure(config):
    config.set_security_policy(Users())


def failing_subscriber(config):
    config.add_subscriber(
        lambda event: event.request.sqa_session.scalar(text("SELECT 1")), NewRequest
    )


def failing_root(config):
    config.set_root_factory(lambda request: request.sqa_session.scalar(text("SELECT 1")))


@pytest.mark.parametrize(
    "case",
    [
        (above_everything, "before", {}),
        (above_everything, "after", {}),
        (above_the_exception_views, "before", {}),
        (above_the_transaction, "before", {}),
        (above_the_transaction, "after", {}),
        (secure, "user", {"tm.annotate_user": "true"}),
        (failing_subscriber, "", {}),
        (failing_root, "", {}),
    ],
)
@pytest.mark.parametrize("page", [False, True], ids=["ours", "own page"])
def test_a_503_also_answers_an_error_outside_all_views(serve, case, page, caplog):
    """In a tween above the exception views, or where pyramid_tm asks for the user's name."""
    setup, query, settings = case

    def own_page(error, request):
        return Response("closed", status=503)

    def add_page(config):
        if page:
            config.add_exception_view(own_page, context=IDatabaseUnavailable)

    def fine(request):
        return Response("fine")

    view = with_view(fine, name="fine")
    client = serve(MYSQL.format(port=free_port()), setup, view, add_page, **settings)

    if page:
        assert client.get(f"/fine?{query}", status=503).text == "closed"
        assert lines(caplog) == []
    else:
        unavailable(client, f"/fine?{query}")
        assert [level for level, _ in lines(caplog)] == ["ERROR"]


def test_an_error_outside_all_views_that_is_not_the_databases_is_not_answered(serve, sqlite):
    """Nor is one whose page fails: the server answers 500 to both."""

    def mistake(handler, registry):
        def tween(request):
            raise ZeroDivisionError

        return tween

    globals()["mistake"] = mistake
    client = serve(sqlite.url, lambda config: config.add_tween(f"{__name__}.mistake"))
    with pytest.raises(ZeroDivisionError):
        client.get("/read")


@pytest.mark.parametrize("missing", [True, False], ids=["no page", "a page that fails"])
def test_an_unavailable_database_without_a_page_is_the_servers_500(serve, caplog, missing):
    """The error that the server gets is that of the database."""

    def failing_page(error, request):
        if missing:
            raise PredicateMismatch
        raise ZeroDivisionError

    def add_page(config):
        config.add_exception_view(failing_page, context=IDatabaseUnavailable)

    client = serve(MYSQL.format(port=free_port()), above_everything, add_page)
    with pytest.raises(OperationalError):
        client.get("/read?before")

    assert ("The exception view for OperationalError failed" in caplog.text) != missing
