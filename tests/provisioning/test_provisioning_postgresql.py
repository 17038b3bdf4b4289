"""What psqa makes on a PostgreSQL that asks for passwords, seen by an independent connection."""
# ruff: noqa: SLF001 - what the server class promises and no public call shows

import itertools
import threading
from contextlib import contextmanager

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from pyramid_aalam_sqa.exceptions import ProvisioningError
from pyramid_aalam_sqa.provisioning.provisioning import Provisioning
from support.databases import MISSING, Database, plain_engine
from support.servers import PostgreSQL, find

# Everybody but the administrator is asked for a password.
HBA = """\
local all postgres trust
host all postgres,manager 127.0.0.1/32 trust
host all open_user 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""
DENIED = "42501"
NEIGHBOUR = "aalam_other"
_numbers = itertools.count(1)


class Far(PostgreSQL):
    """One with a second address, to which a connection comes from the first."""

    def command(self):
        return [*super().command(), "-c", "listen_addresses=127.0.0.1,127.0.0.2"]


@pytest.fixture(scope="module")
def server():
    if find("initdb") is None:
        pytest.skip(MISSING["initdb"])
    server = Far()
    try:
        (server.folder / "data" / "pg_hba.conf").write_text(HBA)
        yield server.start()
    finally:
        server.remove()


class Site:
    """A database of one test, two applications that may live there, and their administrator."""

    def __init__(self, server, provider="aalam"):
        self.server = server
        self.provider = provider
        self.database = f"site_{next(_numbers)}"
        self.root = plain_engine(server.url(), isolation_level="AUTOCOMMIT")
        self.asked(self.root, f"CREATE DATABASE {self.database}")
        self.admin = Database(server.url(self.database))
        self.made = []
        self.before = set(self.roles())

    def roles(self):
        return [row[0] for row in self.admin.rows("SELECT quote_ident(rolname) FROM pg_roles")]

    # As hostile as a password may be.
    password = "it's 100% \\ sécret"

    def settings(self, app="base", user=None, password=password, **more):
        url = make_url(self.admin.url)._replace(
            username=user or f"{self.provider}_{app}", password=password
        )
        return {
            "sqlalchemy.url": url.render_as_string(hide_password=False),
            "sqa.provider": self.provider,
            "sqa.app": app,
            **more,
        }

    def provisioning(self, app="base", **more):
        made = Provisioning(self.settings(app, **more), self.admin.url)
        self.made.append(made)
        return made

    def rotation(self, settings):
        self.made.append(Provisioning(settings, self.admin.url))
        return self.made[-1]

    def create(self, app="base", **more):
        provisioning = self.provisioning(app, **more)
        return [str(step) for step in provisioning.apply()]

    def as_application(self, statement, app="base"):
        """Run *statement* as the application, by the driver; return rows, or the SQLSTATE."""
        return self.asked(plain_engine(self.settings(app)["sqlalchemy.url"]), statement)

    @staticmethod
    def asked(engine, statement):
        try:
            with engine.begin() as connection:
                found = connection.execute(text(statement))
                return [tuple(row) for row in found] if found.returns_rows else "done"
        except DBAPIError as error:
            return error.orig.sqlstate

    def table(self, app="base"):
        """Make a table note as the owner, with one row."""
        metadata = MetaData()
        Table(
            "note",
            metadata,
            Column("id", Integer, primary_key=True),
            schema=f"{self.provider}_{app}",
        )
        self.provisioning(app).create_tables(metadata)
        self.admin.run(f"INSERT INTO {self.provider}_{app}.note VALUES (0)")

    def remove(self):
        for made in self.made:
            made.__exit__()
        roles = set(self.roles()) - self.before
        self.asked(self.root, f"DROP DATABASE {self.database} WITH (FORCE)")
        for role in roles:
            self.asked(self.root, f"DROP OWNED BY {role}")
            self.asked(self.root, f"DROP ROLE {role}")
        self.root.dispose()


@pytest.fixture
def site(server):
    site = Site(server)
    yield site
    site.remove()


def problems(site, **more):
    return "\n".join(map(str, site.provisioning(**more).check()))


@pytest.fixture(scope="module")
def pair(server):
    """Two applications that are in order, each with a table note that holds one row."""
    site = Site(server, "near")
    for app in ("base", "other"):
        site.create(app)
        site.table(app)
    yield site
    site.remove()


# From nothing to serving.


def test_an_application_comes_from_nothing_to_its_first_row(site):
    """Roles, schema, privileges and the search_path; nothing is left to do by hand."""
    planned = [str(step) for step in site.provisioning().plan()]
    done = site.create()
    proved = site.provisioning().prove()
    site.table()

    assert planned == done
    assert len(proved) == 4
    assert site.as_application("SELECT * FROM note") == [(0,)]
    assert problems(site) == ""
    # The proof has left nothing behind.
    left = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'"
    assert sorted(site.admin.rows(left)) == [("aalam_base",), ("information_schema",), ("public",)]


def test_create_twice_changes_nothing(site):
    """Not one statement, also when there are tables, sequences, views and a neighbour."""
    site.create()
    site.create("other")
    site.table()
    site.admin.run("CREATE VIEW aalam_base.seen AS SELECT * FROM aalam_base.note")
    site.create()

    assert site.create() == []
    assert site.create("other") == []


def test_no_password_is_shown_or_sent_in_clear(site):
    """The server is told the hash, so that its log has nothing to keep."""
    steps = site.provisioning(password="top-secret").plan()

    [step] = [step for step in steps if "PASSWORD" in str(step)]
    assert str(step) == "ALTER ROLE \"aalam_base\" PASSWORD '***'"
    assert "SCRAM-SHA-256$" in step.statement
    assert "top-secret" not in step.statement + repr(steps)


def test_create_is_done_as_a_whole_or_not_at_all(site):
    """A running application is denied nothing between two of its statements."""
    site.admin.run("CREATE SCHEMA aalam_base AUTHORIZATION postgres")
    provisioning = site.provisioning()
    steps = [*provisioning.plan(), type(provisioning.plan()[0])("SELECT 1 / 0", "a wrong step")]
    server = provisioning._server

    with pytest.raises(ProvisioningError, match="a wrong step: division by zero"):
        list(server.run(steps))
    assert site.admin.rows("SELECT rolname FROM pg_roles WHERE rolname LIKE 'aalam%'") == []


def test_an_administrator_need_not_be_a_superuser(site):
    """One who may make roles and owns the database will do, as in a managed server."""
    site.admin.run(
        "CREATE ROLE manager LOGIN CREATEROLE", f"ALTER DATABASE {site.database} OWNER TO manager"
    )
    url = make_url(site.admin.url).set(username="manager")

    with Provisioning(site.settings(), url) as provisioning:
        assert 'GRANT "aalam_base__own" TO CURRENT_USER' in map(str, provisioning.apply())
        assert provisioning.plan() == []
        assert len(provisioning.prove()) == 4
        assert provisioning.check() == []
        assert list(provisioning.remove())


def test_without_a_url_the_administrator_logs_in_on_the_socket(site, monkeypatch):
    """As the user of the system, in the application's database, on the application's port."""
    monkeypatch.setenv("PGUSER", "postgres")
    folder = str(site.server.folder)
    url = f"postgresql://aalam_base:x@/{site.database}?host={folder}&port={site.server.port}"

    with Provisioning(site.settings(**{"sqlalchemy.url": url})) as provisioning:
        assert list(provisioning.apply())


def test_the_administrator_logs_in_through_psycopg_whatever_the_application_does(site):
    """Another driver cannot hash a password."""
    server = site.provisioning()._server
    other = make_url("postgresql+psycopg2://postgres@far/postgres")
    url = server.administrator_url(server.application, other)

    assert str(url) == f"postgresql+psycopg://postgres@far/{site.database}"


# The neighbour.


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM near_other.note",
        "INSERT INTO near_other.note VALUES (8)",
        "UPDATE near_other.note SET id = 8",
        "DELETE FROM near_other.note",
        "TRUNCATE near_other.note",
        "DROP TABLE near_other.note",
        "CREATE TABLE near_other.mine (id INTEGER)",
        "CREATE VIEW public.mine AS SELECT 1",
        "CREATE SCHEMA near_third",
        "SET ROLE near_other",
        "SET ROLE near_base__own",
        "CREATE TABLE mine (id INTEGER)",
        "DROP TABLE note",
    ],
)
def test_an_application_does_nothing_outside_its_rows(pair, statement):
    """Not in its neighbour's schema, not in public, and no table in its own."""
    assert pair.as_application(statement) == DENIED


