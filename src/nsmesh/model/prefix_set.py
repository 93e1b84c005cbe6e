"""Prefixes as ranges of addresses: reading them, and asking what lies in them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Span = tuple[int, int]
"""First and last address of a range, as numbers."""


class PrefixError(ValueError):
    """A prefix or an address that cannot be used: ``what`` is wrong, and the ``remedy``."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what} - {self.remedy}"


def parse_prefix(text: str) -> Network:
    """Return the network of a CIDR prefix; bits behind the mask are ignored. Raises :class:`PrefixError`."""
    try:
        network = ip_network(text.strip(), strict=False)
    except ValueError:
        raise PrefixError(
            f"{text!r} is no CIDR prefix", "write for example 10.0.0.0/24 or fd00::/64"
        ) from None
    if "/" not in text:
        raise PrefixError(f"{text!r} has no prefix length", f"write {network}")
    return network


@lru_cache(maxsize=8192)
def _range(text: str) -> tuple[int, int, int]:
    """Return IP version, first and last address. Who has many wires excludes the same prefixes ever again."""
    network = parse_prefix(text)
    return network.version, int(network.network_address), int(network.broadcast_address)


def spans_of(prefixes: Iterable[str], version: int) -> list[Span]:
    """Return the ranges of the prefixes of one IP version: sorted, and joined where they touch."""
    ranges = (_range(text) for text in prefixes)
    raw = sorted((first, last) for which, first, last in ranges if which == version)
    joined: list[Span] = []
    for first, last in raw:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def host_of(address: str) -> Address:
    """Return an address, whose prefix length is ignored. Raises :class:`PrefixError`."""
    try:
        return ip_address(address.partition("/")[0].strip())
    except ValueError:
        raise PrefixError(f"{address!r} is no IP address", "write for example 10.0.0.1/32") from None


def lies_in(value: int, spans: Sequence[Span]) -> bool:
    """Return whether an address, as a number, lies in one of the ranges (sorted and disjoint)."""
    number = bisect_right(spans, (value, 2**128)) - 1
    return number >= 0 and spans[number][1] >= value


class PrefixSet:
    """Prefixes that are asked about again and again, as those that a Request excludes.

    Raises :class:`PrefixError` for what is no prefix.
    """

    def __init__(self, prefixes: Iterable[str] = ()) -> None:
        self.prefixes = tuple(prefixes)
        self._spans = {version: spans_of(self.prefixes, version) for version in (4, 6)}

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self.prefixes)

    def __contains__(self, address: str) -> bool:
        """Return whether an address (a prefix length is ignored) lies in one of them."""
        host = host_of(address)
        return lies_in(int(host), self._spans[host.version])

    def spans(self, version: int) -> list[Span]:
        """Return the ranges of one IP version, sorted and disjoint."""
        return self._spans[version]
