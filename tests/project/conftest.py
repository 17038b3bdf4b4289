"""The distributions of this tree, and an environment that has the wheel."""

import site
import subprocess
import sys
import venv

import pytest

from support.pages import ROOT

PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel of this tree, made without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([*PIP, "wheel", *options, ROOT], check=True)
    [made] = folder.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def python(tmp_path_factory, wheel):
    """The Python of an environment with the wheel; the other packages are those of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    install = ["--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run([*PIP, *install], check=True)
    [packages] = (folder / "lib").glob("*/site-packages")
    (packages / "tests.pth").write_text("\n".join(site.getsitepackages()))
    return python
