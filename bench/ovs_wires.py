"""What a wire through an Open vSwitch costs, and how that grows with the wires that are there.

Run as root: python bench/run.py ovs. Needs Open vSwitch; makes its own namespaces and switches; takes about
four minutes. Beside the driver stands the same by hand: two veth pairs, ``ovs-vsctl add-port``, ``ovs-ofctl
add-flow``, without addresses or filters. The CPU time is that of ``ovs-vswitchd``, which does the most; a
note has the driver's as well.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

from common import spaces
from netlink_floor import wire
from report import Details, Report, duration, row

from nsmesh.chains.settings_ovs import OvsForwarderSettings
from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_programs import lacks_switch
from nsmesh.datapath.ovs_switch import Switch

NAME = "ovs"
PARTS = 10
PAUSE = 0.2
TICK = os.sysconf("SC_CLK_TCK")


def burnt(switches: Iterable[Switch]) -> float:
    """Return the CPU seconds of ``ovs-vswitchd`` so far, of all switches that there are."""
    total = 0
    for switch in switches:
        with suppress(FileNotFoundError):  # one that is just being started
            pid = (switch.directory / "ovs-vswitchd.pid").read_text().strip()
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICK


class Way:
    """One way to make wires, on a switch of its own; ``at_once`` of them are asked for together.

    ``spares``: ports for so many are made in advance; ``pause``: seconds of rest after each; ``most``:
    switches at most.
    """

    def __init__(
        self, name: str, at_once: int = 1, *, spares: int = 0, pause: float = 0.0, most: int = 1
    ) -> None:
        self.name = name
        self.at_once = at_once
        self.spares = spares
        self.pause = pause
        self.most = most
        self.wall: list[list[float]] = []
        self.cpu: list[float] = []
        self.own: list[float] = []

    async def measure(
        self, switches: Iterable[Switch], count: int, make: Callable[[int], Awaitable[None]]
    ) -> None:
        """Make wires, and keep what each tenth of them took."""
        part = max(count // PARTS, 1)
        for turn in range(PARTS):
            before, own = burnt(switches), time.process_time()
            took: list[float] = []
            numbers = range(turn * part, (turn + 1) * part)
            for first in numbers[:: self.at_once]:
                group = range(first, min(first + self.at_once, numbers.stop))
                begin = time.perf_counter()
                await asyncio.gather(*map(make, group))
                took += [(time.perf_counter() - begin) / len(group)] * len(group)
                await asyncio.sleep(self.pause)
            await asyncio.sleep(0.1)  # what the switch does afterwards is a part of it
            self.wall.append(took)
            self.cpu.append((burnt(switches) - before) / part)
            self.own.append((time.process_time() - own) / part)


async def by_driver(way: Way, folder: Path, count: int) -> None:
    with spaces(3) as (node, a, b):
        datapath = OvsDatapath(
            OwnSwitch(folder, node, spares=way.spares), namespaces=lambda: [a, b], most=way.most
        )
        try:
            async with keeping(datapath.switches):
                while way.spares and not (await datapath.switch.ports.ready())[0]:  # noqa: ASYNC110 - rows
                    await asyncio.sleep(0.1)

                async def make(number: int) -> None:
                    await datapath.apply(wire("o", number, a, b))

                await way.measure(datapath.switches, count, make)
        finally:
            await datapath.switches.stop()
            await datapath.aclose()


async def by_hand(way: Way, folder: Path, count: int) -> None:
    with spaces(3) as (node, a, b):
        switch = OwnSwitch(folder, node)
        await switch.ensure()
        try:

            async def make(number: int) -> None:
                _command(node, a, b, folder, number)

            await way.measure([switch], count, make)
        finally:
            await switch.stop()


def _command(node: str, a: str, b: str, folder: Path, number: int) -> None:
    bridge = f"unix:{folder}/br-nsm.mgmt"
    lines = []
    for side, place in zip("ab", (a, b), strict=True):
        name = f"h{number}{side}"
        lines.append(f"ip link add {name} up type veth peer name c{number} netns {Path(place).name}")
        lines.append(f"ip -n {Path(place).name} link set c{number} up")
    ports = [f"h{number}{side}" for side in "ab"]
    numbers = (2 * number + 1, 2 * number + 2)
    adds = " -- ".join(
        f"add-port br-nsm {name} -- set interface {name} ofport_request={at}"
        for name, at in zip(ports, numbers, strict=True)
    )
    lines.append(f"ovs-vsctl --db=unix:{folder}/db.sock {adds}")
    flows = (f"in_port={numbers[0]},actions={numbers[1]}", f"in_port={numbers[1]},actions={numbers[0]}")
    lines += [f"ovs-ofctl -O OpenFlow13 add-flow {bridge} {flow}" for flow in flows]
    subprocess.run(["nsenter", f"--net={node}", "sh", "-ec", "\n".join(lines)], check=True)


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure the driver beside the switch's own commands."""
    if why := lacks_switch():
        return Report(notes=[f"ovs: missing: {why}"])
    count = 20 if short else 200
    spares = {"spares": OvsForwarderSettings().spare_wires}
    several = {**spares, "most": OvsForwarderSettings().most_switches}
    ways = [
        Way("by hand: ovs-vsctl, ovs-ofctl"),
        Way("apply"),
        Way("apply, 10 at once", 10),
        Way("apply, ports in advance", **spares),
        Way("the same, 10 at once", 10, **spares),
        Way("the same, one after a pause", pause=PAUSE, **spares),
        Way("several switches", **several),
        Way("several switches, 10 at once", 10, **several),
        Way("several switches, one after a pause", pause=PAUSE, **several),
    ]
    for way in ways:
        with tempfile.TemporaryDirectory(prefix="nsm-bench-", dir="/tmp") as folder:
            work = by_hand if way is ways[0] else by_driver
            asyncio.run(work(way, Path(folder) / "s", count))
    rows = [
        row(
            "wire by ovs",
            way.name,
            [one for part in way.wall for one in part],
            way.cpu,
            ways[0].cpu,
            to=ways[0].name,
        )
        for way in ways
    ]
    return Report(rows=rows, details=[_growth(ways, count)], notes=[_last_over_first(ways)])


def _last_over_first(ways: list[Way]) -> str:
    """Say how much more the last tenth costs than the first, by each way."""
    found = []
    for way in ways:
        wall = statistics.mean(way.wall[-1]) / statistics.mean(way.wall[0])
        first, last = (max(way.cpu[at] + way.own[at], 1 / TICK / 10) for at in (0, -1))
        found.append(f"{way.name} {wall:.1f} ({last / first:.1f})")
    what = "the last tenth over the first, time (CPU of ovs-vswitchd and the driver)"
    return f"wire by ovs: {what}: {'; '.join(found)}"


def _growth(ways: list[Way], count: int) -> Details:
    lines = []
    for turn in range(PARTS):
        cells = []
        for way in ways:
            now, first = statistics.median(way.wall[turn]), statistics.median(way.wall[0])
            cells.append(f"{duration(now)} ({now / first:.1f}), {duration(way.cpu[turn])}")
        lines.append((str(turn * max(count // PARTS, 1)), *cells))
    title = f"{count} wires by one switch: a wire's time, its ratio to the first tenth, CPU of ovs-vswitchd"
    return Details(title, ("wires before", *(way.name for way in ways)), lines)
