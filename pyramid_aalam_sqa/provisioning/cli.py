"""The console script psqa: it makes, checks and removes an application's database and accounts.

It writes a new application, too.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..engines import read_password
from ..exceptions import SettingError, SqaError
from ..settings import NO_DATABASE, read_section, read_settings
from . import migration_hooks
from .new import write_application
from .provisioning import Provisioning
from .server import Finding, error_text
from .show import FROM_DEFAULTS, settings_in_effect, try_login
from .sources import UsageError, find_metadatas, read_ini
from .terminal import Progress, print_error, print_wrapped

OK, DIFFERENT, USAGE = 0, 1, 2
# What a shell says of a program that has written to a reader who has gone, such as head.
NO_READER = 141
ADMIN_URL = "SQA_ADMIN_URL"
DISTRIBUTION = "pyramid_aalam_sqa"
# Seconds after which a command says what it is doing.
PROGRESS_AFTER = 3
WAIT = 30
EPILOG = f"""
The administrator's URL is in the file that --admin-url-file names, or in {ADMIN_URL}
in the environment. Without either, psqa logs in on the server's socket. Exit status: 0 when all
is well, 1 when something differs, is wrong or was refused, 2 when psqa was called wrongly.
"""
EPILOG_OF_NEW = """
The folder must not exist yet. Its name is the name of the application's package. Exit status: 0
when the application is written, 2 when nothing is written.
"""
NEXT = """{count} files are written. Next:
    cd {folder}
    pip install --editable ".[testing]"
    pytest
    psqa create development.ini
    psqa upgrade development.ini
    pserve --reload development.ini
Its README.md says more."""
URL_ON_COMMAND_LINE = (
    "a URL on the command line can be read by every user of the system: write it into a file for "
    f"--admin-url-file, or into {ADMIN_URL}. If it had a password, change that password now."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in *argv* and return its exit status."""
    given = sys.argv[1:] if argv is None else argv
    if any("://" in word or "@" in word.partition("=")[2] for word in given):
        return _fail(URL_ON_COMMAND_LINE, USAGE)
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.function
    try:
        return command(arguments)
    except (SqaError, UsageError) as error:
        return _fail(error, USAGE if isinstance(error, (SettingError, UsageError)) else DIFFERENT)
    except DBAPIError as error:
        return _fail(error_text(error), DIFFERENT)
    except SQLAlchemyError as error:
        # What follows the first line may be a statement with its values.
        return _fail(str(error).partition("\n")[0], DIFFERENT)
    except BrokenPipeError:
        # Python would complain when it flushes the stream at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER


def new(arguments: argparse.Namespace) -> int:
    """Write a small complete application, with its tests, to begin from."""
    count = write_application(arguments.folder.absolute())
    print_wrapped(NEXT.format(count=count, folder=shlex.quote(str(arguments.folder))))
    return OK


def show(arguments: argparse.Namespace) -> int:
    """Print the settings in effect, and whether the database answers."""
    settings = read_ini(arguments.ini)
    section = read_section(settings)
    read = read_settings(settings, section)
    if read.database is None:
        raise SettingError(NO_DATABASE)
    sections = {
        "[sqlalchemy]": {f"sqlalchemy.{key}": value for key, value in section.items()},
        f"[app:{arguments.ini.partition('#')[2] or 'main'}]": settings,
    }
    every = list(settings_in_effect(read, sections))
    found = {
        key: try_login(database, read.options_for(key)) for key, database in read.databases.items()
    }
    status = DIFFERENT if any(problem for problem, _host in found.values()) else OK
    if arguments.json:
        return _print_json(
            {
                "settings": [
                    {"key": each.key, "value": each.value, "origin": each.origin} for each in every
                ],
                "databases": [
                    {"key": key, "url": str(read.databases[key]), "problem": problem, "host": host}
                    for key, (problem, host) in found.items()
                ],
            },
            status,
        )
    rest = [each for each in every if each.origin == FROM_DEFAULTS]
    for each in [each for each in every if each.origin != FROM_DEFAULTS]:
        print_wrapped(f"{each.key} = {each.value}  ({each.origin})", indent=4)
    for each in rest if arguments.all else ():
        print_wrapped(f"{each.key} = {each.value}  ({each.origin})", indent=4)
    if not arguments.all:
        print_wrapped(f"{len(rest)} settings more have their defaults: psqa show --all.", indent=4)
    print_wrapped("")
    for key, database in read.databases.items():
        label = database.name or (key if read.binds else database)
        problem, host = found[key]
        said = problem or (f"answers at {host}" if host else "answers")
        print_wrapped(f"{label}: {said.rstrip('.')}.", indent=4)
    return status


