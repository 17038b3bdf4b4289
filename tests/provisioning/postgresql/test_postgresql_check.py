"""On PostgreSQL `psqa check` finds what differs, and `psqa create` repairs it."""

import pytest
from sqlalchemy.engine import make_url

from support.databases import Database
from support.postgresql_site import DENIED, problems

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
@pytest.mark.sweep(2)
def test_what_others_changed_is_found_and_repaired(pair, damage, words):
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
        "a crash empties near_base.note, which is UNLOGGED",
        "ALTER TABLE near_base.note SET LOGGED",
    ),
    "idle": (
        "ALTER ROLE near_base SET idle_session_timeout = '10min'",
        "ends idle connections after 600 seconds",
        "ALTER ROLE near_base RESET idle_session_timeout",
    ),
}


@pytest.mark.parametrize(("act", "words", "undo"), FINDINGS.values(), ids=FINDINGS)
@pytest.mark.sweep(2)
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
