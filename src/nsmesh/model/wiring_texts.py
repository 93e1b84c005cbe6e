"""What stands in a connection's context as text, read: addresses, prefixes, MACs, protocols, ports.

``field`` names it in errors.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import AF_INET, inet_pton
from typing import NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_KEPT = 1024
"""Addresses of which the parsed form is remembered: each comes several times in the life of a wire, and with
each refresh. They take half a MB."""

_ip_address = lru_cache(_KEPT)(ipaddress.ip_address)


_LENGTHS_V4 = {str(length): length for length in range(33)}


def _plain_v4(text: str) -> tuple[str, int, int] | None:
    """Return an IPv4 address, its number and its prefix length, None for a text of any other form.

    This is how nearly all are written. The library reads them in Python, which takes three times as long.
    """
    address, _, rest = text.partition("/")
    length = _LENGTHS_V4.get(rest)
    if length is None:
        return None
    try:
        return address, int.from_bytes(inet_pton(AF_INET, address), "big"), length
    except (OSError, ValueError):
        return None  # the library says what is wrong with it


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
    if (plain := _plain_v4(text)) is not None:
        address, number, length = plain
        net = IPv4Network((number >> (32 - length) << (32 - length), length))
        return Interface(text, IPv4Address(number), address, f"{address}/32", net)
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
    if (plain := _plain_v4(text)) is not None:
        _, number, length = plain
        first = number >> (32 - length) << (32 - length)
        v4 = IPv4Network((first, length))
        return Prefix(text if first == number else str(v4), v4)
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
