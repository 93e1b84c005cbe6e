"""For ``memif_wires.py``: packets, by the mesh and by hand, and a switch that has none.

A process that polls takes a whole processor, and on a machine that others use as well it does not get it. So
what is compared is processor time for each packet: of both processes where they meet at one socket, of
``ovs-vswitchd`` where the switch is between them.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common import spaces
from memif_lab import PATIENCE, Testpmd, ask, memif, mesh, request_of, until
from processes import cpu_of
from report import Details, Report, row

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.datapath import netns
from nsmesh.datapath.base import CrossConnect, KernelPort
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_dpdk import MEMORY, SLEEP, SOCKETS
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_programs import running
from nsmesh.datapath.ovs_switch import Switch
from nsmesh.mechanisms.kernel import OWN_NAMESPACE, Kernel
from nsmesh.mechanisms.memif import Memif
from nsmesh.model.fileurl import file_path
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.wire import MemifPort, VhostUserPort

HAND = "by hand"


@dataclass
class Flow:
    """Packets of one way: seconds of CPU time for each, and packets each second, by round."""

    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)

    def measure(self, counted: Callable[[], int], cpu: Callable[[], float], seconds: float) -> None:
        """Wait until packets come, then count them for a while."""
        end = time.monotonic() + PATIENCE
        first = counted()
        while counted() < first + 10_000:
            if time.monotonic() > end:
                raise RuntimeError("no packets pass")
            time.sleep(0.05)
        packets, burnt, began = counted(), cpu(), time.perf_counter()
        time.sleep(seconds)
        packets, burnt = counted() - packets, cpu() - burnt
        self.cpu.append(burnt / packets)
        self.rate.append(packets / (time.perf_counter() - began))


class Processing(Element):
    """Stands in an endpoint: a testpmd listens, and sends frames back."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.process: Testpmd | None = None

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Start it where none runs."""
        answer = await next.request(call, request)
        if self.process is None:
            path = Path(answer.mechanism.parameters["socketfile"])
            started = Testpmd("nse", self._folder, 0, "macswap", memif("server", path))
            self.process = self._stack.enter_context(started)
            await asyncio.to_thread(until, path)
        return answer


async def direct(folder: Path, report: Report, rounds: int, seconds: float) -> None:
    """Two processes on one socket: by hand, and by a Request."""
    hand, ours = Flow(), Flow()
    for turn in range(rounds):
        for way in (hand, ours) if turn % 2 else (ours, hand):
            with ExitStack() as stack:
                there = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
                async with AsyncExitStack() as inner:
                    if way is hand:
                        path = there / "m.sock"
                        listening = Testpmd("nse", there, 0, "macswap", memif("server", path))
                        stack.enter_context(listening)
                        until(path)
                    else:
                        path, listening = await _by_request(there, stack, inner)
                    await asyncio.sleep(0.3)  # a socket that is there does not yet listen
                    asking = Testpmd("nsc", there, 1, "flowgen", memif("client", path))
                    stack.enter_context(asking)
                    both = (listening, asking)
                    way.measure(asking.received, lambda both=both: sum(one.cpu() for one in both), seconds)
    packets(report, "memif, two processes that meet", hand, ours)


async def _by_request(there: Path, stack: ExitStack, inner: AsyncExitStack) -> tuple[Path, Testpmd]:
    processing = Processing(there, stack)
    endpoint = Memif(folder=str(there), inode_url=OWN_NAMESPACE)
    datapath = LinuxDatapath(owner="forwarder:bench")
    inner.push_async_callback(datapath.aclose)
    chain = await inner.enter_async_context(
        mesh(there / "r", datapath, [Kernel(), Memif()], endpoint, processing)
    )
    answer = await ask(chain, request_of(0, "MEMIF", {"inodeURL": OWN_NAMESPACE}))
    assert processing.process is not None
    return Path(file_path(answer.mechanism.parameters["inodeURL"]) or ""), processing.process


def packets(report: Report, what: str, hand: Flow, ours: Flow) -> None:
    """Add the rows; packets each second are those of the best round, which others disturbed least."""
    for name, flow in ((HAND, hand), ("through the mesh", ours)):
        report.rows.append(row(what, name, (), flow.cpu, hand.cpu, to=HAND, per_second=max(flow.rate)))
    best = max(ours.rate) / max(hand.rate)
    rates = [f"{mine / theirs:.2f}" for mine, theirs in zip(ours.rate, hand.rate, strict=True)]
    report.notes.append(
        f"{what}: packets each second over those by hand, best round over best round {best:.2f}; "
        f"round by round {', '.join(rates)}"
    )


async def switched(folder: Path, report: Report, rounds: int, seconds: float) -> None:
    """Measure the same ports, patched by the driver and by hand, on one switch; and that at rest."""
    with spaces(2) as (node, pod):
        datapath = OvsDatapath(OwnSwitch(folder / "s", node, memory=MEMORY), namespaces=lambda: [pod])
        switch = datapath.switch
        try:
            await switch.ensure()
            lines = [("no port of DPDK yet", _rest(switch, seconds))]
            sockets = switch.directory / SOCKETS
            await datapath.apply(CrossConnect("m", KernelPort(pod, "ours"), MemifPort(f"{sockets}/m"), "IP"))
            a, b = (VhostUserPort(f"{sockets}/{side}", listens=False) for side in "ab")
            await datapath.apply(CrossConnect("v", a, b, "IP"))
            _hand(node, pod, switch)
            lines += [
                (f"two wires and two by hand, sleeps up to {micro} us", _rest(switch, seconds, micro))
                for micro in (0, SLEEP, 1000)
            ]
            _rest(switch, 0, SLEEP)
            _to_an_interface(folder, report, switch, pod, rounds, seconds)
            _between_machines(folder, report, switch, rounds, seconds)
        finally:
            await switch.stop()
            await datapath.aclose()
    shown = [(name, f"{100 * part:.1f} %") for name, part in lines]
    report.details.append(Details("ovs-vswitchd without packets", ("what it has", "of a processor"), shown))


def _pid(switch: Switch) -> int:
    return running(switch.directory / "ovs-vswitchd.pid", "ovs-vswitchd")


def _rest(switch: Switch, seconds: float, micro: int | None = None) -> float:
    """Return the part of a processor that the switch takes; ``micro``: how long it may sleep (us)."""
    if micro is not None:
        options = f"other_config:pmd-maxsleep={micro} other_config:pmd-sleep-max={micro}"
        shell("", f"ovs-vsctl --db=unix:{switch.database} set Open_vSwitch . {options}")
    time.sleep(min(seconds, 0.5))
    before, began = cpu_of(_pid(switch)), time.perf_counter()
    time.sleep(seconds)
    return (cpu_of(_pid(switch)) - before) / (time.perf_counter() - began)


def shell(node: str, text: str) -> None:
    """Have a shell do lines in a node's namespace; empty: in this one."""
    inside = ("nsenter", f"--net={node}") if node else ()
    subprocess.run([*inside, "sh", "-ec", text], check=True)


