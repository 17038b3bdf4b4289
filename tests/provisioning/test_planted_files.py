"""What an application's user plants in its folder does not make psqa, run by root, do more."""

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from pyramid_aalam_sqa import ProvisioningError
from pyramid_aalam_sqa.provisioning.passwords import read_own_password, replace_file, write_password
from support.provisioned import Provisioned

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
COMMANDS = (["create"], ["check"], ["drop", "--yes"], ["tables", "--base", "empty_base:Base"])


@pytest.fixture
def home():
    """A folder of the application's user, in one that every user can enter."""
    above = Path(tempfile.mkdtemp(prefix="sqa-planted-", dir="/tmp"))
    above.chmod(0o755)
    (above / "home").mkdir()
    os.chown(above / "home", NOBODY, NOBODY)
    yield above / "home"
    shutil.rmtree(above)


@pytest.fixture
def precious(home, monkeypatch):
    """A file of root that the application's user can neither read nor write."""
    precious = home.parent / "precious"
    with sqlite3.connect(precious) as connection:
        connection.execute("CREATE TABLE secret (body)")
    connection.close()
    precious.chmod(0o600)
    (home.parent / "shelf_of_one.py").write_text(
        "from sqlalchemy import Column, Integer, MetaData, Table\nBase = MetaData()\n"
        "Table('book', Base, Column('id', Integer, primary_key=True))\n"
    )
    (home.parent / "empty_base.py").write_text(
        "from sqlalchemy import MetaData\nBase = MetaData()\n"
    )
    monkeypatch.syspath_prepend(home.parent)
    return precious


def plant(link, target):
    link.symlink_to(target)
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)


def state(path):
    found = path.stat()
    return found.st_mode, found.st_uid, found.st_gid, path.read_bytes()


def app_in(home, file="app.sqlite"):
    return Provisioned(home.parent, f"sqlite:///{home}/{file}")


@pytest.mark.parametrize(
    "name", ["app.sqlite", "app.sqlite-wal", "app.sqlite-shm", "app.sqlite-journal"]
)
def test_a_link_in_the_place_of_a_file_is_refused(home, precious, name):
    """In every command: root would change or remove what the link leads to."""
    plant(home / name, precious)
    before = state(precious)
    app = app_in(home)
    tolds = [app.psqa(*command) for command in COMMANDS]

    assert [told.status for told in tolds] == [1] * len(COMMANDS)
    assert all(f"{home}/{name} is a link" in " ".join(told.err.split()) for told in tolds)
    assert state(precious) == before
    assert (home / name).is_symlink()
    assert sorted(path.name for path in home.parent.iterdir() if "precious" in path.name) == [
        "precious"
    ]


def test_show_opens_no_link_either(home, precious):
    """To connect to a database sets its journal mode."""
    plant(home / "app.sqlite", precious)
    before = state(precious)
    told = app_in(home).psqa("show")

    assert told.status == 1
    assert "is a link" in " ".join(told.out.split())
    assert state(precious) == before


def test_a_folder_behind_a_link_of_the_applications_user_is_refused(home, precious):
    """It would have root make files in a folder of the user's choice."""
    plant(home / "data", home.parent)
    told = app_in(home, "data/app.sqlite").psqa("create")

    assert told.status == 1
    assert "data is a link of another user" in " ".join(told.err.split())
    assert not (home.parent / "app.sqlite").exists()


def test_a_link_of_root_on_the_way_is_followed(home):
    """Systems have them, such as /var/run; relative ones and those to the parent folder too."""
    (home.parent / "link").symlink_to("home")
    (home.parent / "again").symlink_to(home.parent / "link" / ".." / "link")
    app = app_in(home.parent / "again")

    assert app.psqa("create").status == 0
    assert (home / "app.sqlite").stat().st_uid == NOBODY


def test_links_that_never_end_are_refused(home):
    """Each of them leads to the other."""
    (home.parent / "one").symlink_to("two")
    (home.parent / "two").symlink_to("one")

    assert app_in(home.parent / "one").psqa("create").status == 1


def test_a_hard_link_to_a_file_of_root_is_not_changed(home, precious):
    """The mode of /etc/passwd would be changed with that of the file that has the same inode."""
    precious.chmod(0o644)
    os.link(precious, home / "app.sqlite-wal")
    before = state(precious)
    app = app_in(home)
    told = app.psqa("create")

    assert told.status == 1
    assert "Operation not permitted" in told.err
    assert state(precious) == before


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_not_a_file_is_refused(home, kind):
    """Psqa would wait for ever for someone to write into a pipe."""
    os.mkfifo(home / "app.sqlite") if kind == "pipe" else (home / "app.sqlite").mkdir()
    told = app_in(home).psqa("create")

    assert told.status == 1
    assert "app.sqlite is not a file" in " ".join(told.err.split())


