"""The rule for the name of an application's database, ``<provider>_<app>``.

A name that follows it is valid in every database product and file system. It is in lower case,
because some servers change the case of names. It has at most 63 characters, because PostgreSQL
cuts longer names without an error. The provider has no underscore, so that two applications never
have the same name.
"""

import os
import re

from ..backends import RESERVED_NAMES
from ..exceptions import SettingError

MAX_LENGTH = 63


PROVIDER = r"[a-z][a-z0-9]{0,19}"


APP = r"[a-z][a-z0-9]*(_[a-z0-9]+)*"


PROVIDER_RULE = (
    "a lower-case letter, then up to 19 lower-case letters and digits, and not a name that servers "
    f"use themselves ({', '.join(sorted(RESERVED_NAMES))})"
)


APP_RULE = "lower-case letters and digits in words joined by single underscores, a letter first"


def is_provider(value: object) -> bool:
    """Return whether *value* can be the provider, the first part of a name."""
    return (
        isinstance(value, str)
        and bool(re.fullmatch(PROVIDER, value, re.ASCII))
        and value not in RESERVED_NAMES
    )


def is_app(value: object) -> bool:
    """Return whether *value* can be the application, the second part of a name."""
    return (
        isinstance(value, str)
        and len(value) < MAX_LENGTH
        and bool(re.fullmatch(APP, value, re.ASCII))
    )


def database_name(provider: str, app: str) -> str:
    """Return the name of the database of *app* by *provider*: ``aalam_base`` for aalam and base.

    *provider* is a lower-case letter, then up to 19 lower-case letters and digits. It is not a
    name that servers use themselves, such as ``test``. *app* is lower-case letters and digits in
    words joined by single underscores, a letter first. The name has at most 63 characters. Two
    applications never get the same name. Raises :class:`SettingError` for any other value.
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
    """Return *name*. Raises :class:`SettingError` if :func:`database_name` cannot make it."""
    if not isinstance(name, str) or "_" not in name:
        msg = f"{name!r} is not a database name: write <provider>_<app>, for example aalam_base."
        raise SettingError(msg)
    provider, _, app = name.partition("_")
    return database_name(provider, app)


def name_in_environment() -> str | None:
    """Return the name from ``SQA_PROVIDER`` and ``SQA_APP``; None if neither of them is set.

    Raises :class:`SettingError` if only one of them is set.
    """
    provider, app = os.environ.get("SQA_PROVIDER"), os.environ.get("SQA_APP")
    if not provider and not app:
        return None
    if not provider or not app:
        msg = "Set both SQA_PROVIDER and SQA_APP in the environment, or neither."
        raise SettingError(msg)
    return database_name(provider, app)