def _hand(node: str, pod: str, switch: Switch) -> None:
    """Make by the switch's own commands what the driver has made: an interface, a memif, two vhost-user."""
    space = Path(pod).name
    add = f"ovs-vsctl --db=unix:{switch.database} add-port {switch.bridge}"
    device = f"net_memif0,role=server,id=0,socket={switch.directory}/hand,socket-abstract=no"
    machines = "\n".join(
        f"{add} {name} -- set interface {name} type=dpdkvhostuser ofport_request={number}"
        for name, number in (("ha", 1003), ("hb", 1004))
    )
    flow = f"ovs-ofctl -O OpenFlow13 add-flow unix:{switch.flows}"
    pairs = ((1001, 1002), (1002, 1001), (1003, 1004), (1004, 1003))
    flows = "\n".join(f"{flow} in_port={one},actions={other}" for one, other in pairs)
    text = f"""
ip link add hand up type veth peer name hand netns {space}
ip -n {space} link set hand up
{add} hand -- set interface hand ofport_request=1001
{add} hm -- set interface hm type=dpdk options:dpdk-devargs={device} ofport_request=1002
{machines}
{flows}
"""
    shell(node, text)


def arrived(pod: str, name: str) -> int:
    """Return the packets that an interface of a namespace has received."""
    text = netns.call_in(pod, Path("/proc/thread-self/net/dev").read_text)
    (line,) = (line for line in text.splitlines() if line.strip().startswith(f"{name}:"))
    return int(line.partition(":")[2].split()[1])


@contextmanager
def working(flow: Flow, switch: Switch, seconds: float) -> Iterator[Callable[[Callable[[], int]], None]]:
    """Yield what measures a flow by how many packets have come, with the processor time of the switch."""
    pid = _pid(switch)
    yield lambda counted: flow.measure(counted, lambda: cpu_of(pid), seconds)


def _to_an_interface(
    folder: Path, report: Report, switch: Switch, pod: str, rounds: int, seconds: float
) -> None:
    hand, ours = Flow(), Flow()
    ways = ((hand, switch.directory / "hand", "hand"), (ours, switch.directory / SOCKETS / "m", "ours"))
    for turn in range(rounds):
        for flow, socket, name in ways if turn % 2 else ways[::-1]:
            device = memif("client", socket)
            with Testpmd("m", folder, 1, "flowgen", device), working(flow, switch, seconds) as measure:
                measure(lambda name=name: arrived(pod, name))
    packets(report, "memif to an interface, by the switch", hand, ours)


def _between_machines(folder: Path, report: Report, switch: Switch, rounds: int, seconds: float) -> None:
    hand, ours = Flow(), Flow()
    there, sockets = switch.directory, switch.directory / SOCKETS
    ways = ((hand, (there / "ha", there / "hb")), (ours, (sockets / "a", sockets / "b")))
    for turn in range(rounds):
        for flow, paths in ways if turn % 2 else ways[::-1]:
            devices = [f"net_virtio_user,path={path},queues=1" for path in paths]
            with (
                Testpmd("v", folder, 1, "flowgen", *devices) as machines,
                working(flow, switch, seconds) as measure,
            ):
                measure(machines.received)
    packets(report, "vhost-user to vhost-user, by the switch", hand, ours)