def create(arguments: argparse.Namespace) -> int:
    """Make database, accounts and grants as they should be, and prove it."""
    with _provisioning(arguments) as provisioning:
        password = _read_secret(arguments.owner_password_file)
        provisioning.require_password()
        _print_server(provisioning)
        if arguments.dry_run:
            return _print_plan(provisioning.plan(password))
        _print_done(f"{step};" for step in provisioning.apply(password))
        for sentence in provisioning.prove(password):
            print_wrapped(f"Proved: {sentence.rstrip('.')}.", indent=4)
    return OK


def tables(arguments: argparse.Namespace) -> int:
    """Create the tables that are missing, as the owner account."""
    with _provisioning(arguments) as provisioning:
        password = _read_secret(arguments.owner_password_file)
        metadatas = find_metadatas(arguments.base or (), provisioning.settings, arguments.ini)
        _print_server(provisioning)
        if arguments.dry_run:
            return _print_plan(
                statement for each in metadatas for statement in provisioning.plan_tables(each)
            )
        _print_done(
            f"Created {name}"
            for each in metadatas
            for name in provisioning.create_tables(each, password)
        )
    return OK


def check(arguments: argparse.Namespace) -> int:
    """Print what is wrong on the server."""
    with _provisioning(arguments) as provisioning:
        as_administrator = arguments.admin_url or provisioning.has_administrator()
        if as_administrator:
            server = provisioning.describe_server()
            found = provisioning.check(_read_secret(arguments.owner_password_file))
        else:
            server = None
            found = provisioning.check_as_application()
    found = [*found, *migration_hooks.migration_findings(arguments)]
    status = DIFFERENT if found else OK
    if arguments.json:
        findings = [{"problem": each.problem, "advice": each.advice} for each in found]
        return _print_json({"server": server, "findings": findings}, status)
    if server:
        print_wrapped(f"Server: {server}.", indent=4)
    else:
        text = "No administrator's account: this is what the application's own can see."
        print_wrapped(text, indent=4)
    _print_findings(found)
    return status


def rotate(arguments: argparse.Namespace) -> int:
    """Give the application's account a new password; requests go on meanwhile."""
    with _provisioning(arguments) as provisioning:
        steps = provisioning.plan_rotation()
        _print_server(provisioning)
        if arguments.dry_run:
            return _print_plan(steps)
        _print_done(f"{step};" for step in provisioning.rotate())
    return OK


def drop(arguments: argparse.Namespace) -> int:
    """Lock the accounts, end their connections, and remove everything."""
    with _provisioning(arguments) as provisioning:
        if not (arguments.dry_run or arguments.yes):
            msg = (
                f"All that is stored in {provisioning.tenant.name} would be lost: "
                "add --yes, or --dry-run to see how."
            )
            raise UsageError(msg)
        _print_server(provisioning)
        if arguments.dry_run:
            return _print_plan(provisioning.plan_removal())
        _print_done(f"{step};" for step in provisioning.remove())
    return OK


