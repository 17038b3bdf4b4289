"""The kinds of values that settings have: what to write, how text is read, what is right."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name

from sqlalchemy import pool
from sqlalchemy.engine import URL, Engine
from sqlalchemy.orm import Session

from .names import APP_RULE, PROVIDER_RULE, is_app, is_provider


@dataclass(frozen=True, slots=True)
class OptionType:
    """What an option takes: what to write, how its text is read, and which values are right."""

    write: str
    read: Callable[[str], object]
    fits: Callable[[object], bool]

    def value(self, given: object) -> object:
        """Return *given* as the option's own type.

        Raises ValueError when it has none, ImportError when it names what cannot be imported.
        """
        value = self.read(given) if isinstance(given, str) else given
        if not self.fits(value):
            raise ValueError(given)
        return value


WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


DIGITS = {"1": True, "0": False}


SHORTEST_SECRET = 16


def _boolean(text: str) -> object:
    # Not pyramid's asbool: it takes every misspelling of "true" for false.
    return (WORDS | DIGITS).get(text.lower())


def _number(text: str) -> float:
    # int() and float() alone would take "1_000", "nan" and the digits of every script.
    if not re.fullmatch(r"-?[0-9]*\.?[0-9]*", text):
        raise ValueError(text)
    return float(text) if "." in text else int(text)


def _same(text: str) -> str:
    return text


def _named(text: str) -> object:
    """Return what a dotted name names; importing runs code, which may raise anything."""
    try:
        return resolve_name(text)
    except Exception as error:
        msg = f"{type(error).__name__}: {error}"
        raise ImportError(msg) from error


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(text) from None


def _driver_value(text: str) -> object:
    """A driver's arguments have no types that could be looked up, so each value has its own."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return _json(text)
    except ValueError:
        return text


def _is(*types: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, types)


def _is_class(parent: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, type) and issubclass(value, parent)


def _whole(lowest: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and value >= lowest


def _seconds(value: object) -> bool:
    # Eleven days: all that every server and Python's own clocks can count.
    return isinstance(value, (int, float)) and type(value) is not bool and 0 <= value <= 10**6


def one_of(*words: str, fold: Callable[[str], str] = str.lower) -> OptionType:
    """Return the kind of an option that has a few words for its values."""
    write = " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    return OptionType(write, fold, lambda value: value in words)


def _matching(write: str, pattern: str) -> OptionType:
    found = re.compile(pattern, re.ASCII).fullmatch
    return OptionType(write, _same, lambda value: isinstance(value, str) and bool(found(value)))


TEXT = OptionType("text", _same, _is(str))


SECRET = OptionType(
    "text of 16 characters or more that nobody can guess",
    _same,
    lambda value: isinstance(value, str) and len(value) >= SHORTEST_SECRET,
)


LEVEL = OptionType("a level that the database knows, such as READ COMMITTED", _same, _is(str))


BOOLEAN = OptionType("true or false", _boolean, _is(bool))


ECHO = OptionType(
    "true, false or debug",
    lambda text: "debug" if text.lower() == "debug" else _boolean(text),
    lambda value: value == "debug" or isinstance(value, bool),
)


RESET = OptionType(
    "rollback, commit or none",
    lambda text: None if text.lower() == "none" else text.lower(),
    lambda value: value in ("rollback", "commit", None),
)


SIZE = OptionType("a whole number from 0 up", _number, _whole(0))


POSITIVE = OptionType("a whole number from 1 up", _number, _whole(1))


SIZE_OR_NONE = OptionType("a whole number from 0 up, or -1 for no limit", _number, _whole(-1))


SECONDS = OptionType("seconds, a number from 0 to 1000000", _number, _seconds)


CALLABLE = OptionType("the dotted name of a callable, package.module:name", _named, callable)


VETO = OptionType(
    "the dotted name of a callable, package.module:name (blank: every response commits)",
    lambda text: _named(text) if text else None,
    lambda value: value is None or callable(value),
)


MODULE = OptionType(
    "the dotted name of a driver's module", _named, lambda value: hasattr(value, "connect")
)


READY_ENGINE = OptionType("a ready Engine, from Python, or its dotted name", _named, _is(Engine))


READY_POOL = OptionType("a ready pool, from Python, or its dotted name", _named, _is(pool.Pool))


POOL_CLASS = OptionType(
    "a pool of sqlalchemy.pool such as NullPool, or a dotted name",
    lambda text: getattr(pool, text, None) or _named(text),
    _is_class(pool.Pool),
)


SESSION_CLASS = OptionType(
    "the dotted name of a subclass of sqlalchemy.orm.Session", _named, _is_class(Session)
)


DATABASE_URL = OptionType("a database URL", _same, _is(str, URL))


DRIVER_VALUE = OptionType("text, or a JSON value", _driver_value, _is(object))


JSON_OBJECT = OptionType('a JSON object, {"name": value}', _json, _is(dict))


NAMES = OptionType("names, separated by spaces", str.split, _is(list, tuple))


# Path.is_file() raises where the text cannot be a path at all.
FILE = OptionType("the path of a file", _same, lambda value: os.path.isfile(str(value)))  # noqa: PTH113


PROVIDER = OptionType(PROVIDER_RULE, _same, is_provider)


APP = OptionType(APP_RULE, _same, is_app)


# These two become part of a statement.
SQL_MODE = _matching("the server's names, separated by commas", r"\w+(,\w+)*")


TIME_ZONE = _matching("an offset, +00:00, or a zone the server knows", r"[\w+:/-]+")
