"""Addresses as the kernel has them, packed, and as people write them. Pure."""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import NamedTuple

from nsmesh.core.errors import Invalid

_REMEMBERED = 64
"""Texts whose meaning is kept: each address of a wire is written several times in its two ends."""

_packed = socket.inet_pton
_LENGTHS = {str(length): length for length in range(129)}
_NO_MAC = bytes(6)


class Prefix(NamedTuple):
    """An address and a prefix length; the family follows from the length of the address."""

    address: bytes
    length: int

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return family(self.address)

    def __str__(self) -> str:
        return f"{ip_text(self.address)}/{self.length}"


def family(address: bytes) -> int:
    """Return the address family of a packed address."""
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6


def ip_text(address: bytes) -> str:
    """Return a packed address as text."""
    return socket.inet_ntop(family(address), address)


def mac_text(mac: bytes) -> str:
    """Return a MAC as text, ``02:00:00:00:00:01``."""
    return mac.hex(":")


@lru_cache(_REMEMBERED)
def parse_ip(text: str) -> bytes:
    """Return an address in packed form; raises Invalid."""
    try:
        return _packed(10 if ":" in text else 2, text)
    except (OSError, ValueError):
        raise Invalid(f"{text!r} is no IP address", remedy="write it like 10.0.0.1 or fd00::1") from None


@lru_cache(_REMEMBERED)
def parse_prefix(text: str) -> Prefix:
    """Return an address with its prefix length, the whole length where none is given; raises Invalid."""
    address, slash, length_text = text.partition("/")
    packed = parse_ip(address)
    longest = len(packed) * 8
    if not slash:
        return Prefix(packed, longest)
    length = _LENGTHS.get(length_text, longest + 1)
    if length > longest:
        raise Invalid(f"{text!r} is no CIDR", remedy=f"give a prefix length of 0 to {longest}")
    return Prefix(packed, length)


def parse_network(text: str) -> Prefix:
    """Return a prefix with its host bits cleared; raises Invalid."""
    return network(parse_prefix(text))


def network(prefix: Prefix) -> Prefix:
    """Return ``prefix`` with its host bits cleared."""
    address, length = prefix
    size = len(address)
    host_bits = size * 8 - length
    if not host_bits:
        return prefix
    value = int.from_bytes(address, "big") >> host_bits << host_bits
    return Prefix(value.to_bytes(size, "big"), length)


@lru_cache(_REMEMBERED)
def parse_mac(text: str) -> bytes:
    """Return a MAC of one station in packed form; raises Invalid."""
    try:
        mac = bytes.fromhex(text.replace(":", "")) if text.count(":") == 5 else b""
    except ValueError:
        mac = b""
    if len(mac) != 6 or mac[0] & 1 or mac == _NO_MAC:
        raise Invalid(f"{text!r} is no MAC of an interface", remedy="write it like 02:00:00:00:00:01")
    return mac
