"""The page docs/architecture.md describes the package as it is."""

import re

import pytest
from test_layers import MAY_IMPORT, PACKAGE

from support.pages import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))


def files_in(text):
    return re.findall(r"`([\w/.]+/[\w.]+\.\w+|\w+\.(?:py|toml))`", text)


def test_each_file_that_the_page_names_exists():
    """The file is in the package, or in the repository."""
    missing = [
        name
        for name in files_in(PAGE)
        if not (PACKAGE / name).exists() and not (ROOT / name).exists()
    ]

    assert missing == []


def test_each_room_has_a_sentence_and_a_place_in_the_picture():
    """A new room cannot be added without a description."""
    section = SECTIONS["The rooms"]
    described = re.findall(r"^\| `(\w+)/` \| [^|]+\. \|$", section, flags=re.MULTILINE)
    picture = re.search("```text\n(.*?)```", section, flags=re.DOTALL)[1]

    assert set(described) == MAY_IMPORT.keys()
    assert MAY_IMPORT.keys() <= set(re.findall(r"\w+", picture))


def test_each_of_the_five_questions_is_answered_by_three_files_at_most():
    """A reader opens these files and finds the answer."""
    rows = re.findall(r"^\| (.+\?) \| (.+) \|$", SECTIONS["Five questions"], flags=re.MULTILINE)

    assert len(rows) == 5
    for _question, answer in rows:
        assert 1 <= len(files_in(answer)) <= 3


@pytest.mark.parametrize("way", ["a request", "a setting", "a deadlock", "a page"])
def test_each_way_is_told_in_steps_that_name_their_files(way):
    """A reader can follow each way from file to file."""
    section = SECTIONS[f"The way of {way}"]

    assert len(re.findall(r"^\d\. ", section, flags=re.MULTILINE)) >= 4
    assert len(set(files_in(section))) >= 3


def test_the_readme_leads_contributors_to_the_page():
    """The README links it under "For contributors"."""
    contributors = (ROOT / "README.md").read_text().split("## For contributors")[1]

    assert "(docs/architecture.md)" in contributors
