"""For ``memif_wires.py``: a machine's packets by the switch: to and from memif, and to an interface.

Memif has one ring. By hand these are the ports that the driver has, since a plain memif loses what comes from
a machine. Beside them another way by hand: a plain memif, and a pair of veth by which frames from the machine
go through the switch once more, so that its main thread sends them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from common import spaces
from memif_lab import Testpmd, memif
from memif_packets import HAND, Flow, arrived, packets, shell, working
from report import Report, row

from nsmesh.datapath.base import CrossConnect, KernelPort
from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_dpdk import MEMORY, SOCKETS
from nsmesh.datapath.ovs_memif import device, device_of_one_ring
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_switch import Switch
from nsmesh.model.wire import MemifPort, VhostUserPort

WHAT = "memif and vhost-user, by the switch"


async def between(folder: Path, report: Report, rounds: int, seconds: float) -> None:
    """Measure the wire by the driver beside both ways by hand; packets go both ways at once."""
    with spaces(1) as (node,):
        datapath = OvsDatapath(OwnSwitch(folder / "u", node, memory=MEMORY))
        switch = datapath.switch
        near, far = (switch.directory / SOCKETS / name for name in ("mm", "mv"))
        try:
            ends = MemifPort(str(near)), VhostUserPort(str(far), listens=False)
            await datapath.apply(CrossConnect("mv", *ends, "IP"))
            hand, ours, turned = Flow(), Flow(), Flow()
            ways = [
                (hand, _by_hand(switch, node, 1010, device_of_one_ring)),
                (ours, (near, far)),
                (turned, _by_a_pair(switch, node)),
            ]
            for turn in range(rounds):
                for flow, sockets in ways if turn % 2 else ways[::-1]:
                    _measure(folder, switch, flow, sockets, seconds)
        finally:
            await switch.stop()
            await datapath.aclose()
    packets(report, WHAT, hand, ours)
    name = f"{HAND}, by a pair of veth"
    report.rows.append(row(WHAT, name, (), turned.cpu, hand.cpu, to=HAND, per_second=max(turned.rate)))


def _measure(folder: Path, switch: Switch, flow: Flow, sockets: tuple[Path, Path], seconds: float) -> None:
    devices = (memif("client", sockets[0]), f"net_virtio_user,path={sockets[1]},queues=1")
    with (
        Testpmd("v", folder, 1, "flowgen", *devices) as peers,
        working(flow, switch, seconds) as measure,
    ):
        measure(peers.received)


def _by_hand(
    switch: Switch, node: str, number: int, made: Callable[[str], str], *between: int
) -> tuple[Path, Path]:
    """Have the two ports, ``number`` and the next; return their sockets. ``between``: ports on the way."""
    add = f"ovs-vsctl --db=unix:{switch.database} add-port {switch.bridge}"
    flow = f"ovs-ofctl -O OpenFlow13 add-flow unix:{switch.flows}"
    near, far = switch.directory / f"m{number}", switch.directory / f"v{number}"
    options = f"role=server,id=0,socket={near},socket-abstract=no"
    memif_port, machine = number, number + 1
    way = [machine, *between, memif_port]
    flows = [(memif_port, machine), *zip(way[::2], way[1::2], strict=True)]
    made_of = f"'options:dpdk-devargs=\"{made(options)}\"'"
    lines = [
        f"{add} {near.name} -- set interface {near.name} type=dpdk {made_of} ofport_request={memif_port}",
        f"{add} {far.name} -- set interface {far.name} type=dpdkvhostuser ofport_request={machine}",
        *(f"{flow} in_port={one},actions={other}" for one, other in flows),
    ]
    shell(node, "\n".join(lines))
    return near, far


def _by_a_pair(switch: Switch, node: str) -> tuple[Path, Path]:
    add = f"ovs-vsctl --db=unix:{switch.database} add-port {switch.bridge}"
    lines = ["ip link add turn-a up type veth peer name turn-b", "ip link set turn-b up"]
    for name, number in (("turn-a", 1022), ("turn-b", 1023)):
        lines.append(f"{add} {name} -- set interface {name} ofport_request={number}")
    shell(node, "\n".join(lines))
    return _by_hand(switch, node, 1020, device, 1022, 1023)


async def to_an_interface(folder: Path, report: Report, rounds: int, seconds: float) -> None:
    """Measure a machine's packets to an interface: by the driver, with and without a payload, and by hand."""
    with spaces(2) as (node, pod):
        datapath = OvsDatapath(OwnSwitch(folder / "i", node, memory=MEMORY), namespaces=lambda: [pod])
        switch = datapath.switch
        ways = {}
        try:
            for name, payload in (("ip", "IP"), ("frames", "ETHERNET")):
                socket = switch.directory / SOCKETS / name
                ends = KernelPort(pod, name), VhostUserPort(str(socket), listens=False)
                await datapath.apply(CrossConnect(name, *ends, payload))
                ways[name] = socket, Flow()
            ways["hand"] = _to_an_interface_by_hand(switch, node, pod), Flow()
            order = list(ways.items())
            for turn in range(rounds):
                for name, (socket, flow) in order[turn % 3 :] + order[: turn % 3]:
                    device = f"net_virtio_user,path={socket},queues=1"
                    with (
                        Testpmd("v", folder, 1, "flowgen", device),
                        working(flow, switch, seconds) as measure,
                    ):
                        measure(lambda name=name: arrived(pod, name))
        finally:
            await switch.stop()
            await datapath.aclose()
    hand, ours, frames = (ways[name][1] for name in ("hand", "ip", "frames"))
    what = "vhost-user to an interface, by the switch"
    packets(report, what, hand, ours)
    name = "the same, payload ETHERNET"
    report.rows.append(row(what, name, (), frames.cpu, hand.cpu, to=HAND, per_second=max(frames.rate)))


def _to_an_interface_by_hand(switch: Switch, node: str, pod: str) -> Path:
    space = Path(pod).name
    add = f"ovs-vsctl --db=unix:{switch.database} add-port {switch.bridge}"
    flow = f"ovs-ofctl -O OpenFlow13 add-flow unix:{switch.flows}"
    text = f"""
ip link add hand-k up type veth peer name hand netns {space}
ip -n {space} link set hand up
ip netns exec {space} ethtool -K hand tx off >/dev/null
{add} hand-k -- set interface hand-k ofport_request=902
{add} hand-v -- set interface hand-v type=dpdkvhostuser ofport_request=901
{flow} in_port=901,actions=902
{flow} in_port=902,actions=901
"""
    shell(node, text)
    return switch.directory / "hand-v"
