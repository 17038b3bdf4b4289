"""What importing the package and starting an application import: nothing that only some need."""

import json
import subprocess
import sys

import pytest

# What psqa, tests and developers need, and what Python takes long to import.
SELDOM_NEEDED = (
    *("pyramid_aalam_sqa.provisioning", "pyramid_aalam_sqa.debugging", "pyramid_aalam_sqa.testing"),
    *("pyramid_aalam_sqa.migrations", "pyramid_aalam_sqa.pagination", "paste.deploy"),
    *("difflib", "fractions", "alembic", "MySQLdb"),
)
# The products, each with what it needs and the others do not.
PRODUCTS = {
    "sqlite": ("pyramid_aalam_sqa.backends.sqlite", "sqlalchemy.dialects.sqlite", "sqlite3"),
    "mysql": ("pyramid_aalam_sqa.backends.mysql", "sqlalchemy.dialects.mysql"),
    "postgresql": ("pyramid_aalam_sqa.backends.postgresql", "sqlalchemy.dialects.postgresql"),
}
# What an application imports that many others do not need, and when.
PAGES = "pyramid_aalam_sqa.pagination"

DEPENDENCIES = (
    "import sys, pyramid.config, pyramid.request, pyramid_tm, pyramid_retry, sqlalchemy.orm,"
    " zope.sqlalchemy\n"
    "before = set(sys.modules)\n"
)
START = """
from pyramid.config import Configurator
with Configurator(settings={"sqlalchemy.url": "%s"}) as config:
    config.include("pyramid_aalam_sqa")
app = config.make_wsgi_app()
"""
URLS = {"sqlite": "sqlite:///never.sqlite", "mysql": "mysql+pymysql://user:password@localhost/shop"}


def imported(code):
    """Return the modules that *code* imports beyond those of the dependencies."""
    code = (
        f"{DEPENDENCIES}{code}\nimport json\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_the_import_imports_nothing_that_only_some_applications_need():
    """The products, psqa, pages, what watches requests, and what only an error message needs."""
    unneeded = {*SELDOM_NEEDED, *(name for names in PRODUCTS.values() for name in names)}

    assert imported("import pyramid_aalam_sqa") & unneeded == set()


@pytest.mark.parametrize("product", URLS)
def test_a_start_imports_its_own_product_and_no_other(product):
    """An application with one database imports what is particular to that, and nothing else."""
    others = (names for name, names in PRODUCTS.items() if name != product)
    unneeded = {*SELDOM_NEEDED, *(name for names in others for name in names)}

    found = imported(START % URLS[product])

    assert found & unneeded == set()
    assert found >= {PRODUCTS[product][0]}


def test_the_import_evaluates_no_class_that_writes_code():
    """A dataclass and a regular expression are both compiled, which takes long."""
    count = (
        "import re, dataclasses\n"
        "made = []\n"
        "compile_, process = re._compiler.compile, dataclasses._process_class\n"
        "re._compiler.compile = lambda *args: made.append('re') or compile_(*args)\n"
        "dataclasses._process_class = lambda *args: made.append('dc') or process(*args)\n"
        "import pyramid_aalam_sqa\n"
        "sys.modules['made: ' + ' '.join(sorted(made))] = None\n"
    )
    (made,) = (name for name in imported(count) if name.startswith("made: "))

    # Settings and Database, which are compared and changed.
    assert made == "made: dc dc"


@pytest.mark.parametrize(
    "use",
    [
        "from pyramid_aalam_sqa import paginate",
        "import pyramid_aalam_sqa as sqa; sqa.paginate_keyset",
        "from pyramid_aalam_sqa import KeysetPage, Page",
    ],
)
def test_the_room_of_pages_is_imported_when_it_is_used(use):
    """By its names at the front door."""
    assert PAGES in imported(use)
