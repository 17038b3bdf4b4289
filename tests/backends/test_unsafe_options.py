"""An option that would break the promises of a transaction is refused."""

import sqlite3
from importlib.util import find_spec

import pymysql
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyramid.response import Response
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import AssertionPool, NullPool, QueuePool, SingletonThreadPool, StaticPool
from webtest import TestApp

from pyramid_aalam_sqa import SettingError, engine_from_settings
from pyramid_aalam_sqa.backends import Backend
from pyramid_aalam_sqa.settings.options import ENGINE_OPTIONS
from support.apps import application, make_app, with_view
from support.drivers import marked

needs_mysqlclient = pytest.mark.skipif(
    find_spec("MySQLdb") is None, reason="Tests of mysqlclient skipped: not installed."
)
MYSQL = "mysql+pymysql://host/base"
MYSQLDB = "mysql+mysqldb://host/base"
PSYCOPG = "postgresql+psycopg://host/base"
PSYCOPG2 = "postgresql+psycopg2://host/base"
FILE = "sqlite:////nowhere/base.sqlite"
AT_ONCE = "every statement would be stored at once, and an error answer could not undo it"
REFUSED = [
    *((url, "isolation_level", "AUTOCOMMIT", AT_ONCE) for url in (MYSQL, MYSQLDB, PSYCOPG, FILE)),
    (MYSQL, "isolation_level", "autocommit", AT_ONCE),
    (FILE, "execution_options", '{"isolation_level": "AUTOCOMMIT"}', AT_ONCE),
    (PSYCOPG2, "execution_options", {"isolation_level": "AutoCommit"}, AT_ONCE),
    (MYSQL, "connect_args.autocommit", "true", AT_ONCE),
    (MYSQL, "connect_args.autocommit", "1", AT_ONCE),
    (MYSQL, "connect_args", {"autocommit": True}, AT_ONCE),
    (MYSQLDB, "connect_args.autocommit", "yes", AT_ONCE),
    (PSYCOPG, "connect_args.autocommit", "true", AT_ONCE),
    (f"{MYSQL}?autocommit=1", None, None, AT_ONCE),
    # Text is true to a driver, whatever it says.
    (f"{MYSQL}?autocommit=false", None, None, AT_ONCE),
    (f"{PSYCOPG}?autocommit=1", None, None, AT_ONCE),
    (MYSQL, "connect_args.init_command", "SET autocommit = 1", "autocommit, completion_type"),
    (f"{MYSQL}?init_command=SET+autocommit=1", None, None, "autocommit, completion_type"),
    (MYSQL, "connect_args.init_command", "SET default_storage_engine=MyISAM", "storage engine"),
    (MYSQL, "connect_args.init_command", "SET completion_type = CHAIN", "completion_type"),
    (PSYCOPG, "connect_args.options", "-c synchronous_commit=off", "can be lost"),
    (PSYCOPG2, "connect_args.options", "-c session_replication_role=replica", "foreign keys"),
    (f"{PSYCOPG}?options=-csynchronous_commit%3Doff", None, None, "can be lost"),
    (FILE, "connect_args.isolation_level", "null", AT_ONCE),
    (FILE, "connect_args", {"isolation_level": None}, AT_ONCE),
    (FILE, "connect_args.autocommit", "true", "begins and ends the transactions of SQLite itself"),
    (FILE, "connect_args.autocommit", "false", "begins and ends the transactions of SQLite itself"),
    (f"{FILE}?isolation_level=None", None, None, "write DEFERRED, IMMEDIATE or EXCLUSIVE"),
    ("sqlite:///file:x?nolock=1&uri=true", None, None, "overwrite each other's work"),
    ("sqlite:///file:x?vfs=unix-none&uri=true", None, None, "overwrite each other's work"),
    (FILE, "pool_reset_on_return", "none", "left open would go on in the next request"),
    (MYSQL, "pool_reset_on_return", "commit", "left open would go on in the next request"),
    (FILE, "poolclass", "StaticPool", "one would commit what another has"),
    (MYSQL, "poolclass", SingletonThreadPool, "one would commit what another has"),
    (FILE, "pool", StaticPool(lambda: sqlite3.connect(":memory:")), "one would commit what"),
    ("sqlite://", "poolclass", "NullPool", "another, empty database"),
    ("sqlite://", "pool_size", "5", "another, empty database"),
    ("sqlite://", "max_overflow", "10", "another, empty database"),
    ("sqlite://", "pool_recycle", "600", "lost when its connection is closed"),
    (MYSQL, "module", "mysql_connector_stand_in", "is not supported"),
]


