"""In tests and at start-up: a database is brought to its last revision, or is said to be behind."""

import pytest
from alembic import command
from alembic.util import CommandError
from pyramid.paster import get_appsettings
from pytest_alembic import Config, runner
from pytest_alembic.tests import (
    test_model_definitions_match_ddl as models_match,
)
from pytest_alembic.tests import (
    test_single_head_revision as single_head,
)
from pytest_alembic.tests import (
    test_up_down_consistency as up_and_down,
)
from pytest_alembic.tests import (
    test_upgrade as upgrades,
)
from sqlalchemy import create_engine, inspect, text
from webtest import TestApp

from pyramid_aalam_sqa import engine_from_settings
from pyramid_aalam_sqa.exceptions import SettingError
from pyramid_aalam_sqa.migrations import alembic_config, upgrade_to_head
from pyramid_aalam_sqa.migrations.scripts import find_scripts
from support.databases import Database


@pytest.fixture
def folder(tmp_path, revisions):
    revisions.add_table("1", "note")
    revisions.add("1a", "pass", versions=tmp_path / "migrations" / "versions_audit")
    revisions.last = "1"
    (tmp_path / "test.ini").write_text(
        "[app:other]\nuse = call:support.rule_app:main\n"
        "sqlalchemy.url = sqlite:///%(here)s/one.sqlite\n"
        "sqlalchemy.binds.audit.url = sqlite:///%(here)s/two.sqlite\n"
        "sqa.migrations = %(here)s/migrations\n"
    )
    path = tmp_path / "migrations" / "versions_audit" / "1a_.py"
    path.write_text(path.read_text().replace("down_revision = '1'", "down_revision = None"))
    return tmp_path


def test_a_database_is_brought_to_its_last_revision(folder):
    """By the path of the ini file, by its settings, on an engine or a connection of the test's."""
    ini = folder / "test.ini"
    upgrade_to_head(f"{ini}#other")
    upgrade_to_head(f"{ini}#other", bind_key="audit")
    settings = get_appsettings(str(ini), "other")
    engine = create_engine("sqlite://")
    upgrade_to_head(settings, engine)
    assert inspect(engine).has_table("note")
    own = engine_from_settings({"sqlalchemy.url": f"sqlite:///{folder}/three.sqlite"})
    with own.connect() as connection:
        connection.execute(text("SELECT 1"))
        upgrade_to_head(settings, connection)
        assert inspect(connection).has_table("note")
        connection.rollback()
    assert not inspect(own).has_table("note")
    engine.dispose()
    own.dispose()

    assert Database(f"sqlite:///{folder}/one.sqlite").rows("SELECT * FROM note") == []
    rows = Database(f"sqlite:///{folder}/two.sqlite").rows("SELECT * FROM alembic_version_audit")
    assert rows == [("1a",)]


def test_alembic_s_own_check_compares_the_models_of_sqa_base(folder):
    """The revisions have made the table, and one of its columns is missing."""
    url = f"sqlite:///{folder}/checked.sqlite"
    settings = {"sqlalchemy.url": url, "sqa.migrations": str(folder / "migrations")}
    upgrade_to_head(settings)
    config = alembic_config({**settings, "sqa.base": "support.models:Base"})
    with pytest.raises(CommandError, match=r"add_column.*body"):
        command.check(config)
    Database(url).run(
        "DROP TABLE note",
        "CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, body VARCHAR(50) NOT NULL)",
    )

    command.check(config)


def test_readiness_can_ask_for_the_last_revision(any_database, folder, revisions, serve):
    """An application that is deployed before its migration gets no traffic."""
    settings = {
        "sqlalchemy.url": any_database.url,
        "sqa.migrations": str(folder / "migrations"),
    }
    app = serve(
        any_database.url,
        lambda config: config.add_sqa_health(migrations=True),
        **{"sqa.migrations": str(folder / "migrations")},
    )
    client = TestApp(app)
    behind = client.get("/healthz", status=503)
    assert behind.json["databases"] == {"default": "behind"}
    upgrade_to_head(settings)
    assert client.get("/healthz", status=200).json["databases"] == {"default": "ok"}
    any_database.run("UPDATE alembic_version SET version_num = '!1'")
    client.get("/healthz", status=503)
    any_database.run("DROP TABLE alembic_version", "CREATE TABLE alembic_version (a INTEGER)")
    assert client.get("/healthz", status=503).json["databases"] == {"default": "down"}
    any_database.run("DROP TABLE alembic_version")


def test_readiness_asks_the_binds_that_are_named(folder, serve):
    """Each has its own revisions."""
    app = serve(
        f"sqlite:///{folder}/one.sqlite",
        lambda config: config.add_sqa_health(migrations=["audit"]),
        **{
            "sqa.migrations": str(folder / "migrations"),
            "sqlalchemy.binds.audit.url": f"sqlite:///{folder}/two.sqlite",
        },
    )
    found = TestApp(app).get("/healthz", status=503).json["databases"]

    assert found == {"audit": "behind", "default": "ok"}


def test_readiness_without_a_folder_of_revisions_does_not_start(sqlite, serve):
    """The setting is named."""
    with pytest.raises(Exception, match=r"sqa\.migrations = package:folder"):
        serve(sqlite.url, lambda config: config.add_sqa_health(migrations=True))
    with pytest.raises(SettingError):
        find_scripts({})


def test_pytest_alembic_runs_on_the_revisions(any_database, folder):
    """Its tests are called with a runner on our Config and the test's engine."""
    engine = engine_from_settings({"sqlalchemy.url": any_database.url})
    settings = {
        "sqlalchemy.url": any_database.url,
        "sqa.migrations": str(folder / "migrations"),
    }
    config = alembic_config(settings)
    with runner(Config(alembic_config=config), engine=engine) as alembic_runner:
        single_head(alembic_runner)
        upgrades(alembic_runner)
        up_and_down(alembic_runner)
    assert models_match
    engine.dispose()
