"""`psqa new FOLDER` writes an application, whole or not at all."""

import shutil

import pytest

from pyramid_aalam_sqa.provisioning import new
from support.provisioned import psqa

FILES = {
    *(".gitignore", "README.md", "pyproject.toml"),
    *("development.ini", "production.ini", "testing.ini"),
    *("bakery/__init__.py", "bakery/models.py", "bakery/views.py", "bakery/static/style.css"),
    *(f"bakery/templates/{name}.jinja2" for name in ("layout", "notes", "error")),
    "bakery/migrations/versions/0001_note.py",
    *("tests/conftest.py", "tests/test_notes.py", "tests/test_migrations.py"),
}


def files_in(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths}


def test_a_new_application_is_written_and_the_next_commands_are_told(tmp_path):
    """Its files have the name of the folder in them, and no mark of the template."""
    folder = tmp_path / "bakery"
    told = psqa("new", folder)

    assert (told.status, told.err) == (0, "")
    assert told.out.startswith(f"{len(FILES)} files are written. Next:\n    cd {folder}\n")
    assert files_in(folder) == FILES
    assert list(tmp_path.iterdir()) == [folder]
    for file in files_in(folder):
        text = (folder / file).read_text()
        assert "$" not in text, file
        assert text.endswith("\n")
    assert 'name = "bakery"' in (folder / "pyproject.toml").read_text()
    assert "from bakery.models import Base" in (folder / "tests" / "conftest.py").read_text()


def test_a_folder_is_named_as_the_shell_names_it(tmp_path, monkeypatch):
    """The path may be relative; what the shell would take apart is quoted."""
    (tmp_path / "two words").mkdir()
    monkeypatch.chdir(tmp_path)
    told = psqa("new", "two words/bakery/")

    assert told.status == 0
    assert "    cd 'two words/bakery'\n" in told.out
    assert files_in(tmp_path / "two words" / "bakery") == FILES


def test_no_file_has_a_secret_in_it(tmp_path):
    """Two applications of one name are the same, and their passwords stand elsewhere."""
    for parent in ("one", "two"):
        (tmp_path / parent).mkdir()
        assert psqa("new", tmp_path / parent / "bakery").status == 0
    one, two = (tmp_path / parent / "bakery" for parent in ("one", "two"))

    assert {file: (one / file).read_text() for file in files_in(one)} == {
        file: (two / file).read_text() for file in files_in(two)
    }
    assert "sqa.password_file = %(here)s/bakery.password" in (one / "production.ini").read_text()
    assert "*.password" in (one / ".gitignore").read_text()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my-shop", "A package cannot be called 'my-shop': write my_shop."),
        ("My Shop!", "A package cannot be called 'My Shop!': write my_shop."),
        ("shop_", "A package cannot be called 'shop_': write shop."),
        ("2shops", "write lower-case letters and digits in words joined by single underscores"),
        ("ü", "write lower-case letters and digits in words joined by single underscores"),
        ("class", "'class' is a word of Python's own: choose another name for the package."),
        ("email", "Python would find another module called 'email': choose another name."),
        ("sqlalchemy", "Python would find another module called 'sqlalchemy'"),
        ("tests", "Python would find another module called 'tests'"),
    ],
)
def test_a_name_that_no_package_can_have_is_refused(tmp_path, name, says):
    """Status 2, one sentence with what to write, and nothing is written."""
    told = psqa("new", tmp_path / name)

    assert told.status == 2
    assert told.err.startswith("psqa: ")
    assert says in told.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_touched(tmp_path):
    """A folder, a file, and a link that leads nowhere."""
    (tmp_path / "bakery").mkdir()
    (tmp_path / "garden").write_text("mine")
    (tmp_path / "cellar").symlink_to(tmp_path / "nowhere")
    tolds = {name: psqa("new", tmp_path / name) for name in ("bakery", "garden", "cellar")}

    for name, told in tolds.items():
        assert told.status == 2
        assert told.err == (
            f"psqa: {tmp_path / name} is there already: name a folder that does not exist yet.\n"
        )
    assert list((tmp_path / "bakery").iterdir()) == []
    assert (tmp_path / "garden").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    """With the reason of the system, and no traceback."""
    missing = psqa("new", tmp_path / "no" / "bakery")
    refused = psqa("new", "/proc/bakery")

    assert (missing.status, missing.err) == (
        2,
        f"psqa: There is no folder {tmp_path / 'no'}: make it first.\n",
    )
    assert refused.status == 2
    assert refused.err.startswith("psqa: /proc/bakery cannot be written: ")


def test_nothing_is_left_where_it_fails_in_the_middle(tmp_path, monkeypatch):
    """The folder appears with all of its files, or not at all."""
    skeleton = tmp_path / "skeleton"
    shutil.copytree(new.SKELETON, skeleton)
    (skeleton / "zz.tmpl").write_text("costs 5 $")
    monkeypatch.setattr(new, "SKELETON", skeleton)
    (tmp_path / "here").mkdir()
    with pytest.raises(ValueError, match="Invalid placeholder"):
        psqa("new", tmp_path / "here" / "bakery")

    assert list((tmp_path / "here").iterdir()) == []


def test_its_help_says_what_becomes_of_the_name():
    """And nothing of an administrator, whom it does not need."""
    told = psqa("new", "--help")

    assert told.status == 0
    assert "name is the name of the application's package" in " ".join(told.out.split())
    assert "SQA_ADMIN_URL" not in told.out
    assert "new " in psqa("--help").out
