"""What psqa makes of an SQLite file: closed to others, checked, not removed while it is in use."""

import os
import sqlite3
from pathlib import Path

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.engine import URL
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from pyramid_aalam_sqa.exceptions import ProvisioningError
from pyramid_aalam_sqa.provisioning import Provisioning


@pytest.fixture
def path(tmp_path):
    return tmp_path / "var" / "data" / "aalam.sqlite"


def settings(path, **more):
    return {
        "sqlalchemy.url": f"sqlite:///{path}",
        "sqa.provider": "aalam",
        "sqa.app": "base",
        **more,
    }


@pytest.fixture
def provisioning(path):
    with Provisioning(settings(path)) as made:
        yield made


@pytest.fixture
def created(provisioning):
    list(provisioning.apply())
    return provisioning


def mode(path):
    return oct(path.stat().st_mode & 0o777)


def run(path, *statements):
    """Run statements by the driver alone."""
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def found(provisioning):
    return "\n".join(map(str, provisioning.check()))


def test_the_folder_and_the_file_come_from_nothing(provisioning, path):
    """The file is closed to others from its first byte on."""
    planned = [str(step) for step in provisioning.plan()]
    nothing_yet = not path.parent.exists()
    done = [str(step) for step in provisioning.apply()]

    assert planned == done == [f"mkdir -p {path.parent}", f"touch {path}"]
    assert nothing_yet
    assert mode(path) == "0o600"


def test_it_is_proved_that_the_file_can_be_written(created, path):
    """Nothing of the proof is left."""
    proved = created.prove()

    assert proved[0] == f"{path} can be read and written"
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()


def test_create_twice_changes_nothing(created):
    """Not even when tables are there."""
    metadata = MetaData()
    Table("note", metadata, Column("id", Integer, primary_key=True))
    created.create_tables(metadata)
    created.prove()

    assert created.plan() == []
    assert found(created) == ""


def test_a_file_that_others_can_open_is_found_and_closed(created, path):
    """What its group may do is left as it is."""
    path.chmod(0o664)
    said = found(created)
    steps = [str(step) for step in created.apply()]

    assert f"{path} is open to every user of the system" in said
    assert steps == [f"chmod o-rwx {path}"]
    assert mode(path) == "0o660"
    assert found(created) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_belongs_to_the_folders_owner(provisioning, path, tmp_path):
    """The application could not open it otherwise."""
    os.chown(tmp_path, 65534, -1)
    list(provisioning.apply())

    assert {file.stat().st_uid for file in (path, path.parent, path.parent.parent)} == {65534}


def test_a_step_that_the_system_refuses_is_one_sentence(provisioning, path):
    """It names the step and the reason."""
    path.parent.parent.write_text("a file where the folder is to be")

    with pytest.raises(ProvisioningError, match=r"^mkdir -p .*data: (Not a directory|File exists)"):
        list(provisioning.apply())


def test_a_file_that_cannot_be_written_fails_the_proof(created, path):
    """It is no database."""
    path.write_bytes(b"no database" * 100)

    with pytest.raises(ProvisioningError, match="cannot be written: file is not a database"):
        created.prove()


def test_a_missing_file_is_found(provisioning):
    """It is not made by looking."""
    assert "is not there: psqa create makes it" in found(provisioning)
    assert found(provisioning) == found(provisioning)


