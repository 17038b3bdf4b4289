"""Databases, accounts and grants of one application, and the console script psqa."""

from .provisioning import Provisioning
from .server import Finding, Step

__all__ = ["Finding", "Provisioning", "Step"]
