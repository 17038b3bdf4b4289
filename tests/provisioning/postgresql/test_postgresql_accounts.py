"""On PostgreSQL no role of another application is touched, and no application blocks psqa."""

from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from pyramid_aalam_sqa import ProvisioningError
from pyramid_aalam_sqa.provisioning import Provisioning
from support.databases import Database, plain_engine
from support.postgresql_site import problems

LOCK = 0x737161


def role(site, name):
    return site.admin.rows(
        f"SELECT rolcanlogin, rolpassword IS NULL FROM pg_authid WHERE rolname = '{name}'"
    )


def test_an_owner_role_that_was_there_before_cannot_log_in(site):
    """Whoever made it may know its password."""
    site.create()
    site.admin.run("ALTER ROLE aalam_base__own LOGIN PASSWORD 'old'")
    found, steps = problems(site), site.create()

    assert "the role aalam_base__own may log in, and its password may be known" in found
    assert steps == ['ALTER ROLE "aalam_base__own" NOLOGIN PASSWORD NULL']
    assert role(site, "aalam_base__own") == [(False, True)]


def test_an_owner_role_with_a_password_keeps_it(site):
    """Create and check are told of it, and the proof does not change it."""
    provisioning = site.provisioning()
    list(provisioning.apply("owner's"))

    assert len(provisioning.prove("owner's")) == 4
    assert provisioning.plan("owner's") == []
    assert provisioning.check("owner's") == []
    assert "may log in" in problems(site)


