"""How far an address leads that others wrote: to public hosts, and never unasked into the network of whoever reads it.

A catalogue names addresses, servers redirect to others, and names are resolved by whoever owns them. Each of these
could lead to what this machine alone can ask: its own services, those of its network, and the metadata of its cloud.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Self
from urllib.parse import urlsplit

__all__ = ["ALLOW_HOSTS", "Reach", "Refused"]

ALLOW_HOSTS = "SITS_ALLOW_HOSTS"
"""Environment variable: hosts, with commas between, that may have any address. Whoever runs a machine decides that, not
a region file, which may be another's."""

_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: its last 32 bits are an IPv4 address."""
_CLOUDS = (IPv4Network("168.63.129.16/32"), IPv4Network("192.0.0.0/24"))
"""Where virtual machines of Azure and of Oracle ask their host; the first is a public number."""
_NUMBER = re.compile(r"[0-9A-Fa-fXx.]+")
_LOOPBACK = "localhost"
_NEAR = ("loopback", "private")

_SEEN_PUBLIC: set[str] = set()
"""Hosts that this process met at a public address: a name that leads elsewhere later is not believed."""

Address = IPv4Address | IPv6Address


class Refused(Exception):  # noqa: N818  # always caught: past urllib3 an OSError would be taken for a broken connection
    """An address that is not asked."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Which hosts may have addresses that are not public; those with public ones may always be asked."""

    hosts: frozenset[str] = frozenset()
    """By name, or address, as `_plain` writes them."""
    is_near: bool = False
    """Whether any host of this machine or its network may be asked: for what documents on this machine name."""

    @classmethod
    def of(cls, location: str) -> Self:
        """What may be asked for because a user gave this path or URL: its own host, or, of a path, this network.

        >>> sorted(Reach.of("http://stac.intranet:8080/v1").hosts), Reach.of("catalog.json").is_near
        (['stac.intranet'], True)
        """
        if "://" not in location or location.startswith("file://"):
            return cls(is_near=True)
        host = _host_of(location)
        return cls(hosts=frozenset({_plain(host)} if host else ()))

    def check_url(self, url: str) -> None:
        """Raise Refused where a URL says by itself, before any name is resolved, that it leads too far."""
        host = _host_of(url)
        name = _plain(host)
        address = _numbered(name)
        if address is not None:
            self.check(host, address)
        elif name == _LOOPBACK:
            self.check(host, IPv4Address("127.0.0.1"))

    def check_name(self, host: str, port: int) -> None:
        """Raise Refused where a host is known to have an address that is too far, before it is connected to."""
        if self._trusts(host):
            return
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return  # whoever connects says so
        for *_, place in found:
            self.check(host, str(place[0]))

    def check(self, host: str, address: Address | str) -> None:
        """Raise Refused where a host may not be asked at this address."""
        number = ip_address(address.partition("%")[0]) if isinstance(address, str) else address
        kind = _kind(_inner(number))
        if not kind:
            if _plain(host) in self.hosts:
                _SEEN_PUBLIC.add(_plain(host))
            return
        if self._trusts(host) or (self.is_near and kind in _NEAR):
            return
        shown = host[:100] if host.isprintable() else ascii(host)[:100]
        where = f"is a {kind} address" if _numbered(_bare(host)) == number else f"has the {kind} address {number}"
        raise Refused(
            f"{shown} {where}, and what others name or redirect to is asked for at public addresses alone; where it is "
            f"to be trusted, set the environment variable {ALLOW_HOSTS} to {shown}"
        )

    def _trusts(self, host: str) -> bool:
        name = _plain(host)
        if name in {_plain(one.strip()) for one in os.environ.get(ALLOW_HOSTS, "").split(",") if one.strip()}:
            return True
        return name in self.hosts and name not in _SEEN_PUBLIC


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _bare(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")


def _plain(host: str) -> str:
    """One way to write a host: lower case, numbers in their usual form, and all loopback addresses alike."""
    name = _bare(host)
    address = _numbered(name)
    if address is not None:
        return _LOOPBACK if _inner(address).is_loopback else str(address)
    return _LOOPBACK if name == _LOOPBACK or name.endswith(f".{_LOOPBACK}") else name


def _numbered(name: str) -> Address | None:
    """The address that a name is a number of: also decimal, octal or hexadecimal, as inet_aton reads them."""
    try:
        return ip_address(name.partition("%")[0])
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(name)) if _NUMBER.fullmatch(name) else None
    except OSError:
        return None


def _inner(address: Address) -> Address:
    """The IPv4 address within an IPv6 one that leads to it (RFC 4291, 3056, 6052), else the address."""
    if isinstance(address, IPv4Address):
        return address
    within = address.ipv4_mapped or address.sixtofour
    return IPv4Address(int(address) & 0xFFFFFFFF) if within is None and address in _NAT64 else within or address


def _kind(address: Address) -> str:
    """What an address is where it is not public; empty where it is."""
    if address.is_unspecified:
        return "unspecified"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local or any(address in network for network in _CLOUDS):
        return "link-local"
    if address.is_multicast:
        return "multicast"
    if address.is_reserved:
        return "reserved"
    return "" if address.is_global else "private"
