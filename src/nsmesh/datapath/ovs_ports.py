"""The ports of wires at a switch and the flows between them: many wires are patched at once.

The switch looks at all of its ports whenever one comes or goes, and whenever an interface of its namespace
does: what a wire costs is how often that happens. So the ports of a wire come in one transaction, together
with those of other wires that are asked for meanwhile, and the flows go along: we choose the ports' numbers.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from nsmesh.core.errors import MeshError, Refused, Unavailable
from nsmesh.datapath import ovs_openflow as openflow
from nsmesh.datapath import ovs_rows as rows
from nsmesh.datapath.ovs_batch import Batch
from nsmesh.datapath.ovs_database import Row, members, transact
from nsmesh.datapath.ovs_rows import Inventory, KnownPort, SwitchPort

Wish = tuple[str, tuple[SwitchPort, SwitchPort]]
"""A wire's id, and its two ports."""
PATIENCE = 5000
"""Milliseconds within which the switch must take up a port."""


class SwitchPorts:
    """Ports and flows of the bridge ``bridge``, whose database and OpenFlow sockets these are."""

    def __init__(self, bridge: str, database: Path, flows: Path) -> None:
        self._bridge = bridge
        self._database = database
        self._flows = openflow.Connection(flows)
        self._known: Inventory | None = None
        turn = asyncio.Lock()
        self._patches = Batch[Wish](self._patch, turn)
        self._removals = Batch[str](self._remove, turn)

    def forget(self) -> None:
        """Look anew at what is there before the next change: others may have changed it."""
        self._known = None

    async def connect(self, owner: str, one: SwitchPort, other: SwitchPort) -> None:
        """Have two ports, and lead all frames of one to the other and back; idempotent.

        Raises Unavailable where the switch does not take them up.
        """
        await self._patches.do((owner, (one, other)))

    async def disconnect(self, owner: str) -> None:
        """Take away ports and flows of a wire; what is not there is gone already."""
        await self._removals.do(owner)

    async def owners(self) -> dict[str, list[str]]:
        """Return the names of the ports of each wire, by its id."""
        self.forget()
        found: dict[str, list[str]] = {}
        for name, port in (await self._inventory()).ports.items():
            found.setdefault(port.owner, []).append(name)
        return found

    async def connect_again(self) -> None:
        """Give a new ``ovs-vswitchd`` the flows of all wires: ports are in the database, flows are not."""
        count = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
        counted = await transact(self._database, count, rows.select("Open_vSwitch", ["next_cfg"]))
        awaited = {
            "op": "wait",
            "table": "Open_vSwitch",
            "where": [],
            "columns": ["cur_cfg"],
            "until": "==",
            "rows": [{"cur_cfg": counted[1]["rows"][0]["next_cfg"]}],
            "timeout": PATIENCE,
        }
        await transact(self._database, awaited)
        self.forget()
        known = await self._inventory()
        ends = {owner: known.of(owner) for owner in {port.owner for port in known.ports.values()}}
        flows = [
            flow
            for owner, names in ends.items()
            if len(names) == 2
            for flow in openflow.both_ways(owner, *(known.ports[name].number for name in names))
        ]
        await self._flows.send(flows)

    async def close(self) -> None:
        """Let go of the kept connection."""
        self._flows.close()

    async def _inventory(self) -> Inventory:
        if self._known is None:
            wanted = rows.select("Interface", ["name", "external_ids", "ofport_request"])
            self._known = rows.read_inventory((await transact(self._database, wanted))[0]["rows"])
        return self._known

    async def _patch(self, wishes: list[Wish]) -> list[MeshError | None]:
        """Make ports and flows of many wires; where their transaction is refused, one wire at a time."""
        known = await self._inventory()
        stale = [
            port.name
            for owner, ports in wishes
            for port in ports
            if port.name in known.ports and not _same(known.ports[port.name], owner, port)
        ]
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
        return await self._outcomes(wishes)

    async def _bring(self, known: Inventory, wishes: list[Wish]) -> None:
        new = [(owner, port) for owner, ports in wishes for port in ports if port.name not in known.ports]
        for (owner, port), number in zip(new, known.free(len(new)), strict=True):
            known.ports[port.name] = KnownPort(owner, port.mark, number)
        operations: list[Row] = []
        for owner, port in new:
            operations += rows.new_port(port, owner, known.ports[port.name].number)
        if new:
            coming = ["set", [rows.named(port.name) for _, port in new]]
            here = [["name", "==", self._bridge]]
            await transact(self._database, *operations, rows.put("Bridge", here, "ports", "insert", coming))
        flows = [
            flow
            for owner, ports in wishes
            for flow in openflow.both_ways(owner, *(known.ports[port.name].number for port in ports))
        ]
        await self._flows.send(flows)

    async def _outcomes(self, wishes: list[Wish]) -> list[MeshError | None]:
        names = [port.name for _, ports in wishes for port in ports]
        waits = [rows.taken_up(name, PATIENCE) for name in names]
        looks = [rows.select("Interface", ["ofport", "error"], name) for name in names]
        answers = await transact(self._database, *waits, *looks)
        found = {name: answer["rows"][0] for name, answer in zip(names, answers[len(names) :], strict=True)}
        return [
            next((error for port in ports if (error := self._problem(owner, port, found[port.name]))), None)
            for owner, ports in wishes
        ]

    def _problem(self, owner: str, port: SwitchPort, row: Row) -> MeshError | None:
        if isinstance(row["ofport"], int) and row["ofport"] > 0:
            return None
        why = members(row["error"])
        return Unavailable(
            f"the switch does not take up {port.name} for connection {owner}: {why[0] if why else '-'}",
            remedy=f"see {self._database.parent}/ovs-vswitchd.log",
        )

    async def _remove(self, owners: list[str]) -> list[MeshError | None]:
        await self._flows.send([openflow.forget(openflow.cookie_of(owner)) for owner in owners])
        known = await self._inventory()
        await self._take_out(known, [name for owner in owners for name in known.of(owner)])
        return [None] * len(owners)

    async def _take_out(self, known: Inventory, names: list[str]) -> None:
        if not names:
            return
        try:
            found = await transact(self._database, *(rows.select("Port", ["_uuid"], name) for name in names))
            going = ["set", [row["_uuid"] for answer in found for row in answer["rows"]]]
            here = [["name", "==", self._bridge]]
            await transact(self._database, rows.put("Bridge", here, "ports", "delete", going))
        except BaseException:
            self.forget()
            raise
        for name in names:
            known.ports.pop(name, None)


def _same(known: KnownPort, owner: str, port: SwitchPort) -> bool:
    return (known.owner, known.mark) == (owner, port.mark)
