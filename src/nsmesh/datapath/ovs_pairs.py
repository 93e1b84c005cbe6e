"""Ports of a switch that are made in advance, two and two, each led to the other: a wire takes a pair.

Whose a pair is stands in the database, in a column at which the switch does not look.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from nsmesh.datapath import ovs_openflow as openflow
from nsmesh.datapath import ovs_rows as rows
from nsmesh.datapath.ovs_database import transact
from nsmesh.datapath.ovs_returning import ReturningPorts
from nsmesh.datapath.ovs_rows import KnownPort, SwitchPort
from nsmesh.datapath.ovs_uptake import look_again


class PairedPorts(ReturningPorts):
    """The ports of a bridge, those in advance included."""

    def __init__(
        self, bridge: str, database: Path, flows: Path, memory: int = 0, forwarder: str = ""
    ) -> None:
        super().__init__(bridge, database, flows, memory, forwarder)
        self._coming: set[str] = set()
        """Pairs that the switch has not taken up yet."""

    async def take(self, owner: str) -> tuple[str, ...] | None:
        """Give a wire the two ports of a pair that was made in advance; those that it has, if it has some.

        Empty where it has ports of its own; None where no pair is left.
        """
        self._owed.discard(owner)
        async with self._turn:
            known = await self._inventory()
            names = known.of(owner)
            if not names:
                pair = next((pair for pair in known.ready() if pair not in self._coming), None)
                if pair is None:
                    return None
                names = list(rows.ports_of(pair))
                await self._give(known, names, owner)
        return tuple(sorted(names)) if rows.is_spare(names[0]) else ()

    async def ready(self) -> tuple[list[str], int]:
        """Return the pairs that no wire has, and how many wires have one."""
        async with self._turn:
            known = await self._inventory()
        free = [pair for pair in known.ready() if pair not in self._coming]
        return free, sum(map(rows.is_spare, known.ports)) // 2 - len(known.ready())

    async def pairs(self) -> set[str]:
        """Return all pairs, whoever has them."""
        async with self._turn:
            self.forget()
            return {rows.pair_of(name) for name in (await self._inventory()).ports if rows.is_spare(name)}

    async def pair_with(self, owner: str) -> str:
        """Return the pair that a wire has, or nothing."""
        async with self._turn:
            names = (await self._inventory()).of(owner)
        return next((rows.pair_of(name) for name in names if rows.is_spare(name)), "")

    async def add_pairs(self, pairs: Collection[str]) -> None:
        """Have the ports of pairs that are there in the kernel, each led to the other.

        Wires get theirs meanwhile. Raises MeshError, and then none of these is there.
        """
        self._coming.update(pairs)
        made = {pair: tuple(map(SwitchPort, rows.ports_of(pair))) for pair in pairs}
        names = [port.name for ports in made.values() for port in ports]
        try:
            async with self._turn:
                known = await self._inventory()
                for name, number in zip(names, known.free(len(names)), strict=True):
                    known.ports[name] = KnownPort("", "", number)
                numbers = {name: known.ports[name].number for name in names}
                operations = [
                    row
                    for ports in made.values()
                    for port in ports
                    for row in rows.new_port(port, number=numbers[port.name])
                ]
                await transact(self._database, *operations, rows.plugged(self._bridge, names))
            await self._uptake.demand(list(made.items()), numbers)
            await self._send_flows(known, pairs)
        except BaseException:
            self.forget()
            await self.drop_pairs(pairs)
            raise
        finally:
            self._coming.difference_update(pairs)

    async def drop_pairs(self, pairs: Collection[str]) -> None:
        """Take pairs out that were made in advance, whoever has them."""
        async with self._turn:
            known = await self._inventory()
            await self._flows.send([openflow.forget(openflow.cookie_of(pair)) for pair in pairs])
            await self._take_out(known, [name for pair in pairs for name in rows.ports_of(pair)])

    async def vanished(self, names: Collection[str] | None = None) -> dict[str, KnownPort]:
        """Return the ports that somebody else has taken out, as they were; ``names``: only if among these.

        None where the whole bridge is gone: they come back with it.
        The switch has let go of them: until then it may still change the flags of their interfaces.
        """
        async with self._turn:
            before = self._known
            if before is None or (names is not None and before.all.keys().isdisjoint(names)):
                return {}
            self.forget()
            now = await self._inventory()
            if self._known is None:
                return {}
        gone = {name: port for name, port in before.all.items() if name not in now.all}
        if gone:
            await look_again(self._database)
        return gone

    async def flows_of(self, cookies: Collection[int]) -> set[str]:
        """Return of which wires and pairs that are there flows have such marks."""
        async with self._turn:
            known = (await self._inventory()).ports
        keys = {rows.key_of(name, port.owner) for name, port in known.items()}
        return {key for key in keys if openflow.cookie_of(key) in cookies}

    async def lead_pairs(self) -> None:
        """Give the switch the flows of all pairs and wires, whoever made them."""
        async with self._turn:
            await self._send_flows(await self._inventory())
