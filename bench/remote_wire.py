"""How fast a wire between two nodes carries packets, beside a VXLAN that was made by hand, and the underlay.

Run as root: python bench/run.py remote. Makes its own namespaces: two nodes, joined by a veth pair, and a pod
on each; about twelve seconds a round. Needs iperf3 and ping. Wire and VXLAN by hand are the same in the
kernel, so a ratio near 1.0 is as it should be. One by hand is made in the node and moved into the pod.
Ratios are taken within a round, and are the median of all rounds.

It also measures what one end of such a wire takes to make: our process's time, kernel included.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

from common import Series, spaces
from local_wire import FIGURES, inside, measure
from report import Details, Report, row

from nsmesh.datapath.base import CrossConnect, KernelPort, Neighbour, Route, VxlanPort
from nsmesh.datapath.linux import LinuxDatapath

NAME = "remote"
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
    net, far = f"10.0.{number}", 1 - side
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


def by_driver(found: Nodes) -> None:
    async def main() -> None:
        for side, node in enumerate(found.nodes):
            datapath = LinuxDatapath(node=node)
            await datapath.apply(end(found, side))
            await datapath.aclose()

    asyncio.run(main())


def by_hand(found: Nodes) -> None:
    for side, (node, pod) in enumerate(zip(found.nodes, found.pods, strict=True)):
        far = 1 - side
        options = f"id 77 local {IPS[side]} remote {IPS[far]} dstport 4789 nolearning"
        inside(node, *f"ip link add wire mtu {MTU} address {MACS[side]} type vxlan {options}".split())
        inside(node, "ip", "link", "set", "wire", "netns", Path(pod).name)
        inside(pod, "ip", "addr", "add", f"10.0.0.{side + 1}/32", "dev", "wire")
        inside(pod, "ip", "link", "set", "wire", "up")
        inside(pod, "ip", "route", "add", f"10.0.0.{far + 1}/32", "dev", "wire")
        inside(pod, *f"ip neigh add 10.0.0.{far + 1} lladdr {MACS[far]} dev wire nud permanent".split())


def underlay(found: Nodes) -> None:
    """Give the underlay itself the addresses that are measured."""
    for side, node in enumerate(found.nodes):
        inside(node, "ip", "addr", "add", f"10.0.0.{side + 1}/24", "dev", "under")


WAYS: dict[str, tuple[Callable[[Nodes], None], str]] = {
    "VXLAN by hand": (by_hand, "pods"),
    "wire": (by_driver, "pods"),
    "underlay": (underlay, "nodes"),
}


def once(name: str, seconds: int) -> tuple[float, float, float]:
    make, where = WAYS[name]
    with nodes() as found:
        make(found)
        a, b = getattr(found, where)
        return measure(a, b, seconds)


def making(count: int) -> Series:
    """Measure the making of one end after the other on one node."""
    series = Series("end of a wire")
    series.start_round()

    async def main(found: Nodes) -> None:
        datapath = LinuxDatapath(node=found.nodes[0])
        for number in range(count):
            wire = end(found, 0, number)
            with series.operation():
                await datapath.apply(wire)
        await datapath.aclose()

    with nodes() as found:
        asyncio.run(main(found))
    return series


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure all ways in turn; says so where a program is missing."""
    missing = [program for program in ("iperf3", "ping", "ip") if shutil.which(program) is None]
    if missing:
        return Report(notes=[f"remote: not measured, {' and '.join(missing)} missing"])
    rounds, seconds = (1, 1) if short else (5, 1)
    made = making(20 if short else 200)
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WAYS}
    for turn in range(rounds):
        for name in list(WAYS) if turn % 2 else list(reversed(WAYS)):
            results[name].append(once(name, seconds))
    rows = []
    for name, found in results.items():
        cells = []
        for at in range(len(FIGURES)):
            values = [one[at] for one in found]
            bases = [one[at] for one in results["VXLAN by hand"]]
            ratio = statistics.median(mine / theirs for mine, theirs in zip(values, bases, strict=True))
            spread = f"{min(values):.1f}-{max(values):.1f}"
            cells += [f"{statistics.median(values):.1f}", spread, f"{ratio:.2f}"]
        rows.append((name, *cells))
    head = ("remote", *(title for figure in FIGURES for title in (figure, "spread", "ratio")))
    title = f"a wire between nodes beside a VXLAN by hand, {rounds} rounds"
    return Report(
        rows=[row(NAME, made.name, made.all_wall(), made.cpu_by_round())],
        details=[Details(title, head, rows)],
    )
