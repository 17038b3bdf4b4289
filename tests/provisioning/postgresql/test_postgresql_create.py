"""On PostgreSQL `psqa create` makes a schema and two roles, under any name, all or nothing."""

import threading

import pytest
from sqlalchemy import Column, Integer, MetaData, Table
from sqlalchemy.engine import make_url

from pyramid_aalam_sqa.exceptions import ProvisioningError
from pyramid_aalam_sqa.provisioning import Provisioning, Step
from pyramid_aalam_sqa.provisioning.postgresql.server import PostgreSQLServer
from support.ordinary_user import STATUSES, home, whole_life
from support.postgresql_site import problems


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
    steps = [*provisioning.plan(), Step("SELECT 1 / 0", "a wrong step")]
    server = PostgreSQLServer(provisioning.tenant, site.here, wait=1)

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


@pytest.mark.deep
def test_an_ordinary_user_needs_no_sudo(site):
    """Every command in a process of that user, who has the administrator's URL."""
    url = site.admin.url.replace("postgres@", "users_own@")
    with home() as folder:
        file = f"sqa.password_file = {folder}/password"
        told = whole_life(folder, url, file, admin_url=site.admin.url)
        password = (folder / "password").read_text()

    assert [each.status for each in told] == STATUSES
    assert {each.err for each in told} == {""}
    assert told[3].out == "Nothing is wrong.\n"
    assert told[5].lines[0] == "Nothing to change."
    assert password != "first\n"
    assert "users_own" not in site.roles()


def test_without_a_url_the_administrator_logs_in_on_the_socket(site, monkeypatch):
    """As the user of the system, in the application's database, on the application's port."""
    monkeypatch.setenv("PGUSER", "postgres")
    folder = str(site.server.folder)
    address = f"/{site.database}?host={folder}&port={site.server.port}"
    url = f"postgresql+psycopg://aalam_base:x@{address}"

    with Provisioning(site.settings(**{"sqlalchemy.url": url})) as provisioning:
        assert list(provisioning.apply())


def test_the_administrator_logs_in_through_psycopg_whatever_the_application_does(site):
    """Another driver cannot hash a password."""
    other = make_url("postgresql+psycopg2://postgres@far/postgres")
    url = PostgreSQLServer.administrator_url(site.provisioning().tenant, other)

    assert str(url) == f"postgresql+psycopg://postgres@far/{site.database}"


@pytest.mark.parametrize(
    "user",
    ["quote\"s 'n' 100%s %(x)s", "back\\slash\nline", "Größe $$; :name", "current_user"],
)
@pytest.mark.sweep(1)
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
@pytest.mark.sweep(2)
def test_an_account_that_belongs_to_another_use_is_refused(pair, user, words):
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
    assert site.create() == ['ALTER ROLE "aalam_base__own" NOLOGIN PASSWORD NULL']


def test_two_runs_in_one_database_wait_for_each_other(site):
    """Both change the privileges on the database, and one of them would fail."""
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


def test_a_run_that_never_ends_is_not_waited_for_for_ever(site):
    """The other one says why it does nothing."""
    with (
        PostgreSQLServer(site.provisioning().tenant, site.here, wait=1).locked(),
        pytest.raises(ProvisioningError, match="Another psqa is at work in"),
    ):
        list(Provisioning(site.settings(), site.admin.url, wait=0.01).apply())
