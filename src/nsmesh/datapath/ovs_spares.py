"""Wires' ports in advance: a switch looks at all of its ports for each new one, so many are made at once.

A wire takes a pair that is there, which costs the same however many ports the switch has. The more pairs are
in use, the more are made at once: so the looks of the switch cost each wire the same, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import structlog

from nsmesh.core.errors import MeshError, Refused
from nsmesh.datapath.ovs_dpdk import has_leg
from nsmesh.datapath.ovs_ends import MTU, Ends, new_pair
from nsmesh.datapath.ovs_pairs import PairedPorts
from nsmesh.datapath.ovs_rows import pair_of, ports_of
from nsmesh.model.wire import CrossConnect

log = structlog.get_logger()

SHARE = 4
"""Of so many pairs in use there is one in advance, where that is more than asked for."""
MOST = 128
"""Pairs that are in advance at most."""
PATIENCE = 2.0
"""Seconds that a wire waits at most for pairs that are being made."""
REST, LONGEST = 1.0, 60.0
"""Seconds after an attempt that failed: twice as long each time, but not longer."""


class Spares:
    """Pairs in advance at one switch: ``size`` of them while nobody asks for wires, and 0 for none.

    ``limit``: so many pairs in all, those in use included; None: as many as are asked for.
    """

    def __init__(self, ports: PairedPorts, home: str, place: str, size: int) -> None:
        self._ports = ports
        self.size = size
        self.limit: int | None = None
        self._ends = Ends(home, place)
        self.place = place
        self._adopted = False
        self._turn = asyncio.Lock()
        self._due = asyncio.Event()
        self._news = asyncio.Event()
        self._making = False

    async def take(self, wire: CrossConnect) -> tuple[str, ...]:
        """Return the names of the two ports that a wire gets, or has; empty: it shall have ports of its own.

        Raises what the database raises.
        """
        await self._adopt()
        fits = all(has_leg(end) and end.mtu <= MTU for end in (wire.a, wire.b))
        if not fits:
            await self._part(wire.id)
            return ()
        pair = await self._ports.take(wire.id)
        if pair is None and self._making and self.size:
            pair = await self._wait(wire.id)
        if self.size and pair is None:
            self.look()
        return pair or ()

    async def _part(self, wire_id: str) -> None:
        """Take away the pair of a wire that needs other ports now."""
        had = await self._ports.pair_with(wire_id)
        if had:
            await self.discard([had])

    async def _wait(self, wire_id: str) -> tuple[str, ...] | None:
        pair = None
        try:
            async with asyncio.timeout(PATIENCE):
                while pair is None and self._making and self._goal((await self._ports.ready())[1]):
                    self._due.set()
                    await self._news.wait()
                    pair = await self._ports.take(wire_id)
        except TimeoutError:
            log.info("no ports are ready in time: they are made for one wire", connection=wire_id)
        return pair

    async def join(self, owner: str, ends: dict[str, str]) -> None:
        """Lead frames between the ports of a pair and a wire's ends beside them (their names, by port).

        Raises MeshError where that is not possible: then the pair is taken away, and the wire shall have
        ports of its own. Where the kernel cannot do it, no more are made.
        """
        try:
            self._ends.join(owner, ends)
        except MeshError as error:
            log.warning("ports in advance are of no use", connection=owner, error=str(error))
            if isinstance(error, Refused):
                self.size = 0
            await self.discard({pair_of(port) for port in ends})
            raise
        finally:
            self.look()

    async def keep(self) -> None:
        """Make pairs whenever there are few, for ever."""
        if not self.size:
            return
        self._making = True
        rest = REST
        try:
            while True:
                self._due.clear()
                try:
                    await self.fill()
                except MeshError as error:
                    log.warning("ports cannot be made in advance", error=str(error))
                    self._tell()
                    await asyncio.sleep(rest)
                    rest = min(2 * rest, LONGEST)
                else:
                    rest = REST
                    await self._due.wait()
        finally:
            self._making = False
            self._tell()

    async def fill(self) -> None:
        """Make what is missing, and take away what is too much. Raises MeshError."""
        await self._adopt()
        while count := self._wanted(*await self._ports.ready()):
            pairs = [new_pair() for _ in range(count)]
            try:
                await asyncio.to_thread(self._ends.make, pairs)
                await self._ports.add_pairs(pairs)
            except BaseException:
                self._ends.drop([name for pair in pairs for name in ports_of(pair)])
                raise
            self._tell()
        free, used = await self._ports.ready()
        if len(free) > 2 * self._goal(used):
            await self.discard(free[self._goal(used) :])
        self._tell()  # what is not wanted any more is not waited for

    def _goal(self, used: int) -> int:
        wanted = min(max(self.size, used // SHARE), MOST) if self.size else 0
        return wanted if self.limit is None else min(wanted, max(0, self.limit - used))

    def _wanted(self, free: Collection[str], used: int) -> int:
        """Return how many pairs to make now: none while half of them are there."""
        goal = self._goal(used)
        return goal - len(free) if len(free) * 2 < goal or len(free) < min(1, goal) else 0

    def _tell(self) -> None:
        """Wake those who wait for pairs."""
        self._news.set()
        self._news = asyncio.Event()

    async def discard(self, pairs: Collection[str]) -> None:
        """Take pairs away, whoever has them."""
        await self._ports.drop_pairs(pairs)
        self._ends.drop([name for pair in pairs for name in ports_of(pair)])

    async def _adopt(self) -> None:
        """Once: go on with what an earlier forwarder has made; what of it is not whole goes."""
        async with self._turn:
            if self._adopted:
                return
            waiting = await asyncio.to_thread(self._ends.look)
            known = await self._ports.pairs()
            broken = [pair for pair in known if not waiting.issuperset(ports_of(pair))]
            if broken:
                await self.discard(broken)
            whole = {name for pair in known if pair not in broken for name in ports_of(pair)}
            if strays := waiting - whole:
                self._ends.drop(strays)
            if known:
                await self._ports.lead_pairs()
            self._adopted = True

    def look(self) -> None:
        """Have it looked soon whether there are enough, or too many."""
        self._due.set()

    def forget(self) -> None:
        """Look anew at what is there."""
        self._adopted = False

    def take_away(self) -> None:
        """Delete what of all pairs is in the kernel: their switch has none any more."""
        self._ends.take_away()
        self.forget()

    def close(self) -> None:
        """Let go of everything; what is in advance stays."""
        self._ends.close()