def test_an_application_cannot_list_its_neighbours_tables(pair):
    """Its own are listed; the names of schemas are all that the catalogs show."""
    query = "SELECT table_schema FROM information_schema.tables WHERE table_schema LIKE 'near%'"

    assert pair.as_application(query) == [("near_base",)]
    assert pair.as_application(query, "other") == [("near_other",)]


def test_a_role_without_an_application_cannot_connect(pair):
    """The database is not left to PUBLIC."""
    pair.admin.run("CREATE ROLE stranger LOGIN PASSWORD 'x'")
    url = make_url(pair.admin.url).set(username="stranger", password="x")

    with pytest.raises(DBAPIError, match="permission denied for database"):
        plain_engine(url).connect()


# Drift.

DRIFTS = {
    "schema": ("GRANT ALL ON SCHEMA near_other TO near_base", "on schema near_other"),
    "table": ("GRANT SELECT ON near_other.note TO near_base", "table near_other.note"),
    "column": ("GRANT SELECT (id) ON near_other.note TO near_base", "table near_other.note"),
    "view": (
        "CREATE VIEW near_other.v AS SELECT 1; GRANT ALL ON near_other.v TO near_base",
        "view near_other.v",
    ),
    "parameter": ("GRANT SET ON PARAMETER log_statement TO near_base", "parameter ACL"),
    "coming": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE near_other__own GRANT ALL ON TABLES TO near_base",
        "for role near_other__own on tables",
    ),
    "member": ("GRANT near_other TO near_base", "near_base is a member of near_other"),
    "reader": ("GRANT pg_read_all_data TO near_base", "a member of pg_read_all_data"),
    "superuser": ("ALTER ROLE near_base SUPERUSER", "the role near_base is SUPERUSER"),
    "maker": ("ALTER ROLE near_base__own CREATEROLE", "near_base__own is CREATEROLE"),
    "truncate": ("GRANT TRUNCATE ON near_base.note TO near_base", "has TRUNCATE on TABLE"),
    "option": (
        "GRANT SELECT ON near_base.note TO near_base WITH GRANT OPTION",
        "may grant SELECT on TABLE near_base.note",
    ),
    "inside": ("GRANT CREATE ON SCHEMA near_base TO near_base", "CREATE on SCHEMA near_base"),
    "everybody": ("GRANT SELECT ON near_base.note TO PUBLIC", "PUBLIC has SELECT on TABLE"),
    "open": ("GRANT USAGE ON SCHEMA near_base TO PUBLIC", "PUBLIC has USAGE on SCHEMA"),
    "public": ("GRANT CREATE ON SCHEMA public TO PUBLIC", "CREATE on SCHEMA public"),
    "coming to all": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE near_base__own GRANT SELECT ON TABLES TO PUBLIC",
        "PUBLIC has SELECT on new TABLES",
    ),
    "shut": ("REVOKE USAGE ON SCHEMA near_base FROM near_base", "lacks USAGE on SCHEMA"),
    "read-only": ("REVOKE INSERT ON near_base.note FROM near_base", "lacks INSERT on TABLE"),
    "schema's owner": ("ALTER SCHEMA near_base OWNER TO near_base", "belongs to near_base"),
    "table's owner": ("ALTER TABLE near_base.note OWNER TO near_base", "belongs to near_base"),
    "path": (
        "ALTER ROLE near_base IN DATABASE {database} SET search_path = public",
        "the search_path of near_base is not near_base",
    ),
    "locked": ("ALTER ROLE near_base NOLOGIN", "the role near_base may not log in"),
    "expired": ("ALTER ROLE near_base VALID UNTIL '2001-01-01'", "has expired"),
    "password": ("ALTER ROLE near_base PASSWORD 'other'", "the application cannot log in"),
    "database": ("ALTER DATABASE {database} OWNER TO near_base", "belongs to near_base"),
    "making": ("GRANT CREATE ON DATABASE {database} TO near_base", "CREATE on DATABASE"),
}