def test_a_damaged_file_is_found(created, path):
    """Before it is noticed by a visitor."""
    run(path, "CREATE TABLE note (body)", "CREATE INDEX i ON note (body)")
    run(path, "INSERT INTO note VALUES (zeroblob(9000))", "PRAGMA writable_schema = ON")
    run(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[4096:8192] = os.urandom(4096)
    path.write_bytes(content)

    assert f"{path} " in found(created)
    assert "restore it from a backup" in found(created)


def test_a_file_that_is_not_a_database_is_found(created, path):
    """With what SQLite says of it."""
    path.write_bytes(b"no database" * 100)

    assert f"{path} cannot be read: file is not a database" in found(created)


def test_rows_that_refer_to_nothing_are_found(created, path):
    """They were written where foreign keys were off."""
    run(path, "CREATE TABLE a (id INTEGER PRIMARY KEY)", "CREATE TABLE b (a REFERENCES a (id))")
    run(path, "INSERT INTO b VALUES (1)")

    assert "rows of b refer to rows that are not there" in found(created)


def test_another_journal_mode_is_found(created, path):
    """The look does not change it."""
    created.prove()
    run(path, "PRAGMA journal_mode = DELETE")

    assert f"the journal mode of {path} is delete, not wal" in found(created)
    assert f"the journal mode of {path} is delete, not wal" in found(created)


def test_a_folder_that_everybody_may_write_to_is_found(created, path):
    """Whoever can replace the file can read what is written from then on."""
    path.parent.chmod(0o777)
    said = found(created)
    # In such a one, as /tmp is, only owners remove their files.
    path.parent.chmod(0o1777)

    assert f"every user of the system can replace the files of {path.parent}" in said
    assert found(created) == ""


def test_there_is_nothing_to_rotate(created):
    """A file has no password."""
    with pytest.raises(ProvisioningError, match="there is nothing to rotate"):
        created.plan_rotation()


def test_a_database_in_memory_is_refused():
    """Nothing of it would be left when the command ends."""
    with (
        Provisioning(settings("", **{"sqlalchemy.url": "sqlite://"})) as provisioning,
        pytest.raises(ProvisioningError, match="ends with its process; write a file"),
    ):
        provisioning.plan()


def test_a_file_may_be_named_by_a_uri(path):
    """With the characters that a URI in a URL encodes; a step is shown as a shell would take it."""
    # SQLAlchemy 2.1 encodes the percent sign in the URL once more, and 2.0 does not.
    uri = URL.create("sqlite", database=f"file:{path.parent}/a%20b.sqlite", query={"uri": "true"})
    with Provisioning(settings("", **{"sqlalchemy.url": str(uri)})) as provisioning:
        steps = [str(step) for step in provisioning.apply()]
        provisioning.prove()

        assert steps[1] == f"touch '{path.parent}/a b.sqlite'"
        assert [file.name for file in path.parent.iterdir()] == ["a b.sqlite"]
        assert found(provisioning) == ""


def test_drop_removes_the_file_and_what_stands_beside_it(created, path):
    """What a crash has left too; a second time there is nothing to do."""
    for ending in ("-wal", "-shm", "-journal"):
        Path(f"{path}{ending}").touch()
    steps = [str(step) for step in created.plan_removal()]
    list(created.remove())

    assert steps == [f"rm {path}", *(f"rm -f {path}{end}" for end in ("-journal", "-wal", "-shm"))]
    assert list(path.parent.iterdir()) == []
    assert created.plan_removal() == []


def test_drop_removes_an_empty_file_and_keeps_one_that_is_not_a_database(created, path):
    """The ini file may name a file of another program by mistake."""
    path.write_bytes(b"no database" * 100)
    with pytest.raises(ProvisioningError, match="is not a database of SQLite"):
        list(created.remove())
    kept = path.exists()
    path.write_bytes(b"")
    list(created.remove())

    assert kept
    assert not path.exists()


def write(request):
    request.sqa_session.execute(text("INSERT INTO note VALUES (NULL)"))
    return Response("written")


def serve(path, **more):
    with Configurator(settings=settings(path, **more)) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(write)
    return config.make_wsgi_app()


def test_drop_removes_a_damaged_database(created, path):
    """It begins as one, and SQLite can do nothing with the rest."""
    path.write_bytes(b"SQLite format 3\0" + b"damaged" * 1000)
    list(created.remove())

    assert not path.exists()


def test_drop_refuses_while_the_application_runs(created, path):
    """It would go on writing to a file without a name, and answer that all was stored."""
    run(path, "CREATE TABLE note (id INTEGER PRIMARY KEY)")
    app = serve(path)
    client = TestApp(app)
    client.get("/")

    with pytest.raises(ProvisioningError, match="is in use: stop the application first"):
        list(created.remove())
    client.get("/", status=200)
    get_sqa(app).dispose()
    assert len(list(created.remove())) == 1
    assert not path.exists()


def test_a_write_after_the_drop_is_a_503_where_sqlite_cannot_tell_who_is_there(created, path):
    """Without WAL an idle connection holds no lock; it notices that its file has gone."""
    run(path, "PRAGMA journal_mode = DELETE", "CREATE TABLE note (id INTEGER PRIMARY KEY)")
    app = serve(path, **{"sqa.sqlite.journal_mode": "delete"})
    client = TestApp(app)
    client.get("/", status=200)
    list(created.remove())

    client.get("/", status=503)
    get_sqa(app).dispose()
