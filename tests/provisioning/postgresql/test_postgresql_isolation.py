"""On PostgreSQL an application reaches no other, and psqa proves it."""

from contextlib import contextmanager

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from pyramid_aalam_sqa.exceptions import ProvisioningError
from support.databases import plain_engine
from support.postgresql_site import DENIED


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
@pytest.mark.sweep(1)
def test_the_proof_fails_when_a_neighbour_is_open_to_everybody(pair, opened):
    """It is the neighbour that has to be repaired."""
    act, undo = f"GRANT ALL ON {opened} TO PUBLIC", f"REVOKE ALL ON {opened} FROM PUBLIC"
    with (
        undone(pair, act, undo) as provisioning,
        pytest.raises(ProvisioningError, match=r"near_base can see .* not its own"),
    ):
        provisioning.prove()


def test_the_proof_fails_when_a_grant_cannot_be_taken_back(pair):
    """PostgreSQL lets no other role revoke what a third role has granted, and does not say so."""
    act = (
        "CREATE ROLE third; GRANT USAGE ON SCHEMA near_other TO third WITH GRANT OPTION;"
        "SET ROLE third; GRANT USAGE ON SCHEMA near_other TO near_base; RESET ROLE"
    )
    undo = "REVOKE USAGE ON SCHEMA near_other FROM third CASCADE; DROP ROLE third"
    with undone(pair, act, undo) as provisioning:
        assert list(provisioning.apply())
        with pytest.raises(ProvisioningError, match="schema near_other, still"):
            provisioning.prove()
