"""Two nodes with a pod on each, for what is measured of wires between them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from common import spaces
from local_wire import inside

from nsmesh.datapath.base import CrossConnect, KernelPort, Neighbour, Route, VxlanPort

MTU = 1450
IPS = ("192.0.2.1", "192.0.2.2")
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")


class Nodes:
    """Namespaces of two nodes and a pod on each, in pairs."""

    def __init__(self, paths: list[str]) -> None:
        self.nodes = (paths[0], paths[1])
        self.pods = (paths[2], paths[3])


@contextlib.contextmanager
def nodes() -> Iterator[Nodes]:
    """Yield two nodes that reach each other over a link of 1500 bytes."""
    with spaces(4) as paths:
        found = Nodes(paths)
        a, b = found.nodes
        inside(a, *f"ip link add under type veth peer name under netns {Path(b).name}".split())
        for node, ip in zip(found.nodes, IPS, strict=True):
            inside(node, "ip", "addr", "add", f"{ip}/24", "dev", "under")
            inside(node, "ip", "link", "set", "under", "up")
        yield found


def end(found: Nodes, side: int, number: int = 0) -> CrossConnect:
    """Return one end of a wire, on node 0 or 1; the pod's address is 10.0.0.1 or 10.0.0.2 of wire 0."""
    net, far = f"10.{number >> 8}.{number & 0xFF}", 1 - side
    here = KernelPort(
        found.pods[side],
        f"wire{number}",
        mac=MACS[side],
        mtu=MTU,
        addresses=(f"{net}.{side + 1}/32",),
        routes=(Route(f"{net}.{far + 1}/32"),),
        neighbours=(Neighbour(f"{net}.{far + 1}", MACS[far]),),
    )
    return CrossConnect(f"bench-{number}", here, VxlanPort(77 + number, IPS[side], IPS[far]), "IP")
