"""The console script psqa: it makes, checks and removes an application's database and accounts."""

import argparse
import configparser
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from shutil import get_terminal_size
from typing import Any, NoReturn

from pyramid.paster import get_appsettings
from sqlalchemy import MetaData
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..engines import read_password
from ..exceptions import SettingError, SqaError
from ..settings import NO_DATABASE, read_section, read_settings
from .provisioning import Provisioning
from .server import error_text
from .show import login_problem, settings_in_effect

OK, DIFFERENT, USAGE = 0, 1, 2
ADMIN_URL = "SQA_ADMIN_URL"
EPILOG = f"""
The administrator's URL is in the file that --admin-url-file names, or in {ADMIN_URL}
in the environment. Without either, psqa logs in on the server's socket. Exit status: 0 when all
is well, 1 when something differs, is wrong or was refused, 2 when psqa was called wrongly.
"""


URL_ON_COMMAND_LINE = (
    "a URL on the command line can be read by every user of the system: write it into a file for "
    f"--admin-url-file, or into {ADMIN_URL}. If it had a password, change that password now."
)


class Parser(argparse.ArgumentParser):
    """Repeats no word of the command line that it does not know, which may be a password."""

    def error(self, message: str) -> NoReturn:
        """Print how psqa is called and what is wrong, and end the process with status 2."""
        kind, colon, words = message.partition(": ")
        if kind == "unrecognized arguments":
            names = [word.partition("=")[0] for word in words.split() if word.startswith("-")]
            message = kind + (colon + " ".join(names) if names else " after the ini file")
        super().error(message)


class UsageError(Exception):
    """The command line or the ini file is wrong; the exit status is 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in *argv* and return its exit status."""
    given = sys.argv[1:] if argv is None else argv
    if any("://" in word or "@" in word.partition("=")[2] for word in given):
        return _fail(URL_ON_COMMAND_LINE, USAGE)
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.function
    try:
        return command(arguments)
    except (SettingError, UsageError) as error:
        return _fail(error, USAGE)
    except SqaError as error:
        return _fail(error, DIFFERENT)
    except DBAPIError as error:
        return _fail(error_text(error), DIFFERENT)
    except SQLAlchemyError as error:
        # What follows the first line may be a statement with its values.
        return _fail(str(error).partition("\n")[0], DIFFERENT)


def show(arguments: argparse.Namespace) -> int:
    """Print the settings in effect, and whether the database answers."""
    settings = _settings(arguments)
    section = read_section(settings)
    read = read_settings(settings, section)
    if read.database is None:
        raise SettingError(NO_DATABASE)
    sections = {
        "[sqlalchemy]": {f"sqlalchemy.{key}": value for key, value in section.items()},
        f"[app:{arguments.ini.partition('#')[2] or 'main'}]": settings,
    }
    for each in settings_in_effect(read, sections):
        _print(f"{each.key} = {each.value}  ({each.origin})", indent=4)
    _print("")
    status = OK
    for key, database in read.databases.items():
        label = database.name or (key if read.binds else database)
        reason = login_problem(database, read.options_for(key))
        _print(f"{label}: {(reason or 'answers').rstrip('.')}.")
        status = DIFFERENT if reason else status
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
            _print(f"Proved: {sentence.rstrip('.')}.")
    return OK


def tables(arguments: argparse.Namespace) -> int:
    """Create the tables that are missing, as the owner account."""
    with _provisioning(arguments) as provisioning:
        metadatas = _metadatas(arguments.base, provisioning.settings.name)
        _print_server(provisioning)
        if arguments.dry_run:
            return _print_plan(
                statement for each in metadatas for statement in provisioning.plan_tables(each)
            )
        password = _read_secret(arguments.owner_password_file)
        _print_done(
            f"Created {name}"
            for each in metadatas
            for name in provisioning.create_tables(each, password)
        )
    return OK


