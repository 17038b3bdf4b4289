"""What psqa knows of the room ``migrations``: its commands, and their options.

That room is above this one and imports it. So it is named as text, and imported for a command of
migrations alone: psqa does without Alembic otherwise.
"""

import configparser
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, cast

from ..engines import read_password
from ..exceptions import SettingError
from .server import Finding
from .sources import read_ini

ROOM = "pyramid_aalam_sqa.migrations"
# Where the commands are that take any number of ini files.
MANY = ("upgrade", "downgrade", "migrations")


def revision(arguments: Namespace) -> int:
    """Write a new revision; with --autogenerate, with what the models have and the database not."""
    return _call("revision", arguments)


def upgrade(arguments: Namespace) -> int:
    """Run the revisions that each database lacks, as the owner account."""
    return _call("upgrade", arguments)


def downgrade(arguments: Namespace) -> int:
    """Undo revisions, as the owner account."""
    return _call("downgrade", arguments)


def migrations(arguments: Namespace) -> int:
    """Print where each database stands."""
    return _call("migrations", arguments)


COMMANDS = (revision, upgrade, downgrade, migrations)


def migration_findings(arguments: Namespace) -> list[Finding]:
    """Return what is wrong with the migrations of an application that has some."""
    settings = read_ini(arguments.ini)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(arguments.ini.partition("#")[0])
    if "sqa.migrations" not in settings and not parser.has_option("alembic", "script_location"):
        return []
    return cast("list[Finding]", _room("findings")(arguments.ini, arguments.bind))


def _call(name: str, arguments: Namespace) -> int:
    secret = {
        "admin_url": getattr(arguments, "admin_url_file", None),
        "owner_password": getattr(arguments, "owner_password_file", None),
    }
    for key, path in secret.items():
        setattr(arguments, key, None if path is None else read_password(Path(path)))
    arguments.admin_url = arguments.admin_url or os.environ.get("SQA_ADMIN_URL", "").strip() or None
    return cast("int", _room(name)(arguments))


def _room(name: str) -> Any:
    try:
        return resolve_name(f"{ROOM}.commands:{name}")
    except ImportError as error:
        if error.name not in {"alembic", "tqdm"}:
            raise
        raise SettingError(str(error)) from None


def add_options(command: ArgumentParser, name: str) -> None:
    """Add the options of the command *name* of migrations, and its ini file or files."""
    many = name in MANY
    command.add_argument(
        "ini",
        help="development.ini, or development.ini#name" + (", any number of them" if many else ""),
        **({"nargs": "*"} if many else {}),  # type: ignore[arg-type]  # argparse's own way
    )
    command.add_argument("--bind", metavar="KEY", help="for the bind KEY, not the default one")
    if many:
        command.add_argument(
            "--databases", metavar="FILE", help="has the path of an ini file in each line"
        )
    if name == "revision":
        command.add_argument("-m", "--message", required=True, help="what the revision does")
        command.add_argument(
            "--autogenerate", action="store_true", help="write the differences into it"
        )
        command.add_argument("--rev-id", metavar="ID", help="its number; a random one without it")
    elif name == "migrations":
        command.add_argument("--json", action="store_true", help="print JSON, for programs")
    else:
        _add_options_of_moves(command, name)


def _add_options_of_moves(command: ArgumentParser, name: str) -> None:
    add = command.add_argument
    last = "the last ones" if name == "upgrade" else "has to be given; base undoes all"
    add("--to", metavar="REV", required=name == "downgrade", help=f"the revision to end at: {last}")
    add("--jobs", type=int, metavar="N", help="databases at a time (default: one for each core)")
    add("--dry-run", action="store_true", help="only print what is to do")
    add("--sql", metavar="DIR", help="only write the statements, in a file for each database")
    add("--report", metavar="FILE", help="write a JSON report of all databases")
    add("--admin-url-file", metavar="FILE", help="has the administrator's URL")
    add("--owner-password-file", metavar="FILE", help="has the password of the owner account")
    add("--wait", type=float, default=30, metavar="SECONDS", help="for another run (%(default)s)")
    add(
        "--lock-timeout",
        type=float,
        default=3,
        metavar="SECONDS",
        help="how long a statement waits for a lock, and all that come behind it (%(default)s)",
    )
    add("--retries", type=int, default=10, help="how often it is tried again (%(default)s)")
    add(
        "--online",
        action="store_true",
        help="MariaDB, MySQL: refuse what would keep others from writing meanwhile",
    )
    add("--on-galera", action="store_true", help="there is no other run on another node")
    add(
        "--repaired",
        choices=("done", "undone"),
        help="a revision was half-way, and was completed or undone by hand",
    )