@pytest.mark.parametrize(("damage", "words"), DRIFTS.values(), ids=DRIFTS)
def test_what_somebody_changed_is_found_and_repaired(pair, damage, words):
    """The check had said so; afterwards there is nothing left to say or to do."""
    pair.admin.run(damage.format(database=pair.database))
    found = problems(pair)
    steps = pair.create()

    assert words in found
    assert steps
    assert problems(pair) == ""
    assert pair.as_application("INSERT INTO note VALUES (8); DELETE FROM note WHERE id = 8")
    assert pair.as_application("SELECT * FROM note") == [(0,)]
    assert pair.as_application("SELECT * FROM near_other.note") == DENIED


FINDINGS = {
    "stranger": (
        "GRANT USAGE ON SCHEMA near_base TO near_other",
        "near_other has privileges on SCHEMA near_base",
        "REVOKE ALL ON SCHEMA near_base FROM near_other",
    ),
    "strange column": (
        "GRANT SELECT (id) ON near_base.note TO near_other",
        "near_other has privileges on TABLE near_base.note",
        "REVOKE ALL ON near_base.note FROM near_other",
    ),
    "becoming": (
        "GRANT near_base__own TO near_other",
        "near_other can become near_base__own",
        "REVOKE near_base__own FROM near_other",
    ),
    "owning": (
        "CREATE TABLE public.t (); ALTER TABLE public.t OWNER TO near_base",
        "near_base owns the table public.t",
        "DROP TABLE public.t",
    ),
    "open": (
        "CREATE TABLE public.t (); GRANT SELECT ON public.t TO PUBLIC",
        "public.t is open to everybody",
        "DROP TABLE public.t",
    ),
    "key": (
        "SET ROLE near_base__own; CREATE TABLE near_base.bare (); RESET ROLE",
        "near_base.bare has no primary key",
        "DROP TABLE near_base.bare",
    ),
    "unlogged": (
        "ALTER TABLE near_base.note SET UNLOGGED",
        "near_base.note is UNLOGGED",
        "ALTER TABLE near_base.note SET LOGGED",
    ),
    "idle": (
        "ALTER ROLE near_base SET idle_session_timeout = '10min'",
        "ends idle connections after 600 seconds",
        "ALTER ROLE near_base RESET idle_session_timeout",
    ),
}


