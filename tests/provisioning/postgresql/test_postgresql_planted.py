"""What an application plants on a PostgreSQL is not run with an administrator's rights."""

from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from support.databases import plain_engine

# A function that makes the application a superuser as soon as a superuser's session runs it.
EVIL = """
    CREATE FUNCTION {schema}.evil({left}, {right}) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        BEGIN
            EXECUTE 'RESET ROLE';
            EXECUTE 'ALTER ROLE aalam_base SUPERUSER';
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        RETURN {honest};
    END $$;
    CREATE OPERATOR {schema}.{operator} (
        LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {schema}.evil)
"""
# It answers as the server's own does: what it has done in a transaction is lost when psqa goes
# another way and rolls back.
SAME = "$1::text OPERATOR(pg_catalog.=) $2::text"
PLANTED = {
    "equal names": {"operator": "=", "left": "name", "right": "varchar", "honest": SAME},
    "equal texts": {"operator": "=", "left": "name", "right": "text", "honest": SAME},
    "arrays": {
        "operator": "@>",
        "left": "text[]",
        "right": "text[]",
        "honest": "$1 OPERATOR(pg_catalog.@>) $2",
    },
    "unequal": {"operator": "<>", "left": "name", "right": "name", "honest": f"NOT {SAME}"},
    "joined texts": {"operator": "||", "left": "varchar", "right": "text", "honest": "true"},
}


def is_superuser(site):
    return site.admin.scalar("SELECT rolsuper FROM pg_roles WHERE rolname = 'aalam_base'")


def every_command(site):
    """Do what each command of psqa does."""
    site.create()
    with suppress(DBAPIError):  # The application may well hurt itself.
        site.table()
    site.provisioning().check()
    site.provisioning().prove()
    site.provisioning().plan_removal()


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("schema", ["aalam_base", "public"])
@pytest.mark.sweep(1)
def test_a_planted_operator_is_not_run_by_the_administrator(site, planted, schema):
    """Its types fit better than those of the server's own operator, wherever it stands."""
    site.create()
    site.admin.run(f"GRANT CREATE ON SCHEMA {schema} TO aalam_base")
    with plain_engine(site.admin.url).begin() as connection:
        connection.execute(text("SET ROLE aalam_base"))
        connection.exec_driver_sql(EVIL.format(schema=schema, **PLANTED[planted]))
        connection.execute(text("RESET ROLE"))
    every_command(site)

    assert is_superuser(site) is False


def test_a_search_path_that_the_databases_owner_has_set_does_not_count(site):
    """The settings of a database and of a role are weaker than those of the connection."""
    site.create()
    with plain_engine(site.admin.url).begin() as connection:
        connection.exec_driver_sql(EVIL.format(schema="aalam_base", **PLANTED["arrays"]))
    site.admin.run(f"ALTER DATABASE {site.database} SET search_path = aalam_base, pg_catalog")
    every_command(site)

    assert is_superuser(site) is False


def test_a_planted_table_does_not_stand_for_a_catalog(site):
    """Where the schema of the application is searched before that of the server."""
    site.create()
    site.admin.run(
        "CREATE TABLE aalam_base.pg_roles (rolname name, rolsuper bool)",
        f"ALTER DATABASE {site.database} SET search_path = aalam_base, pg_catalog",
        "ALTER ROLE postgres SET search_path = aalam_base, pg_catalog",
    )
    try:
        assert [str(step) for step in site.provisioning().plan()] == [
            'ALTER TABLE aalam_base.pg_roles OWNER TO "aalam_base__own"',
            'GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE aalam_base.pg_roles TO "aalam_base"',
        ]
    finally:
        site.admin.run("ALTER ROLE postgres RESET search_path")


def test_the_owners_work_is_done_by_a_login_of_the_owner(site):
    """A trigger that runs when a table is made sees no administrator behind it."""
    site.create()
    site.admin.run(
        "CREATE TABLE public.seen (who text)",
        "GRANT ALL ON public.seen TO PUBLIC",
        "GRANT USAGE ON SCHEMA public TO PUBLIC",
        "CREATE FUNCTION public.note() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO public.seen VALUES (session_user); END $$",
        "CREATE EVENT TRIGGER note ON ddl_command_end WHEN TAG IN ('CREATE TABLE') "
        "EXECUTE FUNCTION public.note()",
    )
    site.table()
    seen = {row[0] for row in site.admin.rows("SELECT who FROM public.seen")}
    role = "SELECT rolcanlogin, rolpassword FROM pg_authid WHERE rolname = 'aalam_base__own'"

    assert seen == {"aalam_base__own"}
    assert site.admin.rows(role) == [(False, None)]


def test_the_owner_cannot_log_in_after_work_that_failed(site):
    """Its random password is taken away whatever happens."""
    from sqlalchemy import Column, MetaData, Table
    from sqlalchemy.types import NullType

    site.create()
    metadata = MetaData()
    Table("gap", metadata, Column("id", NullType(), primary_key=True), schema="aalam_base")
    with pytest.raises(Exception, match="id"):
        site.provisioning().create_tables(metadata)
    role = "SELECT rolcanlogin, rolpassword FROM pg_authid WHERE rolname = 'aalam_base__own'"

    assert site.admin.rows(role) == [(False, None)]
