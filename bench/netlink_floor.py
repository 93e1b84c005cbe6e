"""What a kernel wire costs over the bare netlink messages, and whether the thousandth costs more.

Run as root: python bench/run.py floor. Makes its own namespaces; takes about ten seconds.

The floor sends the same messages, built beforehand, on sockets that stay open: what no driver can beat
without asking the kernel for less. The driver builds them, opens both namespaces anew for each wire, checks,
and keeps its records. The floor comes in two orders, because the order alone makes a difference of a third:
once an interface is up, the kernel's own work on it competes with us for the lock. A wire of payload IP has
filters besides, and is measured beside a floor with the same filters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from common import Series, alternate, spaces
from report import Details, Report, row_of

from nsmesh.datapath import netns, rtnetlink, veth
from nsmesh.datapath.base import CrossConnect, KernelPort, Neighbour, Route
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.netlink import Batch, Netlink
from nsmesh.datapath.packed import parse_mac
from nsmesh.datapath.payload_filter import Filters, filter_of
from nsmesh.datapath.traffic_control import new_place
from nsmesh.datapath.wirestate import alias_of, desired_end

NAME = "floor"
GROUP = 77


def wire(prefix: str, number: int, a: str, b: str) -> CrossConnect:
    """Return a wire with one address, one route and one permanent neighbour at each end."""
    near, far = f"10.{number >> 8}.{number & 255}.1", f"10.{number >> 8}.{number & 255}.2"
    near_mac, far_mac = (f"02:0{side}:{number >> 8:02x}:{number & 255:02x}:00:01" for side in "12")
    return CrossConnect(
        f"{prefix}-{number}",
        KernelPort(
            a,
            f"{prefix}c{number}",
            near_mac,
            1400,
            (f"{near}/32",),
            (Route(f"{far}/32"),),
            (Neighbour(far, far_mac),),
        ),
        KernelPort(
            b,
            f"{prefix}e{number}",
            far_mac,
            1400,
            (f"{far}/32",),
            (Route(f"{near}/32"),),
            (Neighbour(near, near_mac),),
        ),
    )


class Floor:
    """The messages of a wire and its filters, built; ``up_first``: in the order of a person with ``ip``."""

    def __init__(self, wires: list[CrossConnect], a: str, b: str, *, up_first: bool = False) -> None:
        self.up_first = up_first
        self.filters = Filters()
        self.sockets = [netns.call_in(path, Netlink) for path in (a, b)]
        self.descriptor = netns.open_netns(b)
        self.batches = [tuple(self._batches(one)) for one in wires]

    def _batches(self, one: CrossConnect) -> Iterator[Batch]:
        indexes = veth.fresh_index(), veth.fresh_index()
        ports = one.a, one.b
        ends = [
            (index, port.name, parse_mac(port.mac), port.mtu)
            for index, port in zip(indexes, ports, strict=True)
        ]
        born = Batch()
        born.put(rtnetlink.new_veth(ends[0], ends[1], self.descriptor, GROUP))
        yield ready(born)
        filters = filter_of(one)
        prepared = Batch()
        if filters.directions:
            prepared.put(new_place(indexes[1]))
        for number, (index, port) in enumerate(zip(indexes, ports, strict=True)):
            wanted = desired_end(port, index)
            place, filter_ = self.filters.messages(index, filters)
            messages = [
                *(() if number else place),
                *filter_,
                *(rtnetlink.address(index, item, add=True) for item in wanted.addresses),
                *(rtnetlink.neighbour(index, item, add=True) for item in wanted.neighbours),
            ]
            messages.insert(0 if self.up_first else len(messages), rtnetlink.set_up(index))
            messages += [rtnetlink.route(index, item, add=True) for item in wanted.routes]
            batch = Batch()
            batch.put(rtnetlink.mark(index, alias_of(one.id), no_link_local=True))
            for message in messages:
                batch.put(message)
            yield ready(batch)
        if filters.directions:
            yield ready(prepared)

    def send(self, number: int) -> None:
        """Make one wire."""
        first, near, far, *prepared = self.batches[number]
        a, b = self.sockets
        if a.send(first) or any(map(b.send, prepared)) or a.send(near) or b.send(far):
            raise SystemExit("the floor's messages were refused")

    def delete(self) -> None:
        """Delete all wires."""
        batch = Batch()
        batch.put(rtnetlink.delete_group(GROUP))
        self.sockets[0].send(batch)


class Ready(Batch):
    """A batch whose bytes are joined already."""

    __slots__ = ("_ready",)

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self._ready = list(batch.chunks())

    def chunks(self) -> Iterator[tuple[bytes, int]]:
        """Yield the bytes that were joined before."""
        return iter(self._ready)


def ready(batch: Batch) -> Batch:
    return Ready(batch)


def over_the_floor(wires: int, rounds: int = 20) -> list[Series]:
    """Measure apply, and apply again, beside the floor in two orders of its messages."""
    count = max(wires // rounds, 1)
    numbers = range(rounds * count)

    async def main() -> list[Series]:
        wanted = [wire("d", number, a, b) for number in numbers]
        anew = [wire("n", number, a, b) for number in numbers]
        filtered = [replace(wire("p", number, a, b), payload="IP") for number in numbers]
        floor = Floor([wire("f", number, a, b) for number in numbers], a, b)
        usual = Floor([wire("u", number, a, b) for number in numbers], a, b, up_first=True)
        enforced = Floor([replace(wire("i", number, a, b), payload="IP") for number in numbers], a, b)
        datapath, forgetful = LinuxDatapath(), LinuxDatapath(owner="forgetful")
        forgetful._doors.most = 0  # noqa: SLF001 - each wire is the first in a while
        apply = applier(datapath, wanted)
        ways = {
            "floor, up first": usual.send,
            "floor, up before routes": floor.send,
            "apply": apply,
            "apply, the first in a while": applier(forgetful, anew),
            "floor, payload IP": enforced.send,
            "apply, payload IP": applier(datapath, filtered),
        }
        series = alternate(rounds, count, ways)
        series += alternate(rounds, count, {"apply again": apply})
        floor.delete()
        await finish(datapath)
        await finish(forgetful)
        return series

    with spaces(2) as (a, b):
        return asyncio.run(main())


def applier(datapath: LinuxDatapath, wanted: list[CrossConnect]) -> Callable[[int], None]:
    """Return what applies the n-th wire.

    The steps of the coroutine: a new wire gives way to others once and waits for nothing, and a turn of the
    loop is not what is measured.
    """
    return lambda number: step(datapath.apply(wanted[number]))


def step(coroutine: object) -> None:
    """Run a coroutine that gives way, and waits for nothing."""
    try:
        while coroutine.send(None) is None:  # type: ignore[attr-defined]
            pass
    except StopIteration:
        return
    raise SystemExit("apply waited for something")


async def finish(datapath: LinuxDatapath) -> None:
    await datapath.sweep([])
    await datapath.aclose()


def growth(wires: int) -> Details:
    """Compare each tenth of many wires into one hub with the first tenth.

    The kernel's own part grows too, mostly by its IPv6 multicast routes, one for each interface in one list.
    """
    part = max(wires // 10, 1)

    async def main(way: str, client: str, hub: str) -> list[float]:
        wanted = [wire("g", number, client, hub) for number in range(part * 10)]
        datapath = LinuxDatapath()
        floor = Floor(wanted, client, hub)
        do = floor.send if way == "netlink floor" else applier(datapath, wanted)
        (series,) = alternate(10, part, {way: do})
        floor.delete()
        await finish(datapath)
        return series.cpu_by_round()

    costs: dict[str, list[float]] = {}
    for way in ("netlink floor", "apply"):
        with spaces(2) as (client, hub):
            costs[way] = asyncio.run(main(way, client, hub))
    rows = [
        (str(at * part), *(f"{cost[at] * 1e6:.0f} us ({cost[at] / cost[0]:.2f})" for cost in costs.values()))
        for at in range(10)
    ]
    return Details(
        f"{part * 10} wires into one hub: CPU, and its ratio to the first", ("wires before", *costs), rows
    )


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure the driver beside the bare messages."""
    series = over_the_floor(40, 4) if short else over_the_floor(1000)
    floors = {one.name: one for one in series}
    rows = [
        row_of(
            "kernel wire", one, floors["floor, payload IP" if "IP" in one.name else "floor, up before routes"]
        )
        for one in series
    ]
    return Report(rows=rows, details=[growth(50 if short else 1000)])
