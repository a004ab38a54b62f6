"""How far an address leads that others wrote: to public hosts, and never unasked into the network of whoever reads it.

A catalogue names addresses, servers redirect to others, and names are resolved by whoever owns them. Each of these
could lead to what this machine alone can ask: its own services, those of its network, and the metadata of its cloud.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

__all__ = ["ALLOW_HOSTS", "Reach", "Refused", "is_public"]

ALLOW_HOSTS = "SITS_ALLOW_HOSTS"
"""Environment variable: with commas between, hosts that may have any address, ends of their names (`.example.org`) and
networks (`10.1.0.0/16`). Whoever runs a machine decides that, not a region file, which may be another's."""

_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: its last 32 bits are an IPv4 address."""
_CLOUDS = (
    *(IPv4Network("168.63.129.16/32"), IPv4Network("192.0.0.0/24"), IPv4Network("100.100.100.200/32")),
    *(IPv6Network("fd00:ec2::/32"), IPv6Network("fd20:ce::/32"), IPv6Network("fd00:c1::a9fe:a9fe/128")),
    IPv6Network("fd00:42::42/128"),
)
"""Where virtual machines ask their cloud who they are, beside link-local addresses: those of Azure (a public number),
Oracle and Alibaba, then, by IPv6, of Amazon, Google, Oracle and Scaleway."""
_NUMBER = re.compile(r"[0-9A-Fa-fXx.]+")
_LOOPBACK = "localhost"
_NEAR = ("loopback", "private")
_METADATA = "link-local"
"""What is handed out there may be the keys of the machine."""

_SEEN_PUBLIC: set[str] = set()
"""Hosts that this process was connected to at a public address: a name that leads elsewhere later is not believed."""

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

    def past(self, url: str) -> Self:
        """How far the answer of a server at `url` may lead: what documents here may ask for, no server may name."""
        return self.of(url) if self.is_near else self

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
        if _is_allowed(host):
            return
        try:
            found = {str(place[0]) for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        except (OSError, UnicodeError):
            return  # whoever connects says so
        if self._names(host) and any(_kind_of(one) == "" for one in found):
            return  # a host of the user's with addresses of both kinds: the one that answers is looked at
        for one in sorted(found):
            self.check(host, one)

    def check_target(self, url: str) -> None:
        """Raise Refused where a URL leads too far as far as is known before it is asked, for clients that follow it.

        Behind a proxy of the environment, which resolves names itself, numbers alone are looked at.
        """
        self.check_url(url)
        parts, host = urlsplit(url), _host_of(url)
        if parts.scheme not in getproxies() or proxy_bypass(host):
            self.check_name(host, parts.port or (80 if parts.scheme == "http" else 443))

    def check(self, host: str, address: Address | str) -> None:
        """Raise Refused where a host may not be asked at this address."""
        if self.allows(host, address):
            return
        kind, number = _kind_of(address), _number_of(address)
        shown = host[:100] if host.isprintable() else ascii(host)[:100]
        where = f"is a {kind} address" if _numbered(_bare(host)) == number else f"has the {kind} address {number}"
        said = f"{shown} {where}, and what others name or redirect to is asked for at public addresses alone"
        if kind != _METADATA:
            said += f"; where it is to be trusted, set the environment variable {ALLOW_HOSTS} to {shown}"
        raise Refused(said)

    def allows(self, host: str, address: Address | str) -> bool:
        """Whether a host may be asked at this address; one at a public one is noted."""
        kind = _kind_of(address)
        if not kind:
            if self.is_near or self._names(host):
                _SEEN_PUBLIC.add(_plain(host))
            return True
        if _is_allowed(host) or (kind != _METADATA and _is_allowed(host, _number_of(address))):
            return True
        if kind == _METADATA:
            return False
        return (self._names(host) and _plain(host) not in _SEEN_PUBLIC) or (self.is_near and kind in _NEAR)

    def knows(self, host: str) -> bool:
        """Whether a host may be asked wherever in this network it is, by its name alone."""
        return self.is_near or _is_allowed(host) or (self._names(host) and _plain(host) not in _SEEN_PUBLIC)

    def _names(self, host: str) -> bool:
        return _plain(host) in self.hosts


def is_public(address: str) -> bool:
    """Whether an address is one that anybody can ask."""
    return not _kind_of(address)


def _is_allowed(host: str, number: Address | None = None) -> bool:
    """Whether the environment names a host itself or, of one with an address, the end of its name or a network."""
    name = _plain(host)
    for entry in filter(None, (one.strip() for one in os.environ.get(ALLOW_HOSTS, "").split(","))):
        if name == _plain(_without_port(entry)):
            return True
        ends_so = entry[0] == "." and len(entry) > 1 and name.endswith(_bare(entry))
        if number is not None and (ends_so or _holds(entry, number)):
            return True
    return False


def _without_port(entry: str) -> str:
    """A host that may be written with a port, which counts for nothing; an IPv6 address has colons of its own."""
    host, colon, port = entry.rpartition(":")
    return host if colon and port.isdigit() and (":" not in host or host.endswith("]")) else entry


def _holds(entry: str, number: Address) -> bool:
    try:
        return "/" in entry and _inner(number) in ip_network(entry, strict=False)
    except ValueError:
        return False


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


def _number_of(address: Address | str) -> Address:
    return ip_address(address.partition("%")[0]) if isinstance(address, str) else address


def _kind_of(given: Address | str) -> str:
    """What an address is where it is not public; empty where it is."""
    address = _inner(_number_of(given))
    if address.is_unspecified:
        return "unspecified"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local or any(address in network for network in _CLOUDS):
        return _METADATA
    if address.is_multicast:
        return "multicast"
    if address.is_reserved:
        return "reserved"
    is_site = isinstance(address, IPv6Address) and address.is_site_local
    return "" if address.is_global and not is_site else "private"
