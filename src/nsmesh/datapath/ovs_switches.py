"""The switches of a node: the first, and more where it has no place for a memif end, or has many wires.

A wire is at one switch with both of its ends: nothing joins the switches. Each has a folder, a database, a
namespace and, once it needs it, DPDK's memory of its own. Wires with memif ends may have a switch each, so
that a peer that ends its switch harms its own wire alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import structlog

from nsmesh.core.errors import Invalid, MeshError, Unavailable
from nsmesh.datapath.ovs_beside import Beside
from nsmesh.datapath.ovs_dpdk import is_socket
from nsmesh.datapath.ovs_memif import MOST_MEMIF, places_for
from nsmesh.datapath.ovs_spread import Spread
from nsmesh.datapath.ovs_switch import Switch
from nsmesh.model.wire import CrossConnect

log = structlog.get_logger()

MOST = 8
"""Switches of a node at most, where nothing else is said."""
LIMIT = 32
"""What may be said at most."""
LINGER = 60.0
"""Seconds after which a switch that has no wire any more is ended; the first one stays."""
_TRIES = 200


def _nobody(_: str) -> None: ...


@dataclass(slots=True)
class _Seat:
    """Where a wire is, and how many of DPDK's ports its memif ends take there."""

    switch: Switch
    places: int


