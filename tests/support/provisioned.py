"""Applications that psqa works on: an ini file, and what the command said."""

import io
import os
import re
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

import plaster
from pyramid.config import Configurator
from pyramid.paster import get_appsettings
from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import OutcomeUnknownError, get_sqa
from pyramid_aalam_sqa.provisioning.cli import main
from support.processes import TRACED

HERE = Path(__file__).parents[1]
find_loaders = plaster.loaders.find_loaders
INI = """
[app:main]
use = call:support.rule_app:main
pyramid.includes = pyramid_aalam_sqa
sqlalchemy.url = {url}
{settings}
"""


@cache
def _loaders(scheme, protocols):
    return find_loaders(scheme, protocols and list(protocols))


def loaders(scheme, protocols=None):
    """What plaster finds, each time anew, in the metadata of all that is installed."""
    return _loaders(scheme, protocols and tuple(protocols))


@dataclass
class Told:
    """What a command answered."""

    status: int
    out: str
    err: str
    # The first line of what it printed, which names the server.
    server: str = ""

    @property
    def lines(self):
        """What it printed, each wrapped line as one."""
        return self.out.replace("\n    ", " ").replace("\n  ", " ").splitlines()


def psqa(*arguments, columns=80, admin_url=None, **environment):
    """Run the command in this process, with more variables in its *environment*."""
    out, err = io.StringIO(), io.StringIO()
    environment |= {"COLUMNS": str(columns), "SQA_ADMIN_URL": admin_url or ""}
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch("plaster.loaders.find_loaders", loaders),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            status = main([str(each) for each in arguments])
        except SystemExit as exit_:  # argparse's own
            status = exit_.code
    return told(status, out.getvalue(), err.getvalue())


def told(status, out, err):
    """Return what a command answered, its line about the server apart from the rest."""
    # Each wrapped line of an error as one.
    err = err.replace("\n    ", " ")
    found = re.match(r"Server: .*\n(?:    .*\n)*", out)
    if not found:
        return Told(status, out, err)
    return Told(status, out[found.end() :], err, " ".join(found[0].split()))


def psqa_process(*arguments, admin_url=None):
    """Run the command as a process of its own."""
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "pyramid_aalam_sqa.provisioning.cli",
            *map(str, arguments),
        ],
        env={**os.environ, **TRACED, "PYTHONPATH": paths, "SQA_ADMIN_URL": admin_url or ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return told(done.returncode, done.stdout, done.stderr)


class Provisioned:
    """One application's ini file, and psqa on it as the administrator."""

    def __init__(self, folder, url, admin_url=None, name="aalam_base", settings=()):
        provider, _, app = name.partition("_")
        lines = [f"sqa.provider = {provider}", f"sqa.app = {app}", *settings]
        self.name = name
        self.admin_url = admin_url
        self.ini = folder / f"{name}.ini"
        self.ini.write_text(INI.format(url=str(url).replace("%", "%%"), settings="\n".join(lines)))

    def psqa(self, command, *options, **how):
        how.setdefault("admin_url", self.admin_url)
        return psqa(command, self.ini, *options, **how)

    @property
    def settings(self):
        return get_appsettings(str(self.ini))

    @contextmanager
    def served(self, *views, **settings):
        """The application, served by WebTest with *views* that are named as they are called."""
        with Configurator(settings={**self.settings, **settings}) as config:
            for view in views:
                config.add_view(view, name=view.__name__)
        app = config.make_wsgi_app()
        try:
            yield TestApp(app)
        finally:
            get_sqa(app).dispose()


def ask(request):
    """A view that needs a connection."""
    return Response(str(request.sqa_session.scalar(text("SELECT 41 + 1"))))


def status_or_unknown(client, path):
    """Visit *path* and return the status; "unknown" if the answer to the COMMIT was lost."""
    try:
        return client.get(path, expect_errors=True).status_int
    except OutcomeUnknownError:
        return "unknown"
