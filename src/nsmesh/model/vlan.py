"""VLANs outside of the mesh: services that stand for one, and what of a node leads to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, summarize_address_range
from typing import Any

from nsmesh.model.prefix import Network, PrefixPool, find_overlaps, parse_prefix

VIA = "via"
"""Label of a connection: the name of what leads to its VLAN; each node has something of its own for it."""
VLAN_ID = "vlan-id"
"""Parameter of the mechanism VLAN: the tag."""
MOST = 4094
"""Largest VLAN; 0 stands for frames without a tag."""

_PARTS = ("domain", "vlan", "via", "labels")


@dataclass(frozen=True, slots=True)
class VlanService:
    """A network service that is a VLAN: its tag, and by which way it is reached."""

    name: str
    via: str
    vlan: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def domain(self) -> tuple[str, int]:
        """What two services have in common that are one Ethernet."""
        return self.via, self.vlan


@dataclass(frozen=True, slots=True)
class Interface:
    """What leads to VLANs: an interface of the node, by its name."""

    name: str

    def __str__(self) -> str:
        return f"interface {self.name}"


@dataclass(frozen=True, slots=True)
class Bridge:
    """What leads to VLANs: a bridge of an Open vSwitch on the node, by its name."""

    name: str

    def __str__(self) -> str:
        return f"bridge {self.name}"


Uplink = Interface | Bridge
"""What of a node leads to VLANs."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """A network on a VLAN, and the addresses of it (as prefixes) that may be given to clients."""

    network: Network
    prefixes: tuple[str, ...]

    def __str__(self) -> str:
        return str(self.network) if self.prefixes == (str(self.network),) else ";".join(self.prefixes)

    def pool(self) -> PrefixPool:
        """Return a pool of its own, without the addresses of the network and of everybody in it."""
        full = self.network.max_prefixlen
        if full - self.network.prefixlen < 2:
            return PrefixPool(self.prefixes)
        excluded = [f"{self.network.network_address}/{full}"]
        if self.network.version == 4:
            excluded.append(f"{self.network.broadcast_address}/{full}")
        return PrefixPool(self.prefixes, excluded)


def parse_services(text: str) -> list[VlanService]:
    """Return the services of ``NSM_SERVICES``: ``NAME { vlan: 100; via: gw-1; labels: a=b&c=d }, ...``.

    ``domain: NAME`` is understood and means nothing, as in NSM. Raises ValueError, naming the service.
    """
    return [_parse(one.strip()) for one in text.split(",") if one.strip()]


def _parse(text: str) -> VlanService:
    name, brace, rest = text.partition("{")
    inside, close, more = rest.partition("}")
    if not brace or not close or more.strip():
        raise ValueError(f"{text!r} is not NAME {{ vlan: TAG; via: NAME }}")
    found: dict[str, Any] = {"name": name.strip()}
    for part in filter(None, map(str.strip, inside.split(";"))):
        key, colon, value = part.partition(":")
        if not colon:
            raise ValueError(f"{text!r} has {part!r}, which is not KEY: VALUE")
        found[key.strip()] = value.strip()
    if "labels" in found:
        pairs = [pair.partition("=") for pair in str(found["labels"]).split("&")]
        if any(not equals or not key for key, equals, _ in pairs):
            raise ValueError(f"{text!r} has labels that are not a=b&c=d")
        found["labels"] = {key: value for key, _, value in pairs}
    return service_from(found)


def service_from(item: Mapping[str, Any]) -> VlanService:
    """Return the service that a mapping describes; raises ValueError, naming it."""
    name = str(item.get("name") or "")
    if not name:
        raise ValueError("a service has no name")
    if unknown := sorted(set(item) - {"name", *_PARTS}):
        raise ValueError(f"service {name} has {', '.join(unknown)}; there are {', '.join(_PARTS)}")
    if not item.get("via"):
        raise ValueError(f"service {name} has no via, which says what leads to its VLAN")
    labels = item.get("labels") or {}
    if not isinstance(labels, Mapping):
        raise ValueError(f"service {name} has labels that are no mapping")  # noqa: TRY004 - a mistake in text
    texts = {str(key): str(value) for key, value in labels.items()}
    return VlanService(name, str(item["via"]), _tag(name, item.get("vlan", 0)), texts)


def _tag(name: str, value: object) -> int:
    try:
        tag = int(str(value), 0)
    except ValueError:
        tag = -1
    if not 0 <= tag <= MOST:
        raise ValueError(f"service {name} has vlan {value}, which is no number from 0 to {MOST}")
    return tag


def parse_subnets(items: Iterable[str]) -> tuple[Subnet, ...]:
    """Return networks from ``10.0.0.0/24``, ``10.0.0.5-10.0.0.9/24``, or several such ranges with ``;``.

    At most one for each IP version. Raises ValueError.
    """
    found = tuple(_subnet(item) for item in items)
    versions = [subnet.network.version for subnet in found]
    if len(set(versions)) < len(versions):
        raise ValueError("there is more than one network of an IP version")
    return found


def _subnet(text: str) -> Subnet:
    parts = [part.strip() for part in text.split(";")]
    if len(parts) == 1 and "-" not in parts[0]:
        network = parse_prefix(parts[0])
        return Subnet(network, (str(network),))
    networks: dict[Network, None] = {}
    prefixes: list[str] = []
    for part in parts:
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not dash:
            raise ValueError(f"{text!r} has {part!r} among ranges, which is none")
        network = parse_prefix(last)
        networks[network] = None
        low, high = ip_address(first), ip_address(last.partition("/")[0])
        if low not in network or low.version != high.version or int(low) > int(high):
            raise ValueError(f"{part!r} is no range of {network}")
        prefixes += map(str, summarize_address_range(low, high))
    if len(networks) > 1:
        raise ValueError(f"{text!r} has ranges of different networks: {', '.join(map(str, networks))}")
    if find_overlaps(prefixes):
        raise ValueError(f"{text!r} has ranges with addresses in common")
    return Subnet(next(iter(networks)), tuple(prefixes))


_UPLINKS: dict[str, type[Uplink]] = {"interfaces": Interface, "bridges": Bridge}


def parse_uplinks(document: object) -> dict[str, Uplink]:
    """Return what leads to VLANs by the ``via`` that it serves, from a device selector file of a forwarder.

    ``interfaces: [{name: eth1, matches: [{labelSelector: [{via: gw-1}]}]}]``, and ``bridges`` of the same
    form; one of the two may be missing. Raises ValueError.
    """
    given = document if isinstance(document, Mapping) else {}
    there = [key for key in _UPLINKS if given.get(key)]
    if not there:
        raise ValueError(f"the file has no list of {' or '.join(_UPLINKS)}")
    found: dict[str, Uplink] = {}
    for key in there:
        for item in _list(given, key, "the file"):
            name = str(item.get("name") or "") if isinstance(item, Mapping) else ""
            if not name:
                raise ValueError(f"{item!r} has no name, and is one of the {key}")
            uplink = _UPLINKS[key](name)
            for via in _ways(item, uplink):
                if found.setdefault(via, uplink) != uplink:
                    raise ValueError(f"via {via} leads to both {found[via]} and {uplink}")
    return found


def _ways(item: object, uplink: Uplink) -> list[str]:
    found: list[str] = []
    for match in _list(item, "matches", str(uplink)):
        for selector in _list(match, "labelSelector", str(uplink)):
            via = str(selector.get(VIA) or "") if isinstance(selector, Mapping) else ""
            if not via:
                raise ValueError(f"{uplink} has a labelSelector without via")
            found.append(via)
    return found


def _list(item: object, key: str, where: str) -> Sequence[Any]:
    value = item.get(key) if isinstance(item, Mapping) else None
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where} has no list of {key}")
    return value
