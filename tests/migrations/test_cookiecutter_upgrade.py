"""The cookiecutter's Alembic folder under psqa: unchanged, and with the env.py of three lines."""

import shutil
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1] / "migration" / "cookiecutter"
ENV = """
from pyramid_aalam_sqa.migrations import run
from myapp.models.meta import Base

run(Base)
"""


@pytest.mark.parametrize("env", ["unchanged", "three lines"])
@pytest.mark.sweep(1)
def test_the_folder_of_a_cookiecutter_works_under_psqa(
    env, make, server_url, tmp_path, monkeypatch
):
    """Its own env.py would log in as the account that serves, so psqa takes one of its own."""
    monkeypatch.syspath_prepend(HOME)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    folder = tmp_path / "alembic"
    # Another test may be compiling them there.
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HOME / "myapp" / "alembic", folder, ignore=compiled)
    if env == "three lines":
        (folder / "env.py").write_text(ENV)
    site = make(server_url)
    text = site.ini.read_text().replace(f"sqa.migrations = {site.revisions.folder}", "")
    site.ini.write_text(
        f"{text}\nsqa.base = myapp.models.meta:Base myapp.models.mymodel:MyModel\n"
        f"[alembic]\nscript_location = {folder}\n"
    )
    report = site.migrate()

    assert (report["state"], report["to"]) == ("done", "r0001"), report
    assert site.eyes.rows(f"SELECT name FROM {site.table('models')}") == []
    assert site.psqa("check").status == 0
