"""What the parts of the room do where nothing goes as it should."""

import builtins
import io
import os
import sys

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

import pyramid_aalam_sqa.migrations as door
from pyramid_aalam_sqa.exceptions import MigrationError, SettingError
from pyramid_aalam_sqa.migrations.metadata import compared_metadata
from pyramid_aalam_sqa.migrations.migrate import Order, Target, migrate
from pyramid_aalam_sqa.migrations.processes import Workers
from pyramid_aalam_sqa.migrations.products import Product, product_of
from pyramid_aalam_sqa.migrations.scripts import find_scripts
from pyramid_aalam_sqa.migrations.standing import read_standing
from support.databases import Database, plain_engine
from support.migrated import CREATE, Revisions
from support.provisioned import psqa


def test_without_alembic_psqa_says_what_to_install(make, monkeypatch):
    """And psqa does all the rest without it."""
    site = make("sqlite://")
    for name in [name for name in sys.modules if name.startswith("pyramid_aalam_sqa.migrations")]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def no_alembic(name, *arguments):
        if name == "alembic":
            raise ImportError(name=name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", no_alembic)
    told = site.psqa("upgrade")
    assert told.status == 2
    assert "pip install 'pyramid_aalam_sqa[migrations]'" in told.err
    monkeypatch.setattr(builtins, "__import__", real)
    monkeypatch.setitem(sys.modules, "pyramid_aalam_sqa.migrations.commands", None)
    with pytest.raises(ImportError):
        site.psqa("upgrade")


def test_a_product_that_is_not_known_is_left_to_alembic(tmp_path):
    """No lock, no transactions of ours, and what Alembic raises."""
    product = Product()
    engine = create_engine(f"sqlite:///{tmp_path}/x.sqlite")
    with (
        product.locked(engine, "x", 0),
        engine.connect() as connection,
        product.prepared(connection) as check,
    ):
        check()
    assert product.preamble("x") == ""
    assert type(product_of(make_url("mssql+pyodbc://x"))) is Product
    engine.dispose()


def test_on_an_unknown_product_errors_stay_what_they_are(tmp_path, revisions, monkeypatch):
    """Nothing is claimed of what is stored."""
    monkeypatch.setattr("pyramid_aalam_sqa.migrations.configure.product_of", lambda _: Product())
    revisions.add("1", "op.execute('X')")
    settings = {
        "sqlalchemy.url": f"sqlite:///{tmp_path}/x.sqlite",
        "sqa.migrations": str(revisions.folder),
    }
    with pytest.raises(DBAPIError):
        door.upgrade_to_head(settings)


def test_a_half_way_revision_is_refused_by_an_env_py_too(tmp_path, revisions):
    """By Alembic's own command."""
    revisions.add_table("1", "note")
    path = f"sqlite:///{tmp_path}/x.sqlite"
    Database(path).run(
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "INSERT INTO alembic_version VALUES ('!1')",
    )
    settings = {"sqlalchemy.url": path, "sqa.migrations": str(revisions.folder)}
    with pytest.raises(MigrationError, match="The revision 1 is half-way, and the database stands"):
        door.upgrade_to_head(settings)


def test_a_config_without_a_file_has_what_its_attributes_say(tmp_path):
    """A project may make Alembic's Config itself."""
    env = "from pyramid_aalam_sqa.migrations import run\nrun()\n"
    Revisions(tmp_path / "own", env).add_table("1", "note")
    engine = create_engine(f"sqlite:///{tmp_path}/x.sqlite")
    config = Config(output_buffer=io.StringIO())
    config.set_main_option("script_location", str(tmp_path / "own"))
    config.attributes["connection"] = engine
    command.upgrade(config, "head")
    assert Database(str(engine.url)).rows("SELECT * FROM note") == []
    engine.dispose()


def test_a_ready_engine_of_the_settings_is_used_and_kept_open(tmp_path, revisions):
    """It belongs to the application."""
    revisions.add_table("1", "note")
    engine = create_engine(f"sqlite:///{tmp_path}/x.sqlite")
    door.upgrade_to_head({"sqlalchemy.engine": engine, "sqa.migrations": str(revisions.folder)})
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM note")) == 0
    engine.dispose()


def test_folders_that_alembic_lists_are_kept(tmp_path):
    """A project may have its revisions in several."""
    Revisions(tmp_path / "own").add_table("1", "note", versions=tmp_path / "elsewhere")
    ini = tmp_path / "x.ini"
    ini.write_text(
        "[app:main]\nuse = call:x:y\nsqlalchemy.url = sqlite:///%(here)s/x.sqlite\n"
        "[alembic]\nscript_location = %(here)s/own\n"
        "version_locations = %(here)s/own/versions\n  %(here)s/elsewhere\n"
        "path_separator = newline\n"
    )
    door.upgrade_to_head(ini)
    assert Database(f"sqlite:///{tmp_path}/x.sqlite").rows("SELECT * FROM note") == []


def test_an_ini_without_any_word_on_revisions_is_told(tmp_path):
    """With [alembic] and without script_location as well."""
    ini = tmp_path / "x.ini"
    ini.write_text("[app:main]\nuse = call:x:y\n[alembic]\n")
    with pytest.raises(SettingError, match=r"write sqa\.migrations"):
        door.alembic_config(ini)
    assert find_scripts({"sqa.migrations": str(tmp_path / "none")}).heads() == ()


def test_revisions_with_two_beginnings_of_one_number_are_told(tmp_path, revisions):
    """What Alembic says of the folder."""
    revisions.add_table("1", "note")
    revisions.add("2", "pass")
    path = revisions.versions / "2_.py"
    path.write_text(path.read_text().replace("down_revision = '1'", "down_revision = 'gone'"))
    with pytest.raises(MigrationError, match="gone"):
        find_scripts({"sqa.migrations": str(revisions.folder)}).heads()


def test_a_version_table_that_cannot_be_read_is_an_error(tmp_path):
    """Only that it is missing means that there is no revision yet."""
    engine = create_engine(f"sqlite:///{tmp_path}/x.sqlite")
    with engine.connect() as connection:
        assert read_standing(connection, "alembic_version").revisions == ()
        connection.execute(text("CREATE TABLE alembic_version (a INTEGER)"))
        with pytest.raises(DBAPIError):
            read_standing(connection, "alembic_version")
    engine.dispose()


def test_foreign_keys_that_are_off_are_not_checked(make, revisions):
    """As the settings say."""
    revisions.add_table("1", "parent")
    site = make("sqlite://", settings=["sqa.sqlite.foreign_keys = false"])
    assert site.migrate()["state"] == "done"


def test_a_lock_whose_file_is_replaced_is_taken_again(tmp_path):
    """The one that held it removes its file at its end."""
    engine = create_engine(f"sqlite:///file:{tmp_path}/x.sqlite?uri=true")
    product = product_of(engine.dialect)
    for _ in range(2):
        with product.locked(engine, "x", 0):
            assert (tmp_path / "x.sqlite-migrating").exists()
            with pytest.raises(MigrationError), product.locked(engine, "x", 0):
                pass
    assert not (tmp_path / "x.sqlite-migrating").exists()


@pytest.mark.sweep(2)
def test_the_lock_of_a_server_names_its_holder(site):
    """The second run waits, and then says who holds it."""
    target = Target(str(site.ini), Order(admin_url=site.admin_url))
    with (
        target.provisioning.as_application() as engine,
        target.product.locked(engine, site.name, 0),
    ):
        report = site.migrate(wait=0.2)
    assert report["error"].startswith(f"Another run migrates {site.name}: ")
    assert {"sqlite": "process", "mysql": "connection", "postgresql": "process"}[
        site.kind
    ] in report["error"]


def test_a_long_name_has_a_lock_too(mariadb):
    """MySQL's names of locks have 64 characters."""
    engine = create_engine(mariadb.url)
    product = product_of(engine.dialect)
    with (
        product.locked(engine, "x" * 63, 1),
        pytest.raises(MigrationError),
        product.locked(engine, "x" * 63, 0),
    ):
        pass
    engine.dispose()


def test_statements_for_another_server_begin_with_its_place(make, server_url, revisions, tmp_path):
    """USE or search_path, because the statements leave the name out."""
    revisions.add_table("1", "note")
    site = make(server_url)
    folder = tmp_path / "out"
    folder.mkdir()
    report = site.migrate(sql=str(folder))
    assert report["state"] == "done"
    written = (folder / f"{site.name}.sql").read_text()
    begin = {"sqlite": "", "mysql": f"USE `{site.name}`;", "postgresql": "SET search_path"}
    assert begin[site.kind] in written
    assert "CREATE TABLE note" in written
    assert "s3cr3t" not in written


def test_statements_are_not_written_where_a_revision_is_half_way(mariadb_site, revisions, tmp_path):
    """They would be wrong."""
    revisions.add("1", CREATE.format("one") + "\n" + CREATE.format("one"))
    mariadb_site.migrate()
    assert "half-way" in mariadb_site.migrate(sql=str(tmp_path))["error"]
    assert "half-way" in mariadb_site.migrate()["error"]


def test_a_server_that_is_lost_is_the_reason_that_is_told(mariadb_site, revisions):
    """Not that it cannot be asked where it stands."""
    revisions.add(
        "1",
        "others = op.get_bind().exec_driver_sql('SELECT ID FROM information_schema.PROCESSLIST '\n"
        "    'WHERE USER LIKE \"%%own\" AND ID <> CONNECTION_ID()').all()\n"
        "for row in others:\n"
        "    op.execute(f'KILL CONNECTION {row[0]}')\n"
        "raise RuntimeError('own')",
    )
    report = mariadb_site.migrate()
    assert report["state"] == "failed"


@pytest.mark.sweep(1)
def test_a_database_that_was_migrated_meanwhile_is_current(site, revisions):
    """Under the lock it is looked at once more."""
    revisions.add_table("1", "note")
    assert site.migrate()["state"] == "done"
    assert site.migrate()["state"] == "current"
    assert site.migrate(stop=lambda: True)["state"] == "current"
    revisions.add("2", "pass")
    assert site.migrate(stop=lambda: True)["state"] == "stopped"


def test_a_worker_that_is_gone_is_not_told_to_stop(tmp_path):
    """Its pipe is broken."""

    class Broken:
        def send(self, _word):
            raise BrokenPipeError

    workers = Workers(1)
    workers._running = {Broken(): (None, "x")}  # noqa: SLF001 - a moment that no test can time
    workers.stop()
    assert workers.is_stopping


def test_a_metadata_without_anything_to_remove_is_the_own_one():
    """Alembic gets the models themselves where it can."""
    metadata = MetaData()
    assert compared_metadata([metadata], None, [None, "public"]) == [metadata]


def test_revisions_of_a_bind_are_those_of_its_key(make, tmp_path, revisions):
    """`--bind`: another folder, another version table, the account of its URL."""
    revisions.add_table("1", "note")
    site = make("sqlite://")
    site.ini.write_text(
        f"{site.ini.read_text()}\nsqlalchemy.binds.audit.url = sqlite:///{tmp_path}/audit.sqlite\n"
    )
    assert site.psqa("create", "--bind", "audit").status == 0
    told = site.psqa("revision", "--bind", "audit", "-m", "first", "--rev-id", "a1")
    assert told.status == 0
    told, [report] = site.report("--bind", "audit")

    assert (told.status, report["bind"], report["to"]) == (0, "audit", "a1")
    rows = Database(f"sqlite:///{tmp_path}/audit.sqlite").rows(
        "SELECT * FROM alembic_version_audit"
    )
    assert rows == [("a1",)]
    assert psqa("migrations", site.ini).status == 1


def test_a_lock_whose_file_is_another_one_by_now_is_not_had(tmp_path, monkeypatch):
    """The one that held it has removed its file, and somebody has made a new one."""
    engine = create_engine(f"sqlite:///{tmp_path}/x.sqlite")

    def gone(_path):
        raise FileNotFoundError

    monkeypatch.setattr("os.path.samestat", lambda *_: False)
    monkeypatch.setattr("pathlib.Path.read_text", gone)
    with (
        pytest.raises(MigrationError, match="its lock is held"),
        product_of(engine.dialect).locked(engine, "x", 0),
    ):
        pass


def test_a_wrong_destination_leaves_no_mark(mariadb_site, revisions):
    """No revision has begun."""
    revisions.add_table("1", "note")
    report = mariadb_site.migrate(to="nowhere")

    assert "nowhere" in report["error"]
    assert mariadb_site.versions() == []


def test_a_journal_that_cannot_be_read_is_an_error(mariadb_site, revisions):
    """Only that it is missing means that there are no statements."""
    mariadb_site.eyes.run(
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "INSERT INTO alembic_version VALUES ('!1')",
    )
    assert "half-way" in mariadb_site.migrate()["error"]
    mariadb_site.eyes.run("CREATE TABLE alembic_version_journal (a INTEGER)")
    assert "Unknown column" in mariadb_site.migrate()["error"]


def test_a_database_that_was_dropped_is_not_there(mariadb_site, mariadb_server, revisions):
    """Its account is let in, and the server says so; without an administrator too."""
    revisions.add_table("1", "note")
    plain = plain_engine(mariadb_server.url(), isolation_level="AUTOCOMMIT")
    with plain.connect() as connection:
        connection.execute(text(f"DROP DATABASE {mariadb_site.name}"))
    told = mariadb_site.psqa("migrations", admin_url=None, MYSQL_UNIX_PORT="/nothing/there")
    assert "1 not provisioned." in told.out

    mariadb_site.ini.write_text(mariadb_site.ini.read_text().replace("s3cr3t", "wrong"))
    told = mariadb_site.psqa("migrations", admin_url=None, MYSQL_UNIX_PORT="/nothing/there")
    assert "Access denied" in told.out


def test_an_application_without_a_name_leaves_the_environment_as_it_is(
    tmp_path, revisions, monkeypatch
):
    """Its models ask for none."""
    monkeypatch.setenv("SQA_PROVIDER", "")
    revisions.add_table("1", "note")
    ini = tmp_path / "x.ini"
    ini.write_text(
        "[app:main]\nuse = call:x:y\nsqlalchemy.url = sqlite:///%(here)s/x.sqlite\n"
        "sqa.migrations = %(here)s/migrations\n"
    )
    (tmp_path / "x.sqlite").touch()
    assert migrate(str(ini), Order()).state == "done"
    assert os.environ["SQA_PROVIDER"] == ""
    # Written for the one database that is not there.
    (tmp_path / "x.sqlite").unlink()
    assert migrate(str(ini), Order(sql=str(tmp_path))).state == "not provisioned"


def test_a_node_of_galera_is_refused(mariadb_site, revisions, monkeypatch):
    """What a node answers; test_galera.py asks a real one."""
    revisions.add_table("1", "note")
    monkeypatch.setattr("pyramid_aalam_sqa.migrations.products.WSREP", "SELECT 'wsrep_on', 'ON'")
    assert "is a node of Galera" in mariadb_site.migrate()["error"]
    assert mariadb_site.migrate(on_galera=True)["state"] == "done"
