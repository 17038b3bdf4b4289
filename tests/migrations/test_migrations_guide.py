"""The commands that docs/guide/migrations.md shows, from nothing to a checked database."""

import re
import sys

import pytest

from support.databases import Database
from support.pages import ROOT, blocks
from support.provisioned import psqa

GUIDE = ROOT / "docs" / "guide" / "migrations.md"
PORTAL = ROOT / "docs" / "portal" / "migrations.md"


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """The application of the page, as a person writes it down."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("SQA_ADMIN_URL", raising=False)
    [ini] = blocks(GUIDE, "ini")
    (tmp_path / "development.ini").write_text(ini)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "__init__.py").touch()
    (tmp_path / "notes" / "models.py").write_text(blocks(GUIDE, "py")[0])
    yield tmp_path
    for name in ("notes", "notes.models"):
        sys.modules.pop(name, None)


def test_from_nothing_to_a_checked_database(notes):
    """Every psqa line of the page, in its order."""
    lines = [line for block in blocks(GUIDE, "console") for line in block.splitlines()]
    commands = [line.removeprefix("psqa ") for line in lines if line.startswith("psqa ")]
    assert len(commands) == 4
    for command in commands:
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)]
        told = psqa(*words)
        assert (told.status, told.err) == (0, ""), (command, told)

    [revision] = (notes / "notes" / "migrations" / "versions").glob("*.py")
    assert 'op.create_table("note"' in revision.read_text().replace("'", '"')
    assert Database(f"sqlite:///{notes}/notes.sqlite").rows("SELECT * FROM note") == []


def test_the_options_of_the_portal_s_page_are_known():
    """Each option that the page names is one of psqa's."""
    help_text = "".join(
        psqa(command, "--help", columns=300).out
        for command in ("upgrade", "downgrade", "migrations", "revision")
    )
    named = set(re.findall(r"--[a-z][a-z-]+", PORTAL.read_text() + GUIDE.read_text()))

    assert {option for option in named if option not in help_text} <= {"--json"}