class Switches:
    """``first`` and what is beside it; ``most``: so many in all. ``now``: seconds, of any beginning.

    ``apart``: each wire with a memif end has a switch, never the first, that no other wire comes to.
    """

    def __init__(
        self,
        first: Switch,
        most: int = MOST,
        *,
        apart: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= most <= LIMIT:
            raise Invalid(f"a node has 1 to {LIMIT} switches, not {most}", remedy="correct NSM_MOST_SWITCHES")
        self.first = first
        self.most = most
        self.apart = apart
        self.more: dict[int, Beside] = {number: Beside(first, number) for number in self._on_disk()}
        """The switches beside the first one, by their numbers, from 2 on."""
        self.due = asyncio.Event()
        """Set when :meth:`begin` may have something to do."""
        self.tell: Callable[[str], None] = _nobody
        """Hears of a wire whose ports somebody else has taken out."""
        self._now = now
        self._seats: dict[str, _Seat] = {}
        self._spread = Spread(first)
        self._empty: dict[int, float] = {}
        """Since when a switch has had no wire."""
        self._adopted = False
        self._turn = asyncio.Lock()

    def __iter__(self) -> Iterator[Switch]:
        return iter([self.first, *self.more.values()])

    def _on_disk(self) -> list[int]:
        folders = self.first.directory.glob("[1-9]*")
        return sorted(int(one.name) for one in folders if one.name.isdecimal() and one.is_dir())

    async def adopt(self) -> None:
        """Once: find out which wires the switches have. Raises what :meth:`Switch.ensure` raises.

        The first one is not started for that, and as long as it has never run nothing is found out.
        """
        if self._adopted:
            return
        async with self._turn:
            if self._adopted or not self.first.flows.exists():
                return
            seats: dict[str, _Seat] = {}
            for switch in self:
                if switch is not self.first:
                    await switch.ensure()
                places = await switch.ports.places()
                for wire_id in await switch.ports.owners():
                    seats[wire_id] = _Seat(switch, places[wire_id])
            self._seats = seats
            plain = {seat.switch for seat in seats.values() if not seat.places}
            self._spread.ready = [self.first, *(one for one in self.more.values() if one in plain)]
            self._adopted = True
            self._note()

    def wires(self) -> set[str]:
        """Return the ids of the wires that the switches have, once :meth:`adopt` is done."""
        return set(self._seats)

    def at(self, wire_id: str) -> Switch | None:
        """Return the switch that has a wire, or nothing."""
        seat = self._seats.get(wire_id)
        return seat.switch if seat else None

    async def place(self, wire: CrossConnect) -> Switch:
        """Return the switch that is to have a wire: the one that has it, else one with room, else a new one.

        It is running. Raises Unavailable where no more can be started, and what :meth:`Switch.ensure` raises.
        """
        places = places_for(wire)
        seat = self._seats.get(wire.id)
        if seat is None or (places > seat.places and not self._has_room(seat.switch, wire.id, places)):
            async with self._turn:
                switch = self._with_memif(wire.id, places) if places else self._without_memif(wire)
                seat = self._seats[wire.id] = _Seat(switch, places)
                self._note()
        seat.places = places
        await seat.switch.ensure()
        return seat.switch

    def _with_memif(self, wire_id: str, places: int) -> Switch:
        found = next((switch for switch in self if self._has_room(switch, wire_id, places)), None)
        if found is not None:
            return found
        number = self._free_number()
        if not number:
            raise self._no_room(wire_id)
        why = "this memif wire has one of its own" if self.apart else "the others are full of memif"
        log.info("another switch is started", number=number, why=why)
        self.more[number] = Beside(self.first, number)
        return self.more[number]

    def _no_room(self, wire_id: str) -> Unavailable:
        if self.apart:
            why = f"the first of the switches of this node ({self.most}) has none, and others have one each"
        else:
            why = (
                f"the switches of this node ({self.most}) have room for {MOST_MEMIF} memif ends each, "
                "a third of that where an endpoint listens or both ends are sockets, "
                "as many as their DPDK was built for"
            )
        more = f", or set NSM_MOST_SWITCHES, which may be {LIMIT}" if self.most < LIMIT else ""
        remedy = f"close another memif connection of this node{more}"
        return Unavailable(f"connection {wire_id} ends in memif, and {why}", remedy=remedy)

    def _free_number(self) -> int:
        return next((one for one in range(2, self.most + 1) if one not in self.more), 0)

    def _has_room(self, switch: Switch, wire_id: str, places: int) -> bool:
        """Whether a wire whose memif ends take so many ports may be at a switch, or stay there."""
        others = [seat for one, seat in self._seats.items() if seat.switch is switch and one != wire_id]
        if self.apart and (others or switch is self.first or self._spread.has(switch)):
            return False
        return sum(seat.places for seat in others) + places <= MOST_MEMIF

    def _is_apart(self, switch: Switch) -> bool:
        """Whether a switch is that of one memif wire alone."""
        return self.apart and any(seat.switch is switch and seat.places for seat in self._seats.values())

    def _without_memif(self, wire: CrossConnect) -> Switch:
        if any(is_socket(end) for end in (wire.a, wire.b)):
            return self.first  # vhost-user costs a switch with DPDK nothing, and has no limit
        return self._spread.choose(self._counts())

    def _counts(self) -> Counter[Switch]:
        return Counter(seat.switch for seat in self._seats.values())

    def begin(self) -> int:
        """Return the number of a switch to :meth:`open`, where wires of interfaces need one soon, else 0."""
        if not self._adopted or not self._spread.is_short(self._counts()):
            return 0
        free = (one for one, it in self.more.items() if not self._spread.has(it) and not self._is_apart(it))
        number = next(free, self._free_number())
        if number:
            switch = self.more.setdefault(number, Beside(self.first, number))
            self._spread.coming.add(switch)
            self._note()
        return number

    async def open(self, number: int) -> None:
        """Have a switch take wires of interfaces from now on: it runs, and has ports in advance.

        Raises what :meth:`Switch.ensure` raises; then :meth:`begin` names it again.
        """
        switch = self.more[number]
        try:
            await switch.ensure()
            switch.spares.look()
            for _ in range(_TRIES):
                if not switch.spares.size or (await switch.ports.ready())[0]:
                    break
                await asyncio.sleep(0.05)
            self._spread.ready.append(switch)
            log.info("another switch takes wires of interfaces", number=number)
        finally:
            self._spread.coming.discard(switch)
            self._note()

    def taken_out(self, wire_id: str) -> None:
        """Tell of a wire whose ports somebody else has taken out."""
        self.tell(wire_id)

    def leave(self, wire_id: str) -> None:
        """Forget where a wire is: its ports are gone."""
        self._seats.pop(wire_id, None)
        self._note()

    def _note(self) -> None:
        """Keep what follows from where the wires are."""
        counts = self._counts()
        now = self._now()
        empty = [number for number, switch in self.more.items() if not counts[switch]]
        self._empty = {number: self._empty.get(number, now) for number in empty}
        self._spread.limit(list(self), counts)
        self.due.set()

    def idle(self) -> list[int]:
        """Return the numbers of switches that have had no wire for a while, and need not be there."""
        counts, late = self._counts(), self._now() - LINGER
        return [
            number
            for number, since in self._empty.items()
            if since <= late and not self._needed(self.more[number], counts)
        ]

    def _needed(self, switch: Switch, counts: Counter[Switch]) -> bool:
        if switch in self._spread.coming:
            return True
        return switch in self._spread.ready and self._spread.is_short(counts, switch)

    async def end(self, number: int) -> bool:
        """End a switch beside the first one, unless a wire has come; say whether it has ended."""
        async with self._turn:
            if number not in self._empty:
                return False
            self._spread.drop(self.more[number])
            await self.more[number].stop()
            del self.more[number], self._empty[number]
        log.info("a switch without wires has ended", number=number)
        return True

    async def stop(self) -> None:
        """End all switches, the first one last; wires through them end with them."""
        for number in self._on_disk():
            self.more.setdefault(number, Beside(self.first, number))
        while self.more:
            await self.more.popitem()[1].stop()
        await self.first.stop()

    async def close(self) -> None:
        """Let go of the connections to the switches, which stay."""
        for switch in self:
            await switch.ports.close()
            switch.spares.close()

    async def refused(self, wires: Collection[str] | None = None) -> dict[str, Counter[str]]:
        """Return what flows have refused, as :meth:`SwitchPorts.refused`; who does not answer has none."""
        found: dict[str, Counter[str]] = {}
        for switch in self:
            if switch.flows.exists():
                try:
                    found |= await switch.ports.refused(wires)
                except MeshError as error:
                    log.debug("counters of a switch not read", error=str(error))
        return found

    async def dpdk_memory(self) -> dict[tuple[str, ...], float]:
        """Return the bytes of DPDK, free and used, of all switches where it runs."""
        total: Counter[tuple[str, ...]] = Counter()
        for switch in self:
            for state, size in (await switch.dpdk_memory()).items():
                total[state] += int(size)
        return {state: float(size) for state, size in total.items()}
