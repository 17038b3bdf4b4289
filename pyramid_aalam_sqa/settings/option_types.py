"""The types of settings: what a user writes, how the text is read, and which values are right."""

import json
import os
import re
from collections.abc import Callable
from keyword import iskeyword
from pkgutil import resolve_name
from typing import NamedTuple

from sqlalchemy import pool
from sqlalchemy.engine import URL, Engine
from sqlalchemy.orm import Session

from .hosts import Host, read_hosts
from .names import APP_RULE, PROVIDER_RULE, is_app, is_provider


class OptionType(NamedTuple):
    """The type of an option.

    ``write`` follows the word "write" in an error message. ``read`` turns text into a value; a
    value that is not text is kept as it is. ``fits`` returns whether a value is right.
    """

    write: str
    read: Callable[[str], object]
    fits: Callable[[object], bool]

    def value(self, given: object) -> object:
        """Return *given*, text or not, as a value of this type.

        Raises ValueError if it is not such a value, ImportError if it is a dotted name that cannot
        be imported.
        """
        value = self.read(given) if isinstance(given, str) else given
        if not self.fits(value):
            raise ValueError(given)
        return value


BOOLEAN_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


BOOLEAN_DIGITS = {"1": True, "0": False}


MIN_SECRET_LENGTH = 16


def _boolean(text: str) -> object:
    # Pyramid's asbool() reads every misspelling of "true" as false.
    return (BOOLEAN_WORDS | BOOLEAN_DIGITS).get(text.lower())


def _number(text: str) -> float:
    # int() and float() alone would accept "1_000", "nan" and the digits of every script.
    if not re.fullmatch(r"-?[0-9]*\.?[0-9]*", text):
        raise ValueError(text)
    return float(text) if "." in text else int(text)


def _unchanged(text: str) -> str:
    return text


def _imported(text: str) -> object:
    """Return the object with the dotted name *text*. Raises ImportError if that fails."""
    try:
        return resolve_name(text)
    except Exception as error:  # importing runs the module's code
        msg = f"{type(error).__name__}: {error}"
        raise ImportError(msg) from error


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(text) from None


def _driver_value(text: str) -> object:
    """Return *text* as a boolean or as JSON if it is one, else as text.

    A driver does not tell the types of its arguments.
    """
    if text.lower() in BOOLEAN_WORDS:
        return BOOLEAN_WORDS[text.lower()]
    try:
        return _json(text)
    except ValueError:
        return text


def _is_instance(*types: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, types)


def _is_class(parent: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, type) and issubclass(value, parent)


def _is_whole_number(lowest: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and value >= lowest


def _is_seconds(value: object) -> bool:
    # At most eleven days: every server and every clock of Python accepts that many seconds.
    return isinstance(value, (int, float)) and type(value) is not bool and 0 <= value <= 10**6


def one_of(
    *words: str, fold: Callable[[str], str] = str.lower, refused: tuple[str | None, ...] = ()
) -> OptionType:
    """Return the type of an option whose value is one of *words*.

    *fold* changes the text that a user wrote to the spelling of *words*, for example to lower
    case. *refused* are further values that the database knows. They are accepted here, because
    later code refuses them with an error that says why.
    """
    write = " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    return OptionType(write, fold, lambda value: value in words or value in refused)


def _text_matching(write: str, pattern: str) -> OptionType:
    return OptionType(
        write,
        _unchanged,
        lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value, re.ASCII)),
    )


TEXT = OptionType("text", _unchanged, _is_instance(str))


SECRET = OptionType(
    "16 characters or more, chosen at random",
    _unchanged,
    lambda value: isinstance(value, str) and len(value) >= MIN_SECRET_LENGTH,
)


LEVEL = OptionType(
    "a level that the database knows, such as READ COMMITTED", _unchanged, _is_instance(str)
)


BOOLEAN = OptionType("true or false", _boolean, _is_instance(bool))


