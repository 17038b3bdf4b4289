"""Turns the application's Pyramid settings into one frozen :class:`Settings`.

Every mistake raises a :class:`SettingError` that names the key and says what to write.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from ..backends import is_memory, read_url, with_name
from ..exceptions import SettingError
from .hosts import with_hosts
from .names import database_name, name_in_environment
from .options import BIND_OPTIONS, PYRAMID_OPTIONS, SESSION_OPTIONS, SQA_OPTIONS, Option
from .parsing import (
    ENGINE_OPTION_NAMES,
    TEXT_ARGUMENTS,
    RawSetting,
    known_option,
    read_options,
    read_value,
)
from .readers import check_secret, read_readers
from .settings import DEFAULT_KEY, Database, Settings

BINDS_PREFIX = "binds."


BIND_KEY = r"[a-z][a-z0-9_]*"


# Options that a bind never inherits from the default database: its address, its names in the log.
NEVER_INHERITED = {"url", "engine", "creator", "pool", "logging_name", "pool_logging_name"}


# Driver arguments that say where the database is and who logs in.
ADDRESS_ARGUMENTS = {
    *TEXT_ARGUMENTS,
    *("port", "unix_socket", "hostaddr", "service", "passfile"),
    *("read_default_file", "read_default_group"),
}


# A bind with another driver does not inherit these options either: they are for one driver.
DRIVER_OPTIONS = {"connect_args", "isolation_level", "module", "paramstyle"}


def read_settings(
    settings: Mapping[str, object],
    section: Mapping[str, object] | None = None,
    name: str | None = None,
) -> Settings:
    """Return the :class:`Settings` in *settings*, completed from the ``[sqlalchemy]`` *section*.

    *name* is the name of the application's database. It is used if *settings* do not name it.
    Raises :class:`SettingError` for the first key that is unknown or has a wrong value.
    """
    own = {given.name: given for given in _with_prefix("sqlalchemy.", settings)}
    section = section or {}
    overruled = tuple(key for key in section if key in own)
    for key, value in section.items():
        own.setdefault(key, RawSetting(f"[sqlalchemy] {key}", key, value))
    sqa = list(_with_prefix("sqa.", settings))
    session = [given for given in sqa if given.name.startswith("session.")]
    of_binds = [given for given in sqa if given.name.startswith(BINDS_PREFIX)]
    own_sqa = [given for given in sqa if given not in session and given not in of_binds]
    sqa_options = _read_group("", SQA_OPTIONS, own_sqa)
    name = _agreed_name(read_name(settings), name)
    bind_settings = [own.pop(each) for each in list(own) if each.startswith(BINDS_PREFIX)]
    inherited = list(own.values())
    database = _read_database(own, name)
    binds = _read_binds(bind_settings, database, inherited)
    bind_options = _read_bind_options(of_binds, binds)
    if database is not None:
        database = _with_servers("sqa.", database, sqa_options)
    for key, options in bind_options.items():
        binds[key] = _with_servers(f"sqa.{BINDS_PREFIX}{key}.", binds[key], options)
    if any(options["reader.url"] for options in (sqa_options, *bind_options.values())):
        check_secret(sqa_options)
    _check_commit_order(sqa_options["commit_order"] or (), binds)
    return Settings(
        database=database,
        session=_read_group("session.", SESSION_OPTIONS, session),
        sqa_options=sqa_options,
        name=name,
        binds=binds,
        bind_options=bind_options,
        overruled=overruled,
    )


def read_name(settings: Mapping[str, object]) -> str | None:
    """Return the name of the application's database; None if it has none.

    The settings ``sqa.provider`` and ``sqa.app`` make the name, or ``SQA_PROVIDER`` and
    ``SQA_APP`` in the environment. Raises :class:`SettingError` if these name two databases, or
    if one part of a name is missing.
    """
    given = {key: settings[f"sqa.{key}"] for key in ("provider", "app") if f"sqa.{key}" in settings}
    if len(given) == 1:
        missing = "app" if "provider" in given else "provider"
        msg = f"sqa.{missing} is missing: write both sqa.provider and sqa.app, or neither."
        raise SettingError(msg)
    known = {option.key: option for option in SQA_OPTIONS}
    parts = (
        read_value(known[key], RawSetting(f"sqa.{key}", key, value)) for key, value in given.items()
    )
    return _agreed_name(database_name(*parts) if given else None, name_in_environment())


def check_pyramid_options(settings: Mapping[str, object]) -> None:
    """Check the ``tm.*`` and ``retry.*`` settings, before pyramid_tm and pyramid_retry read them.

    Raises :class:`SettingError` for the first wrong one. The errors of those packages do not say
    what to write.
    """
    for option in PYRAMID_OPTIONS:
        if option.key in settings:
            read_value(option, RawSetting(option.key, option.key, settings[option.key]))


def _agreed_name(name: str | None, other: str | None) -> str | None:
    if name and other and name != other:
        msg = (
            f"sqa.provider and sqa.app name the database {name!r}, but it was named {other!r} "
            "before, by init_engine() or by SQA_PROVIDER and SQA_APP in the environment."
        )
        raise SettingError(msg)
    return name or other


def _with_prefix(prefix: str, settings: Mapping[str, object]) -> Iterable[RawSetting]:
    for key, value in settings.items():
        if key.startswith(prefix):
            yield RawSetting(key, key.removeprefix(prefix), value)


def _read_binds(
    bind_settings: Iterable[RawSetting], default: Database | None, inherited: Iterable[RawSetting]
) -> dict[str, Database]:
    """Return the databases under ``binds.<key>.``, each completed from what is *inherited*."""
    groups: dict[str, dict[str, RawSetting]] = {}
    for item in bind_settings:
        key, _, option = item.name.removeprefix(BINDS_PREFIX).partition(".")
        if not re.fullmatch(BIND_KEY, key, re.ASCII) or key == DEFAULT_KEY:
            msg = (
                f"{item.label}: {key!r} is not a key for a bind: write lower-case letters, digits "
                "and underscores, a letter first, and not default."
            )
            raise SettingError(msg)
        groups.setdefault(key, {})[option] = RawSetting(item.label, option, item.value)
    return {key: _read_bind(key, own, default, inherited) for key, own in groups.items()}


def _read_bind(
    key: str, own: dict[str, RawSetting], default: Database | None, inherited: Iterable[RawSetting]
) -> Database:
    prefix = f"sqlalchemy.{BINDS_PREFIX}{key}."
    if default is None:
        msg = f"{prefix}url: write sqlalchemy.url too, for the tables that have no bind key."
        raise SettingError(msg)
    found = _read_database(own, None, prefix)
    if found is None:
        msg = f"{prefix}url is missing: write the URL of the database."
        raise SettingError(msg)
    if found.engine is not None:
        return found
    inheritable = [item for item in inherited if _is_inherited(item.name, own, found, default)]
    inherited_options = read_options(inheritable, found.url.get_dialect(), prefix)
    arguments = inherited_options.pop("connect_args", {})
    inherited_arguments = {
        name: value for name, value in arguments.items() if name not in ADDRESS_ARGUMENTS
    }
    options = {**inherited_options, **found.options}
    if inherited_arguments:
        options["connect_args"] = {**inherited_arguments, **found.options.get("connect_args", {})}
    return replace(found, options=options)


def _read_bind_options(
    given: Iterable[RawSetting], binds: Mapping[str, Database]
) -> dict[str, dict[str, Any]]:
    """Return the ``sqa.binds.<key>.`` options of each bind that has some, by its key."""
    groups: dict[str, list[RawSetting]] = {}
    for item in given:
        key, _, option = item.name.removeprefix(BINDS_PREFIX).partition(".")
        if key not in binds:
            known = ", ".join(sorted(binds)) or "none"
            msg = f"{item.label}: there is no bind {key!r}, only: {known}."
            raise SettingError(msg)
        groups.setdefault(key, []).append(RawSetting(item.label, option, item.value))
    return {key: _read_group("", BIND_OPTIONS, items) for key, items in groups.items()}


def _with_servers(prefix: str, database: Database, options: dict[str, Any]) -> Database:
    """Return *database* with the first of its hosts; complete hosts and replicas in *options*."""
    if options["reader.url"]:
        key = f"{prefix}reader.url"
        options["reader.url"] = read_readers(key, database, options["reader.url"])
    if options["hosts"]:
        database, options["hosts"] = with_hosts(f"{prefix}hosts", database, options["hosts"])
    return database


def _is_inherited(
    name: str, own: Mapping[str, RawSetting], bind: Database, default: Database
) -> bool:
    first = name.partition(".")[0]
    if first in NEVER_INHERITED:
        return False
    if first.startswith("pool") or first == "max_overflow":
        # A database in memory has one connection only. Another class of pool has other options.
        return not (is_memory(bind.url) or {"pool", "poolclass"} & own.keys())
    other_driver = bind.url.drivername != default.url.drivername
    return not (other_driver and (first in DRIVER_OPTIONS or first not in ENGINE_OPTION_NAMES))


def _check_commit_order(order: Iterable[str], binds: Mapping[str, Database]) -> None:
    seen: set[str] = set()
    for key in order:
        if key in seen or key not in {*binds, DEFAULT_KEY}:
            known = ", ".join([*binds, DEFAULT_KEY])
            msg = (
                f"sqa.commit_order: {key!r} is listed twice, or is not the key of a database: "
                f"write each of {known} once at most."
            )
            raise SettingError(msg)
        seen.add(key)


def _read_database(
    own: dict[str, RawSetting], name: str | None, prefix: str = "sqlalchemy."
) -> Database | None:
    """Return the database that *own* describes; None if it has neither a URL nor an engine."""
    if "engine" in own:
        engine = read_value(ENGINE_OPTION_NAMES["engine"], own["engine"])
        return Database(engine.url, engine=engine, name=name, prefix=prefix)
    if "url" not in own:
        read_options(own.values(), None, prefix)
        return None
    # The URL is read first, because the dialect that it names defines further options.
    given = own.pop("url")
    url = read_url(
        given.label,
        read_value(ENGINE_OPTION_NAMES["url"], given),
        needs_driver="module" not in own,
    )
    if name:
        url = with_name(given.label, url, name)
    options = read_options(own.values(), url.get_dialect(), prefix)
    return Database(url, options, name=name, prefix=prefix)


def _read_group(
    prefix: str, options: tuple[Option, ...], given: Iterable[RawSetting]
) -> dict[str, Any]:
    """Return the value of each of *options*: the one in *given*, or else its default."""
    known = {prefix + option.key: option for option in options}
    values = dict(_defaults(options))
    for item in given:
        option = known_option(item, known, "sqa.")
        values[item.name.removeprefix(prefix)] = read_value(option, item)
    return values


@cache
def _defaults(options: tuple[Option, ...]) -> dict[str, Any]:
    """Return the default of each of *options*; the applications of a process share the values."""
    return {
        option.key: option.type.value(option.default) if option.default else None
        for option in options
    }
