"""The audit of a host: what carries our marks or names and belongs to nobody.

Looks, and touches nothing; :meth:`nsmesh.datapath.base.Datapath.sweep` takes away. A wire that is being made
or taken away at this moment is found too, so what counts is what is found twice.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nsmesh.core.errors import MeshError
from nsmesh.core.metrics import Gauge
from nsmesh.datapath import netns
from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.netlink import Netlink, attributes, request
from nsmesh.datapath.rtread import Link, parse_link, read_rules
from nsmesh.datapath.veth import DOOMED_GROUP
from nsmesh.datapath.vlan_domain import idle_bridges
from nsmesh.datapath.wirestate import table_index

INTERFACE, TUNNEL, RULE, TABLE, NAMESPACE = KINDS = ("interface", "tunnel", "rule", "table", "namespace")
"""What can leak. A tunnel is an interface that leads to another node; a table is one of nftables."""

LEAKS = Gauge("nsmesh_leaks", "What carries the mesh's marks on this host and belongs to nobody.", ("kind",))

TABLE_PREFIX = "nsm_"
"""How the names of our nftables tables begin: a firewall has one for each wire, named by its id."""

_TUNNELS = frozenset({"vxlan", "geneve", "gre", "gretap", "ip6gre", "ip6gretap", "wireguard"})
"""IFLA_INFO_KIND of interfaces that lead to another node."""
_NETLINK_NETFILTER = 12
_NFT_MSG_GETTABLE = 10 << 8 | 1
_NFTA_TABLE_NAME = 1
_NFGENMSG = struct.Struct("=BBxx")


@dataclass(frozen=True, slots=True)
class Leak:
    """One thing without an owner: what it is (see :data:`KINDS`), what it is called, in which namespace."""

    kind: str
    name: str
    where: str
    owner: str = ""
    """The connection that it was for, where that is known."""


def leaks(
    locations: Iterable[str],
    owned: Mapping[int, Collection[str]],
    *,
    others: Collection[str] = (),
    tables: Collection[str] | None = None,
) -> list[Leak]:
    """Return what belongs to nobody in the namespaces at ``locations``.

    ``owned`` has, by group of interfaces (:func:`nsmesh.datapath.inventory.group_of`), the ids of the wires
    that live; interfaces of other groups belong to other programs. ``tables`` names the tables of nftables
    that are wanted; None does not look for any. ``others`` are paths to leave out. Namespaces that cannot be
    entered hold nothing.
    """
    found: list[Leak] = []
    seen: set[tuple[int, int]] = set()
    for location in locations:
        try:
            identity = netns.identity(location)
            if identity in seen or location in others:
                continue
            seen.add(identity)
            found += netns.call_in(location, lambda: _look(location, owned, tables))  # noqa: B023 - called now
        except (MeshError, OSError):
            continue
    return found


def stray_namespaces(prefix: str, owned: Collection[str]) -> list[Leak]:
    """Return the named namespaces that begin with ``prefix`` and are not among ``owned`` (names)."""
    names = (os.path.basename(path) for path in netns.named())  # noqa: PTH119 - a name
    return [
        Leak(NAMESPACE, name, str(Path(netns.RUN_NETNS) / name))
        for name in names
        if name.startswith(prefix) and name not in owned
    ]


def counted(found: Iterable[Leak]) -> dict[tuple[str, ...], float]:
    """Return how many there are of each kind, for :data:`LEAKS`."""
    counts = Counter(leak.kind for leak in found)
    return {(kind,): float(counts[kind]) for kind in KINDS}


def _look(where: str, owned: Mapping[int, Collection[str]], tables: Collection[str] | None) -> list[Leak]:
    """Look at the namespace that this thread is in."""
    with Netlink() as netlink:
        bodies = [body for _, body in netlink.dump(rt.get_link())]
        links = [(parse_link(body), _kind(body)) for body in bodies]
        found = [
            Leak(TUNNEL if kind in _TUNNELS else INTERFACE, link.name, where, link.owner)
            for link, kind in links
            if _forgotten(link, owned)
        ]
        indexes = {link.index for link, _ in links}
        found += [
            Leak(RULE, str(rule), where)
            for rule in read_rules(netlink)
            if table_index(rule.table) not in indexes
        ]
        found += [Leak(INTERFACE, name, where) for name in idle_bridges(netlink)]
    if tables is not None:
        found += [Leak(TABLE, name, where) for name in _tables() if name not in tables]
    return found


def _forgotten(link: Link, owned: Mapping[int, Collection[str]]) -> bool:
    if link.group == DOOMED_GROUP:
        return True
    living = owned.get(link.group)
    return living is not None and link.owner not in living


def _kind(body: bytes) -> str:
    info = attributes(attributes(body, rt.IFINFO.size).get(rt.IFLA_LINKINFO, b""))
    return info.get(rt.IFLA_INFO_KIND, b"").rstrip(b"\0").decode()


def _tables() -> list[str]:
    """Return our tables of nftables in the namespace that this thread is in."""
    try:
        with Netlink(_NETLINK_NETFILTER) as netlink:
            answers = netlink.dump(request(_NFT_MSG_GETTABLE, 0, _NFGENMSG.pack(0, 0)))
    except OSError as error:
        if error.errno in {errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT}:
            return []  # a kernel without nftables
        raise
    names = (attributes(body, _NFGENMSG.size).get(_NFTA_TABLE_NAME, b"") for _, body in answers)
    texts = (name.rstrip(b"\0").decode(errors="replace") for name in names)
    return [name for name in texts if name.startswith(TABLE_PREFIX)]
