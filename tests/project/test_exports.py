"""The package exports all of its public names, and nothing else."""

import inspect
import subprocess
import sys
from importlib.metadata import files, version
from pathlib import Path

import pyramid_aalam_sqa


def test_the_front_door_lists_its_names_in_order():
    """The list __all__ is sorted, and each name in it exists."""
    names = pyramid_aalam_sqa.__all__

    assert names == sorted(names)
    assert all(hasattr(pyramid_aalam_sqa, name) for name in names)


def test_the_front_door_hides_nothing():
    """Every public name of the module is in __all__."""
    public = {
        name
        for name in dir(pyramid_aalam_sqa)
        if not name.startswith("_") and not inspect.ismodule(getattr(pyramid_aalam_sqa, name))
    }

    assert public == set(pyramid_aalam_sqa.__all__)


def test_every_public_name_says_what_it_is():
    """Each name has a docstring, and so has each public method of a class."""
    silent = []
    for name in pyramid_aalam_sqa.__all__:
        value = getattr(pyramid_aalam_sqa, name)
        members = vars(value).items() if inspect.isclass(value) else ()
        silent += [name] if not value.__doc__ else []
        silent += [
            f"{name}.{member}"
            for member, thing in members
            if not member.startswith("_")
            and (inspect.isfunction(thing) or isinstance(thing, property))
            and not thing.__doc__
        ]

    assert silent == []


def test_every_public_name_is_in_the_reference():
    """The page docs/reference/api.md documents all that can be imported."""
    reference = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text()

    missing = [name for name in pyramid_aalam_sqa.__all__ if f"`{name}`" not in reference]
    assert missing == []


def test_the_package_is_marked_as_typed():
    """Mypy and pyright read its annotations."""
    assert (Path(pyramid_aalam_sqa.__file__).parent / "py.typed").exists()


def test_importing_the_package_loads_no_test_tool_and_opens_nothing():
    """The import does not load unittest.mock or pytest, and does not start a thread."""
    code = (
        "import sys, threading, pyramid_aalam_sqa as p; "
        "print(sorted({'unittest.mock', 'pytest', 'webtest'} & set(sys.modules)), "
        "threading.active_count())"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    assert output.stdout.decode().strip() == "[] 1"


def test_the_change_log_has_the_version_that_is_installed():
    """There cannot be a release without an entry."""
    changes = (Path(__file__).parents[2] / "CHANGES.md").read_text()

    assert files("pyramid_aalam_sqa")
    assert f"## {version('pyramid_aalam_sqa')}" in changes
