"""Turns settings as Pyramid holds them into one frozen :class:`Settings`.

Whatever is wrong is one :class:`SettingError` that names the key and says what to write.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from sqlalchemy import util
from sqlalchemy.engine import URL, Dialect, Engine

from ._kinds import DRIVER_VALUE, VETO, one_of
from ._names import database_name, name_in_environment
from ._options import ENGINE, NEIGHBOURS, SESSION, SWITCHES, Option, table
from ._urls import masked, read_url, with_name
from .exceptions import SettingError

log = logging.getLogger(__name__)

UNSET = (
    "No database is set: write sqlalchemy.url in the application's section of the ini file, "
    "for example sqlalchemy.url = sqlite:///%(here)s/app.sqlite"
)
ARGUMENT = "connect_args."
# Arguments of a driver that stay text however much they look like a number.
TEXT_ARGUMENTS = {"user", "username", "password", "passwd", "host", "database", "db", "dbname"}
# What SQLAlchemy's dialects are handed by create_engine itself.
INTERNAL = {"dbapi", "compiler_linting"}

_ENGINE = {option.key: option for option in ENGINE}


@dataclass(frozen=True, slots=True)
class Given:
    """A setting as it was written: where (*label*), which option (*name*), and what."""

    label: str
    name: str
    value: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class Database:
    """One database: where it is, and the create_engine options that were given for it.

    Its *name* is the schema that an application's models are in; None when it has no name.
    """

    url: URL
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    engine: Engine | None = None
    name: str | None = None

    def __str__(self) -> str:
        return masked(self.url)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything this package was told, checked and of its real type."""

    database: Database | None
    session: Mapping[str, Any]
    switches: Mapping[str, Any] = field(repr=False)
    name: str | None = None


def read_settings(
    settings: Mapping[str, object],
    section: Mapping[str, object] | None = None,
    name: str | None = None,
) -> Settings:
    """Return the :class:`Settings` in *settings*, completed from the ``[sqlalchemy]`` *section*.

    *name* is that of the application's database where the settings do not tell it. Raises
    :class:`SettingError` for the first key that is unknown or has a wrong value.
    """
    own = {given.name: given for given in _under("sqlalchemy.", settings)}
    for key, value in (section or {}).items():
        label = f"[sqlalchemy] {key}"
        if key in own:
            log.info("sqlalchemy.%s in the application's section wins over %s", key, label)
        else:
            own[key] = Given(label, key, value)
    sqa = list(_under("sqa.", settings))
    session = [given for given in sqa if given.name.startswith("session.")]
    switches = [given for given in sqa if given not in session]
    values = _read_group("", SWITCHES, switches)
    name = _agreed(read_name(settings), name)
    return Settings(
        database=_read_database(own, name),
        session=_read_group("session.", SESSION, session),
        switches=values,
        name=name,
    )


def read_name(settings: Mapping[str, object]) -> str | None:
    """Return the name of the database that *settings*, or the environment, give the application.

    Raises :class:`SettingError` when the two differ, or when half of a name is missing.
    """
    given = {key: settings[f"sqa.{key}"] for key in ("provider", "app") if f"sqa.{key}" in settings}
    if len(given) == 1:
        missing = "app" if "provider" in given else "provider"
        msg = f"sqa.{missing} is missing: sqa.provider and sqa.app make the database's name."
        raise SettingError(msg)
    known = {option.key: option for option in SWITCHES}
    parts = (_read(known[key], Given(f"sqa.{key}", key, value)) for key, value in given.items())
    return _agreed(database_name(*parts) if given else None, name_in_environment())


def read_options(given: Iterable[Given], dialect: type[Dialect] | None) -> dict[str, Any]:
    """Return the create_engine options in *given*, each of its real type, for *dialect*."""
    # SQLAlchemy's dialects take options of their own, such as native_datetime.
    own = util.get_cls_kwargs(dialect) - INTERNAL if dialect else ()
    known = {name: Option(name, DRIVER_VALUE, "") for name in own}
    known |= _ENGINE
    options: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for item in given:
        argument = item.name.removeprefix(ARGUMENT)
        if argument and argument != item.name:
            arguments[argument] = _driver_argument(argument, item)
        else:
            option = _known(item, known, "sqlalchemy.")
            if item.name == "isolation_level" and dialect:
                option = _isolation_level(dialect)
            options[item.name] = _read(option, item)
    if arguments:
        options["connect_args"] = {**options.get("connect_args", {}), **arguments}
    return options


def check_neighbours(settings: Mapping[str, object]) -> None:
    """Refuse a wrong ``tm.*`` or ``retry.*`` setting before its own package trips over it."""
    for option in NEIGHBOURS:
        if option.key in settings:
            _read(option, Given(option.key, option.key, settings[option.key]))


def _agreed(name: str | None, other: str | None) -> str | None:
    if name and other and name != other:
        msg = (
            f"sqa.provider and sqa.app name the database {name!r}, but it was named {other!r} "
            "before, by init_engine() or by SQA_PROVIDER and SQA_APP in the environment."
        )
        raise SettingError(msg)
    return name or other


def _under(prefix: str, settings: Mapping[str, object]) -> Iterable[Given]:
    for key, value in settings.items():
        if key.startswith(prefix):
            yield Given(key, key.removeprefix(prefix), value)


def _read_database(own: dict[str, Given], name: str | None) -> Database | None:
    if "engine" in own:
        engine = _read(_ENGINE["engine"], own["engine"])
        return Database(engine.url, engine=engine, name=name)
    if "url" not in own:
        read_options(own.values(), None)
        return None
    given = own.pop("url")
    url = read_url(given.label, _read(_ENGINE["url"], given), needs_driver="module" not in own)
    if name:
        url = with_name(given.label, url, name)
    return Database(url, read_options(own.values(), url.get_dialect()), name=name)


def _read_group(prefix: str, options: Iterable[Option], given: Iterable[Given]) -> dict[str, Any]:
    known = {prefix + option.key: option for option in options}
    values: dict[str, Any] = {
        option.key: option.kind.value(option.default) if option.default else None
        for option in options
    }
    for item in given:
        values[item.name.removeprefix(prefix)] = _read(_known(item, known, "sqa."), item)
    return values


def _known(item: Given, known: Mapping[str, Option], prefix: str) -> Option:
    if item.name in known:
        return known[item.name]
    everything = [option.key for option in table()] + [prefix + name for name in known]
    near = get_close_matches(prefix + item.name, everything, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else "see the table of settings."
    msg = f"There is no setting {item.label}; {advice}"
    raise SettingError(msg)


def _read(option: Option, item: Given) -> Any:
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


def _driver_argument(argument: str, item: Given) -> object:
    if argument in TEXT_ARGUMENTS and isinstance(item.value, str):
        return item.value.strip()
    return _read(Option(argument, DRIVER_VALUE, "", secret=True), item)


def _isolation_level(dialect: Any) -> Option:
    """Return the option with the values that are right for *dialect*."""
    try:
        levels = dialect().get_isolation_level_values(None)
    except NotImplementedError:
        levels = ["nothing, since this database has none"]
    kind = one_of(*sorted(levels), fold=lambda text: text.upper().replace("_", " "))
    return Option("isolation_level", kind, "")