class mysql:  # noqa: N801 - stands for the package of that name
    """MySQL's own driver, as a stub, because it is not installed."""

    __name__ = "mysql.connector"

    @staticmethod
    def connect():
        """Do nothing. A driver's module must have this function."""


@pytest.mark.parametrize(
    ("url", "option", "value", "reason"),
    [pytest.param(*case, marks=marked(make_url(case[0]).drivername).marks) for case in REFUSED],
)
def test_an_option_that_breaks_the_promise_stops_the_start_with_the_reason(
    url, option, value, reason
):
    """The error names the setting, and says why and what to write instead."""
    if value == "mysql_connector_stand_in":
        value = mysql()
    given = {} if option is None else {f"sqlalchemy.{option}": value}
    with pytest.raises(Exception, match="sqlalchemy") as caught:
        make_app(url, **given)
    error = getattr(caught.value, "evalue", caught.value)

    assert isinstance(error, SettingError)
    assert (option or "url").partition(".")[0] in str(error)
    assert reason in str(error)


def test_a_missing_journal_of_sqlite_is_refused():
    """Without a journal, a rollback is undefined."""
    with pytest.raises(SettingError, match=r"sqa\.sqlite\.journal_mode: without a journal SQLite"):
        engine_from_settings({"sqlalchemy.url": FILE, "sqa.sqlite.journal_mode": "off"})


@pytest.mark.parametrize(
    "engine",
    [
        create_engine("sqlite://", execution_options={"isolation_level": "AUTOCOMMIT"}),
        create_engine("mysql+mysqlconnector://host/base", module=pymysql),
    ],
)
def test_a_ready_engine_is_checked_too(engine):
    """Its driver and its execution options are checked at start-up."""
    with pytest.raises(SettingError, match=r"sqlalchemy\.engine: .*(AUTOCOMMIT|not supported)"):
        engine_from_settings({"sqlalchemy.engine": engine})


@pytest.mark.parametrize("ready", [True, False])
def test_a_connection_that_comes_in_autocommit_is_refused(sqlite, ready):
    """An application's creator may make such a connection. No option shows it."""
    path = make_url(sqlite.url).database

    def creator():
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    settings = {"sqlalchemy.url": sqlite.url, "sqlalchemy.creator": creator}
    if ready:
        settings["sqlalchemy.engine"] = create_engine(sqlite.url, creator=creator)
    engine = engine_from_settings(settings)
    with pytest.raises(SettingError, match="a new connection is in AUTOCOMMIT"):
        engine.connect()
    engine.dispose()


@needs_mysqlclient
def test_an_option_file_that_sets_autocommit_is_found_by_its_connection(mariadb_server, tmp_path):
    """Mysqlclient reads init-command from the option file."""
    file = tmp_path / "my.cnf"
    file.write_text("[client]\ninit-command = SET autocommit = 1\n")
    url = mariadb_server.url().replace("pymysql", "mysqldb")
    settings = {
        "sqlalchemy.url": url,
        "sqlalchemy.connect_args.read_default_file": str(file),
        # None leaves to the server what the file has set.
        "sqlalchemy.connect_args.autocommit": "null",
    }
    engine = engine_from_settings(settings)
    with pytest.raises(SettingError, match="a new connection is in AUTOCOMMIT"):
        engine.connect()
    engine.dispose()


