"""What the last of a thousand ends of tunnels costs beside the first: by the driver, and by bare messages.

Run as root: python bench/run.py tunnels. Makes its own namespaces, a node and a pod for each way, the pod
with all interfaces of it; takes some three seconds. The bare messages are those of the driver, built
beforehand, on sockets that stay open; VXLAN, payload IP, filters included. Both are made in turn, a hundred
at a time, so what else the machine does meets both. A second table has the bare messages one by one: which of
them the kernel takes longer for, the more ends there are (docs/decisions/0064-many-tunnels.md says why).
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from common import Series, alternate
from netlink_floor import GROUP, applier, finish, ready
from report import Details, Report
from two_nodes import Nodes, end, nodes

from nsmesh.datapath import netns, rtnetlink, veth
from nsmesh.datapath.base import CrossConnect, VxlanPort
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.netlink import Batch, Message, Netlink
from nsmesh.datapath.packed import parse_mac
from nsmesh.datapath.payload_filter import Filters, filter_of
from nsmesh.datapath.vxlan import new_vxlan
from nsmesh.datapath.wirestate import alias_of, desired_end

NAME = "tunnels"
BLOCKS = 10


class Bare:
    """The messages of ends of tunnels, built; :meth:`send` makes one."""

    def __init__(self, wires: list[CrossConnect], found: Nodes) -> None:
        self.node, self.pod = (netns.call_in(path, Netlink) for path in (found.nodes[0], found.pods[0]))
        self.filters = Filters()
        self.place = netns.open_netns(found.pods[0])
        self.batches = [tuple(self._batches(one)) for one in wires]

    def _batches(self, one: CrossConnect) -> Iterator[Batch]:
        groups = self.groups(one)
        yield ready(_batch(groups.pop("device")))
        yield ready(_batch(message for messages in groups.values() for message in messages))

    def groups(self, one: CrossConnect) -> dict[str, list[Message]]:
        """Return the messages of an end in order, by what they do; the first is for the node's socket."""
        index, (port,), tunnel = veth.fresh_index(), one.interfaces, one.tunnel
        assert isinstance(tunnel, VxlanPort)
        wanted = desired_end(port, index)
        place, filter_ = self.filters.messages(index, filter_of(one))
        device = (index, port.name, parse_mac(port.mac), port.mtu)
        return {
            "device": [new_vxlan(device, self.place, tunnel, GROUP)],
            "mark": [rtnetlink.mark(index, alias_of(one.id), no_link_local=True)],
            "filters": [*place, *filter_],
            "addresses": [rtnetlink.address(index, item, add=True) for item in wanted.addresses],
            "neighbours": [rtnetlink.neighbour(index, item, add=True) for item in wanted.neighbours],
            "up": [rtnetlink.set_up(index)],
            "routes": [rtnetlink.route(index, item, add=True) for item in wanted.routes],
        }

    def send(self, number: int) -> None:
        """Make one end."""
        born, told = self.batches[number]
        if self.node.send(born) or self.pod.send(told):
            raise SystemExit("the bare messages were refused")

    def send_apart(self, one: CrossConnect) -> dict[str, float]:
        """Make one end, group by group; return the CPU time of each."""
        costs = {}
        for name, messages in self.groups(one).items():
            batch = ready(_batch(messages))
            before = time.thread_time()
            if (self.node if name == "device" else self.pod).send(batch):
                raise SystemExit(f"the bare messages were refused: {name}")
            costs[name] = time.thread_time() - before
        return costs


def _batch(messages: Iterable[Message]) -> Batch:
    found = Batch()
    for message in messages:
        found.put(message)
    return found


def by_message(count: int) -> Details:
    """Make ``count`` ends by bare messages, and tell what each kind takes, by how many ends there are."""
    part = count // BLOCKS
    rows = []
    with nodes() as found:
        bare = Bare([], found)
        blocks = [
            [bare.send_apart(end(found, 0, block * part + number)) for number in range(part)]
            for block in range(BLOCKS)
        ]
    for name in blocks[0][0]:
        costs = [statistics.median(one[name] for one in block) * 1e6 for block in blocks]
        rows.append((name, *(f"{cost:.0f}" for cost in costs), f"{costs[-1] - costs[0]:.0f}"))
    head = ("messages", *(str(block * part) for block in range(BLOCKS)), "growth")
    return Details("of the bare messages: CPU in us of each kind, by how many ends there are", head, rows)


def compared(count: int) -> list[Series]:
    """Make ``count`` ends by either way, a block of each in turn."""
    part = count // BLOCKS

    async def main(mine: Nodes, bare: Nodes) -> list[Series]:
        datapath = LinuxDatapath(node=mine.nodes[0])
        numbers = range(part * BLOCKS)
        floor = Bare([end(bare, 0, number) for number in numbers], bare)
        wanted = [end(mine, 0, number) for number in numbers]
        try:
            return alternate(BLOCKS, part, {"bare": floor.send, "driver": applier(datapath, wanted)})
        finally:
            await finish(datapath)

    with nodes() as mine, nodes() as bare:
        return asyncio.run(main(mine, bare))


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Compare blocks of a thousand ends with the first."""
    rounds = [compared(100 if short else 1000) for _ in range(1 if short else 3)]
    rows, part = [], (100 if short else 1000) // BLOCKS
    for block in range(BLOCKS):
        cells = []
        for way in range(2):
            costs = [series[way].cpu_by_round() for series in rounds]
            cost = sorted(one[block] for one in costs)[len(costs) // 2]
            growth = sorted(one[block] / one[0] for one in costs)[len(costs) // 2]
            cells.append(f"{cost * 1e6:.0f} us ({growth:.2f})")
        beside = sorted(one[1].cpu_by_round()[block] / one[0].cpu_by_round()[block] for one in rounds)
        rows.append((str(block * part), *cells, f"{beside[len(beside) // 2]:.2f}"))
    title = f"CPU of an end of a tunnel, by how many there are, {len(rounds)} rounds; beside the first ones"
    compared_all = Details(title, ("there are", "bare messages", "driver", "ratio"), rows)
    return Report(details=[compared_all, by_message(100 if short else 1000)])
