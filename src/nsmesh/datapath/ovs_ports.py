"""The ports of wires at a switch and the flows between them: many wires are patched at once.

The switch looks at all of its ports whenever one comes or goes, and whenever an interface of its namespace
does: what a wire costs is how often that happens. So the ports of a wire come in one transaction, together
with those of other wires that are asked for meanwhile, and the flows go along: we choose the ports' numbers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from nsmesh.core.errors import MeshError, Refused, Unavailable
from nsmesh.datapath import ovs_openflow as openflow
from nsmesh.datapath import ovs_patches as patches
from nsmesh.datapath import ovs_rows as rows
from nsmesh.datapath.ovs_batch import Batch
from nsmesh.datapath.ovs_database import Row, transact
from nsmesh.datapath.ovs_memif import ROLE, places_of
from nsmesh.datapath.ovs_rows import Inventory, KnownPort, SwitchPort
from nsmesh.datapath.ovs_uptake import Uptake, look_again
from nsmesh.model.messages import ETHERNET

Wish = tuple[str, tuple[SwitchPort, SwitchPort]]
"""A wire's id, and its two ports."""


class SwitchPorts:
    """Ports and flows of the bridge ``bridge``, whose database and OpenFlow sockets these are.

    ``forwarder``: whose ports in bridges of others are.
    """

    def __init__(
        self, bridge: str, database: Path, flows: Path, memory: int = 0, forwarder: str = ""
    ) -> None:
        self._bridge = bridge
        self._forwarder = forwarder
        self._database = database
        self._uptake = Uptake(database, memory)
        self._flows = openflow.Connection(flows)
        self._known: Inventory | None = None
        self._before: Inventory | None = None
        self._owed: set[str] = set()
        """Wires that are to go, and could not: the switch was not there."""
        self._turn = asyncio.Lock()
        self._patches = Batch[Wish](self._patch, self._turn)
        self._removals = Batch[str](self._remove, self._turn)

    def forget(self) -> None:
        """Look anew at what is there before the next change: others may have changed it."""
        self._before = self._known or self._before
        self._known = None

    async def connect(self, owner: str, one: SwitchPort, other: SwitchPort) -> None:
        """Have two ports, and lead all frames of one to the other and back; idempotent.

        Raises Unavailable where the switch does not take them up.
        """
        self._owed.discard(owner)
        await self._patches.do((owner, (one, other)))

    async def disconnect(self, owner: str) -> None:
        """Take away ports and flows of a wire; what is not there is gone already.

        Raises Unavailable where the switch is not there: then it is done when it comes again.
        """
        try:
            await self._removals.do(owner)
        except Unavailable:
            self._owed.add(owner)
            raise

    async def take_out(self, names: Collection[str]) -> None:
        """Take ports out that are to be made anew; what is not there is out already.

        The switch has let go of them afterwards: one that is back before it looks would be the same to it.
        """
        async with self._turn:
            known = await self._inventory()
            await self._take_out(known, going := [name for name in names if known.has(name)])
        if going:
            await look_again(self._database)

    async def hold(self, port: SwitchPort) -> None:
        """Have a port that belongs to no wire. Raises Unavailable where the switch does not take it up."""
        async with self._turn:
            there = await transact(self._database, rows.select("Interface", ["name"], port.name))
            if not there[0]["rows"]:
                made = rows.new_port(port, number=rows.HIGHEST)
                await transact(self._database, *made, rows.plugged(self._bridge, [port.name]))
            try:
                await self._uptake.demand([("the switch itself", (port,))], {port.name: rows.HIGHEST})
            except MeshError:
                await self._take_out(Inventory(), [port.name])
                raise

    async def owners(self) -> dict[str, list[str]]:
        """Return the names of the ports of each wire, by its id."""
        found: dict[str, list[str]] = {}
        async with self._turn:
            self.forget()
            for name, port in (await self._inventory()).all.items():
                if port.owner:
                    found.setdefault(port.owner, []).append(name)
        return found

    async def places(self) -> Counter[str]:
        """Return how many of DPDK's ports the memif ends of each wire take, by its id."""
        async with self._turn:
            known = await self._inventory()
        found: Counter[str] = Counter()
        for port in known.ports.values():
            found[port.owner] += places_of(port.mark)
        return found

    async def refused(self, wires: Collection[str] | None = None) -> dict[str, Counter[str]]:
        """Return what flows have refused, by wire and kind of frame; ``wires``: of these alone.

        Of wires between two sockets: where an end is an interface, the kernel refuses, and counts. Counted
        since the switch was started, half a second late.
        """
        async with self._turn:
            known = await self._inventory()
        asked = {port.owner for port in known.ports.values() if port.payload != ETHERNET}
        asked &= asked if wires is None else set(wires)
        if not asked:
            return {}
        found = openflow.refused(await self._flows.send([openflow.counting(owner) for owner in asked]))
        cookies = {openflow.cookie_of(owner): owner for owner in asked}
        return {cookies[cookie]: counts for cookie, counts in found.items() if cookie in cookies}

    async def connect_again(self) -> None:
        """Give a new ``ovs-vswitchd`` the flows of all wires: ports are in the database, flows are not.

        Ports in bridges of others go whose other halves are gone, as with a bridge that somebody deleted.
        """
        async with self._turn:
            await look_again(self._database)
            self.forget()
            if self._owed:
                await self._remove(sorted(self._owed))
                self._owed.clear()
            known = await self._inventory()
            await self._take_out(known, known.strays())
            await self._send_flows(known)

    async def _send_flows(self, known: Inventory, keys: Collection[str] = ()) -> None:
        """Give the switch the flows of all wires and pairs, or of some."""
        ends: dict[str, list[str]] = {}
        for name, port in known.ports.items():
            ends.setdefault(rows.key_of(name, port.owner), []).append(name)
        whole = {key: names for key, names in ends.items() if len(names) == 2 and (not keys or key in keys)}
        await self._flows.send([flow for key, names in whole.items() for flow in _flows(known, key, names)])

    async def calling(self) -> list[Row]:
        """Return the rows of those ports by which the switch is a memif client, as the switch sees them."""
        async with self._turn:
            known = await self._inventory()
        begin = ROLE["client"]
        names = [name for name, port in known.ports.items() if port.mark.startswith(begin)]
        if not names:
            return []
        columns = ["name", "options", "link_state", "ofport"]
        wanted = [rows.select("Interface", columns, name) for name in names]
        return [row for answer in await transact(self._database, *wanted) for row in answer["rows"]]

    async def close(self) -> None:
        """Let go of the kept connection."""
        self._flows.close()

    async def _inventory(self) -> Inventory:
        if self._known is None:
            wanted = rows.ports_of_bridge(self._bridge, ["name", "external_ids", "ofport_request"])
            answers = await transact(self._database, *wanted, *patches.reading(self._forwarder))
            known = rows.read_inventory(rows.interfaces_of(answers[: len(wanted)]))
            known.far, _ = patches.read(answers[len(wanted) :])
            if not answers[0]["rows"]:
                return known  # somebody deleted the bridge: what it had comes back with it
            self._known = known
        return self._known

    async def _patch(self, wishes: list[Wish]) -> list[MeshError | None]:
        """Make ports and flows of many wires; where their transaction is refused, one wire at a time."""
        known = await self._inventory()
        stale = [name for owner, ports in wishes for port in ports for name in known.stale(owner, port)]
        if stale:
            await self._take_out(known, stale)
        try:
            await self._bring(known, wishes)
        except Refused as error:
            self.forget()
            if len(wishes) == 1:
                return [error]
            return [result for wish in wishes for result in await self._patch([wish])]
        except BaseException:
            self.forget()  # what became of it is not known
            raise
        numbers = {name: port.number for name, port in known.ports.items()}
        return await self._uptake.outcomes(wishes, numbers)

    async def _bring(self, known: Inventory, wishes: list[Wish]) -> None:
        new = [(owner, port) for owner, ports in wishes for port in ports if port.name not in known.ports]
        for (owner, port), number in zip(new, known.free(len(new)), strict=True):
            known.ports[port.name] = KnownPort(owner, port.mark, number, port.payload)
            if port.far:
                known.far[port.far.name] = KnownPort(owner, port.far.mark, 0)
        operations: list[Row] = []
        for owner, port in new:
            operations += rows.new_port(port, owner, known.ports[port.name].number)
            operations += patches.new_far(port, owner)
        if new:
            names = [port.name for _, port in new]
            await transact(self._database, *operations, rows.plugged(self._bridge, names))
        # a wire whose payload changed has new ports: what its old one let pass goes first
        flows = [openflow.forget(openflow.cookie_of(owner)) for owner in {owner for owner, _ in new}]
        flows += [
            flow for owner, ports in wishes for flow in _flows(known, owner, [port.name for port in ports])
        ]
        await self._flows.send(flows)

    async def _remove(self, owners: list[str]) -> list[MeshError | None]:
        known = await self._inventory()
        names = [name for owner in owners for name in known.of(owner)]
        pairs = list(filter(rows.is_spare, names))
        if pairs:
            await self._give(known, pairs, "")
        if len(pairs) < len(names) or not names:
            await self._flows.send([openflow.forget(openflow.cookie_of(owner)) for owner in owners])
            await self._take_out(known, [name for name in names if not rows.is_spare(name)])
        return [None] * len(owners)

    async def _give(self, known: Inventory, names: Collection[str], owner: str) -> None:
        try:
            await transact(self._database, *(rows.given(name, owner) for name in names))
        except BaseException:
            self.forget()
            raise
        for name in names:
            known.ports[name] = replace(known.ports[name], owner=owner)

    async def _take_out(self, known: Inventory, names: list[str]) -> None:
        if not names:
            return
        try:
            wanted = (rows.select("Port", ["_uuid", "name"], name) for name in names)
            going = [row for answer in await transact(self._database, *wanted) for row in answer["rows"]]
            ours = [row["_uuid"] for row in going if row["name"] not in known.far]
            theirs = [row["_uuid"] for row in going if row["name"] in known.far]
            await transact(self._database, rows.unplugged(self._bridge, ours), *patches.unplugged(theirs))
        except BaseException:
            self.forget()
            raise
        known.drop(names)


def _flows(known: Inventory, owner: str, names: Sequence[str]) -> list[bytes]:
    """Return the flows of a wire between two ports that are known."""
    one, other = (known.ports[name] for name in names)
    return openflow.both_ways(owner, one.number, other.number, one.payload)
