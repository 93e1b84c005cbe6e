"""Pools of addresses for IPAM: host addresses out of CIDR prefixes, the first free one first.

A pool remembers free ranges, never single free addresses: a ``/8`` or an IPv6 ``/64`` costs no more than a
``/30``. Pure data; nothing here touches an interface.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address

from nsmesh.model.prefix_set import (
    Address,
    Network,
    PrefixError,
    PrefixSet,
    Span,
    host_of,
    lies_in,
    parse_prefix,
    spans_of,
)

__all__ = [
    "Address",
    "Network",
    "PoolExhausted",
    "PrefixError",
    "PrefixPool",
    "PrefixSet",
    "find_overlaps",
    "parse_groups",
    "parse_prefix",
]


class PoolExhausted(PrefixError):
    """No address of the pool is free, or all that are free are excluded."""


def parse_groups(text: str) -> list[list[str]]:
    """Return the groups of ``NSM_CIDR_PREFIX``: ``[a,b],[c]``; one address pair is given from each group.

    A prefix without brackets is a group of its own. Raises :class:`PrefixError`.
    """
    groups: list[list[str]] = []
    rest = text.strip()
    while rest:
        found = re.match(r"\s*(?:\[([^\[\]]*)\]|([^\[\],]+))\s*(,|$)", rest)
        if not found:
            raise PrefixError(
                f"{text!r} is no list of prefix groups", "write [10.0.0.0/24,10.1.0.0/24],[fd00::/64]"
            )
        inside = found[2] if found[1] is None else found[1]
        groups.append([str(parse_prefix(item)) for item in inside.split(",")])
        rest = rest[found.end() :]
        if found[3] and not rest.strip():
            raise PrefixError(f"{text!r} ends with a comma", "remove it")
    return groups


def find_overlaps(prefixes: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of prefixes that have addresses in common, in the order given."""
    networks = [(text, parse_prefix(text)) for text in prefixes]
    return [
        (text, other_text)
        for number, (text, network) in enumerate(networks)
        for other_text, other in networks[number + 1 :]
        if network.version == other.version and network.overlaps(other)
    ]


def _less(spans: Iterable[Span], holes: Sequence[Span]) -> list[Span]:
    """Return ``spans`` without ``holes``; both sorted and disjoint, and so is the result."""
    left: list[Span] = []
    for first, last in spans:
        at = first
        number = max(bisect_right(holes, (first, first)) - 1, 0)
        for low, high in holes[number:]:
            if low > last:
                break
            if high < at:
                continue
            if low > at:
                left.append((at, low - 1))
            at = high + 1
        if at <= last:
            left.append((at, last))
    return left


Excluded = Sequence[str] | PrefixSet
"""Prefixes of which nothing is given out for one Request."""


def _holes(excluded: Excluded, version: int) -> list[Span]:
    return excluded.spans(version) if isinstance(excluded, PrefixSet) else spans_of(excluded, version)


class _Part:
    """One prefix of a pool: its free ranges, sorted and disjoint, and the addresses that are held."""

    def __init__(self, network: Network, spans: list[Span]) -> None:
        self.network = network
        self._spans = spans
        self._lows = [low for low, _ in spans]
        self._highs = [high for _, high in spans]
        self.held: set[int] = set()

    def first_free(self, excluded: Sequence[Span], at: int = 0) -> int | None:
        """Return the lowest address from ``at`` on that is free and in no excluded range."""
        while True:
            number = bisect_left(self._highs, at)
            if number == len(self._highs):
                return None
            at = max(at, self._lows[number])
            hole = bisect_right(excluded, (at, 2**128)) - 1
            if hole < 0 or excluded[hole][1] < at:
                return at
            at = excluded[hole][1] + 1

    def is_free(self, value: int) -> bool:
        number = bisect_left(self._highs, value)
        return number < len(self._lows) and self._lows[number] <= value

    def offers(self, value: int) -> bool:
        number = bisect_right(self._spans, (value, 2**128)) - 1
        return number >= 0 and self._spans[number][1] >= value

    def take(self, value: int) -> None:
        number = bisect_left(self._highs, value)
        low, high = self._lows[number], self._highs[number]
        pieces = [(a, b) for a, b in ((low, value - 1), (value + 1, high)) if a <= b]
        self._lows[number : number + 1] = [a for a, _ in pieces]
        self._highs[number : number + 1] = [b for _, b in pieces]
        self.held.add(value)

    def give_back(self, value: int) -> None:
        self.held.remove(value)
        number = bisect_left(self._lows, value)
        joins_left = number > 0 and self._highs[number - 1] == value - 1
        joins_right = number < len(self._lows) and self._lows[number] == value + 1
        low = self._lows[number - 1] if joins_left else value
        high = self._highs[number] if joins_right else value
        begin, end = number - joins_left, number + joins_right
        self._lows[begin:end] = [low]
        self._highs[begin:end] = [high]

    def usable(self, excluded: Sequence[Span]) -> int:
        """Return how many addresses of this prefix, held or free, are in no excluded range."""
        return sum(last - first + 1 for first, last in _less(self._spans, excluded))

    def text(self, value: int) -> str:
        address = IPv4Address(value) if self.network.version == 4 else IPv6Address(value)
        return f"{address}/{address.max_prefixlen}"


