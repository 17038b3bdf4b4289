"""Turns the text of the ini file into one frozen Settings object."""

from .hosts import Host
from .ini import context_in_use, is_loading, read_app_settings, read_section
from .names import check_name, database_name, is_app, name_in_environment
from .options import PYRAMID_OPTIONS, all_options
from .parsing import RawSetting, read_options
from .reader import check_pyramid_options, read_name, read_settings
from .settings import DEFAULT_KEY, NO_DATABASE, Database, Settings

__all__ = [
    "DEFAULT_KEY",
    "NO_DATABASE",
    "PYRAMID_OPTIONS",
    "Database",
    "Host",
    "RawSetting",
    "Settings",
    "all_options",
    "check_name",
    "check_pyramid_options",
    "context_in_use",
    "database_name",
    "is_app",
    "is_loading",
    "name_in_environment",
    "read_app_settings",
    "read_name",
    "read_options",
    "read_section",
    "read_settings",
]
