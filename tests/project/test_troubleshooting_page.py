"""docs/guide/troubleshooting.md: each error has its entry, and each entry is a real message."""

import ast
import inspect
import re

import pytest

from pyramid_aalam_sqa import exceptions
from support.pages import ROOT

TEXT = (ROOT / "docs" / "guide" / "troubleshooting.md").read_text()
HEADINGS = re.findall(r"^### (.+)$", TEXT, re.MULTILINE)
MESSAGES = {name: text for name, text in vars(exceptions).items() if name.isupper()}
CLASSES = [
    name
    for name, found in inspect.getmembers(exceptions, inspect.isclass)
    if found.__module__ == exceptions.__name__
]


def texts_of_the_package():
    """Return the texts in the code, with a mark for each value that is put in."""
    found = []
    for path in (ROOT / "pyramid_aalam_sqa").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "\0" for part in node.values
                )
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize("name", MESSAGES)
def test_each_text_of_an_error_has_an_entry(name):
    """Whoever searches for its first words finds the cause and the cure."""
    first = re.split(r"[:.] ", MESSAGES[name])[0]

    assert first in HEADINGS


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_of_error_is_explained(name):
    """In the table at the top, or with its messages."""
    assert f"`{name}`" in TEXT


def test_each_heading_is_a_message_that_the_package_has():
    """A message that was changed is changed here too."""
    texts = texts_of_the_package()
    parts = {part.strip(" :;.,?") for heading in HEADINGS for part in heading.split("...")}

    assert sorted(part for part in parts if part and part not in texts) == []


def test_each_entry_names_its_class():
    """The first words after a heading are what a log shows before the message."""
    entries = re.findall(r"^### .+\n\n`(\w+)`", TEXT, re.MULTILINE)

    assert len(entries) == len(HEADINGS)
    assert {name for name in entries if name not in CLASSES} == {"TypeError", "ValueError"}
