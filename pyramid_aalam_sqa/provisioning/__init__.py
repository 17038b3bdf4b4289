"""Databases, accounts and grants of one application, and the console script psqa."""

from .provisioning import Provisioning
from .server import Finding, Step

# For the room `migrations`; not of the public API.
from .server import error_text as error_text
from .sources import UsageError as UsageError
from .sources import find_metadatas as find_metadatas
from .sources import read_ini as read_ini
from .tenant import Tenant as Tenant
from .terminal import print_error as print_error
from .terminal import print_wrapped as print_wrapped

__all__ = ["Finding", "Provisioning", "Step"]