class PrefixPool:
    """Host addresses out of one or more prefixes, tried in the order given.

    ``excluded`` prefixes are never given out; those of one request are given with each call. Where prefixes
    overlap, the common addresses belong to the first of them. Addresses are text with a full prefix length:
    ``10.0.0.1/32``, ``fd00::1/128``. Raises :class:`PrefixError` for what is no prefix.
    """

    def __init__(self, prefixes: Sequence[str], excluded: Sequence[str] = ()) -> None:
        self.prefixes = tuple(str(parse_prefix(text)) for text in prefixes)
        self.excluded = tuple(excluded)
        self._parts: list[_Part] = []
        for number, text in enumerate(self.prefixes):
            network = parse_prefix(text)
            holes = spans_of([*excluded, *self.prefixes[:number]], network.version)
            self._parts.append(_Part(network, _less([(int(network[0]), int(network[-1]))], holes)))

    def allocate(self, excluded: Excluded = ()) -> str:
        """Take the first free address. Raises :class:`PoolExhausted`."""
        return self._take(1, excluded)[0]

    def allocate_pair(self, excluded: Excluded = ()) -> tuple[str, str]:
        """Take two addresses of one prefix: the first free is ``dst`` (endpoint), the next ``src`` (client).

        Both or none are taken. Raises :class:`PoolExhausted`.
        """
        dst, src = self._take(2, excluded)
        return dst, src

    def reserve(self, address: str, excluded: Excluded = ()) -> str:
        """Take the address given, and return it in full form.

        Raises :class:`PrefixError` when it is not in the pool, excluded, or held by somebody else.
        """
        value, part = self._find(address)
        if part is None or not part.offers(value):
            raise PrefixError(f"{address} is not in {self._names()}", "choose an address of the pool")
        if lies_in(value, _holes(excluded, part.network.version)):
            names = excluded.prefixes if isinstance(excluded, PrefixSet) else excluded
            raise PrefixError(f"{address} is excluded by {', '.join(names)}", "choose another address")
        if not part.is_free(value):
            raise PrefixError(f"{address} is held by somebody else", "choose another address, or release it")
        part.take(value)
        return part.text(value)

    def release(self, address: str) -> bool:
        """Give an address back; False when nobody held it."""
        value, part = self._find(address)
        if part is None or value not in part.held:
            return False
        part.give_back(value)
        return True

    def is_free(self, address: str, excluded: Excluded = ()) -> bool:
        """Return whether :meth:`reserve` would take ``address``."""
        value, part = self._find(address)
        return (
            part is not None
            and part.is_free(value)
            and not lies_in(value, _holes(excluded, part.network.version))
        )

    def __contains__(self, address: str) -> bool:
        """Return whether the address lies in a prefix of the pool and is not excluded for good."""
        value, part = self._find(address)
        return part is not None and part.offers(value)

    @property
    def held(self) -> list[str]:
        """The addresses that are given out, sorted within each prefix."""
        return [part.text(value) for part in self._parts for value in sorted(part.held)]

    def _take(self, count: int, excluded: Excluded) -> list[str]:
        holes = {version: _holes(excluded, version) for version in (4, 6)} if excluded else {}
        for part in self._parts:
            values: list[int] = []
            while len(values) < count:
                value = part.first_free(holes.get(part.network.version, ()), values[-1] + 1 if values else 0)
                if value is None:
                    break
                values.append(value)
            if len(values) == count:
                for value in values:
                    part.take(value)
                return [part.text(value) for value in values]
        raise self._exhausted(count, holes)

    def _exhausted(self, count: int, holes: dict[int, list[Span]]) -> PoolExhausted:
        counts = []
        for part in self._parts:
            size = part.network.num_addresses
            usable = part.usable(holes.get(part.network.version, ()))
            counts.append(
                f"{part.network} has {size}, of them {len(part.held)} taken and {size - usable} excluded"
            )
        wanted = "address is" if count == 1 else f"pair of {count} addresses is"
        return PoolExhausted(
            f"no free {wanted} left: {'; '.join(counts) or 'the pool has no prefix'}",
            "give the pool another prefix, exclude less, or close connections",
        )

    def _find(self, address: str) -> tuple[int, _Part | None]:
        """Return the address as a number, and the prefix that offers it, or None."""
        host = host_of(address)
        value = int(host)
        for part in self._parts:
            if part.network.version == host.version and part.offers(value):
                return value, part
        return value, None

    def _names(self) -> str:
        return " or ".join(self.prefixes) or "the empty pool"