ECHO = OptionType(
    "true, false or debug",
    lambda text: "debug" if text.lower() == "debug" else _boolean(text),
    lambda value: value == "debug" or isinstance(value, bool),
)


RESET = OptionType(
    "rollback",
    lambda text: None if text.lower() == "none" else text.lower(),
    # The last two are accepted here, because later code refuses them and says why.
    lambda value: value in ("rollback", "commit", None),
)


SIZE = OptionType("a whole number from 0 up", _number, _is_whole_number(0))


POSITIVE = OptionType("a whole number from 1 up", _number, _is_whole_number(1))


SIZE_OR_NONE = OptionType(
    "a whole number from 0 up, or -1 for no limit", _number, _is_whole_number(-1)
)


SECONDS = OptionType("seconds, a number from 0 to 1000000", _number, _is_seconds)


CALLABLE = OptionType("the dotted name of a callable, package.module:name", _imported, callable)


BLANK_OR_CALLABLE = OptionType(
    "the dotted name of a callable, package.module:name (blank: every response commits)",
    lambda text: _imported(text) if text else None,
    lambda value: value is None or callable(value),
)


MODULE = OptionType(
    "the dotted name of a driver's module", _imported, lambda value: hasattr(value, "connect")
)


READY_ENGINE = OptionType(
    "a ready Engine, from Python, or its dotted name", _imported, _is_instance(Engine)
)


READY_POOL = OptionType(
    "a ready pool, from Python, or its dotted name", _imported, _is_instance(pool.Pool)
)


POOL_CLASS = OptionType(
    "a pool of sqlalchemy.pool such as NullPool, or a dotted name",
    lambda text: getattr(pool, text, None) or _imported(text),
    _is_class(pool.Pool),
)


SESSION_CLASS = OptionType(
    "the dotted name of a subclass of sqlalchemy.orm.Session", _imported, _is_class(Session)
)


DATABASE_URL = OptionType("a database URL", _unchanged, _is_instance(str, URL))


DRIVER_VALUE = OptionType("text, or a JSON value", _driver_value, _is_instance(object))


JSON_OBJECT = OptionType('a JSON object, {"name": value}', _json, _is_instance(dict))


DATABASE_URLS = OptionType(
    "database URLs, separated by spaces",
    str.split,
    lambda value: isinstance(value, (list, tuple)) and len(value) > 0,
)


# A request with another method is expected to write.
READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


METHODS = OptionType(
    "methods that read, separated by spaces: GET, HEAD, OPTIONS",
    lambda text: text.upper().split(),
    lambda value: isinstance(value, (list, tuple)) and READING_METHODS.issuperset(value),
)


NAMES = OptionType("names, separated by spaces", str.split, _is_instance(list, tuple))


HOSTS = OptionType(
    "hosts, separated by spaces, such as db1 db2:3307 [2001:db8::7]:3306",
    read_hosts,
    lambda value: isinstance(value, tuple) and all(isinstance(each, Host) for each in value),
)


ATTRIBUTE = OptionType(
    "a name that Pyramid's request does not have, such as dbsession",
    _unchanged,
    lambda value: isinstance(value, str) and value.isidentifier() and not iskeyword(value),
)

PASSWORD_FILE = OptionType(
    "the path of a file that is there; (umask 077; openssl rand -base64 24 > FILE) makes one",
    _unchanged,
    lambda value: os.path.isfile(str(value)),  # noqa: PTH113 - Path.is_file() raises for a NUL
)


FILE = OptionType("the path of a file", _unchanged, lambda value: os.path.isfile(str(value)))  # noqa: PTH113 - Path.is_file() raises for a NUL


PROVIDER = OptionType(PROVIDER_RULE, _unchanged, is_provider)


APP = OptionType(APP_RULE, _unchanged, is_app)


# The values of these two become part of a statement, so they may not contain quotes.
SQL_MODE = _text_matching("the server's names, separated by commas", r"\w+(,\w+)*")


TIME_ZONE = _text_matching("an offset, +00:00, or a zone the server knows", r"[\w+:/-]+")