@pytest.mark.parametrize(("act", "words", "undo"), FINDINGS.values(), ids=FINDINGS)
def test_what_may_have_been_meant_is_found_and_left_alone(pair, act, words, undo):
    """The advice says what to do about it."""
    pair.admin.run(act)
    found, steps = problems(pair), pair.create()
    pair.admin.run(undo)

    assert words in found
    assert "near_other" not in " ".join(steps)
    assert problems(pair) == ""


def test_other_databases_are_looked_at(site):
    """Those open to all, and those in which an account of the application has something."""
    site.create()
    site.asked(site.root, "CREATE DATABASE elsewhere")
    try:
        Database(site.server.url("elsewhere")).run(
            "CREATE TABLE t ()", "GRANT ALL ON t TO aalam_base"
        )
        found = problems(site)
    finally:
        site.asked(site.root, "DROP DATABASE elsewhere")

    assert "everybody may connect to the database elsewhere" in found
    assert "aalam_base owns or may do something in the database elsewhere" in found


def test_another_encoding_is_found(site):
    """What a visitor writes need not be in it."""
    site.asked(site.root, f"DROP DATABASE {site.database}")
    site.asked(
        site.root,
        f"CREATE DATABASE {site.database} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
    )

    assert "the database's encoding is LATIN1" in problems(site)


