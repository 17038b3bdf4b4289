"""Each link of the README and the documentation leads to a page and a heading that exist."""

import re

import pytest

from support.pages import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGES.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    """Return the anchors of the headings of *page*, as GitHub makes them."""
    without_blocks = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", without_blocks, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page):
    """Return the links of *page* inside the repository that lead nowhere."""
    links = [link for link in LINK.findall(CODE.sub("", page.read_text())) if "://" not in link]
    broken = []
    for link in links:
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_leads_to_a_page_and_a_heading(page):
    """A reader who follows a link of the documentation arrives."""
    assert broken_links(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    """The check sees a missing page and a missing heading, and nothing else."""
    (tmp_path / "there.md").write_text("# It is `there`\n\n## A second-one, yes\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#it-is-there) [c](there.md#a-second-one-yes) `[d](code.md)`\n"
        "[e](gone.md) [f](there.md#gone) [g](#nor-here) [h](https://example.org/x.md)\n"
    )
    assert broken_links(page) == ["gone.md", "there.md#gone", "#nor-here"]
