"""docs/comparison.md and docs/upgrading.md name what is there."""

import re

import pytest

import pyramid_aalam_sqa
from support.pages import ROOT

COMPARED = (ROOT / "docs" / "comparison.md").read_text()
UPGRADING = (ROOT / "docs" / "upgrading.md").read_text()
ROWS = re.findall(r"^\| (?!---)(.+) \|$", COMPARED.split("## ")[1], re.MULTILINE)


@pytest.mark.parametrize("row", ROWS[1:], ids=lambda row: row.partition(" | ")[0])
def test_each_row_of_the_comparison_names_tests_of_ours(row):
    """The last column is a file of tests."""
    name = row.rpartition(" | ")[2].strip("`")
    [file] = (ROOT / "tests").rglob(name)

    assert "\ndef test_" in file.read_text()


def test_the_names_to_change_are_gone_and_the_new_ones_are_there():
    """Each name that can be imported is public under its new name alone."""
    table = UPGRADING.split("## ")[1]
    names = re.findall(r"^\| `(\w+)` \| `(\w+)` \|$", table, re.MULTILINE)

    assert len(names) == 9
    # An event has taken one of them: pyramid_aalam_sqa.OutcomeUnknown and PartialCommit.
    events = {"OutcomeUnknown", "PartialCommit"}
    assert not ({old for old, _ in names} - events) & set(pyramid_aalam_sqa.__all__)
    assert {new for _, new in names} <= set(pyramid_aalam_sqa.__all__)
