"""Writes llms.txt, and the pages as Markdown, into a built site: python tools/make_llms.py FOLDER.

A program that reads the documentation finds each page, and what it is about, in llms.txt.
"""

import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
CHAPTER = re.compile(r"^:::\{toctree\}\n:caption: (.+)\n:hidden:\n\n((?:.+\n)+):::$", re.MULTILINE)
LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")
# A paragraph, not a heading, a list or a table.
BEGINNING = re.compile(r"[\w`\[]")
FENCE = re.compile(r"^(`{3}|:{3}).*?^\1$", re.MULTILINE | re.DOTALL)


def chapters(index):
    """Return each chapter of the text of *index* with its pages."""
    return {caption: pages.split() for caption, pages in CHAPTER.findall(index)}


def described(page):
    """Return the line of llms.txt for *page*: its title, its address, its first sentence."""
    text = (DOCS / f"{page}.md").read_text()
    title = re.findall(r"^# (.+)$", text, re.MULTILINE)[0]
    parts = (" ".join(part.split()) for part in FENCE.sub("", text).split("\n\n"))
    first = next(re.split(r"(?<=\.)\s", part)[0] for part in parts if BEGINNING.match(part))
    without_links = LINK.sub(r"\1", first)
    return f"- [{title}]({page}.md): {without_links}"


def llms():
    """Return the text of llms.txt."""
    index = (DOCS / "index.md").read_text()
    summary = " ".join(index.split("\n\n")[1].split())
    lines = ["# pyramid_aalam_sqa", "", f"> {summary}"]
    for caption, pages in chapters(index).items():
        lines += ["", f"## {caption}", "", *map(described, pages)]
    return "\n".join(lines) + "\n"


def main(site):
    """Write all of it into the folder *site*."""
    (site / "llms.txt").write_text(llms())
    for page in DOCS.rglob("*.md"):
        copy = site / page.relative_to(DOCS)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(page, copy)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
