"""A switch that somebody else runs: a bridge of our own there, and nothing else of it is touched.

It is neither started nor ended nor configured. When it dies, that is said loudly, and whoever runs it starts
it again; then the flows of all wires are put back.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import structlog

from nsmesh.core.errors import Conflict, MeshError, Refused, Unavailable
from nsmesh.datapath import ovs_there
from nsmesh.datapath.ovs_database import Row, transact, unmapped
from nsmesh.datapath.ovs_dpdk import KINDS, SOCKETS, Sockets
from nsmesh.datapath.ovs_patches import FORWARDER, check_bridge, patch_port, read, reading, unplugged
from nsmesh.datapath.ovs_rows import FAILED, SwitchPort, put, select
from nsmesh.datapath.ovs_switch import BRIDGE, Switch
from nsmesh.datapath.ovs_uptake import look_again
from nsmesh.model.tunnels import BridgePort

log = structlog.get_logger()

USER_SPACE, KERNEL = "netdev", "system"
"""Types of datapaths: frames go through the switch's own process, or stay in the kernel."""
SHARED = "shared"
"""Name of a forwarder's folder for such a switch, beside those of switches of its own."""
PAUSE = 0.2
"""Seconds between two looks whether a switch is there again."""


class SharedSwitch(Switch):
    """A bridge of ``owner``'s at the switch whose database listens at ``database``.

    ``directory``, ``node``, ``bridge``, ``spares`` and ``ends`` as of :class:`Switch`. ``kind``: the type of
    the bridge's datapath. ``memory``: not 0 where wires may have ports of DPDK, which must run there already.
    """

    def __init__(
        self,
        directory: Path,
        node: str = "",
        bridge: str = BRIDGE,
        memory: int = 0,
        *,
        database: Path,
        owner: str,
        kind: str = USER_SPACE,
        spares: int = 0,
        ends: str = "",
    ) -> None:
        super().__init__(
            directory,
            node,
            bridge,
            memory,
            database=database,
            sockets=Sockets(directory, directory / SOCKETS, database.parent),
            spares=spares,
            ends=ends,
            forwarder=owner,
        )
        self._owner = owner
        self._kind = kind
        self._ready = False
        self._gone = ""
        """Which program has ended, from its end to its return."""

    async def ensure(self) -> None:
        """Have the bridge there, with the flows of all wires that have ports.

        Raises NotFound, Refused, Conflict or Unavailable, which say why that switch cannot be used (now).
        """
        if self._gone:
            raise Unavailable(
                f"the Open vSwitch at {self.database} is gone ({self._gone}), and not ours to start",
                remedy="start it: the wires come back with it",
            )
        await self._serve()

    def has_wires(self) -> bool:
        """See :meth:`Switch.has_wires`."""
        return self._ready or bool(self._gone) or super().has_wires()

    async def _serve(self) -> None:
        async with self._starting:
            if self._ready and self.flows.exists():
                return
            self.directory.mkdir(parents=True, exist_ok=True)
            await ovs_there.check(self.database, self._kind)
            if await self._bridge() is None:
                await self._new_bridge(self._kind, {FORWARDER: self._owner})
                await self.ports.put_back()
            await self._taken_up()
            await self._await_flows()
            ovs_there.check_home(self.flows, self._home)
            await self.ports.connect_again()
            self._ready = True

    async def _make_sockets_anew(self) -> None:
        """Have ports of DPDK made once more that failed: of a new switch some attempts do at first."""
        aside = await self.ports.set_aside(lambda row: row["type"] in KINDS and row["ofport"] == FAILED)
        if aside:
            try:
                await self.ports.hold(self.sockets.keeper())
            finally:
                await self.ports.bring_back(aside)

    async def _bridge(self) -> Row | None:
        """Return the row of our bridge, if it is there. Raises Conflict for one that is not like ours."""
        columns = ["_uuid", "external_ids", "datapath_type", "datapath_id"]
        found = (await transact(self.database, select("Bridge", columns, self.bridge)))[0]["rows"]
        if not found:
            return None
        row: Row = found[0]
        owner = unmapped(row["external_ids"]).get(FORWARDER, "")
        if owner != self._owner:
            raise Conflict(
                f"the switch at {self.database} has a bridge {self.bridge}, "
                + (f"which is that of {owner}" if owner else "which no forwarder has made"),
                remedy="choose another name by NSM_BRIDGE_NAME",
            )
        if row["datapath_type"] != self._kind:
            raise Conflict(
                f"the bridge {self.bridge} has a datapath of type {row['datapath_type']}, not {self._kind}",
                remedy=f"end it with its wires (ovs-vsctl del-br {self.bridge}), or leave NSM_DATAPATH_TYPE",
            )
        return row

    async def _taken_up(self) -> None:
        """Have the switch look at the bridge. Raises Refused where it cannot make it, and takes it away."""
        await look_again(self.database)
        row = await self._bridge()
        if row is None or row["datapath_id"] not in (["set", []], ""):
            return
        await leave(self.database, self._owner)
        why = ": the module openvswitch of the kernel is not here" if self._kind == KERNEL else ""
        raise Refused(
            f"the switch at {self.database} cannot make a bridge with a datapath of type {self._kind}{why}",
            remedy="see the log of its ovs-vswitchd, or set NSM_DATAPATH_TYPE to another one",
        )

    async def keep(self) -> None:
        """See :meth:`Switch.keep`: only its return is ours to see to."""
        with suppress(MeshError):
            await self.ensure()
        while True:
            self._gone = await ovs_there.end(self.database, self.flows)
            self._ready = False
            log.error(
                "the Open vSwitch of this node is gone: no wire of it works until whoever runs it starts it",
                program=self._gone,
                database=str(self.database),
            )
            self.sockets.sweep()
            await self._return()
            log.warning("the Open vSwitch of this node is back, and its wires with it", program=self._gone)
            self._gone = ""
            self.spares.look()
            await asyncio.sleep(PAUSE)

    async def _return(self) -> None:
        """Serve again as soon as that is possible."""
        said = ""
        while not self._ready:
            try:
                await self._serve()
                await self._make_sockets_anew()
            except MeshError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("the Open vSwitch of this node cannot be used", error=said)
                await asyncio.sleep(PAUSE)

    async def ensure_dpdk(self) -> None:
        """See :meth:`Switch.ensure_dpdk`: it must run there already; a port of ours keeps its buffers."""
        if not self.memory or not await ovs_there.has_dpdk(self.database):
            raise Refused(
                f"DPDK does not run in the switch at {self.database}",
                remedy="have it started there (ovs-vsctl set Open_vSwitch . other_config:dpdk-init=true)",
            )
        async with self._starting:
            if not self._has_dpdk:
                await self.ports.hold(self.sockets.keeper())
                self._has_dpdk = True

    async def _patch_port(self, name: str, end: BridgePort) -> SwitchPort:
        await check_bridge(self.database, end, self._kind)
        return patch_port(name, end, self._owner)

    async def stop(self) -> None:
        """Take the bridge away with all of its ports: the switch is as it was, and runs on."""
        self._ready = False
        try:
            await leave(self.database, self._owner)
        except Unavailable as error:
            log.warning(
                "our bridge stays at the Open vSwitch of this node", bridge=self.bridge, error=str(error)
            )
        self.spares.take_away()
        self.ports.forget()


async def leave(database: Path, owner: str) -> list[str]:
    """Take away the bridges of a forwarder with all of their ports, and its ports in bridges of others.

    Return their names, the bridges first. Raises Unavailable where the database does not answer; a switch
    that does not gets to know later.
    """
    wanted = select("Bridge", ["_uuid", "name", "external_ids"])
    bridges, *ports = await transact(database, wanted, *reading(owner))
    mine = [row for row in bridges["rows"] if unmapped(row["external_ids"]).get(FORWARDER) == owner]
    far, uuids = read(ports)
    if mine or far:
        gone = ["set", [row["_uuid"] for row in mine]]
        await transact(database, put("Open_vSwitch", [], "bridges", "delete", gone), *unplugged(uuids))
        with suppress(Refused):
            await look_again(database)
    return [*(f"bridge {row['name']}" for row in mine), *(f"port {name}" for name in far)]