OTHERS = {
    "a schema": "CREATE SCHEMA wiki AUTHORIZATION {role}",
    "a table": "CREATE TABLE public.t (); GRANT SELECT ON public.t TO {role}",
    "a schema's use": "CREATE SCHEMA wiki; GRANT USAGE ON SCHEMA wiki TO {role}",
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("where", ["here", "in another database"])
@pytest.mark.sweep(2)
def test_a_role_that_is_used_elsewhere_is_refused(site, other, where):
    """Before its password is changed, and before it is dropped."""
    site.asked(site.root, "CREATE DATABASE elsewhere")
    there = Database(site.server.url("elsewhere"))
    try:
        site.admin.run("CREATE ROLE wiki LOGIN PASSWORD 'theirs'")
        (site.admin if where == "here" else there).run(OTHERS[other].format(role="wiki"))
        before = site.admin.rows("SELECT * FROM pg_authid WHERE rolname = 'wiki'")
        provisioning = site.provisioning(user="wiki")
        refused = []
        for call in (provisioning.plan, provisioning.plan_removal, provisioning.check):
            with pytest.raises(ProvisioningError, match="its user 'wiki' is used for ") as error:
                call()
            refused.append(error)
        for call in (provisioning.apply, provisioning.remove):
            with pytest.raises(ProvisioningError, match="its user 'wiki' is used for "):
                list(call())
        after = site.admin.rows("SELECT * FROM pg_authid WHERE rolname = 'wiki'")
    finally:
        site.asked(site.root, "DROP DATABASE elsewhere WITH (FORCE)")

    assert after == before


def test_a_role_without_anything_may_be_taken(site):
    """An administrator may have made it for the application."""
    site.admin.run("CREATE ROLE fresh LOGIN PASSWORD 'x'")

    assert site.create(user="fresh")
    assert site.create(user="fresh") == []


def test_check_finds_a_function_with_the_rights_of_another_role(site):
    """It shows an application the rows of its neighbour."""
    site.create()
    site.create("other")
    site.table("other")
    site.admin.run(
        "CREATE FUNCTION aalam_base.read_it() RETURNS SETOF aalam_other.note "
        "SECURITY DEFINER LANGUAGE sql AS 'SELECT * FROM aalam_other.note'"
    )
    seen = site.as_application("SELECT * FROM aalam_base.read_it()")

    assert seen == [(0,)]
    assert "the function aalam_base.read_it runs with the rights of postgres" in problems(site)


# What no application can do to its administrator.


def open_work(site, *statements, user=None, password=None):
    """Return a connection of the application that has done *statements* and not ended them."""
    settings = site.settings(user=user, password=password or site.password)
    engine = plain_engine(settings["sqlalchemy.url"])
    connection = engine.connect()
    for statement in statements:
        connection.execute(text(statement))
    return connection


def close(connection):
    """Close *connection*, which the server may have ended."""
    with suppress(DBAPIError):
        connection.close()


BLOCKS = {
    "its own role": ["ALTER ROLE CURRENT_USER SET search_path = public"],
    "its own role here": [
        "ALTER ROLE CURRENT_USER IN DATABASE {database} SET search_path = public"
    ],
    "its table": ["LOCK TABLE note IN ROW EXCLUSIVE MODE"],
    "psqa's lock": [f"SELECT pg_advisory_lock({LOCK})"],
    "its own password": ["ALTER ROLE CURRENT_USER PASSWORD 'other'"],
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.sweep(1)
def test_work_that_the_application_does_not_end_blocks_nothing(site, tmp_path, block):
    """Check does not wait; rotate and drop end the connection that they wait for."""
    site.create()
    site.table()
    file = tmp_path / "password"
    file.write_text(site.password)
    file.chmod(0o600)
    settings = site.settings(password=None, **{"sqa.password_file": str(file)})
    statements = [each.format(database=site.database) for each in BLOCKS[block]]
    with Provisioning(settings, site.admin.url, wait=2) as provisioning:
        connection = open_work(site, *statements)
        checked = provisioning.check()
        rotated = list(provisioning.rotate())
        close(connection)
        again = open_work(site, *statements, password=file.read_text().strip())
        dropped = list(provisioning.remove())
        close(again)

    assert checked == []
    assert rotated
    assert dropped
    assert "aalam_base" not in site.roles()


@pytest.mark.parametrize("user", ["aalam_base", "clerk"])
@pytest.mark.sweep(1)
def test_a_search_path_that_leads_to_a_neighbour_blocks_nothing(site, user):
    """Every role may set its own: it does not make the role the neighbour's account."""
    site.create("other")
    site.create(user=user)
    there = f"ALTER ROLE CURRENT_USER IN DATABASE {site.database} SET search_path = aalam_other"
    open_work(site, there, "COMMIT", user=user).close()
    found = site.provisioning(user=user).check()
    repaired = site.create(user=user)
    open_work(site, there, "COMMIT", user=user).close()
    dropped = list(site.provisioning(user=user).remove())

    assert [each.problem for each in found] == [f"the search_path of {user} is not aalam_base"]
    assert len(repaired) == 1
    assert dropped
    assert not {"aalam_base__own", user} & set(site.roles())


def test_a_neighbours_account_is_refused_even_if_it_has_rights_here(site):
    """Its rights in its own schema tell that it is the neighbour's."""
    site.create("other")
    site.create()
    site.admin.run("GRANT USAGE ON SCHEMA aalam_base TO aalam_other")

    with pytest.raises(ProvisioningError, match="'aalam_other' is the account of aalam_other"):
        site.provisioning(user="aalam_other").plan_removal()


PREPARED = {
    "its table": ["INSERT INTO note VALUES (5)"],
    "psqa's lock": [f"SELECT pg_advisory_xact_lock({LOCK})"],
    "its own role": ["ALTER ROLE CURRENT_USER SET search_path = public"],
}


@pytest.mark.parametrize("what", PREPARED)
@pytest.mark.sweep(1)
def test_a_prepared_transaction_of_the_application_blocks_nothing(site, tmp_path, what):
    """It keeps its locks without a connection, even after a restart."""
    site.create()
    site.table()
    work = [*PREPARED[what], "PREPARE TRANSACTION 'it''s %s mine'"]
    open_work(site, *work).close()
    with Provisioning(site.settings(), site.admin.url, wait=2) as provisioning:
        checked = provisioning.check()
        applied = list(provisioning.apply())
        dropped = list(provisioning.remove())

    assert checked == []
    assert applied == []
    assert dropped
    assert site.admin.rows("SELECT gid FROM pg_prepared_xacts") == []


def test_create_rolls_back_what_the_application_has_prepared_in_its_way(site):
    """Nothing else would free the table that is to have its owner back."""
    site.create()
    site.table()
    site.admin.run("ALTER TABLE aalam_base.note OWNER TO postgres")
    open_work(site, *PREPARED["its table"], "PREPARE TRANSACTION 'mine'").close()
    with Provisioning(site.settings(), site.admin.url, wait=2) as provisioning:
        applied = [str(step) for step in provisioning.apply()]

    assert 'ALTER TABLE aalam_base.note OWNER TO "aalam_base__own"' in applied
    assert site.admin.rows("SELECT gid FROM pg_prepared_xacts") == []
    assert site.admin.rows("SELECT id FROM aalam_base.note") == [(0,)]


def test_a_lock_of_another_administrator_is_waited_for(site):
    """Its run is not ended."""
    site.admin.run("CREATE ROLE manager2 LOGIN CREATEROLE PASSWORD 'x'")
    url = make_url(site.admin.url).set(username="manager2", password="x")
    site.admin.run(f"GRANT CONNECT ON DATABASE {site.database} TO manager2")
    with plain_engine(url).connect() as connection:
        connection.execute(text(f"SELECT pg_advisory_lock({LOCK})"))
        with (
            Provisioning(site.settings(), site.admin.url, wait=0.1) as provisioning,
            pytest.raises(ProvisioningError, match="Another psqa is at work in"),
        ):
            list(provisioning.apply())
        assert connection.scalar(text("SELECT 1")) == 1
