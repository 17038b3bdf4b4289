"""Turns settings as Pyramid holds them into one frozen :class:`Settings`.

Whatever is wrong is one :class:`SettingError` that names the key and says what to write.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..backends import is_memory, read_url, with_name
from ..exceptions import SettingError
from .model import DEFAULT, Database, Settings
from .names import database_name, name_in_environment
from .options import PYRAMID_OPTIONS, SESSION, SQA_OPTIONS, Option
from .parsing import ENGINE_OPTIONS, TEXT_ARGUMENTS, RawSetting, known_option, read, read_options

log = logging.getLogger(__name__)


BINDS = "binds."


BIND_KEY = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


# What a bind does not have from the default database: where that is, and who asks there ...
OWN = {"url", "engine", "creator", "pool", "logging_name", "pool_logging_name"}


ADDRESS = TEXT_ARGUMENTS | {"port", "unix_socket", "hostaddr", "service", "passfile"}

ADDRESS |= {"read_default_file", "read_default_group"}


# ... and, from one with another driver, what that driver alone understands.
OF_DRIVER = {"connect_args", "isolation_level", "module", "paramstyle"}


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
            own[key] = RawSetting(label, key, value)
    sqa = list(_under("sqa.", settings))
    session = [given for given in sqa if given.name.startswith("session.")]
    sqa_options = [given for given in sqa if given not in session]
    values = _read_group("", SQA_OPTIONS, sqa_options)
    name = _agreed(read_name(settings), name)
    further = [own.pop(each) for each in list(own) if each.startswith(BINDS)]
    inherited = list(own.values())
    database = _read_database(own, name)
    binds = _read_binds(further, database, inherited)
    _check_order(values["commit_order"] or (), binds)
    return Settings(
        database=database,
        session=_read_group("session.", SESSION, session),
        sqa_options=values,
        name=name,
        binds=binds,
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
    known = {option.key: option for option in SQA_OPTIONS}
    parts = (read(known[key], RawSetting(f"sqa.{key}", key, value)) for key, value in given.items())
    return _agreed(database_name(*parts) if given else None, name_in_environment())


def check_pyramid_options(settings: Mapping[str, object]) -> None:
    """Refuse a wrong ``tm.*`` or ``retry.*`` setting before its own package trips over it."""
    for option in PYRAMID_OPTIONS:
        if option.key in settings:
            read(option, RawSetting(option.key, option.key, settings[option.key]))


def _agreed(name: str | None, other: str | None) -> str | None:
    if name and other and name != other:
        msg = (
            f"sqa.provider and sqa.app name the database {name!r}, but it was named {other!r} "
            "before, by init_engine() or by SQA_PROVIDER and SQA_APP in the environment."
        )
        raise SettingError(msg)
    return name or other


def _under(prefix: str, settings: Mapping[str, object]) -> Iterable[RawSetting]:
    for key, value in settings.items():
        if key.startswith(prefix):
            yield RawSetting(key, key.removeprefix(prefix), value)


def _read_binds(
    further: Iterable[RawSetting], default: Database | None, inherited: Iterable[RawSetting]
) -> dict[str, Database]:
    """Return the databases under ``binds.<key>.``, each completed from what is *inherited*."""
    groups: dict[str, dict[str, RawSetting]] = {}
    for item in further:
        key, _, option = item.name.removeprefix(BINDS).partition(".")
        if not BIND_KEY.fullmatch(key) or key == DEFAULT:
            msg = (
                f"{item.label}: {key!r} is no key for a bind: write lower-case letters, digits and "
                "underscores, a letter first, and not default."
            )
            raise SettingError(msg)
        groups.setdefault(key, {})[option] = RawSetting(item.label, option, item.value)
    return {key: _read_bind(key, own, default, inherited) for key, own in groups.items()}


def _read_bind(
    key: str, own: dict[str, RawSetting], default: Database | None, inherited: Iterable[RawSetting]
) -> Database:
    prefix = f"sqlalchemy.{BINDS}{key}."
    if default is None:
        msg = f"{prefix}url: write sqlalchemy.url too, for all that has no bind key."
        raise SettingError(msg)
    found = _read_database(own, None, prefix)
    if found is None:
        msg = f"{prefix}url is missing: write the URL of the database."
        raise SettingError(msg)
    if found.engine is not None:
        return found
    fitting = [item for item in inherited if _is_inherited(item.name, own, found, default)]
    taken = read_options(fitting, found.url.get_dialect(), prefix)
    arguments = taken.pop("connect_args", {})
    kept = {name: value for name, value in arguments.items() if name not in ADDRESS}
    options = {**taken, **found.options}
    if kept:
        options["connect_args"] = {**kept, **found.options.get("connect_args", {})}
    return replace(found, options=options)


def _is_inherited(
    name: str, own: Mapping[str, RawSetting], bind: Database, default: Database
) -> bool:
    first = name.partition(".")[0]
    if first in OWN:
        return False
    if first.startswith("pool") or first == "max_overflow":
        # One connection holds a database in memory; another class of pool has other options.
        return not (is_memory(bind.url) or {"pool", "poolclass"} & own.keys())
    foreign = bind.url.drivername != default.url.drivername
    return not (foreign and (first in OF_DRIVER or first not in ENGINE_OPTIONS))


def _check_order(order: Iterable[str], binds: Mapping[str, Database]) -> None:
    seen: set[str] = set()
    for key in order:
        if key in seen or key not in {*binds, DEFAULT}:
            known = ", ".join([*binds, DEFAULT])
            msg = f"sqa.commit_order: {key!r} is there twice or no database: write of {known}."
            raise SettingError(msg)
        seen.add(key)


def _read_database(
    own: dict[str, RawSetting], name: str | None, prefix: str = "sqlalchemy."
) -> Database | None:
    if "engine" in own:
        engine = read(ENGINE_OPTIONS["engine"], own["engine"])
        return Database(engine.url, engine=engine, name=name, prefix=prefix)
    if "url" not in own:
        read_options(own.values(), None, prefix)
        return None
    # Read before the others, which its dialect explains.
    given = own.pop("url")
    url = read_url(
        given.label, read(ENGINE_OPTIONS["url"], given), needs_driver="module" not in own
    )
    if name:
        url = with_name(given.label, url, name)
    options = read_options(own.values(), url.get_dialect(), prefix)
    return Database(url, options, name=name, prefix=prefix)


def _read_group(
    prefix: str, options: Iterable[Option], given: Iterable[RawSetting]
) -> dict[str, Any]:
    known = {prefix + option.key: option for option in options}
    values: dict[str, Any] = {
        option.key: option.kind.value(option.default) if option.default else None
        for option in options
    }
    for item in given:
        values[item.name.removeprefix(prefix)] = read(known_option(item, known, "sqa."), item)
    return values
