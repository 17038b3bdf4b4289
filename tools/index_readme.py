"""What the package index shows: README.md, in which each link leads somewhere.

The index has no folder `docs` beside the README, and this project has no public address. So
hatchling calls this hook for the metadata of a distribution: a link to a page becomes the name of
the page, and a picture is left out. One sentence says where the pages are.
"""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = re.compile(r"^!\[[^]]*\]\((?!https?:)[^)]*\)\n\n", re.MULTILINE)
LINK = re.compile(r"\[([^]]+)\]\((?!https?:)[^)]*\)")
# The heading after which the first pages are named in great number.
HEADING = "## I want to ...\n"
WHERE = "The pages that are named here are in the folder `docs` of the source distribution.\n"


def readme_of_the_index(text):
    """Return the *text* of README.md without pictures and links that lead nowhere on the index."""
    return LINK.sub(r"\1", PICTURE.sub("", text)).replace(HEADING, f"{HEADING}\n{WHERE}")


class IndexReadme(MetadataHookInterface):
    """The hook; pyproject.toml names this file."""

    def update(self, metadata):
        """Set the README in *metadata*."""
        text = Path(self.root, "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": readme_of_the_index(text)}