def check(arguments: argparse.Namespace) -> int:
    """Print what is wrong on the server."""
    with _provisioning(arguments) as provisioning:
        if arguments.admin_url or provisioning.has_administrator():
            _print_server(provisioning)
            found = provisioning.check(_read_secret(arguments.owner_password_file))
        else:
            _print("No administrator's account: this is what the application's own can see.")
            found = provisioning.check_as_application()
    for finding in found:
        _print(f"- {finding}", indent=2)
    if not found:
        _print("Nothing is wrong.")
    return DIFFERENT if found else OK


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
        if arguments.dry_run:
            _print_server(provisioning)
            return _print_plan(provisioning.plan_removal())
        if not arguments.yes:
            msg = (
                f"All that is stored in {provisioning.tenant.name} would be lost: "
                "add --yes, or --dry-run to see how."
            )
            raise UsageError(msg)
        _print_server(provisioning)
        _print_done(f"{step};" for step in provisioning.remove())
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "psqa",
        description="An application's database and accounts.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="<command>", required=True)
    for function in (show, create, tables, check, rotate, drop):
        text = str(function.__doc__)
        command = commands.add_parser(
            function.__name__, help=text, description=text, epilog=EPILOG, allow_abbrev=False
        )
        command.set_defaults(function=function)
        command.add_argument("ini", help="development.ini, or development.ini#name")
        if function is show:
            continue
        command.add_argument("--admin-url-file", metavar="FILE", help="has the administrator's URL")
        command.add_argument("--bind", metavar="KEY", help="for the bind KEY, not the default one")
        if function is not check:
            command.add_argument("--dry-run", action="store_true", help="only print what is to do")
        if function in {create, tables, check}:
            command.add_argument(
                "--owner-password-file",
                metavar="FILE",
                help="has the password of the owner account; without it the password is random",
            )
        if function is tables:
            command.add_argument(
                "--base",
                action="append",
                required=True,
                metavar="package.module:Base",
                help="a declarative base, or its MetaData; may be given again",
            )
        if function is drop:
            command.add_argument("--yes", action="store_true", help="all that is stored is lost")
    return parser


def _provisioning(arguments: argparse.Namespace) -> Provisioning:
    arguments.admin_url = (
        _read_secret(arguments.admin_url_file) or os.environ.get(ADMIN_URL, "").strip() or None
    )
    return Provisioning(_settings(arguments), arguments.admin_url, bind_key=arguments.bind)


def _settings(arguments: argparse.Namespace) -> Any:
    try:
        return get_appsettings(arguments.ini)
    except configparser.InterpolationError as error:
        # The text of the error repeats the value, which may hold a password.
        msg = (
            f"[{error.section}] {error.option}: write a percent sign as %%, "
            "and give each %(name)s a value."
        )
    except (configparser.Error, UnicodeError):
        msg = f"{arguments.ini}: this is not an ini file."
    except (OSError, LookupError, ImportError, AttributeError, ValueError) as error:
        msg = f"{arguments.ini}: {' '.join(str(error).split())}"
    raise UsageError(msg)


def _read_secret(path: str | None) -> str | None:
    return None if path is None else read_password(Path(path))


def _metadatas(bases: Sequence[str], name: str | None) -> list[MetaData]:
    """Return the MetaData of the *bases*, whose models may ask for the application's *name*."""
    if name:
        os.environ["SQA_PROVIDER"], _, os.environ["SQA_APP"] = name.partition("_")
    return [_metadata(base) for base in dict.fromkeys(bases)]


def _metadata(base: str) -> MetaData:
    try:
        found = resolve_name(base)
    except Exception as error:  # noqa: BLE001 - an import runs code, which may raise anything
        msg = f"--base {base!r}: {type(error).__name__}: {error}"
        raise UsageError(msg) from None
    metadata = getattr(found, "metadata", found)
    if not isinstance(metadata, MetaData):
        msg = f"--base {base!r}: write the dotted name of a declarative base, package.module:Base."
        raise UsageError(msg)
    return metadata


def _print_plan(steps: Iterable[object]) -> int:
    """Print *steps* and return the exit status, which tells whether there are any."""
    status = OK
    for step in steps:
        _print(f"{step};", indent=4)
        status = DIFFERENT
    if status == OK:
        _print("Nothing to change.")
    return status


def _print_server(provisioning: Provisioning) -> None:
    _print(f"Server: {provisioning.describe_server()}.", indent=4)


def _print_done(lines: Iterable[str]) -> None:
    done = False
    for line in lines:
        _print(line, indent=4)
        done = True
    if not done:
        _print("Nothing to change.")


def _fail(error: object, status: int) -> int:
    text = " ".join(str(error).split())
    print(f"psqa: {text}", file=sys.stderr)  # noqa: T201 - a command prints
    return status


def _print(text: str, indent: int = 0) -> None:
    if "\n" in text:  # CREATE TABLE is laid out already.
        print(text)  # noqa: T201 - a command prints
        return
    width = max(20, get_terminal_size().columns - 1)
    lines = textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    print("\n".join(lines))  # noqa: T201 - a command prints


if __name__ == "__main__":
    sys.exit(main())