def test_a_connection_that_leaves_the_machine_without_tls_is_found(pair):
    """The two ends have different addresses."""
    url = make_url(pair.settings()["sqlalchemy.url"]).set(host="127.0.0.2")
    far = {"sqlalchemy.url": url.render_as_string(hide_password=False)}

    assert "without TLS" in problems(pair, **far)


def test_a_server_that_asks_for_no_password_is_found(site):
    """Whoever can reach it is every application."""
    user = {"user": "open_user"}
    site.create(**user)

    assert "does not ask open_user for its password" in problems(site, **user)


def test_the_applications_own_account_sees_it_too(pair):
    """The catalogs are open to all, so that nothing is missed without an administrator."""
    pair.admin.run("GRANT TRUNCATE ON near_base.note TO near_base")
    provisioning = pair.provisioning()
    seen = provisioning.check_as_application(), provisioning.check()
    pair.create()

    assert seen[0] == seen[1] != []


# The proof.


@contextmanager
def undone(pair, act, undo):
    """What is done to the pair for one test."""
    pair.admin.run(act)
    yield pair.provisioning()
    pair.admin.run(undo)


def test_the_proof_fails_when_a_role_can_do_less(pair):
    """Here its transactions are read-only, which no privilege tells."""
    act = "ALTER ROLE near_base SET default_transaction_read_only = on"
    undo = "ALTER ROLE near_base RESET default_transaction_read_only"
    with (
        undone(pair, act, undo) as provisioning,
        pytest.raises(ProvisioningError, match="should have worked as near_base: INSERT"),
    ):
        provisioning.prove()


HOOK = """
    CREATE FUNCTION public.hook() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$;
    CREATE EVENT TRIGGER hook ON {} WHEN TAG IN ('{}') EXECUTE FUNCTION public.hook()
"""
OPENING = """
    EXECUTE (SELECT format('GRANT ALL ON SCHEMA %1$s TO PUBLIC;
                            GRANT ALL ON ALL TABLES IN SCHEMA %1$s TO PUBLIC', object_identity)
             FROM pg_event_trigger_ddl_commands() WHERE object_type = 'schema');
"""
FAILING = "IF current_user = 'near_base' THEN PERFORM 1 / 0; END IF;"


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (
            (OPENING, "ddl_command_end", "CREATE SCHEMA"),
            "near_base should have been denied this: S",
        ),
        ((FAILING, "ddl_command_start", "DROP TABLE"), "This should have been denied: DROP TABLE"),
    ],
)
def test_the_proof_fails_when_something_opens_what_is_new(pair, hook, words):
    """It makes a neighbour and enters it, whatever the privileges say."""
    with (
        undone(pair, HOOK.format(*hook), "DROP FUNCTION public.hook CASCADE") as provisioning,
        pytest.raises(ProvisioningError, match=words),
    ):
        provisioning.prove()


@pytest.mark.parametrize("opened", ["SCHEMA near_other", "TABLE near_other.note"])
def test_the_proof_fails_when_a_neighbour_is_open_to_everybody(pair, opened):
    """It is the neighbour that has to be repaired."""
    act, undo = f"GRANT ALL ON {opened} TO PUBLIC", f"REVOKE ALL ON {opened} FROM PUBLIC"
    with (
        undone(pair, act, undo) as provisioning,
        pytest.raises(ProvisioningError, match=r"near_base can see .* not its own"),
    ):
        provisioning.prove()


