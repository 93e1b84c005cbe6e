"""The switches of a node: the first, and more of them while its DPDK has no place for another memif end.

A wire is at one switch with both of its ends, since at most one end of it is a memif's: nothing joins the
switches. Each has a folder, a database, a namespace and, once it needs it, DPDK's memory of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from nsmesh.core.errors import Conflict, Invalid, MeshError, Unavailable
from nsmesh.datapath import netns
from nsmesh.datapath.ovs_dpdk import MOST_MEMIF
from nsmesh.datapath.ovs_switch import Switch
from nsmesh.model.wire import CrossConnect, MemifPort

log = structlog.get_logger()

MOST = 8
"""Switches of a node at most."""
LINGER = 60.0
"""Seconds after which a switch that has no wire any more is ended; the first one stays."""


def space_of(directory: Path, node: str, number: int) -> str:
    """Return the path of the namespace of a node's second switch, or third..., from the first one's.

    ``directory`` and ``node``: the first switch's folder and the path of its namespace.
    """
    base = node
    if Path(node).parent != Path(netns.RUN_NETNS):
        base = f"{netns.RUN_NETNS}/nsm-ovs-{hashlib.sha256(str(directory).encode()).hexdigest()[:10]}"
    return f"{base}-{number}"


class Beside(Switch):
    """A switch beside the first one: its folder and its namespace come and go with it."""

    async def ensure(self) -> None:
        """See :meth:`Switch.ensure`."""
        if not Path(self.node).exists():
            with suppress(Conflict):
                netns.create(Path(self.node).name)
        await super().ensure()

    async def stop(self) -> None:
        """See :meth:`Switch.stop`."""
        await self.ports.close()
        await super().stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        netns.delete(Path(self.node).name)


def _core(number: int) -> int | None:
    """Return on which processor a switch polls: all would choose the same one, which was the last so far."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[-number % len(cores)] if len(cores) > 1 else None


@dataclass(slots=True)
class _Seat:
    """Where a wire is, and whether it has a memif end there."""

    switch: Switch
    memif: bool


class Switches:
    """``first`` and what is beside it; ``most``: so many in all. ``now``: seconds, of any beginning."""

    def __init__(self, first: Switch, most: int = MOST, now: Callable[[], float] = time.monotonic) -> None:
        if not 1 <= most <= MOST:
            raise Invalid(f"a node has 1 to {MOST} switches, not {most}", remedy="correct NSM_MOST_SWITCHES")
        self.first = first
        self.most = most
        self.more: dict[int, Beside] = {number: self._beside(number) for number in self._on_disk()}
        """The switches beside the first one, by their numbers, from 2 on."""
        self._now = now
        self._seats: dict[str, _Seat] = {}
        self._empty: dict[int, float] = {}
        """Since when a switch has had no wire."""
        self._adopted = False
        self._turn = asyncio.Lock()

    def __iter__(self) -> Iterator[Switch]:
        return iter([self.first, *self.more.values()])

    def _on_disk(self) -> list[int]:
        folders = self.first.directory.glob("[1-9]*")
        return sorted(int(one.name) for one in folders if one.name.isdecimal() and one.is_dir())

    def _beside(self, number: int) -> Beside:
        first = self.first
        return Beside(
            first.directory / str(number),
            space_of(first.directory, first.node, number),
            first.bridge,
            first.memory,
            listening=first.sockets.listening,
            core=_core(number),
        )

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
                memif = await switch.ports.with_memif()
                for wire_id in await switch.ports.owners():
                    seats[wire_id] = _Seat(switch, wire_id in memif)
            self._seats = seats
            self._empty = {}
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
        memif = any(isinstance(end, MemifPort) for end in (wire.a, wire.b))
        seat = self._seats.get(wire.id)
        if seat is None or (memif and not seat.memif and not self._has_room(seat.switch)):
            async with self._turn:
                switch = self._roomy(wire.id) if memif else self.first
                seat = self._seats[wire.id] = _Seat(switch, memif)
                self._note()
        seat.memif = memif
        await seat.switch.ensure()
        return seat.switch

    def _roomy(self, wire_id: str) -> Switch:
        found = next(filter(self._has_room, self), None)
        if found is not None:
            return found
        number = next((one for one in range(2, self.most + 1) if one not in self.more), 0)
        if not number:
            more = f", or set NSM_MOST_SWITCHES, which may be {MOST}" if self.most < MOST else ""
            raise Unavailable(
                f"connection {wire_id} ends in memif, and the switches of this node ({self.most}) have "
                f"{MOST_MEMIF} memif ends each, as many as their DPDK was built for",
                remedy=f"close another memif connection of this node{more}",
            )
        log.info("the switches are full of memif: another one is started", number=number)
        self.more[number] = self._beside(number)
        return self.more[number]

    def _has_room(self, switch: Switch) -> bool:
        return sum(seat.memif and seat.switch is switch for seat in self._seats.values()) < MOST_MEMIF

    def leave(self, wire_id: str) -> None:
        """Forget where a wire is: its ports are gone."""
        self._seats.pop(wire_id, None)
        self._note()

    def _note(self) -> None:
        """Keep since when switches have been without a wire."""
        full = {id(seat.switch) for seat in self._seats.values()}
        empty = [number for number, switch in self.more.items() if id(switch) not in full]
        now = self._now()
        self._empty = {number: self._empty.get(number, now) for number in empty}

    def idle(self) -> list[int]:
        """Return the numbers of switches that have had no wire for a while."""
        return [number for number, since in self._empty.items() if self._now() - since >= LINGER]

    async def end(self, number: int) -> bool:
        """End a switch beside the first one, unless a wire has come; say whether it has ended."""
        async with self._turn:
            if number not in self._empty:
                return False
            await self.more[number].stop()
            del self.more[number], self._empty[number]
        log.info("a switch without wires has ended", number=number)
        return True

    async def stop(self) -> None:
        """End all switches, the first one last; wires through them end with them."""
        for number in self._on_disk():
            self.more.setdefault(number, self._beside(number))
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
