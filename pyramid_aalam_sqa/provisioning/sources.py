"""Reads an application's ini file without importing the application, and finds its tables."""

import configparser
import os
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pyramid.paster import get_app
from sqlalchemy import MetaData

from ..applications import get_sqa
from ..settings import Settings, read_app_settings
from .sqlite import MAGIC

# How many bytes of a file are looked at to say what it is.
SAMPLE = 1024
KINDS = {
    ".json": "JSON",
    ".py": "a Python module",
    ".toml": "TOML",
    ".yaml": "YAML",
    ".yml": "YAML",
}


class UsageError(Exception):
    """The command line or the ini file is wrong; the exit status is 2."""


def read_ini(where: str) -> Any:
    """Return the settings of the application at *where*, a path or ``path#name``.

    Raises UsageError, which says what the file is instead of an ini file, and repeats no value.
    """
    path, _, name = where.partition("#")
    try:
        return read_app_settings(path, name or "main")
    except configparser.InterpolationError as error:
        # The text of the error repeats the value, which may hold a password.
        msg = (
            f"[{error.section}] {error.option}: write a percent sign as %%, "
            "and give each %(name)s a value."
        )
    except (configparser.Error, UnicodeError):
        msg = f"{path}: this is not an ini file{_what_it_is(Path(path))}."
    except IsADirectoryError:
        found = ", ".join(sorted(file.name for file in Path(path).glob("*.ini"))) or "none"
        msg = f"{path}: this is a folder; name an ini file in it ({found})."
    except FileNotFoundError as error:
        missing = error.filename or path
        found = ", ".join(sorted(file.name for file in Path(path).absolute().parent.glob("*.ini")))
        beside = f" (found there: {found})" if found else ""
        msg = f"{missing}: No such file or directory{beside}."
    except (OSError, LookupError, ValueError) as error:
        msg = f"{path}: {' '.join(str(error).split())}"
    raise UsageError(msg)


def _what_it_is(path: Path) -> str:
    begin = path.read_bytes()[:SAMPLE]
    if begin.startswith(MAGIC):
        return ", but a database of SQLite"
    if b"\0" in begin:
        return ", and not even text"
    if path.suffix in KINDS:
        return f", but {KINDS[path.suffix]}"
    return ", which has sections such as [app:main]"


def find_metadatas(given: Sequence[str], settings: Settings, where: str) -> Sequence[MetaData]:
    """Return the MetaData of the bases *given*, else of sqa.base, else of init_engine().

    This imports code of the application. Only for the last the application is made, as pserve
    makes it. Raises UsageError when there is no base, or when it cannot be imported.
    """
    if settings.name:
        # The models may ask for the name as they are imported.
        os.environ["SQA_PROVIDER"], _, os.environ["SQA_APP"] = settings.name.partition("_")
    if given:
        return [_metadata("--base", name) for name in dict.fromkeys(given)]
    if settings.sqa_options["base"]:
        return [_metadata("sqa.base", name) for name in settings.sqa_options["base"]]
    try:
        found = get_sqa(get_app(where)).bases
    except Exception as error:  # noqa: BLE001 - an import runs code, which may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        msg = f"The application cannot be loaded to find its tables ({reason}). {_how_to_import()}"
        raise UsageError(msg) from None
    if not found:
        msg = (
            "The application calls no init_engine(): write sqa.base = package.module:Base in "
            "its section, or give --base package.module:Base."
        )
        raise UsageError(msg)
    return found


def _metadata(setting: str, name: str) -> MetaData:
    try:
        found = resolve_name(name)
    except Exception as error:  # noqa: BLE001 - an import runs code, which may raise anything
        msg = f"{setting} {name!r}: {type(error).__name__}: {error}. {_how_to_import()}"
        raise UsageError(msg) from None
    metadata = getattr(found, "metadata", found)
    if not isinstance(metadata, MetaData):
        msg = (
            f"{setting} {name!r}: write the dotted name of a declarative base, package.module:Base."
        )
        raise UsageError(msg)
    return metadata


def _how_to_import() -> str:
    path = os.environ.get("PYTHONPATH")
    shown = f"PYTHONPATH is {path}" if path else "PYTHONPATH is not set"
    return (
        f"psqa was called in {Path.cwd()}, and {shown}: install the application, or write the "
        "folder of its package into PYTHONPATH."
    )
