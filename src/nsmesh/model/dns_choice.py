"""Whom to ask for a name: the servers of a wire for its own domains, the original ones for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from nsmesh.model.messages import DNSConfig
from nsmesh.model.resolver_text import domains, is_domain, is_server, servers

Group = tuple[str, ...]
"""Servers that know the same names."""
_REVERSE = ("in-addr.arpa", "ip6.arpa")


@dataclass(frozen=True, slots=True)
class Zone:
    """Servers, and the domains for which they are asked; without domains for what nobody else knows."""

    domains: tuple[str, ...]
    servers: Group


@dataclass(frozen=True, slots=True)
class Choice:
    """The original servers of a resolver file, and those of wires."""

    own: Zone = Zone((), ())
    wires: tuple[Zone, ...] = ()

    @classmethod
    def of(cls, before: str, configs: Iterable[DNSConfig], asker: str) -> Choice:
        """Return the choice for the original text of a resolver file and the configurations of wires.

        What is no domain, or no address that can be asked, is left out: ``asker`` is the address of who asks.
        """
        own = Zone(_plain(domains(before)), tuple(one for one in servers(before) if one != asker))
        found = (Zone(_plain(one.search_domains), _askable(one.dns_server_ips)) for one in configs)
        return cls(own, tuple(dict.fromkeys(zone for zone in found if zone.servers)))

    def groups(self, name: str) -> list[Group]:
        """Return who is asked for ``name``, in order: the next where the one before knows no such name.

        The longest domain decides, and the original servers where it is theirs as well: a wire adds names,
        and takes none away. Names of addresses are in no domain, so all are asked for them.
        """
        name = name.rstrip(".").lower()
        ours = max((_fit(name, zone.domains) for zone in self.wires), default=-1)
        theirs = _fit(name, self.own.domains)
        if ours > theirs:
            return _distinct(zone.servers for zone in self.wires if _fit(name, zone.domains) == ours)
        if theirs >= 0:
            return _distinct([self.own.servers])
        reverse = _fit(name, _REVERSE) >= 0
        others = (zone.servers for zone in self.wires if reverse or not zone.domains)
        return _distinct([self.own.servers, *others])


def _fit(name: str, zones: Iterable[str]) -> int:
    """Return the length of the longest of ``zones`` that holds ``name``, else -1."""
    return max((len(zone) for zone in zones if name == zone or name.endswith("." + zone)), default=-1)


def _plain(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.rstrip(".").lower() for text in texts if is_domain(text)))


def _askable(texts: Iterable[str]) -> Group:
    """Return the addresses of other hosts: a wire has no business with what listens in the pod itself."""
    return tuple(dict.fromkeys(text for text in texts if is_server(text) and _is_elsewhere(text)))


def _is_elsewhere(text: str) -> bool:
    address = ip_address(text)
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def _distinct(groups: Iterable[Sequence[str]]) -> list[Group]:
    return list(dict.fromkeys(tuple(group) for group in groups if group))
