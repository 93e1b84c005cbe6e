"""What a virtual machine's wire carries: by the driver, beside the same machine wired by hand.

Run as root: python bench/run.py vm. Needs Open vSwitch with DPDK, qemu, busybox and iperf3; makes its own
namespaces, one switch and two machines, which take turns; about a minute. By hand: ``ovs-vsctl`` and
``ovs-ofctl``, a veth pair without filters whose checksums ``ethtool`` has the kernel finish. The machines
are interpreted, so that their own work is most of what is measured: only ratios say something.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common import spaces
from processes import cpu_of
from report import Details, Report, row

from nsmesh.datapath.base import CrossConnect, KernelPort, Route
from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_dpdk import MEMORY, SOCKETS
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_programs import lacks_dpdk, running
from nsmesh.datapath.ovs_switch import Switch
from nsmesh.model.wire import VhostUserPort

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "virtual-machine"))

from tiny_image import MissingError, image
from tiny_machine import QEMU, Card, Machine

NAME = "vm"
HAND, OURS = "by hand: ovs-vsctl, ovs-ofctl", "apply"
PATIENCE = 120.0
"""Seconds that a machine may take for one measurement."""
PINGS = 30
NETS = {HAND: "10.0.2", OURS: "10.0.1"}


@dataclass
class Way:
    """A wired machine, and what was measured: bit/s, seconds of a ping, CPU seconds for a megabyte."""

    name: str
    machine: Machine
    pod: str
    rate: list[float] = field(default_factory=list)
    trips: list[list[float]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def boot(self, socket: Path) -> None:
        """Boot, and give the machine its addresses."""
        self.machine.start(Card(str(socket)), image())
        net = NETS[self.name]
        self.machine.run(
            f"ip link set eth0 up && ip address add {net}.2/32 dev eth0 && ip route add {net}.1 dev eth0"
            f" && ping -c 3 {net}.1"
        )

    def measure(self, switch: Switch, seconds: float) -> None:
        """Send for some seconds, then ping."""
        net = NETS[self.name]
        pids = (self.machine.pid, running(switch.directory / "ovs-vswitchd.pid", "ovs-vswitchd"))
        before = sum(map(cpu_of, pids))
        asked = f"iperf3 -c {net}.1 -t {seconds:g} -J | grep -A 6 sum_received"
        told = dict(re.findall(r'"(\w+)":\s*([\d.e+]+)', self.machine.run(asked, PATIENCE)))
        self.cpu.append((sum(map(cpu_of, pids)) - before) / (float(told["bytes"]) / 1e6))
        self.rate.append(float(told["bits_per_second"]))
        said = self.machine.run(f"ping -c {PINGS} -i 0.05 {net}.1", PATIENCE)
        self.trips.append([float(one) / 1e3 for one in re.findall(r"time=([\d.]+)", said)])


@contextmanager
def _server(pod: str) -> Iterator[None]:
    server = subprocess.Popen(
        ["ip", "netns", "exec", Path(pod).name, "iperf3", "-s"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        server.kill()
        server.wait()


def _by_hand(switch: Switch, node: str, pod: str) -> Path:
    """Wire a machine with the programs of the distribution; return its socket."""
    net, database = NETS[HAND], f"unix:{switch.directory}/db.sock"
    ports = "add-port br-nsm hand-v -- set interface hand-v type=dpdkvhostuser ofport_request=901"
    other = "add-port br-nsm hand-k -- set interface hand-k ofport_request=902"
    lines = [
        f"ip link add hand-k up type veth peer name hand netns {Path(pod).name}",
        f"ip -n {Path(pod).name} link set hand up",
        f"ip -n {Path(pod).name} address add {net}.1/32 dev hand",
        f"ip -n {Path(pod).name} route add {net}.2 dev hand",
        f"ip netns exec {Path(pod).name} ethtool -K hand tx off >/dev/null",
        f"ovs-vsctl --db={database} {ports} -- {other}",
    ]
    bridge = f"unix:{switch.directory}/br-nsm.mgmt"
    for one, far in ((901, 902), (902, 901)):
        lines.append(f"ovs-ofctl -O OpenFlow13 add-flow {bridge} in_port={one},actions={far}")
    subprocess.run(["nsenter", f"--net={node}", "sh", "-ec", "\n".join(lines)], check=True)
    return switch.directory / "hand-v"


async def _measured(folder: Path, rounds: int, seconds: float) -> tuple[Way, Way]:
    with spaces(2) as (node, pod):
        datapath = OvsDatapath(OwnSwitch(folder / "s", node, memory=MEMORY), namespaces=lambda: [pod])
        switch, net = datapath.switch, NETS[OURS]
        ways = [Way(name, Machine(folder / name[:2]), pod) for name in (HAND, OURS)]
        try:
            own = switch.directory / SOCKETS / "x.vhost"
            near = KernelPort(pod, "nsm-1", addresses=(f"{net}.1/32",), routes=(Route(f"{net}.2/32"),))
            await datapath.apply(CrossConnect("bench", near, VhostUserPort(str(own), listens=False), "IP"))
            ways[0].boot(_by_hand(switch, node, pod))
            ways[1].boot(own)
            with _server(pod):
                await asyncio.sleep(0.5)
                for turn in range(rounds):
                    for way in ways if turn % 2 else reversed(ways):
                        way.measure(switch, seconds)
        finally:
            for way in ways:
                way.machine.kill()
            await switch.stop()
            await datapath.aclose()
    return ways[0], ways[1]


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure both, in turn."""
    absent = [name for name in (QEMU, "busybox", "iperf3", "ethtool") if shutil.which(name) is None]
    if why := (f"{', '.join(absent)} not installed" if absent else lacks_dpdk()):
        return Report(notes=[f"vm: missing: {why}"])
    try:
        image()
    except MissingError as error:
        return Report(notes=[f"vm: missing: {error}"])
    with tempfile.TemporaryDirectory(prefix="nsm-bench-", dir="/tmp") as folder:
        hand, ours = asyncio.run(_measured(Path(folder), 1 if short else 6, 1.0 if short else 3.0))
    report = Report()
    for way in (hand, ours):
        trips = [one for part in way.trips for one in part]
        report.rows.append(row("machine by vhost-user", way.name, trips, way.cpu, hand.cpu, to=HAND))
    report.details.append(_beside(hand, ours))
    return report


def _beside(hand: Way, ours: Way) -> Details:
    rates = [mine / theirs for mine, theirs in zip(ours.rate, hand.rate, strict=True)]
    trips = [
        statistics.median(theirs) / statistics.median(mine)
        for mine, theirs in zip(ours.trips, hand.trips, strict=True)
    ]
    lines = []
    for what, by_hand, by_us, found in (
        ("TCP Mbit/s", [one / 1e6 for one in hand.rate], [one / 1e6 for one in ours.rate], rates),
        ("round trips per s", _per_second(hand), _per_second(ours), trips),
    ):
        middle, spread = statistics.median(found), f"{min(found):.2f}-{max(found):.2f}"
        figures = (statistics.median(by_hand), statistics.median(by_us))
        lines.append((what, *(f"{one:.0f}" for one in figures), f"{middle:.2f}", spread))
    title = (
        "A machine on a vhost-user wire: median round, and ratio to the same round by hand (more is better)"
    )
    return Details(title, ("", "by hand", "apply", "ratio", "rounds"), lines)


def _per_second(way: Way) -> list[float]:
    return [1 / statistics.median(part) for part in way.trips]
