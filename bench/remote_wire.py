"""How fast a wire between two nodes carries packets, beside tunnels that were made by hand, and the underlay.

Run as root: python bench/run.py remote. Makes its own namespaces: two nodes, joined by a veth pair, and a pod
on each; about sixteen seconds a round. Needs iperf3 and ping. Wire and VXLAN by hand are the same in the
kernel, so a ratio near 1.0 is as it should be; a wire of payload IP has filters at both ends besides. A
second one by hand tells what the machine makes of two that are the same. One by hand is made in the node and
moved into the pod. Wires are those of ``nsm up --nodes``: nothing cuts segments on such an underlay, so they
join none (GRO). One that does, as between real hosts, and one by hand that does not, are measured too. Ratios
are taken within a round, and are the median of all rounds. CPU time alone is told as well, from socket to
socket in one thread.

It also measures what one end of such a wire takes to make: our process's time, kernel included; and what the
last of a thousand takes beside the first. Where wireguard-go is, a WIREGUARD wire is measured beside one that
was made by hand of the same program, with the same MTU.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from common import Series
from local_wire import FIGURES, by_cpu, inside, measure, served
from report import Details, Report, row
from two_nodes import IPS, MACS, MTU, Nodes, end, nodes

from nsmesh.datapath import netns
from nsmesh.datapath.base import CrossConnect, KernelPort
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.netlink import Netlink
from nsmesh.datapath.offloads import receive_as_it_comes
from nsmesh.datapath.wireguard_text import uapi_answer, uapi_set
from nsmesh.model.tunnels import WireguardPort
from nsmesh.model.wireguard import PrivateKey, Tunnel, TunnelPeer

NAME = "remote"
WIREGUARD_MTU = 1440
TURNS = 3
"""Times that one measurement is tried."""


def by_driver(found: Nodes, payload: str = "IP", *, gro: bool = False) -> None:
    async def main() -> None:
        for side, node in enumerate(found.nodes):
            datapath = LinuxDatapath(node=node, vxlan_gro=gro)
            await datapath.apply(replace(end(found, side), payload=payload))
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


def by_hand_without_gro(found: Nodes) -> None:
    by_hand(found)
    for pod in found.pods:
        with netns.call_in(pod, Netlink) as control:
            receive_as_it_comes(control.fileno(), "wire")


def underlay(found: Nodes) -> None:
    """Give the underlay itself the addresses that are measured."""
    for side, node in enumerate(found.nodes):
        inside(node, "ip", "addr", "add", f"10.0.0.{side + 1}/24", "dev", "under")


@contextlib.contextmanager
def standing(make: Callable[[Nodes], None], found: Nodes) -> Iterator[None]:
    """Make what stays in the kernel by itself."""
    make(found)
    yield


@contextlib.contextmanager
def encrypted_by_driver(found: Nodes) -> Iterator[None]:
    """Have a WIREGUARD wire, whose programs end with the driver that started them."""
    ready, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        drivers = [LinuxDatapath(node=node) for node in found.nodes]
        for side, datapath in enumerate(drivers):
            await datapath.apply(encrypted_end(found, side))
        ready.set()
        await stop.wait()
        for datapath in drivers:
            await datapath.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        if not ready.wait(30):
            raise RuntimeError("the wire did not come up")
        yield
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)


def encrypted_end(found: Nodes, side: int) -> CrossConnect:
    """Return one end of a WIREGUARD wire, with the addresses of wire 0."""
    far = 1 - side
    keys = [PrivateKey(bytes([number]) * 32) for number in (1, 2)]
    port = WireguardPort(keys[side], keys[far].public, IPS[side], IPS[far], 51820, 51820, WIREGUARD_MTU)
    near = end(found, side).a
    assert isinstance(near, KernelPort)
    return CrossConnect("bench-0", replace(near, mac="", neighbours=(), mtu=WIREGUARD_MTU), port, "IP")


def told(path: Path, request: str) -> None:
    """Send a program wireguard-go a configuration; raises Refused."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(path))
        link.sendall(request.encode())
        uapi_answer(link.recv(4096).decode())


