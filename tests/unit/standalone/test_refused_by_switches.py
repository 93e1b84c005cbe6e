"""What switches have refused is told with the row of a connection, and a dead switch keeps no row back."""

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from nsmesh.core.errors import Unavailable
from nsmesh.standalone.refused import add_refused
from nsmesh.standalone.switches import Switches


class Ports:
    """Ports of a switch: what their flows have refused, by wire; None: nobody answers."""

    def __init__(self, counts):
        self.counts = counts
        self.closed = 0

    async def refused(self, wires):
        if self.counts is None:
            raise Unavailable("nobody answers")
        return {wire: Counter(kinds) for wire, kinds in self.counts.items() if wire in wires}

    def forget(self):
        pass

    async def close(self):
        self.closed += 1


def switch_with(ports, flows):
    """Return a node's only switch, with the socket of its flows at a path."""
    spares = SimpleNamespace(close=lambda: None)
    first = SimpleNamespace(flows=Path(flows), ports=ports, spares=spares, directory=Path("/nowhere"))
    return SimpleNamespace(first=first)


def test_counts_of_all_switches_are_added_to_those_of_the_kernel():
    """Of the wires of its hops alone; a row for which nobody looks stays as it is; connections are closed."""
    ports = [Ports({"w1": {"ipv4": 2}, "w9": {"arp": 9}}), Ports(None), Ports({"w2": {"ipv4": 1, "vlan": 3}})]
    switches = Switches(None, None)
    made = {str(at): switch_with(one, "/") for at, one in enumerate(ports)}
    switches._made = {**made, "not there": switch_with(Ports({"w1": {"ipv4": 7}}), "/nowhere/at-all")}
    hops = [{"id": "c"}, {"id": "w1"}, {"id": "w2"}]
    rows = [{"refused": {"ipv4": 5}, "hops": hops}, {"refused": None, "hops": hops}]
    asyncio.run(add_refused(SimpleNamespace(switches=switches), rows))
    assert [row["refused"] for row in rows] == [{"ipv4": 8, "vlan": 3}, None]
    assert [one.closed for one in ports] == [1, 1, 1]