def test_the_proof_fails_when_a_grant_cannot_be_taken_back(pair):
    """PostgreSQL lets nobody revoke what a third role has granted, and is silent about it."""
    act = (
        "CREATE ROLE third; GRANT USAGE ON SCHEMA near_other TO third WITH GRANT OPTION;"
        "SET ROLE third; GRANT USAGE ON SCHEMA near_other TO near_base; RESET ROLE"
    )
    undo = "REVOKE USAGE ON SCHEMA near_other FROM third CASCADE; DROP ROLE third"
    with undone(pair, act, undo) as provisioning:
        assert list(provisioning.apply())
        with pytest.raises(ProvisioningError, match="schema near_other, still"):
            provisioning.prove()


# Names.


@pytest.mark.parametrize(
    "user",
    ["quote\"s 'n' 100%s %(x)s", "back\\slash\nline", "Größe $$; :name", "current_user"],
)
def test_a_hostile_account_is_a_name_like_others(site, user):
    """In every statement, from the first to the last."""
    more = {"user": user, "password": f"{user}';--"}
    steps = site.create(**more)
    provisioning = site.provisioning(**more)
    proved = provisioning.prove()
    again = provisioning.plan()
    found = provisioning.check()
    list(provisioning.remove())

    assert steps
    assert len(proved) == 4
    assert again == []
    assert found == []
    assert set(site.roles()) == site.before


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("public", "means something else"),
        ("none", "means something else"),
        ("pg_monitor", "means something else"),
        ("x" * 64, "at most 63 bytes"),
        ("ü" * 32, "at most 63 bytes"),
        ("a\0b", "at most 63 bytes"),
        ("postgres", "is an administrator"),
        ("near_other", "is the account of near_other"),
    ],
)
def test_an_account_that_is_no_applications_is_refused(pair, user, words):
    """Before anything is changed, or removed."""
    provisioning = pair.provisioning(user=user)
    for refused in (provisioning.plan, provisioning.plan_removal, provisioning.check):
        with pytest.raises(ProvisioningError, match=words):
            refused()
    with pytest.raises(ProvisioningError, match=words):
        list(provisioning.remove())
    assert pair.as_application("SELECT * FROM note", "other") == [(0,)]


def test_a_url_without_a_database_is_refused(site):
    """The schema is to be in one."""
    url = make_url(site.settings()["sqlalchemy.url"])._replace(database=None)

    with pytest.raises(ProvisioningError, match="it has no database"):
        site.provisioning(**{"sqlalchemy.url": url}).plan()


# The owner account.


def test_the_owner_account_cannot_log_in_unless_it_has_a_password(site):
    """Tables are made by an administrator who becomes it, so that no password is needed."""
    site.create()
    site.table()

    owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'note'"
    assert site.admin.scalar(owner) == "aalam_base__own"
    login = "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'aalam_base__own'"
    assert site.admin.scalar(login) is False


def test_the_owner_account_makes_tables_with_its_password(site):
    """For migrations that have no administrator at hand; the application can use the tables."""
    provisioning = site.provisioning()
    list(provisioning.apply("owner's"))
    metadata = MetaData()
    Table("note", metadata, Column("id", Integer, primary_key=True), schema="aalam_base")
    provisioning.create_tables(metadata, "owner's")

    assert provisioning.plan("owner's") == []
    assert [str(step) for step in provisioning.plan("other")] == [
        'ALTER ROLE "aalam_base__own" LOGIN',
        "ALTER ROLE \"aalam_base__own\" PASSWORD '***'",
    ]
    assert site.as_application("INSERT INTO note VALUES (DEFAULT)") == "done"
    assert site.create() == []