@contextlib.contextmanager
def encrypted_by_hand(found: Nodes) -> Iterator[None]:
    """Have two programs wireguard-go, told as wg tells them, their devices moved into the pods."""
    folder = Path("/var/run/wireguard")
    keys = [PrivateKey(bytes([number]) * 32) for number in (1, 2)]
    programs, names = [], [f"bench{os.getpid() % 100000}{side}" for side in (0, 1)]
    try:
        for side, (node, pod, name) in enumerate(zip(found.nodes, found.pods, names, strict=True)):
            far = 1 - side
            argv = ["nsenter", f"--net={node}", "wireguard-go", "-f", name]
            quiet = {**os.environ, "LOG_LEVEL": "silent"}
            programs.append(
                subprocess.Popen(argv, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            while not (folder / f"{name}.sock").exists():
                time.sleep(0.01)
            inside(node, *f"ip link set {name} mtu {WIREGUARD_MTU}".split())
            peer = TunnelPeer(keys[far].public, f"{IPS[far]}:51820", ("0.0.0.0/0",))
            told(folder / f"{name}.sock", uapi_set(Tunnel(name, keys[side], peers=(peer,))))
            inside(node, "ip", "link", "set", name, "netns", Path(pod).name)
            inside(pod, "ip", "link", "set", name, "name", "wire", "mtu", str(WIREGUARD_MTU))
            inside(pod, "ip", "addr", "add", f"10.0.0.{side + 1}/32", "dev", "wire")
            inside(pod, "ip", "link", "set", "wire", "up")
            inside(pod, "ip", "route", "add", f"10.0.0.{far + 1}/32", "dev", "wire")
        time.sleep(1.5)  # the program looks once a second whether its device is up
        yield
    finally:
        for program in programs:
            program.terminate()
            program.wait(5)


Made = Callable[[Nodes], contextlib.AbstractContextManager[None]]

SAME: dict[str, Callable[[Nodes], None]] = {
    "VXLAN by hand": by_hand,
    "another": by_hand,
    "by hand, no GRO": by_hand_without_gro,
    "wire": by_driver,
    "wire, GRO": functools.partial(by_driver, gro=True),
    "wire, ETHERNET": functools.partial(by_driver, payload="ETHERNET"),
}
"""What is one VXLAN device at each end; the first is the measure."""

WAYS: dict[str, tuple[Made, str, str]] = {
    **{name: (functools.partial(standing, make), "pods", "VXLAN by hand") for name, make in SAME.items()},
    "underlay": (functools.partial(standing, underlay), "nodes", "VXLAN by hand"),
}
"""How each is made, where it is measured, and beside which it is."""

ENCRYPTED: dict[str, tuple[Made, str, str]] = {
    "wireguard-go by hand": (encrypted_by_hand, "pods", "wireguard-go by hand"),
    "WIREGUARD wire": (encrypted_by_driver, "pods", "wireguard-go by hand"),
}


def once(way: tuple[Made, str, str], seconds: int) -> tuple[float, float, float]:
    make, where, _ = way
    with nodes() as found, make(found):
        a, b = getattr(found, where)
        for turn in range(TURNS):
            try:
                with served(b):
                    return measure(a, seconds)
            except KeyError:  # iperf3's own connection was lost in the flood of its packets
                if turn == TURNS - 1:
                    raise
    raise AssertionError(way)


def alone(rounds: int) -> Details:
    """Measure what a packet costs through tunnels that stand side by side."""
    with contextlib.ExitStack() as stack:
        pods = {}
        for name, make in SAME.items():
            found = stack.enter_context(nodes())
            make(found)
            pods[name] = found.pods
        return by_cpu(pods, rounds)


def making(count: int, block: int) -> list[Series]:
    """Measure the making of one end after the other on one node; return all, the first, and the last ones."""
    series, first, last = (
        Series(f"end of a wire{which}") for which in ("", f", the first {block}", f", the last {block}")
    )
    for one in (series, first, last):
        one.start_round()

    async def main(found: Nodes) -> None:
        datapath = LinuxDatapath(node=found.nodes[0])
        for number in range(count):
            wire = end(found, 0, number)
            with contextlib.ExitStack() as counted:
                counted.enter_context(series.operation())
                if number < block:
                    counted.enter_context(first.operation())
                if number >= count - block:
                    counted.enter_context(last.operation())
                await datapath.apply(wire)
        await datapath.aclose()

    with nodes() as found:
        asyncio.run(main(found))
    return [series, first, last]


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure all ways in turn; says so where a program is missing."""
    missing = [program for program in ("iperf3", "ping", "ip") if shutil.which(program) is None]
    if missing:
        return Report(notes=[f"remote: not measured, {' and '.join(missing)} missing"])
    rounds, seconds = (1, 1) if short else (5, 1)
    ways, notes = dict(WAYS), []
    if shutil.which("wireguard-go") is None:
        notes.append("remote: WIREGUARD is not measured, wireguard-go is missing")
    else:
        ways |= ENCRYPTED
    made, first, last = making(40, 10) if short else making(1000, 50)
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in list(ways) if turn % 2 else list(reversed(ways)):
            results[name].append(once(ways[name], seconds))
    head = ("remote", *(title for figure in FIGURES for title in (figure, "spread", "ratio")))
    title = f"a wire between nodes beside a tunnel by hand, {rounds} rounds"
    rows = [(name, *cells(found, results[ways[name][2]])) for name, found in results.items()]
    return Report(
        rows=[
            row(NAME, made.name, made.all_wall(), made.cpu_by_round()),
            row(NAME, first.name, first.all_wall(), first.cpu_by_round()),
            row(NAME, last.name, last.all_wall(), last.cpu_by_round(), first.cpu_by_round(), to="the first"),
        ],
        details=[Details(title, head, rows), alone(4 if short else 40)],
        notes=notes,
    )


def cells(found: list[tuple[float, float, float]], base: list[tuple[float, float, float]]) -> list[str]:
    """Return what a row says of each figure: median, spread, and ratio to ``base`` within a round."""
    made = []
    for at in range(len(FIGURES)):
        values, bases = [one[at] for one in found], [one[at] for one in base]
        ratio = statistics.median(mine / theirs for mine, theirs in zip(values, bases, strict=True))
        made += [f"{statistics.median(values):.2f}", f"{min(values):.2f}-{max(values):.2f}", f"{ratio:.2f}"]
    return made
