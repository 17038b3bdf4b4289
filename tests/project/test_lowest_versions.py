"""`make test-oldest` installs the lowest version of everything that pyproject.toml names."""

import runpy
import tomllib

import pytest

from support.pages import ROOT

lowest = runpy.run_path(str(ROOT / "tools" / "lowest.py"))
PROJECT = """
[project]
dependencies = [{}]
[project.optional-dependencies]
[dependency-groups]
test = []
drivers = []
"""


def test_each_requirement_of_the_project_is_pinned():
    """Pip does not choose the version of any package that the project, tests or drivers name."""
    text = (ROOT / "pyproject.toml").read_text()
    pinned = lowest["constraints"](text)
    assert {"SQLAlchemy==2.0.43", "psycopg==3.1.8", "mysqlclient==2.2.1"} <= set(pinned)
    assert len(pinned) == len(set(pinned)) > len(tomllib.loads(text)["project"]["dependencies"])


@pytest.mark.parametrize(
    ("requirements", "complaint"),
    [('"waitress"', "has no lower bound"), ('"waitress>=3.0", "waitress>=3.1"', "two lower")],
)
def test_a_bound_that_cannot_be_tested_is_refused(requirements, complaint):
    """The error says what to write. Nothing is installed before."""
    with pytest.raises(ValueError, match=complaint):
        lowest["constraints"](PROJECT.format(requirements))
