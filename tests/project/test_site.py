"""The web site of the documentation: each page is in it, and programs find them in llms.txt."""

import re
import runpy
import subprocess
import sys

import pytest

from support.pages import ROOT

DOCS = ROOT / "docs"
make_llms = runpy.run_path(str(ROOT / "tools" / "make_llms.py"))
SPHINX = ("-m", "sphinx", "--quiet", "--nitpicky", "--fail-on-warning")


def test_each_page_is_in_one_chapter():
    """A page that is added is found in the contents."""
    chapters = make_llms["chapters"]((DOCS / "index.md").read_text())
    placed = [page for pages in chapters.values() for page in pages]
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}

    assert list(chapters) == ["Tutorial", "Guide", "A portal", "Reference", "Explanation"]
    assert len(placed) == len(set(placed))
    assert set(placed) == pages - {"index"}


def test_llms_txt_says_what_each_page_is_about(tmp_path):
    """Title, address and first sentence; the pages lie beside it as Markdown."""
    make_llms["main"](tmp_path)
    text = (tmp_path / "llms.txt").read_text()
    lines = re.findall(r"^- \[(.+)\]\((\S+\.md)\): (.+)$", text, re.MULTILINE)

    assert text.startswith("# pyramid_aalam_sqa\n\n> `config.include(")
    assert len(lines) == len(list(DOCS.rglob("*.md"))) - 1
    for title, address, first in lines:
        assert f"# {title}\n" in (tmp_path / address).read_text()
        assert first[-1] in ".:", (address, first)
        assert "](" not in first


@pytest.mark.deep
def test_sphinx_builds_the_site_without_a_warning(tmp_path):
    """Every link leads somewhere, each block is in a language that is known."""
    pytest.importorskip("sphinx", reason="Sphinx is installed by make site")
    command = [sys.executable, *SPHINX, "--doctree-dir", tmp_path / "doctrees", DOCS, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "guide" / "clusters.html").exists()
    # Nothing is loaded from elsewhere.
    foreign = re.compile(r'(?:src|href)="(?:https?:)?//[^"]+\.(?:css|js|woff2?|png|svg)')
    assert [path for path in tmp_path.rglob("*.html") if foreign.search(path.read_text())] == []
