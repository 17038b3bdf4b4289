"""Ini text becomes one frozen Settings object."""

from .ini import context_in_use, is_loading, read_section
from .model import DEFAULT, UNSET, Database, Settings, sqa_options_of
from .names import check_name, database_name, name_in_environment
from .options import PYRAMID_OPTIONS, table
from .parsing import RawSetting, read_options
from .reader import check_pyramid_options, read_name, read_settings

__all__ = [
    "DEFAULT",
    "PYRAMID_OPTIONS",
    "UNSET",
    "Database",
    "RawSetting",
    "Settings",
    "check_name",
    "check_pyramid_options",
    "context_in_use",
    "database_name",
    "is_loading",
    "name_in_environment",
    "read_name",
    "read_options",
    "read_section",
    "read_settings",
    "sqa_options_of",
    "table",
]
