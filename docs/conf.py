"""How Sphinx makes the site of these pages: `make site`."""

import re
from pathlib import Path

INIT = Path(__file__).parents[1] / "pyramid_aalam_sqa" / "__init__.py"

project = "pyramid_aalam_sqa"
author = "the pyramid_aalam_sqa contributors"
release = re.findall(r'^__version__ = "(.+)"$', INIT.read_text(), re.MULTILINE)[0]

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
# Links to a heading: page.md#the-heading.
myst_heading_anchors = 4
# A block without a language is shown as it is.
highlight_language = "text"

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
