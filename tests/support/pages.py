"""The pages of the documentation, and the blocks of code in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


# The first line of a block that is a file of its own.
FILE = re.compile(r"# ((?:\w+/)?\w+\.py)\n")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    return [code for found, code in BLOCK.findall(page.read_text()) if found == language]


def write_file(folder, block):
    """Write the file that the first line of *block* names; return false if it names none."""
    named = FILE.match(block)
    if named:
        file = folder / named[1]
        file.parent.mkdir(exist_ok=True)
        file.write_text(block)
    return bool(named)
