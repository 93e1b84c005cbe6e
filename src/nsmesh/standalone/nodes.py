"""The nodes of a mesh: one, which is this host itself, or several, each a network namespace of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from nsmesh.core.errors import NotFound, Refused
from nsmesh.datapath import netns
from nsmesh.datapath.ovs_switches import LIMIT
from nsmesh.standalone.joining.place import Place
from nsmesh.standalone.paths import MeshPaths

MOST = 50
"""Nodes that one host can play."""
UNDERLAY_NET = "100.64.0"
"""First three bytes of the underlay's addresses: shared address space, which wires hardly ever use."""
UNDERLAY_NET6 = "fd6e:736d::"
"""The same for IPv6, which segment routing needs."""
LINUX, OVS = FORWARDERS = ("linux", "ovs")
"""Kinds of forwarders that a node may have side by side: of the kernel, and of an Open vSwitch."""
MANAGER_PORT = 5001
"""TCP port of a manager, as in NSM's deployments."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How many nodes there are, what joins several, and which kinds of forwarders each has.

    ``mtu`` in bytes; ``latency`` in seconds and ``loss`` in percent, of the way from one node to another.
    ``switch``: the database of somebody else's Open vSwitch that the only node uses; empty: it has its own.
    """

    nodes: int = 1
    mtu: int = 1500
    latency: float = 0.0
    loss: float = 0.0
    forwarders: tuple[str, ...] = (LINUX,)
    switch: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class NodeForwarder:
    """One forwarder of a node: its kind, its name in paths and in the registry, its process and its socket.

    ``switch``: the folder of its Open vSwitch; ``space``: the name of the namespace where that lives, and
    ``ends`` of the one where ends wait that are made in advance. Switches beside the first one have a number
    behind that name.
    """

    kind: str
    name: str
    unit: str
    url: str
    switch: str = ""
    space: str = ""
    ends: str = ""

    @property
    def spaces(self) -> set[str]:
        """The names of all namespaces that its switches may have."""
        if not self.space:
            return set()
        more = [f"{self.space}-{number}" for number in range(2, LIMIT + 1)]
        return {self.space, self.ends, *more, *(f"{name}-ends" for name in more)}


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its manager and its forwarders, with the names of their processes (``*_unit``).

    The only node of a mesh has no ``name`` and no ``ip``, and lives in the host's own namespace (``netns``
    empty); where there are other hosts, it has both. ``port``: of the manager.
    """

    name: str
    netns: str
    ip: str
    manager: str
    manager_unit: str
    manager_url: str
    forwarders: tuple[NodeForwarder, ...]
    port: int = MANAGER_PORT

    @property
    def public_url(self) -> str:
        """Where other nodes reach the manager."""
        if not self.ip:
            return self.manager_url
        return f"tcp://[{self.ip}]:{self.port}" if ":" in self.ip else f"tcp://{self.ip}:{self.port}"


def nodes_of(paths: MeshPaths, count: int, kinds: Iterable[str] = FORWARDERS) -> dict[str, Node]:
    """Return the nodes of a mesh by name, in order, with forwarders of these kinds."""
    kinds = tuple(kinds)
    if count == 1:
        return {"": _node(paths, "", "", "", kinds)}
    found = {}
    for number in range(1, count + 1):
        name = f"node{number}"
        path = f"{netns.RUN_NETNS}/{paths.netns(name)}"
        found[name] = _node(paths, name, path, f"{UNDERLAY_NET}.{number}", kinds)
    return found


def node_of_host(paths: MeshPaths, place: Place, kinds: Iterable[str] = FORWARDERS) -> dict[str, Node]:
    """Return the node that is this host itself, one of several hosts."""
    node = _node(paths, place.name, "", place.address.ip, tuple(kinds))
    return {node.name: replace(node, port=place.address.port + 1)}


def names_of(paths: MeshPaths, name: str) -> tuple[str, ...]:
    """Return the names of the manager of a node and of all forwarders that it may have."""
    tail = f"-{name}" if name else ""
    return f"{paths.manager_name}{tail}", *(_forwarder(paths, name, kind).name for kind in FORWARDERS)


def _forwarder(paths: MeshPaths, name: str, kind: str) -> NodeForwarder:
    tail = f"-{name}" if name else ""
    # what is added stands in front: behind, it might be the name of a mesh or of a node
    front = "" if kind == LINUX else f"{kind}-"
    unit = f"{front}forwarder{tail}"
    made = NodeForwarder(kind, f"{front}{paths.forwarder_name}{tail}", unit, f"unix://{paths.socket(unit)}")
    if kind != OVS:
        return made
    return replace(made, switch=str(paths.switch(name)), space=f"ovs{tail}", ends=f"ends-ovs{tail}")


def owners_of(paths: MeshPaths, forwarder: NodeForwarder) -> list[str]:
    """Return as whose a forwarder marks its interfaces; one of Open vSwitch makes two for each wire."""
    owner = paths.owner_of(forwarder.name)
    return [owner] if forwarder.kind == LINUX else [f"{owner}/ovs-a", f"{owner}/ovs-b"]


def _node(paths: MeshPaths, name: str, path: str, ip: str, kinds: tuple[str, ...]) -> Node:
    tail = f"-{name}" if name else ""
    socket = paths.socket(f"nsmgr{tail}") if path else paths.manager
    return Node(
        name,
        path,
        ip,
        manager=names_of(paths, name)[0],
        manager_unit=f"nsmgr{tail}",
        manager_url=f"unix://{socket}",
        forwarders=tuple(_forwarder(paths, name, kind) for kind in kinds),
    )


def wanted_node(nodes: Mapping[str, Node], name: str, what: str, elsewhere: Collection[str] = ()) -> None:
    """Raise NotFound where ``what`` wants a node that is not there; an empty name wants none.

    Raises Refused where that node is one of ``elsewhere``: another host.
    """
    if not name or name in nodes:
        return
    if name in elsewhere:
        here = next(iter(nodes))
        raise Refused(
            f"{what}: {name} is another host, and this one is {here}",
            remedy=f"apply it on {name}, or leave the node out",
        )
    known = ", ".join(filter(None, nodes))
    single = "this mesh has one node: bring it up with --nodes 2, or leave the node out"
    raise NotFound(f"{what}: there is no node {name}", remedy=f"there are {known}" if known else single)


class Placement:
    """Which node each workload, endpoint and client lives on, by kind and name; it stays as long as that."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes
        self._at: dict[tuple[str, str], str] = {}

    def put(self, kind: str, name: str, wanted: str = "") -> Node:
        """Return the node of something: the wanted one, its own already, or one with the fewest."""
        chosen = wanted or self._at.get((kind, name)) or self._emptiest()
        self._at[kind, name] = chosen
        return self._nodes[chosen]

    def _emptiest(self) -> str:
        counts = Counter(self._at.values())
        return min(self._nodes, key=lambda name: counts[name])  # of several the first

    def of(self, kind: str, name: str) -> Node | None:
        """Return the node of something that was put, else None."""
        found = self._at.get((kind, name))
        return self._nodes[found] if found is not None else None

    def drop(self, kind: str, name: str) -> None:
        """Forget something; what is not known is forgotten already."""
        self._at.pop((kind, name), None)
