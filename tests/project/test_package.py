"""The wheel and the sdist are complete, clean, and say what they are."""

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from importlib.metadata import version

import pytest
from hatchling.build import build_sdist

import pyramid_aalam_sqa
from support.pages import ROOT, blocks


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The sdist of this tree, made as a build front end makes it."""
    folder = tmp_path_factory.mktemp("sdist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return folder / build_sdist(str(folder))


@pytest.fixture(scope="module")
def metadata(wheel):
    """What the package index is told of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def run(module, *arguments):
    """Run a checker; return its exit status and what it says."""
    command = [sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_package_index_can_show_the_distributions(wheel, sdist):
    """Their metadata and their README are valid."""
    status, said = run("twine", "check", "--strict", wheel, sdist)

    assert (status, said.count("PASSED")) == (0, 2), said


def test_the_wheel_has_nothing_but_the_package(wheel):
    """No test, no cache, no empty file; beside the package stands the plugin of pytest alone."""
    status, said = run("check_wheel_contents", "--no-config", "--ignore", "W009", wheel)

    assert (status, said) == (0, f"{wheel}: OK\n")


def test_the_wheel_has_every_file_of_the_package(wheel):
    """Templates, styles and the mark that it is typed are there too."""
    package = ROOT / "pyramid_aalam_sqa"
    files = [path for path in package.rglob("*") if path.is_file()]
    own = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    own.add("pytest_pyramid_aalam_sqa.py")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert held == own


def test_the_sdist_can_be_tested(sdist):
    """It has the tests, the pages that they run, and what `make test` needs."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    needed = {"README.md", "LICENSE", "CHANGES.md", "Makefile", "pyproject.toml", "development.ini"}
    assert needed <= names
    for folder in ("pyramid_aalam_sqa", "tests", "docs", "tools", "benchmarks"):
        paths = (ROOT / folder).rglob("*")
        files = {path.relative_to(ROOT).as_posix() for path in paths if path.is_file()}
        assert {name for name in files if not name.endswith(".pyc")} <= names


def test_each_link_that_the_package_index_shows_leads_somewhere(metadata):
    """There are no pages beside the README there, so it names them, and says where they are."""
    shown = metadata.get_payload()
    targets = re.findall(r"\]\(([^)]*)\)", shown) + re.findall(r'(?:href|src)="([^"]*)"', shown)

    assert metadata["Description-Content-Type"] == "text/markdown"
    assert [target for target in targets if not target.startswith("https://")] == []
    assert "in the folder `docs` of the source distribution" in shown
    assert "| start a new application | `psqa new shop` | A new application |" in shown
    # All else is as it stands in the README.
    [application] = blocks(ROOT / "README.md", "python")
    assert application in shown


@pytest.mark.deep
def test_only_an_address_of_the_project_is_missing():
    """Pyroma asks for what a package index can show. This project has no public address yet."""
    _, said = run("pyroma", ROOT)
    wanted = [line for line in said.splitlines() if "should" in line or "does not have" in line]

    assert [re.findall("author-email|'url'", line) for line in wanted] == [
        ["author-email"],
        ["'url'"],
    ]


def test_the_metadata_say_who_it_is_for(metadata):
    """Status, audience, framework, system, and each Python that it is for."""
    classifiers = metadata.get_all("Classifier")

    assert metadata["Author"] == "the pyramid_aalam_sqa contributors"
    assert {
        "Framework :: Pyramid",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Typing :: Typed",
    } <= set(classifiers)
    assert [each for each in classifiers if each.startswith("Development Status ::")]
    pythons = [each.rpartition(" ")[2] for each in classifiers if ":: Python :: 3." in each]
    assert pythons == ["3.11", "3.12", "3.13"]
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_extra_all_has_every_other_extra(metadata):
    """Nobody has to list them."""
    needed = {}
    for line in metadata.get_all("Requires-Dist"):
        requirement, _, extra = line.partition("; extra == ")
        needed.setdefault(extra.strip("'"), set()).add(requirement)
    everything = needed.pop("all")
    del needed[""]

    assert everything == set().union(*needed.values())


def test_the_version_stands_in_one_place(metadata):
    """The code, the metadata and the environment say the same."""
    told = {pyramid_aalam_sqa.__version__, metadata["Version"], version("pyramid_aalam_sqa")}

    assert len(told) == 1
