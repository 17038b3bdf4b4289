"""Turns each setting, as the user wrote it, into a value of its type."""

from collections.abc import Iterable, Mapping
from sys import intern
from typing import Any, NamedTuple

from sqlalchemy import util
from sqlalchemy.engine import Dialect

from ..backends import most_similar
from ..exceptions import SettingError
from .option_types import BLANK_OR_CALLABLE, DRIVER_VALUE, one_of
from .options import ENGINE_OPTIONS, Option, all_options

ARGUMENT_PREFIX = "connect_args."


# Arguments of a driver that stay text, even if they look like a number.
TEXT_ARGUMENTS = {"user", "username", "password", "passwd", "host", "database", "db", "dbname"}


# The isolation level in which there are no transactions.
AUTOCOMMIT = "AUTOCOMMIT"


# Options of SQLAlchemy's dialects that only create_engine itself passes to them.
INTERNAL_OPTIONS = {"dbapi", "compiler_linting"}


# The create_engine options by name.
ENGINE_OPTION_NAMES = {option.key: option for option in ENGINE_OPTIONS}


class RawSetting(NamedTuple):
    """A setting as the user wrote it: *label* says where, *name* is the option's name."""

    label: str
    name: str
    value: object

    def __repr__(self) -> str:
        # Without the value, which may be a secret.
        return f"RawSetting({self.label!r}, {self.name!r})"


def read_options(
    given: Iterable[RawSetting], dialect: type[Dialect] | None, prefix: str = "sqlalchemy."
) -> dict[str, Any]:
    """Return the create_engine options in *given*, each as a value of its type.

    *dialect* is SQLAlchemy's dialect of the URL, None if there is no URL. The keys of the database
    begin with *prefix*. Raises :class:`SettingError` for the first wrong one.
    """
    # A dialect may have options of its own, such as native_datetime.
    own = util.get_cls_kwargs(dialect) - INTERNAL_OPTIONS if dialect else ()
    known = {name: Option(name, DRIVER_VALUE, "") for name in own} | ENGINE_OPTION_NAMES
    options: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for item in given:
        argument = item.name.removeprefix(ARGUMENT_PREFIX)
        if argument and argument != item.name:
            # One string for the arguments of all engines.
            arguments[intern(argument)] = _driver_argument(argument, item)
        else:
            option = known_option(item, known, prefix)
            if item.name == "isolation_level" and dialect:
                option = _isolation_level(dialect)
            options[item.name] = read_value(option, item)
    if arguments:
        options["connect_args"] = {**options.get("connect_args", {}), **arguments}
    return options


def known_option(item: RawSetting, known: Mapping[str, Option], prefix: str) -> Option:
    """Return the option in *known* that *item* sets.

    Raises :class:`SettingError` for an unknown key. The message has the most similar known key.
    """
    if item.name in known:
        return known[item.name]
    everything = [option.key for option in all_options()] + [prefix + name for name in known]
    near = most_similar(prefix + item.name, everything, cutoff=0.5)
    advice = f"did you mean {near}?" if near else "see the table of settings."
    msg = f"There is no setting {item.label}; {advice}"
    raise SettingError(msg)


def read_value(option: Option, item: RawSetting) -> Any:
    """Return the value of *item* as a value of the type of *option*.

    Raises :class:`SettingError` for a wrong value. The message names the key and says what to
    write. It shows the value only if that cannot be a secret.
    """
    value = item.value.strip() if isinstance(item.value, str) else item.value
    if value == "" and option.type is not BLANK_OR_CALLABLE:
        msg = f"{item.label} is blank: write {option.type.write}, or remove the line."
        raise SettingError(msg)
    # A URL, or a part of one, may contain a password, even as the value of another option.
    hidden = option.secret or (isinstance(value, str) and ("://" in value or "@" in value))
    cause = None
    try:
        return option.type.value(value)
    except ImportError as error:
        cause = None if hidden else error
    except ValueError:
        pass
    shown = repr(value) if isinstance(value, (str, int, float)) else type(value).__name__
    given = item.label if hidden else f"{item.label} = {shown}"
    reason = f" ({cause})" if cause else ""
    msg = f"{given}: write {option.type.write}{reason}."
    raise SettingError(msg) from cause


def _driver_argument(argument: str, item: RawSetting) -> object:
    if argument in TEXT_ARGUMENTS and isinstance(item.value, str):
        return item.value.strip()
    return read_value(Option(argument, DRIVER_VALUE, "", secret=True), item)


def _isolation_level(dialect: Any) -> Option:
    """Return the option ``isolation_level`` for the levels that *dialect* knows.

    AUTOCOMMIT is not in the error's list of levels, but accepted: later code refuses it and says
    why.
    """
    try:
        levels = set(dialect().get_isolation_level_values(None)) - {AUTOCOMMIT}
    except NotImplementedError:
        levels = {"nothing, since this database has none"}
    type_ = one_of(
        *sorted(levels),
        fold=lambda text: text.upper().replace("_", " "),
        refused=(AUTOCOMMIT,),
    )
    return Option("isolation_level", type_, "")
