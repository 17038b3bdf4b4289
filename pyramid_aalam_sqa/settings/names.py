"""The rule for the name of an application's database, ``<provider>_<app>``.

It is the narrowest rule of all products and file systems. Lower case, because some servers change
the case of names. At most 63 characters, because PostgreSQL cuts longer names silently. No
underscore in the provider, so that two applications never have the same name.
"""

import os
import re

from ..backends import RESERVED_NAMES
from ..exceptions import SettingError

MAX_LENGTH = 63


PROVIDER = re.compile(r"[a-z][a-z0-9]{0,19}", re.ASCII)


APP = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", re.ASCII)


PROVIDER_RULE = (
    "a lower-case letter, then up to 19 lower-case letters and digits, and not a name that servers "
    f"use themselves ({', '.join(sorted(RESERVED_NAMES))})"
)


APP_RULE = "lower-case letters and digits in words joined by single underscores, a letter first"


def is_provider(value: object) -> bool:
    """Return whether *value* can be the provider, the first part of a name."""
    return (
        isinstance(value, str) and bool(PROVIDER.fullmatch(value)) and value not in RESERVED_NAMES
    )


def is_app(value: object) -> bool:
    """Return whether *value* can be the application, the second part of a name."""
    return isinstance(value, str) and len(value) < MAX_LENGTH and bool(APP.fullmatch(value))


def database_name(provider: str, app: str) -> str:
    """Return the name of the database of *app* by *provider*: ``aalam_base`` for aalam and base.

    *provider* is a lower-case letter and up to 19 lower-case letters and digits; it is not a word
    that servers use themselves, such as ``test``. *app* is lower-case letters and digits in words
    joined by single underscores, a letter first. The name has at most 63 characters, and two
    applications never have the same name. Raises :class:`SettingError` for everything else.
    """
    if not is_provider(provider):
        msg = f"The provider {provider!r} cannot be in a name: write {PROVIDER_RULE}."
        raise SettingError(msg)
    name = f"{provider}_{app}"
    if not is_app(app):
        msg = f"The application {app!r} cannot be in a name: write {APP_RULE}."
        raise SettingError(msg)
    if len(name) > MAX_LENGTH:
        msg = f"The database name {name!r} has {len(name)} characters: use {MAX_LENGTH} at most."
        raise SettingError(msg)
    return name


def check_name(name: str) -> str:
    """Return *name* if :func:`database_name` can make it; else raise :class:`SettingError`."""
    if not isinstance(name, str) or "_" not in name:
        msg = f"{name!r} is not a database name: write <provider>_<app>, for example aalam_base."
        raise SettingError(msg)
    provider, _, app = name.partition("_")
    return database_name(provider, app)


def name_in_environment() -> str | None:
    """Return the name that ``SQA_PROVIDER`` and ``SQA_APP`` make; None if neither is set.

    Raises :class:`SettingError` if one of them is missing.
    """
    provider, app = os.environ.get("SQA_PROVIDER"), os.environ.get("SQA_APP")
    if not provider and not app:
        return None
    if not provider or not app:
        msg = "Set both SQA_PROVIDER and SQA_APP in the environment, or neither."
        raise SettingError(msg)
    return database_name(provider, app)
