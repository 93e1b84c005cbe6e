"""A switch as its wires see it: one bridge with ports and flows. Who runs it is left open."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from pathlib import Path

from nsmesh.core.errors import Unavailable
from nsmesh.datapath import netns
from nsmesh.datapath.base import TunnelRefused
from nsmesh.datapath.ovs_database import Row, mapping, transact
from nsmesh.datapath.ovs_dpdk import Sockets, is_socket
from nsmesh.datapath.ovs_ends import default_place
from nsmesh.datapath.ovs_pairs import PairedPorts
from nsmesh.datapath.ovs_rows import SwitchPort, named, new_port, put
from nsmesh.datapath.ovs_spares import Spares
from nsmesh.datapath.ovs_uptake import PATIENCE
from nsmesh.model.tunnels import BridgePort
from nsmesh.model.wire import CrossConnect, Port

BRIDGE = "br-nsm"


class Switch(ABC):
    """One bridge of a switch that lives in the network namespace ``node``; empty: this process's.

    ``directory``: where sockets and links of its wires are. ``database``: the socket of its database.
    ``memory``: MiB that DPDK may have, once there is a port that needs it; 0: there will be none.
    ``spares``: pairs of ports in advance, whose other ends wait in the namespace at ``ends``; empty: one that
    is made for it. ``sockets``: those of its ports. ``forwarder``: whose ports in bridges of others are.
    """

    def __init__(
        self,
        directory: Path,
        node: str = "",
        bridge: str = BRIDGE,
        memory: int = 0,
        *,
        database: Path,
        sockets: Sockets,
        spares: int = 0,
        ends: str = "",
        forwarder: str = "",
    ) -> None:
        self.directory = directory
        self.node = node
        self.bridge = bridge
        self.database = database
        self.flows = database.parent / f"{bridge}.mgmt"
        self.memory = memory
        self.sockets = sockets
        self.ports = PairedPorts(bridge, database, self.flows, memory, forwarder)
        self._home = node or netns.of_pid(os.getpid())
        self.spares = Spares(self.ports, self._home, ends or default_place(directory), spares)
        self._has_dpdk = False
        self._starting = asyncio.Lock()

    @abstractmethod
    async def ensure(self) -> None:
        """Have it serve, with the flows of all wires that have ports. Raises MeshError where it does not."""

    @abstractmethod
    async def keep(self) -> None:
        """See to it for ever that it serves again when it has died."""

    @abstractmethod
    async def stop(self) -> None:
        """End it as far as it is ours; wires through it end with that."""

    @abstractmethod
    async def ensure_dpdk(self) -> None:
        """Have DPDK ready for ports. Raises Refused where there is none, Unavailable where it fails."""

    async def port(self, name: str, end: Port, wire: CrossConnect) -> SwitchPort:
        """Return the port of an end that is nothing of the kernel's: a socket, or a bridge of others.

        Raises as :meth:`Sockets.port`, and TunnelRefused where the bridge is not there.
        """
        if isinstance(end, BridgePort):
            return await self._patch_port(name, end)
        assert is_socket(end)
        return self.sockets.port(name, end, wire)

    async def _patch_port(self, name: str, end: BridgePort) -> SwitchPort:  # noqa: ARG002 - of others
        raise TunnelRefused(
            f"via {end.via} leads to the bridge {end.bridge}, and this forwarder has a switch of its own",
            remedy="have it use the one that has that bridge (NSM_SWITCH_DATABASE, nsm up --switch)",
        )

    def has_wires(self) -> bool:
        """Whether it may have wires: it has run, though it may be away just now."""
        return self.flows.exists()

    async def renewed(self) -> bool:
        """Have another ``ovs-vswitchd`` where DPDK has used its memory up; return whether it was so."""
        return False

    async def dpdk_memory(self) -> dict[tuple[str, ...], float]:
        """Return the bytes of DPDK, free and used; nothing where it does not tell."""
        return {}

    async def _new_bridge(self, kind: str, marks: dict[str, str]) -> None:
        """Add the bridge to the database: its datapath is of a kind, and only our flows forward there."""
        bridge: Row = {
            "name": self.bridge,
            "datapath_type": kind,
            "fail_mode": "secure",
            "external_ids": mapping(marks),
            "ports": named(self.bridge),
        }
        await transact(
            self.database,
            *new_port(SwitchPort(self.bridge, "internal")),
            {"op": "insert", "table": "Bridge", "row": bridge, "uuid-name": "b"},
            put("Open_vSwitch", [], "bridges", "insert", ["named-uuid", "b"]),
        )

    async def _await_flows(self) -> None:
        """Wait until the bridge takes flows. Raises Unavailable where it does not."""
        for _ in range(PATIENCE // 20):
            if self.flows.exists():
                return
            await asyncio.sleep(0.02)
        raise Unavailable(
            f"ovs-vswitchd does not make its bridge in {self.flows.parent}",
            remedy="see the log of ovs-vswitchd",
        )
