"""Whether a switch has taken up the ports that its database has: what fails is tried again, and explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.datapath import ovs_rows as rows
from nsmesh.datapath.ovs_database import Row, members, transact
from nsmesh.datapath.ovs_dpdk import explained
from nsmesh.datapath.ovs_memif import DRIVERS, lacks_its_dump
from nsmesh.datapath.ovs_rows import SwitchPort

Wishes = Sequence[tuple[str, tuple[SwitchPort, ...]]]
"""Ids of wires with their ports."""
PATIENCE = 5000
"""Milliseconds within which the switch must take up a port."""
_ATTEMPTS = 3


async def look_again(database: Path) -> None:
    """Have the switch compare itself with its database, and wait until it has.

    Others may have it look meanwhile, too. Raises Refused where it does not in time.
    """
    count = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
    done = rows.select("Open_vSwitch", ["cur_cfg"])
    counted = await transact(database, count, rows.select("Open_vSwitch", ["next_cfg"]))
    until = counted[1]["rows"][0]["next_cfg"]
    while (seen := (await transact(database, done))[0]["rows"][0]["cur_cfg"]) < until:
        await transact(database, rows.await_change("Open_vSwitch", "cur_cfg", seen, PATIENCE))


class Uptake:
    """What the switch behind a database does with its ports; ``memory``: the MiB of its DPDK."""

    def __init__(self, database: Path, memory: int) -> None:
        self._database = database
        self._memory = memory

    async def demand(self, wishes: Wishes, numbers: Mapping[str, int]) -> None:
        """Raise Unavailable unless all ports of wires are taken up and have these numbers."""
        for problem in filter(None, await self.outcomes(wishes, numbers)):
            raise problem

    async def outcomes(self, wishes: Wishes, numbers: Mapping[str, int]) -> list[MeshError | None]:
        """Return what became of each wire, whose ports shall have these numbers; what fails is tried again.

        The first port of DPDK makes its pool of buffers, and where the largest pool does not fit, one of the
        next attempts comes to a smaller one.
        """
        for _ in range(_ATTEMPTS):
            found = await self._taken_up(wishes, numbers)
            if not any(found):
                break
            await look_again(self._database)
        return found

    async def _taken_up(self, wishes: Wishes, numbers: Mapping[str, int]) -> list[MeshError | None]:
        names = [port.name for _, ports in wishes for port in ports]
        waits = [rows.taken_up(name, PATIENCE) for name in names]
        looks = [rows.select("Interface", ["ofport", "error", "status"], name) for name in names]
        answers = await transact(self._database, *waits, *looks)
        found = {name: answer["rows"][0] for name, answer in zip(names, answers[len(names) :], strict=True)}
        return [
            next(
                (one for port in ports if (one := self._problem(owner, port, found[port.name], numbers))),
                None,
            )
            for owner, ports in wishes
        ]

    def _problem(
        self, owner: str, port: SwitchPort, row: Row, numbers: Mapping[str, int]
    ) -> MeshError | None:
        if lacks_its_dump(port, row):
            return Unavailable(
                f"the switch takes up {port.name} for connection {owner} with more rings than its "
                "peer may have",
                remedy=f"install these drivers of DPDK: {DRIVERS}",
            )
        if row["ofport"] == numbers[port.name]:
            return None
        said = members(row["error"])
        log = self._database.parent / "ovs-vswitchd.log"
        why, remedy = explained(port, said[0] if said else "it does not say why", log, self._memory)
        return Unavailable(
            f"the switch does not take up {port.name} for connection {owner}: {why}",
            remedy=remedy,
        )
