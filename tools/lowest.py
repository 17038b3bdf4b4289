"""Prints the lowest version that pyproject.toml allows of each dependency, as pip's constraints.

``make test-oldest`` installs exactly these: python tools/lowest.py > constraints.txt
"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
# Pyramid before 2.1 imports pkg_resources, which later versions of setuptools do not have.
ALSO = {"setuptools": "80.9.0"}
# The extra "all" names the other extras.
OWN = "pyramid_aalam_sqa["
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,]+\])?>=(?P<lowest>[\w.]+)(?:;.*)?")


def requirements(pyproject):
    """Return the requirements of the package, its extras, its tests and the further drivers."""
    project = pyproject["project"]
    extras = project["optional-dependencies"].values()
    return [
        *project["dependencies"],
        *(each for extra in extras for each in extra if not each.startswith(OWN)),
        *pyproject["dependency-groups"]["test"],
        *pyproject["dependency-groups"]["drivers"],
    ]


def constraints(text):
    """Return a line ``name==version`` for each requirement in the *text* of a pyproject.toml.

    Raises ValueError for a requirement without a lower bound, which could not be tested, and for
    two requirements that give one name two lower bounds.
    """
    lowest = dict(ALSO)
    for requirement in requirements(tomllib.loads(text)):
        found = REQUIREMENT.fullmatch(requirement.replace(" ", ""))
        if not found:
            message = f"{requirement!r} has no lower bound: write {requirement}>=<version>."
            raise ValueError(message)
        if lowest.setdefault(found["name"], found["lowest"]) != found["lowest"]:
            message = f"{found['name']} has two lower bounds. Write the same one everywhere."
            raise ValueError(message)
    return [f"{name}=={version}" for name, version in sorted(lowest.items())]


if __name__ == "__main__":
    print(*constraints(PYPROJECT.read_text()), sep="\n")
