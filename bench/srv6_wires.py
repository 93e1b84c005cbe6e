"""Packets through a SRV6 wire, beside segment routing that was made by hand with routes, and beside VXLAN.

Run as root: python bench/run.py srv6. Makes its own namespaces; about twelve seconds a round. Needs iperf3
and ping. By hand: ``ip route ... encap seg6`` and ``End.DX4`` in the node, a policy rule, and forwarding
switched on, with a veth pair into the pod as the wire has one. Ratios are taken within a round, and are the
median of all.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
from dataclasses import replace
from pathlib import Path

from local_wire import FIGURES, inside
from remote_wire import by_driver, once, standing
from remote_wire import cells as cells_of
from report import Details, Report
from two_nodes import IPS, MACS, Nodes, end

from nsmesh.datapath import netns
from nsmesh.datapath.abilities import lacks
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.segments import SegmentDatapath
from nsmesh.model.tunnels import Srv6Port

NAME = "srv6"
IPV6 = ("2001:db8::1", "2001:db8::2")
SIDS = ("fd5e::a", "fd5e::b")
MTU = 1422
"""Of a wire; by hand 14 bytes more fit, and the same is used."""
SWITCHES = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


def underlay6(found: Nodes) -> None:
    for node, ip in zip(found.nodes, IPV6, strict=True):
        inside(node, "ip", "address", "add", f"{ip}/64", "dev", "under", "nodad")


def half(found: Nodes, side: int) -> CrossConnect:
    """Return one end of a wire, with the addresses of wire 0."""
    made, far = end(found, side), 1 - side
    port = Srv6Port(SIDS[side], SIDS[far], IPV6[side], IPV6[far], MTU)
    return replace(made, a=replace(made.interfaces[0], mtu=MTU), b=port)


def by_segments(found: Nodes) -> None:
    async def main() -> None:
        for side, node in enumerate(found.nodes):
            datapath = SegmentDatapath(node=node)
            await datapath.apply(half(found, side))
            await datapath.aclose()

    underlay6(found)
    asyncio.run(main())


def by_routes(found: Nodes) -> None:
    """Have the kernel's routes do it, and the node forward for them."""
    underlay6(found)
    for side, (node, pod) in enumerate(zip(found.nodes, found.pods, strict=True)):
        far, own, other = 1 - side, f"10.0.0.{side + 1}", f"10.0.0.{2 - side}"
        for switch in SWITCHES:
            netns.call_in(node, lambda switch=switch: Path(f"/proc/sys/net/{switch}").write_text("1"))
        veth = f"mtu {MTU} address {MACS[side]} type veth peer name near netns {Path(node).name} mtu {MTU}"
        for where, command in (
            (pod, f"link add wire {veth} address {MACS[far]}"),
            (pod, f"address add {own}/32 dev wire"),
            (pod, "link set wire up"),
            (pod, f"route add {other}/32 dev wire"),
            (pod, f"neigh add {other} lladdr {MACS[far]} dev wire nud permanent"),
            (node, "link set near up"),
            (node, "rule add iif near lookup 77"),
            (node, f"route add default table 77 encap seg6 mode encap segs {SIDS[far]} dev under"),
            (node, f"route add {own}/32 dev near"),
            (node, f"neigh add {own} lladdr {MACS[side]} dev near nud permanent"),
            (node, f"-6 route add {SIDS[far]}/128 via {IPV6[far]} dev under"),
            (node, f"-6 route add {SIDS[side]}/128 encap seg6local action End.DX4 nh4 {own} dev near"),
        ):
            inside(where, "ip", *command.split())


WAYS = {
    "segment routes by hand": (functools.partial(standing, by_routes), "pods", "segment routes by hand"),
    "SRV6 wire": (functools.partial(standing, by_segments), "pods", "segment routes by hand"),
    "VXLAN wire": (functools.partial(standing, by_driver), "pods", "segment routes by hand"),
}


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure all ways in turn; says so where something is missing."""
    missing = [program for program in ("iperf3", "ping", "ip") if shutil.which(program) is None]
    if missing or lacks("SRV6"):
        return Report(notes=[f"srv6: not measured, {' and '.join(missing) or lacks('SRV6')}"])
    rounds = 1 if short else 5
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WAYS}
    for turn in range(rounds):
        for name in list(WAYS) if turn % 2 else list(reversed(WAYS)):
            results[name].append(once(WAYS[name], 1))
    head = ("srv6", *(title for figure in FIGURES for title in (figure, "spread", "ratio")))
    title = f"a SRV6 wire beside routes by hand, {rounds} rounds, {IPS[0]} and {IPV6[0]}"
    rows = [(name, *cells_of(found, results[WAYS[name][2]])) for name, found in results.items()]
    return Report(details=[Details(title, head, rows)])
