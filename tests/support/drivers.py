"""Each driver with each accident of its database, and what a request has to make of it.

Run as a script, this module writes the table in docs/reference/drivers.md:
python tests/support/drivers.py.
"""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "drivers.md"
BEGIN, END = "<!-- made by tests/support/drivers.py -->", "<!-- end -->"

# Each driver as in a URL, with the fixture of its server and the server's name.
DRIVERS = {
    "mysql+pymysql": ("mariadb", "MariaDB 10.11", "installed with this package"),
    "mysql+mysqldb": ("mariadb", "MariaDB 10.11", "pip install 'mysqlclient'"),
    "postgresql+psycopg": ("postgresql", "PostgreSQL 15", "pip install 'psycopg[binary]'"),
    "postgresql+psycopg2": ("postgresql", "PostgreSQL 15", "pip install 'psycopg2-binary'"),
    "postgresql+psycopg 16": ("postgresql_16", "PostgreSQL 16", "pip install 'psycopg[binary]'"),
    "postgresql+psycopg2 16": ("postgresql_16", "PostgreSQL 16", "pip install 'psycopg2-binary'"),
}

# Each accident that happens at every attempt, with the number of attempts and whether the answer
# is 503.
ACCIDENTS = {
    "conflict": (3, False),
    "lock wait": (3, False),
    "lost connection": (3, True),
    "refused COMMIT": (1, False),
    "read-only": (3, True),
    "unreachable": (1, True),
}


# The packages that may be missing, by what stands for them in the names of tests.
PACKAGES = {"mysqldb": "MySQLdb", "psycopg2": "psycopg2", "16": "pgserver"}


def marked(name):
    """Return *name* for parametrize(), marked to be skipped where its driver is not installed."""
    needed = [PACKAGES[part] for part in re.split(r"[+ ]", name) if part in PACKAGES]
    missing = [package for package in needed if find_spec(package) is None]
    reason = f"Tests of {', '.join(missing)} skipped: install the dependency group drivers."
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=reason))


def drivers(*names):
    """Return *names* for parametrize(); see :func:`marked`."""
    return [marked(name) for name in names]


def rows():
    """Yield the lines of the table."""
    yield f"| driver | install | tested with | {' | '.join(ACCIDENTS)} |"
    yield "|---" * (3 + len(ACCIDENTS)) + "|"
    told = [
        f"{attempts} attempt{'s' * (attempts > 1)}, {'503' if unavailable else 'its error'}"
        for attempts, unavailable in ACCIDENTS.values()
    ]
    for driver, (_, server, install) in DRIVERS.items():
        cells = [f"`{driver.split()[0]}`", install, server, *told]
        yield f"| {' | '.join(cells)} |"


def page(text):
    """Return the page *text* with its table made anew."""
    made = "\n".join([BEGIN, *rows(), END])
    return re.sub(f"{BEGIN}.*{END}", lambda _: made, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
