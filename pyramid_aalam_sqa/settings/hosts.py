"""The hosts of a database: how ``sqa.hosts`` is written, and whether the other settings fit it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any, NamedTuple

from ..backends import backend_class
from ..exceptions import SettingError
from .settings import Database

# A name or an IPv4 address, or an IPv6 address in brackets; then the port, if it is given.
HOST = r"(?:(\w[\w.-]*)|\[([^\[\]]+)\])(?::([0-9]{1,5}))?"


# Arguments of the drivers, and options of create_engine, that name a server as well.
SERVER_ARGUMENTS = (
    *("host", "hostaddr", "port", "unix_socket", "service"),
    *("target_session_attrs", "load_balance_hosts"),
)
SERVER_OPTIONS = ("engine", "creator", "pool")


class Host(NamedTuple):
    """The name or address of a server, and its port; None is that of the URL or the product."""

    name: str
    port: int | None = None

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


def read_hosts(text: str) -> tuple[Host, ...]:
    """Return the hosts in *text*, in their order. Raises ValueError if one is written wrongly."""
    return tuple(map(_read_host, text.split()))


def _read_host(text: str) -> Host:
    found = re.fullmatch(HOST, text, re.ASCII)
    if found is None:
        raise ValueError(text)
    name, address, port = found.groups()
    if port is not None and not 0 < int(port) < 2**16:
        raise ValueError(text)
    return Host(name or str(IPv6Address(address)), int(port) if port else None)


def with_hosts(
    key: str, database: Database, hosts: Sequence[Host]
) -> tuple[Database, tuple[Host, ...]]:
    """Return *database* with the first of *hosts* in its URL, and *hosts* with all their ports.

    *key* is the setting that names the hosts. Raises :class:`SettingError` if the product has no
    such list, or if another setting names a server too.
    """
    problem = _problem(database)
    if problem:
        msg = f"{key}: {problem}"
        raise SettingError(msg)
    url = database.url
    port = url.port or backend_class(url.get_backend_name()).DEFAULT_PORT
    complete = tuple(Host(host.name, host.port or port) for host in hosts)
    twice = next((host for host in complete if complete.count(host) > 1), None)
    if twice:
        msg = f"{key}: {twice} is listed twice; write each host once."
        raise SettingError(msg)
    if url.host and Host(url.host, port) not in complete:
        msg = (
            f"{key}: {database.prefix}url names {Host(url.host, port)}, which is not in the list; "
            "write it into the list, or leave the host out of the URL."
        )
        raise SettingError(msg)
    first = complete[0]
    return replace(database, url=url.set(host=first.name, port=first.port)), complete


def _problem(database: Database) -> str | None:
    """Return why *database* cannot have a list of hosts, and what to do; None if it can."""
    backend = backend_class(database.url.get_backend_name())
    if not backend.DEFAULT_PORT:
        return (
            f"this is for servers of MySQL, MariaDB and PostgreSQL, not for {backend.PRODUCT}; "
            "remove it."
        )
    own = {"engine": database.engine, **database.options}
    places: list[tuple[str, Mapping[str, Any], Sequence[str]]] = [
        (database.prefix, own, SERVER_OPTIONS),
        (f"{database.prefix}connect_args.", own.get("connect_args") or {}, SERVER_ARGUMENTS),
        (f"{database.prefix}url: ?", database.url.query, SERVER_ARGUMENTS),
    ]
    for place, given, names in places:
        for name in names:
            if given.get(name) is not None:
                return f"{place}{name} says where to connect as well; remove one of the two."
    return None
