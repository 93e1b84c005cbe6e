"""The network between the nodes of a mesh on one host: a bridge in a namespace of its own, a veth to each.

Nothing of it is in the host's own namespace. Latency and loss are those of ``tc netem``, at the way out of
each node, so a packet meets them once on its way to another node.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import structlog

from nsmesh.core.errors import Internal, Unimplemented
from nsmesh.datapath import netns, programs
from nsmesh.standalone.children import Children
from nsmesh.standalone.features import FEATURES, in_namespace
from nsmesh.standalone.leftovers import end_inside
from nsmesh.standalone.nodes import UNDERLAY_NET6, Conditions, Node
from nsmesh.standalone.paths import MeshPaths

log = structlog.get_logger()

UNDERLAY = "underlay"
"""Name of the namespace, and of the bridge in it."""
LINK = "eth0"
"""The underlay's interface in each node."""
IPV6 = Path("/proc/sys/net/ipv6")
QUEUE = 10_000
"""Packets that may be on their way at a time: netem drops what goes beyond it."""


NETEM = next(feature for feature in FEATURES if feature.name == "netem")
REMEDY = "leave them out, or use a kernel with CONFIG_NET_SCH_NETEM (modprobe sch_netem)"


def check_conditions(conditions: Conditions) -> None:
    """Raise Unimplemented where this kernel cannot be slow or lossy on purpose, before anything is made.

    It is tried in a namespace that is thrown away, and only where it is asked for.
    """
    if (conditions.latency or conditions.loss) and (why := in_namespace(NETEM.probe)):
        raise _lacking(why)


def _lacking(why: str) -> Unimplemented:
    return Unimplemented(f"--latency and --loss need tc netem, which this kernel lacks: {why}", remedy=REMEDY)


class Underlay:
    """Makes the namespaces of nodes and joins them; takes all of it away again."""

    def __init__(self, paths: MeshPaths, children: Children, conditions: Conditions) -> None:
        self._paths = paths
        self._children = children
        self._conditions = conditions
        self._made: list[str] = []

    async def make(self, nodes: Iterable[Node]) -> None:
        """Make bridge and nodes; raises MeshError. What was made is kept in mind for :meth:`aclose`."""
        nodes = list(nodes)
        if self._go_on(nodes):
            return
        hub = await self._namespace(UNDERLAY)
        mtu = str(self._conditions.mtu)
        await _ip(hub, "link", "add", UNDERLAY, "mtu", mtu, "type", "bridge", "stp_state", "0")
        await _ip(hub, "link", "set", UNDERLAY, "up")
        for node in nodes:
            space = await self._namespace(node.name)
            await _ip(
                *(hub, "link", "add", node.name, "mtu", mtu, "master", UNDERLAY),
                *("type", "veth", "peer", "name", LINK, "netns", space, "mtu", mtu),
            )
            await _ip(hub, "link", "set", node.name, "up")
            await _ip(space, "address", "add", f"{node.ip}/24", "dev", LINK)
            if IPV6.exists():
                last = node.ip.rpartition(".")[2]
                await _ip(space, "address", "add", f"{UNDERLAY_NET6}{last}/64", "dev", LINK, "nodad")
            await _ip(space, "link", "set", LINK, "up")
            await self._condition(space)

    def _go_on(self, nodes: Iterable[Node]) -> bool:
        """Go on with what a killed mesh had, if all of it is there; say whether it is."""
        names = [self._paths.netns(name) for name in (UNDERLAY, *(node.name for node in nodes))]
        if not all(map(self._children.same_namespace, names)):
            return False
        self._made = names
        return True

    async def _namespace(self, name: str) -> str:
        """Make a namespace and return its name for ``ip``."""
        full = self._paths.netns(name)
        self._children.add_namespace(full)
        self._made.append(full)
        netns.delete(full)  # what a dead mesh left under our own name
        netns.create(full)
        self._children.prove_namespace(full)
        return full

    async def _condition(self, space: str) -> None:
        wanted = self._conditions
        if not wanted.latency and not wanted.loss:
            return
        options = ["delay", f"{round(wanted.latency * 1e6)}us"] if wanted.latency else []
        options += ["loss", f"{wanted.loss:g}%"] if wanted.loss else []
        done = await programs.run(
            *("tc", "-n", space, "qdisc", "add", "dev", LINK, "root", "netem", "limit", str(QUEUE), *options)
        )
        if done.code:
            said = done.errors.strip().partition("\n")[0]
            raise _lacking(said)

    async def aclose(self) -> None:
        """Delete the namespaces, with what still runs in them."""
        while self._made:
            name = self._made.pop()
            path = f"{netns.RUN_NETNS}/{name}"
            if Path(path).exists():
                await end_inside(path)
            netns.delete(name)
            self._children.drop_namespace(name)


async def _ip(space: str, *arguments: str) -> None:
    await programs.demand(Internal, "ip", "-n", space, *arguments)
