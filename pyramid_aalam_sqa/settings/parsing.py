"""Turns one setting after the other, as it was written, into a value of its real type."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from sqlalchemy import util
from sqlalchemy.engine import Dialect

from ..exceptions import SettingError
from .options import ENGINE, Option, table
from .value_types import DRIVER_VALUE, VETO, one_of

ARGUMENT = "connect_args."


# Arguments of a driver that stay text however much they look like a number.
TEXT_ARGUMENTS = {"user", "username", "password", "passwd", "host", "database", "db", "dbname"}


# What SQLAlchemy's dialects are handed by create_engine itself.
INTERNAL = {"dbapi", "compiler_linting"}


ENGINE_OPTIONS = {option.key: option for option in ENGINE}


@dataclass(frozen=True, slots=True)
class RawSetting:
    """A setting as it was written: where (*label*), which option (*name*), and what."""

    label: str
    name: str
    value: object = field(repr=False)


def read_options(
    given: Iterable[RawSetting], dialect: type[Dialect] | None, prefix: str = "sqlalchemy."
) -> dict[str, Any]:
    """Return the create_engine options in *given*, each of its real type, for *dialect*."""
    # SQLAlchemy's dialects take options of their own, such as native_datetime.
    own = util.get_cls_kwargs(dialect) - INTERNAL if dialect else ()
    known = {name: Option(name, DRIVER_VALUE, "") for name in own}
    known |= ENGINE_OPTIONS
    options: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for item in given:
        argument = item.name.removeprefix(ARGUMENT)
        if argument and argument != item.name:
            arguments[argument] = _driver_argument(argument, item)
        else:
            option = known_option(item, known, prefix)
            if item.name == "isolation_level" and dialect:
                option = _isolation_level(dialect)
            options[item.name] = read(option, item)
    if arguments:
        options["connect_args"] = {**options.get("connect_args", {}), **arguments}
    return options


def known_option(item: RawSetting, known: Mapping[str, Option], prefix: str) -> Option:
    """Return the option that *item* names; raise with the nearest one when there is none."""
    if item.name in known:
        return known[item.name]
    everything = [option.key for option in table()] + [prefix + name for name in known]
    near = get_close_matches(prefix + item.name, everything, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else "see the table of settings."
    msg = f"There is no setting {item.label}; {advice}"
    raise SettingError(msg)


def read(option: Option, item: RawSetting) -> Any:
    """Return the value of *item*; raise, naming it, when it is none for *option*."""
    value = item.value.strip() if isinstance(item.value, str) else item.value
    if value == "" and option.kind is not VETO:
        msg = f"{item.label} is blank: write {option.kind.write}, or remove the line."
        raise SettingError(msg)
    # A URL in the wrong place holds a password too.
    hidden = option.secret or (isinstance(value, str) and "://" in value)
    cause = None
    try:
        return option.kind.value(value)
    except ImportError as error:
        cause = None if hidden else error
    except ValueError:
        pass
    shown = repr(value) if isinstance(value, (str, int, float)) else type(value).__name__
    given = item.label if hidden else f"{item.label} = {shown}"
    reason = f" ({cause})" if cause else ""
    msg = f"{given}: write {option.kind.write}{reason}."
    raise SettingError(msg) from cause


def _driver_argument(argument: str, item: RawSetting) -> object:
    if argument in TEXT_ARGUMENTS and isinstance(item.value, str):
        return item.value.strip()
    return read(Option(argument, DRIVER_VALUE, "", secret=True), item)


def _isolation_level(dialect: Any) -> Option:
    """Return the option with the values that are right for *dialect*."""
    try:
        levels = dialect().get_isolation_level_values(None)
    except NotImplementedError:
        levels = ["nothing, since this database has none"]
    kind = one_of(*sorted(levels), fold=lambda text: text.upper().replace("_", " "))
    return Option("isolation_level", kind, "")
