"""How fast a wire of the driver carries packets, beside a veth pair that was made by hand.

Run as root: python bench/run.py packets. Makes its own namespaces; about ten seconds a round.
Needs iperf3 and ping. The two should be the same, as both are one veth pair: a ratio near 1.0.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from common import spaces
from report import Details, Report

from nsmesh.datapath.base import CrossConnect, KernelPort, Route
from nsmesh.datapath.linux import LinuxDatapath

NAME = "packets"
FIGURES = ("TCP Gbit/s", "UDP 64 B kpps", "round trip us")


def inside(space: str, *argv: str) -> str:
    return subprocess.run(
        ["ip", "netns", "exec", Path(space).name, *argv], check=True, capture_output=True, text=True
    ).stdout


def by_driver(a: str, b: str) -> None:
    async def main() -> None:
        datapath = LinuxDatapath()
        near = KernelPort(a, "wire", addresses=("10.0.0.1/32",), routes=(Route("10.0.0.2/32"),))
        far = KernelPort(b, "wire", addresses=("10.0.0.2/32",), routes=(Route("10.0.0.1/32"),))
        await datapath.apply(CrossConnect("bench", near, far))
        await datapath.aclose()

    asyncio.run(main())


def by_hand(a: str, b: str) -> None:
    other = Path(b).name
    inside(a, "ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", other)
    for space, own, peer in ((a, 1, 2), (b, 2, 1)):
        inside(space, "ip", "addr", "add", f"10.0.0.{own}/32", "dev", "wire")
        inside(space, "ip", "link", "set", "wire", "up")
        inside(space, "ip", "route", "add", f"10.0.0.{peer}/32", "dev", "wire")


def iperf(space: str, seconds: int, *argv: str) -> dict[str, dict[str, float]]:
    said = inside(space, "iperf3", "--client", "10.0.0.2", "--time", str(seconds), "--json", *argv)
    end: dict[str, dict[str, float]] = json.loads(said)["end"]
    return end


def measure(a: str, b: str, seconds: int) -> tuple[float, float, float]:
    """Return the figures of one wire."""
    server = subprocess.Popen(
        ["ip", "netns", "exec", Path(b).name, "iperf3", "--server"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(0.3)
        tcp = iperf(a, seconds)["sum_received"]["bits_per_second"] / 1e9
        udp = iperf(a, seconds, "--udp", "--length", "64", "--bitrate", "0")["sum"]
        kpps = udp["packets"] * (1 - udp["lost_percent"] / 100) / udp["seconds"] / 1e3
        said = inside(a, "ping", "-q", "-i", "0.002", "-c", str(250 * seconds), "10.0.0.2")
        found = re.search(r"= [\d.]+/([\d.]+)/", said)
        assert found is not None
        return tcp, kpps, float(found[1]) * 1e3
    finally:
        server.terminate()
        server.wait()


def once(make: Callable[[str, str], None], seconds: int) -> tuple[float, float, float]:
    with spaces(2) as (a, b):
        make(a, b)
        return measure(a, b, seconds)


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure both ways in turn; says so where a program is missing."""
    missing = [program for program in ("iperf3", "ping", "ip") if shutil.which(program) is None]
    if missing:
        return Report(notes=[f"packets: not measured, {' and '.join(missing)} missing"])
    rounds, seconds = (1, 1) if short else (3, 2)
    results: dict[str, list[tuple[float, float, float]]] = {"veth by hand": [], "wire": []}
    ways = {"veth by hand": by_hand, "wire": by_driver}
    for turn in range(rounds):
        for name in list(ways) if turn % 2 else list(reversed(ways)):
            results[name].append(once(ways[name], seconds))
    rows = []
    for name, found in results.items():
        cells = []
        for at in range(len(FIGURES)):
            values = [one[at] for one in found]
            base = statistics.median(one[at] for one in results["veth by hand"])
            middle = statistics.median(values)
            cells += [f"{middle:.1f}", f"{min(values):.1f}-{max(values):.1f}", f"{middle / base:.2f}"]
        rows.append((name, *cells))
    head = ("packets", *(title for figure in FIGURES for title in (figure, "spread", "ratio")))
    title = f"a wire of the driver beside a veth by hand, median of {rounds} rounds"
    return Report(details=[Details(title, head, rows)])