# Values of each option of create_engine, among them those that a user might try.
VALUES = {
    "isolation_level": ["AUTOCOMMIT", "autocommit", "SERIALIZABLE", "READ UNCOMMITTED"],
    "execution_options": [
        {"isolation_level": "AUTOCOMMIT"},
        {"isolation_level": "READ UNCOMMITTED"},
        {"autocommit": True},
        {"stream_results": True},
        {"yield_per": 1},
        {"no_parameters": True},
    ],
    "connect_args": [
        {"isolation_level": None},
        {"isolation_level": ""},
        {"isolation_level": "IMMEDIATE"},
        {"isolation_level": "EXCLUSIVE"},
        {"autocommit": True},
        {"timeout": 0.1},
        {"cached_statements": 0},
        {"check_same_thread": False},
        {"detect_types": 3},
    ],
    "echo": [True],
    "hide_parameters": [True],
    "future": [True],
    "enable_from_linting": [False],
    "insertmanyvalues_page_size": [1],
    "label_length": [6],
    "logging_name": ["shop"],
    "max_identifier_length": [60],
    "max_overflow": [0, 1, 5],
    "module": [sqlite3],
    "paramstyle": ["named", "qmark"],
    "pool_logging_name": ["shop"],
    "pool_pre_ping": [True, False],
    "pool_recycle": [-1, 0, 5],
    "pool_reset_on_return": [None, "commit", "rollback"],
    "pool_size": [0, 1, 2, 5],
    "pool_timeout": [0.5],
    "pool_use_lifo": [True],
    "poolclass": [NullPool, QueuePool, AssertionPool, StaticPool, SingletonThreadPool],
    "query_cache_size": [0],
    "skip_autocommit_rollback": [True, False],
    "use_insertmanyvalues": [False],
    "json_serializer": [repr],
    "json_deserializer": [str],
}
# Objects of the application's own, which are checked by their connections above.
NO_VALUES = {"url", "engine", "creator", "pool", "plugins", "echo_pool"}
SESSION_VALUES = {"expire_on_commit": [True, False], "autoflush": [True, False]}
URL_PARAMETERS = [
    "",
    "?isolation_level=",
    "?isolation_level=None",
    "?isolation_level=EXCLUSIVE",
    "?timeout=1",
    "?cached_statements=0",
    "?autocommit=1",
    "?mode=ro",
    "?check_same_thread=false",
]


def test_every_option_of_create_engine_is_among_the_values():
    """If SQLAlchemy adds an option, this test fails, so that a developer looks at it."""
    assert VALUES.keys() | NO_VALUES == {option.key for option in ENGINE_OPTIONS}


CHOICES = [(f"sqlalchemy.{key}", value) for key, values in VALUES.items() for value in values]
CHOICES += [(f"sqa.session.{key}", value) for key, vs in SESSION_VALUES.items() for value in vs]
CHOICES += [
    ("sqa.sqlite.journal_mode", mode)
    for mode in ("wal", "delete", "truncate", "persist", "memory", "off")
]


def view(request):
    """Store a row, and answer with the given status."""
    request.sqa_session.execute(text("INSERT INTO note VALUES (:body)"), request.params)
    return Response(status=int(request.params["status"]))


def abandon(request):
    """Leave a transaction of the driver open on a pooled connection."""
    connection = request.sqa_session.get_bind().raw_connection()
    connection.cursor().execute("INSERT INTO note VALUES ('abandoned')")
    return Response(status=500)


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from(CHOICES), max_size=3), st.sampled_from(URL_PARAMETERS))
def test_whatever_is_accepted_stores_a_success_and_nothing_else(tmp_path_factory, given, query):
    """The test tries random options of create_engine, the session and the URL on a real file."""
    path = tmp_path_factory.mktemp("accepted") / "base.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE note (body)")
    connection.close()
    setups = with_view(view, name="write"), with_view(abandon, name="abandon")
    settings = {"sqa.lock_timeout": "1", "retry.attempts": "1", **dict(given)}
    try:
        with application(f"sqlite:///{path}{query}", *setups, **settings) as app:
            client = TestApp(app)
            told = []
            for body, status in (("stored", 200), ("refused", 409), ("failed", 500)):
                answer = client.post("/write", {"body": body, "status": status}, status="*")
                told.append((body, answer.status_int))
            client.get("/abandon", status="*")
            answer = client.post("/write", {"body": "later", "status": 200}, status="*")
            told.append(("later", answer.status_int))
    except Exception:  # noqa: BLE001 - the start was refused, or the driver refused to connect
        told = [(body, 500) for body in ("refused", "failed")]
    with sqlite3.connect(path) as connection:
        found = {row[0] for row in connection.execute("SELECT body FROM note")}
    connection.close()
    promised = {body for body, status in told if status < 400}
    broken = {body for body, status in told if status >= 400}

    assert promised <= found
    assert not broken & found
    assert "abandoned" not in found


def test_a_driver_that_takes_any_argument_is_not_asked(sqlite):
    """The package knows only the signature of an unknown product's driver."""
    backend = Backend(make_url("unknown://host"), {"retry_codes": None})

    assert backend.driver_arguments(type("driver", (), {"connect": lambda **_: None})) is None
    assert "host" in backend.driver_arguments(pymysql)