def test_what_root_makes_belongs_to_the_applications_user(home):
    """Folders too; and root has its rights back afterwards."""
    groups = os.getgroups()
    app = app_in(home, "a/b/app.sqlite")
    assert app.psqa("create").status == 0

    made = (home / "a", home / "a" / "b", home / "a" / "b" / "app.sqlite")
    assert {path.stat().st_uid for path in made} == {NOBODY}
    assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, 0, groups)
    assert app.psqa("check").status == 0
    assert app.psqa("drop", "--yes").status == 0


def test_a_user_without_a_name_is_acted_for_too(home):
    """In a container, say, the owner of a folder is a number that the system does not know."""
    os.chown(home, 54321, 54321)
    app = app_in(home)

    assert app.psqa("create").status == 0
    assert (home / "app.sqlite").stat().st_uid == 54321


def test_drop_keeps_a_file_that_is_not_a_database(home):
    """An ini file may name any file of the user."""
    file = home / "app.sqlite"
    file.write_text("a letter")
    told = app_in(home).psqa("drop", "--yes")

    assert told.status == 1
    assert "is not a database of SQLite: psqa does not remove it." in " ".join(told.err.split())
    assert file.read_text() == "a letter"


def test_drop_removes_an_empty_file(home):
    """It is a database without a table."""
    (home / "app.sqlite").touch()
    os.chown(home / "app.sqlite", NOBODY, NOBODY)

    assert app_in(home).psqa("drop", "--yes").status == 0
    assert not (home / "app.sqlite").exists()


# The file with the password.


@pytest.fixture
def with_file(home):
    file = home / "password"
    settings = [f"sqa.password_file = {file}"]
    url = "mysql+pymysql://u@127.0.0.1:1"
    return Provisioned(home.parent, url, "mysql+pymysql://r@127.0.0.1:1", settings=settings), file


@pytest.mark.parametrize("command", ["create", "check", "rotate"])
def test_a_link_in_the_place_of_the_password_file_is_refused(with_file, precious, command):
    """Its first line would be sent as a password, and a new file would take its place."""
    app, file = with_file
    precious.write_text("root's own\n")
    plant(file, precious)
    told = app.psqa(command)

    assert told.status == 1
    assert "is a link" in told.err
    assert "root's own" not in told.err + told.out


def test_a_pipe_in_the_place_of_the_password_file_is_refused(with_file):
    """Psqa would wait for ever."""
    app, file = with_file
    os.mkfifo(file)
    told = app.psqa("check")

    assert told.status == 2
    assert "write the path of a file" in told.err


def test_a_new_password_is_not_written_through_a_link(home, precious):
    """The link beside the file is removed, and what it leads to is left alone."""
    file, beside = home / "password", home / "password.next"
    file.write_text("old\n")
    os.chown(file, NOBODY, NOBODY)
    plant(beside, precious)
    before = state(precious)
    write_password(beside, "new", like=file)
    replace_file(file, by=beside)

    assert state(precious) == before
    assert file.read_text() == "new\n"
    assert file.stat().st_uid == NOBODY
    assert not beside.is_symlink()


def test_a_new_password_is_not_like_what_a_link_leads_to(home, precious):
    """The owner and the mode are those of the file itself."""
    file = home / "password"
    plant(file, precious)

    with pytest.raises(ProvisioningError, match="password is a link"):
        write_password(home / "password.next", "new", like=file)
    assert not (home / "password.next").exists()


def test_a_password_that_is_to_be_like_nothing_is_told(home):
    """The file has been removed meanwhile."""
    with pytest.raises(ProvisioningError, match=r"cannot be written to .*: No such file"):
        write_password(home / "password.next", "new", like=home / "password")


def test_what_takes_the_place_of_the_password_file_later_is_refused(home):
    """The settings were read before, when a file was there."""
    os.mkfifo(home / "password")

    with pytest.raises(ProvisioningError, match="password is not a file"):
        read_own_password(home / "password")


def test_links_that_lead_to_each_other_are_refused_for_a_password_too(home):
    """They are root's own, so that psqa would follow them."""
    (home.parent / "one").symlink_to("two")
    (home.parent / "two").symlink_to("one")

    with pytest.raises(ProvisioningError, match="is a link that psqa does not follow"):
        read_own_password(home.parent / "one")


def test_tables_before_create_make_the_folder_as_its_owner(home, precious):
    """The application's own engine makes it, with the rights of the user."""
    app = app_in(home, "later/app.sqlite")

    assert app.psqa("tables", "--base", "shelf_of_one:Base").status == 0
    assert (home / "later" / "app.sqlite").stat().st_uid == NOBODY
