"""The name of an application's database, and what a name must be to be one.

The rule is the narrowest of all databases and file systems: lower case, because some servers fold
names; at most 63 characters, because PostgreSQL cuts what is longer without a word; and never an
underscore in the provider, so that no two applications have the same name.
"""

import os
import re

from ..exceptions import SettingError

LONGEST = 63


PROVIDER = re.compile(r"[a-z][a-z0-9]{0,19}", re.ASCII)


APP = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", re.ASCII)


# Everybody may do everything in `test_...` on a server as it is packaged; the others are servers'.
RESERVED = {"information", "mysql", "performance", "pg", "sqlite", "sys", "test"}


PROVIDER_RULE = (
    "a lower-case letter, then up to 19 lower-case letters and digits, and no name that servers "
    f"use themselves ({', '.join(sorted(RESERVED))})"
)


APP_RULE = "lower-case letters and digits in words joined by single underscores, a letter first"


def is_provider(value: object) -> bool:
    """Tell whether *value* can be the first part of a name."""
    return isinstance(value, str) and bool(PROVIDER.fullmatch(value)) and value not in RESERVED


def is_app(value: object) -> bool:
    """Tell whether *value* can be what follows it."""
    return isinstance(value, str) and len(value) < LONGEST and bool(APP.fullmatch(value))


def database_name(provider: str, app: str) -> str:
    """Return the name of the database of *app* by *provider*: ``aalam_base`` for aalam and base.

    *provider* is a lower-case letter and up to 19 lower-case letters and digits, none of the words
    that servers use themselves, such as ``test``. *app* is lower-case letters and digits in words
    joined by single underscores, a letter first. Two applications never have the same name. It
    has at most 63 characters. Raises :class:`SettingError` for everything else.
    """
    if not is_provider(provider):
        msg = f"The provider {provider!r} is no name for one: write {PROVIDER_RULE}."
        raise SettingError(msg)
    name = f"{provider}_{app}"
    if not is_app(app):
        msg = f"The application {app!r} is no name for one: write {APP_RULE}."
        raise SettingError(msg)
    if len(name) > LONGEST:
        msg = f"The database name {name!r} has {len(name)} characters: use {LONGEST} at most."
        raise SettingError(msg)
    return name


def check_name(name: str) -> str:
    """Return *name* if :func:`database_name` could have made it; else raise SettingError."""
    if not isinstance(name, str) or "_" not in name:
        msg = f"{name!r} is no database name: write <provider>_<app>, for example aalam_base."
        raise SettingError(msg)
    provider, _, app = name.partition("_")
    return database_name(provider, app)


def name_in_environment() -> str | None:
    """Return the name that ``SQA_PROVIDER`` and ``SQA_APP`` make; None when neither is set."""
    provider, app = os.environ.get("SQA_PROVIDER"), os.environ.get("SQA_APP")
    if not provider and not app:
        return None
    if not provider or not app:
        msg = "Set both SQA_PROVIDER and SQA_APP in the environment, or neither."
        raise SettingError(msg)
    return database_name(provider, app)
