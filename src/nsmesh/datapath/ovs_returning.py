"""Ports that leave a bridge for a while, or with one that somebody deleted: they come back as they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nsmesh.datapath import ovs_patches as patches
from nsmesh.datapath import ovs_rows as rows
from nsmesh.datapath.ovs_database import Row, transact
from nsmesh.datapath.ovs_memif import DEVICE, anew
from nsmesh.datapath.ovs_ports import SwitchPorts
from nsmesh.datapath.ovs_rows import Inventory


class ReturningPorts(SwitchPorts):
    """The ports of a bridge, those included that are away just now."""

    async def set_aside(self, which: Callable[[Row], bool]) -> list[Row]:
        """Take ports out of the database, and return them for :meth:`bring_back`.

        ``which`` is asked with the columns ``type`` and ``ofport`` of each.
        """
        columns = ["name", "type", "options", "external_ids", "ofport_request"]
        wanted = rows.ports_of_bridge(self._bridge, [*columns, "ofport"])
        async with self._turn:
            found = filter(which, rows.interfaces_of(await transact(self._database, *wanted)))
            aside = [{name: row[name] for name in columns} for row in found]
            await self._take_out(Inventory(), [row["name"] for row in aside])
            self.forget()
        return aside

    async def bring_back(self, aside: Sequence[Row]) -> None:
        """Put ports that were set aside back, those of wires."""
        known = rows.read_inventory(aside)
        operations = [
            operation
            for row in aside
            if row["name"] in known.ports
            for operation in rows.old_port(row, DEVICE, anew)
        ]
        if operations:
            await transact(self._database, *operations, rows.plugged(self._bridge, known.ports))

    async def put_back(self) -> None:
        """Give a bridge that had to be made anew ports that the one before had.

        Those to interfaces, and those whose other halves are in bridges of others still.
        """
        async with self._turn:
            self.forget()
            before = self._before.ports if self._before else {}
            far = (await self._inventory()).far
            self._known = None
            lost = {
                name: port
                for name, port in before.items()
                if rows.is_spare(name) or port.mark.isdigit() or patches.is_half(name, port, far)
            }
            operations = [
                operation
                for name, port in lost.items()
                for operation in rows.new_port(patches.as_it_was(name, port), port.owner, port.number)
            ]
            if operations:
                await transact(self._database, *operations, rows.plugged(self._bridge, lost))
