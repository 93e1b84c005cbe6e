"""How fast a wire of the driver carries packets, beside a veth pair that was made by hand.

Run as root: python bench/run.py packets. Makes its own namespaces; about eight seconds a round.
Needs iperf3 and ping. A wire is one veth pair, so all should be the same: a ratio near 1.0. One of payload IP
has filters at both ends (one of ETHERNET has none). How near is what a second pair by hand tells, which takes
its turns among the others: its ratio is the noise of the machine. CPU time alone is told as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from common import quantile, spaces
from report import Details, Report

from nsmesh.datapath import netns
from nsmesh.datapath.base import CrossConnect, KernelPort, Route
from nsmesh.datapath.linux import LinuxDatapath

NAME = "packets"
Figures = tuple[float, float, float]
SMALL, PACKETS = bytes(64), 20000
FIGURES = ("TCP Gbit/s", "UDP 64 B kpps", "round trip us")


def inside(space: str, *argv: str) -> str:
    return subprocess.run(
        ["ip", "netns", "exec", Path(space).name, *argv], check=True, capture_output=True, text=True
    ).stdout


def by_driver(a: str, b: str, payload: str = "ETHERNET") -> None:
    async def main() -> None:
        datapath = LinuxDatapath()
        near = KernelPort(a, "wire", addresses=("10.0.0.1/32",), routes=(Route("10.0.0.2/32"),))
        far = KernelPort(b, "wire", addresses=("10.0.0.2/32",), routes=(Route("10.0.0.1/32"),))
        await datapath.apply(CrossConnect("bench", near, far, payload))
        await datapath.aclose()

    asyncio.run(main())


def by_hand(a: str, b: str) -> None:
    other = Path(b).name
    inside(a, "ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", other)
    for space, own, peer in ((a, 1, 2), (b, 2, 1)):
        inside(space, "ip", "addr", "add", f"10.0.0.{own}/32", "dev", "wire")
        inside(space, "ip", "link", "set", "wire", "up")
        inside(space, "ip", "route", "add", f"10.0.0.{peer}/32", "dev", "wire")


HAND = "veth by hand"
WAYS: dict[str, Callable[[str, str], None]] = {
    HAND: by_hand,
    "another": by_hand,
    "wire": by_driver,
    "wire, filtered": partial(by_driver, payload="IP"),
}


def iperf(space: str, seconds: int, *argv: str) -> dict[str, dict[str, float]]:
    said = inside(space, "iperf3", "--client", "10.0.0.2", "--time", str(seconds), "--json", *argv)
    end: dict[str, dict[str, float]] = json.loads(said)["end"]
    return end


@contextlib.contextmanager
def served(b: str) -> Iterator[None]:
    """Run the server of iperf3 in a namespace."""
    server = subprocess.Popen(
        ["ip", "netns", "exec", Path(b).name, "iperf3", "--server"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(0.3)
        yield
    finally:
        server.terminate()
        server.wait()


def measure(a: str, seconds: int) -> Figures:
    """Return the figures of one wire, one turn."""
    tcp = iperf(a, seconds)["sum_received"]["bits_per_second"] / 1e9
    udp = iperf(a, seconds, "--udp", "--length", "64", "--bitrate", "0")["sum"]
    kpps = udp["packets"] * (1 - udp["lost_percent"] / 100) / udp["seconds"] / 1e3
    said = inside(a, "ping", "-q", "-i", "0.002", "-c", str(200 * seconds), "10.0.0.2")
    found = re.search(r"= [\d.]+/([\d.]+)/", said)
    assert found is not None
    return tcp, kpps, float(found[1]) * 1e3


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure all in turn, on wires that stand all the time; says so where a program is missing."""
    missing = [program for program in ("iperf3", "ping", "ip") if shutil.which(program) is None]
    if missing:
        return Report(notes=[f"packets: not measured, {' and '.join(missing)} missing"])
    rounds = 1 if short else 12
    results: dict[str, list[Figures]] = {name: [] for name in WAYS}
    with ExitStack() as stack:
        standing: dict[str, tuple[str, str]] = {}
        for name, make in WAYS.items():
            a, b = stack.enter_context(spaces(2))
            make(a, b)
            stack.enter_context(served(b))
            standing[name] = a, b
        for turn in range(rounds):
            at = turn % len(WAYS)
            for name in (list(WAYS) * 2)[at : at + len(WAYS)]:
                results[name].append(measure(standing[name][0], 1))
        costs = by_cpu(standing, 4 if short else 40)
    return Report(details=[_table(results, rounds), costs])


def by_cpu(standing: dict[str, tuple[str, str]], rounds: int) -> Details:
    """Send and receive in one thread: what a packet costs from socket to socket, whatever else is running.

    ``standing`` has the namespaces of both ends by the name of a way, the first of which is the measure.
    """
    costs: dict[str, list[float]] = {name: [] for name in standing}
    with ExitStack() as stack:
        pairs = {name: _sockets(stack, *ends) for name, ends in standing.items()}
        for turn in range(rounds):
            at = turn % len(pairs)
            for name in (list(pairs) * 2)[at : at + len(pairs)]:
                out, into = pairs[name]
                start = time.process_time()
                for _ in range(PACKETS):
                    out.send(SMALL)
                    into.recv(len(SMALL))
                costs[name].append((time.process_time() - start) / PACKETS * 1e9)
    rows, bases = [], next(iter(costs.values()))
    for name, found in costs.items():
        rate = statistics.median(base / one for base, one in zip(bases, found, strict=True))
        rows.append((name, f"{statistics.median(found):.0f}", f"{min(found):.0f}", f"{rate:.3f}"))
    head = ("packets", "CPU ns for 64 B", "least", "rate, ratio")
    return Details(f"from socket to socket in one thread, median of {rounds} rounds", head, rows)


def _sockets(stack: ExitStack, a: str, b: str) -> tuple[socket.socket, socket.socket]:
    def made() -> socket.socket:
        return stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    out, into = netns.call_in(a, made), netns.call_in(b, made)
    into.bind(("10.0.0.2", 9))
    into.settimeout(5)
    out.connect(("10.0.0.2", 9))
    return out, into


def _table(results: dict[str, list[Figures]], rounds: int) -> Details:
    rows = []
    for name, found in results.items():
        cells = []
        for at in range(len(FIGURES)):
            values = sorted(one[at] for one in found)
            to_hand = [one[at] / base[at] for one, base in zip(found, results[HAND], strict=True)]
            spread = f"{quantile(values, 0.1):.1f}-{quantile(values, 0.9):.1f}"
            cells += [f"{statistics.median(values):.1f}", spread, f"{statistics.median(to_hand):.2f}"]
        rows.append((name, *cells))
    head = ("packets", *(title for figure in FIGURES for title in (figure, "10-90 %", "ratio")))
    return Details(f"a wire of the driver beside a veth by hand, median of {rounds} rounds", head, rows)
