"""What stands in a connection's context as text, read: addresses, prefixes, MACs, protocols, ports.

``field`` names it in errors.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_KEPT = 1024
"""Addresses of which the parsed form is remembered: each comes several times in the life of a wire, and with
each refresh. They take half a MB."""

_ip_address = lru_cache(_KEPT)(ipaddress.ip_address)


class Interface(NamedTuple):
    """An address with its prefix length, and all that is asked of it, worked out once."""

    text: str
    """The address with its prefix length, as the library writes it."""
    ip: Address
    ip_text: str
    host: str
    """The prefix of this address alone."""
    network: Network


@lru_cache(_KEPT)
def interface_of(text: str) -> Interface:
    """Read an address with its prefix length; raises ValueError."""
    parsed = ipaddress.ip_interface(text)
    ip = parsed.ip
    ip_text = str(ip)
    return Interface(str(parsed), ip, ip_text, f"{ip_text}/{ip.max_prefixlen}", parsed.network)


class Prefix(NamedTuple):
    """A prefix, and how the library writes it."""

    text: str
    network: Network


@lru_cache(_KEPT)
def _ip_network(text: str) -> Prefix:
    network = ipaddress.ip_network(text, strict=False)
    return Prefix(str(network), network)


class WiringError(ValueError):
    """A connection's context that cannot be wired; the text names the field and the value."""


def parse_interfaces(texts: Iterable[str], field: str) -> list[Interface]:
    """Read addresses with their prefix lengths, each once; raises WiringError."""
    found: dict[str, Interface] = {}
    for text in texts:
        try:
            interface = interface_of(text)
        except ValueError as error:
            raise WiringError(f"{field} has {text!r}, which is no address with a prefix length") from error
        if "/" not in text:
            raise WiringError(f"{field} has {text!r} without a prefix length, such as {interface.text}")
        found[interface.text] = interface
    return list(found.values())


def parse_prefix(text: str, field: str) -> Prefix:
    """Read a prefix; raises WiringError."""
    try:
        prefix = _ip_network(text)
    except ValueError as error:
        raise WiringError(f"{field} has {text!r}, which is no prefix such as 10.0.0.0/24") from error
    if "/" not in text:
        raise WiringError(f"{field} has {text!r} without a prefix length, such as {prefix.text}")
    return prefix


def parse_address(text: str, field: str) -> Address:
    """Read an address; raises WiringError."""
    try:
        return _ip_address(text)
    except ValueError as error:
        raise WiringError(f"{field} has {text!r}, which is no IP address") from error


def parse_mac(text: str, field: str) -> str:
    """Read the MAC address of one interface, empty for none; raises WiringError."""
    if not text:
        return ""
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 1:
        raise WiringError(f"{field} has {text!r}, which is no MAC address of one interface")
    return text.lower()


def parse_protocol(text: str) -> int | None:
    """Read the number of an IP protocol, None for none; raises WiringError."""
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or int(text) > 255:
        raise WiringError(f"a policy's proto has {text!r}, which is no IP protocol number such as 6")
    return int(text)


def parse_ports(text: str, field: str) -> tuple[int, int] | None:
    """Read a port or a range, first and last, None for none; raises WiringError."""
    if not text:
        return None
    found = _PORTS.fullmatch(text)
    first = int(found[1]) if found else 1
    last = int(found[2] or found[1]) if found else 0
    if not first <= last <= 65535:
        raise WiringError(
            f"a policy's {field} has {text!r}, which is neither a port nor a range such as 80-90"
        )
    return first, last