class Parser(argparse.ArgumentParser):
    """Repeats no word of the command line that it does not know, which may be a password."""

    def error(self, message: str) -> NoReturn:
        """Print how psqa is called and what is wrong, and end the process with status 2."""
        kind, colon, words = message.partition(": ")
        if kind == "unrecognized arguments":
            names = [word.partition("=")[0] for word in words.split() if word.startswith("-")]
            message = kind + (colon + " ".join(names) if names else " after the ini file")
        self.print_usage(sys.stderr)
        print_error(message)
        self.exit(USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "psqa",
        description="An application's database and accounts.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="<command>", required=True)
    text = str(new.__doc__)
    command = commands.add_parser(
        new.__name__, help=text, description=text, epilog=EPILOG_OF_NEW, allow_abbrev=False
    )
    command.set_defaults(function=new)
    command.add_argument("folder", type=Path, help="shop, or a path that ends with it")
    for function in (show, create, tables, *migration_hooks.COMMANDS, check, rotate, drop):
        text = str(function.__doc__)
        command = commands.add_parser(
            function.__name__, help=text, description=text, epilog=EPILOG, allow_abbrev=False
        )
        command.set_defaults(function=function)
        if function in migration_hooks.COMMANDS:
            migration_hooks.add_options(command, function.__name__)
            continue
        command.add_argument("ini", help="development.ini, or development.ini#name")
        _add_options(command, function.__name__)
    return parser


@cache
def _version() -> str:
    return f"{DISTRIBUTION} {version(DISTRIBUTION)}"


def _add_options(command: argparse.ArgumentParser, name: str) -> None:
    if name in {"show", "check"}:
        command.add_argument("--json", action="store_true", help="print JSON, for programs")
    if name == "show":
        command.add_argument("--all", action="store_true", help="print the defaults as well")
        return
    command.add_argument("--admin-url-file", metavar="FILE", help="has the administrator's URL")
    command.add_argument("--bind", metavar="KEY", help="for the bind KEY, not the default one")
    command.add_argument(
        "--wait",
        type=float,
        default=WAIT,
        metavar="SECONDS",
        help="how long to wait for another psqa, for locks and for connections to end (default: "
        "%(default)s)",
    )
    if name != "check":
        command.add_argument("--dry-run", action="store_true", help="only print what is to do")
    if name in {"create", "tables", "check"}:
        command.add_argument(
            "--owner-password-file",
            metavar="FILE",
            help="has the password of the owner account; without it the account cannot log in",
        )
    if name == "tables":
        command.add_argument(
            "--base",
            action="append",
            metavar="package.module:Base",
            help="a declarative base, or its MetaData, in place of sqa.base and of the "
            "application's init_engine(); may be given again",
        )
    if name == "drop":
        command.add_argument("--yes", action="store_true", help="all that is stored is lost")


@contextmanager
def _provisioning(arguments: argparse.Namespace) -> Iterator[Provisioning]:
    """Lend what does the work; while it takes long, a line now and then says what is done."""
    arguments.admin_url = (
        _read_secret(arguments.admin_url_file) or os.environ.get(ADMIN_URL, "").strip() or None
    )
    settings = read_ini(arguments.ini)
    with (
        Provisioning(
            settings, arguments.admin_url, bind_key=arguments.bind, wait=arguments.wait
        ) as provisioning,
        Progress(provisioning.doing, PROGRESS_AFTER),
    ):
        yield provisioning


def _read_secret(path: str | None) -> str | None:
    return None if path is None else read_password(Path(path))


def _print_server(provisioning: Provisioning) -> None:
    print_wrapped(f"Server: {provisioning.describe_server()}.", indent=4)


def _print_plan(steps: Iterable[object]) -> int:
    """Print *steps* and return the exit status, which tells whether there are any."""
    status = OK
    for step in steps:
        print_wrapped(f"{step};", indent=4)
        status = DIFFERENT
    if status == OK:
        print_wrapped("Nothing to change.")
    return status


def _print_done(lines: Iterable[str]) -> None:
    done = False
    for line in lines:
        print_wrapped(line, indent=4)
        done = True
    if not done:
        print_wrapped("Nothing to change.")


def _print_findings(found: Sequence[Finding]) -> None:
    for finding in found:
        print_wrapped(f"- {str(finding).rstrip('.')}.", indent=2)
    if not found:
        print_wrapped("Nothing is wrong.")


def _print_json(value: Any, status: int) -> int:
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)  # noqa: T201 - a command prints
    return status


def _fail(error: object, status: int) -> int:
    print_error(str(error))
    return status


if __name__ == "__main__":
    sys.exit(main())