# Several administrators at once.


def test_two_runs_in_one_database_wait_for_each_other(site):
    """Else one of them fails: both change the privileges on the database."""
    barrier = threading.Barrier(3)
    failed = []

    def run(app):
        barrier.wait()
        try:
            site.create(app)
        except ProvisioningError as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=[app]) for app in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert [site.create(app) for app in ("one", "two", "three")] == [[], [], []]


def test_a_run_that_never_ends_is_not_waited_for_for_ever(site, monkeypatch):
    """The other one says why it does nothing."""
    monkeypatch.setattr("pyramid_aalam_sqa.provisioning.postgresql.server.PATIENCE", "10ms")
    with (
        site.provisioning()._server.locked(),
        pytest.raises(ProvisioningError, match="Another run of psqa goes on"),
    ):
        site.create()


# A running application.


def application(settings):
    """A real application that writes a row, and then says how many there are."""

    def write(request):
        request.sqa_session.execute(text("INSERT INTO note VALUES (DEFAULT)"))
        return Response(str(request.sqa_session.scalar(text("SELECT count(*) FROM note"))))

    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(write)
    return config.make_wsgi_app()


def test_drop_with_a_connected_application_leaves_nothing_and_it_answers_503(site):
    """Its connection is ended, a new one is refused, and its neighbour goes on."""
    site.create()
    site.table()
    site.create("other")
    app = application(site.settings())
    client = TestApp(app)
    client.get("/")
    try:
        steps = [str(step) for step in site.provisioning().remove()]
        client.get("/", status=503)
        client.get("/", status=503)
    finally:
        get_sqa(app).dispose()

    assert steps[:2] == ['ALTER ROLE "aalam_base" NOLOGIN', 'ALTER ROLE "aalam_base__own" NOLOGIN']
    assert "pg_terminate_backend" in steps[2]
    assert site.admin.rows("SELECT FROM pg_roles WHERE rolname LIKE 'aalam_base%'") == []
    assert site.admin.rows("SELECT FROM pg_namespace WHERE nspname = 'aalam_base'") == []
    assert site.as_application("SELECT 1", "other") == [(1,)]
    assert site.provisioning().plan_removal() == []
    assert list(site.provisioning().remove()) == []


def test_drop_lets_nobody_in_before_it_ends_the_connections(site):
    """Else one that is made meanwhile would stay."""
    site.create()
    before = site.as_application("SELECT 1")
    removal = site.provisioning().remove()
    next(removal)

    assert before == [(1,)]
    assert "aalam_base" in site.roles()
    assert site.as_application("SELECT 1") is None
    assert list(removal)
    assert "aalam_base" not in site.roles()


def test_drop_keeps_the_database_that_the_account_owns(site):
    """Others may live there."""
    site.create()
    site.admin.run(f"ALTER DATABASE {site.database} OWNER TO aalam_base")
    list(site.provisioning().remove())

    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    assert site.admin.scalar(owner) == "postgres"


def test_the_password_is_rotated_under_constant_requests_and_none_fails(site, tmp_path):
    """Each request makes a connection of its own, and so a login."""
    site.create()
    site.table()
    file = tmp_path / "password"
    file.write_text(site.password)
    settings = site.settings(password=None, **{"sqa.password_file": str(file)})
    rotations = site.rotation(settings)
    app = application({**settings, "sqa.reset_connection": "true", "retry.attempts": "1"})
    start, done = threading.Barrier(4), threading.Event()
    answers = []

    def ask():
        client = TestApp(app)
        start.wait()
        while not done.is_set():
            answers.append(client.get("/", expect_errors=True).status_int)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    start.wait()
    try:
        for _ in range(10):
            list(rotations.rotate())
    finally:
        done.set()
        for thread in threads:
            thread.join()
        get_sqa(app).dispose()

    assert set(answers) == {200}
    assert len(answers) > 20
    assert file.read_text().strip() != site.password
