"""The forwarder of Open vSwitch, running: its switch is kept alive while it is, and stays when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import structlog

from nsmesh.chains.forwarder import Forwarder
from nsmesh.chains.roles import running_forwarder
from nsmesh.chains.runtime import Runtime
from nsmesh.chains.settings import ForwarderSettings
from nsmesh.chains.settings_ovs import OvsForwarderSettings
from nsmesh.chains.tunnels import mechanisms_of
from nsmesh.chains.uplinks import Bridged
from nsmesh.core.errors import Conflict, Invalid
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.datapath import netns
from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_patches import bridge_mtu
from nsmesh.datapath.ovs_programs import lacks_dpdk, running
from nsmesh.datapath.ovs_shared import SHARED, SharedSwitch
from nsmesh.datapath.ovs_switch import Switch
from nsmesh.datapath.ovs_there import has_dpdk, path_of
from nsmesh.mechanisms.memif import Memif
from nsmesh.mechanisms.vhost_user import VhostUser
from nsmesh.mechanisms.vlan import Way
from nsmesh.model.messages import MEMIF, SRV6, WIREGUARD
from nsmesh.model.tunnels import BridgePort

log = structlog.get_logger()

NOT_HERE = frozenset({WIREGUARD, SRV6})
"""Mechanisms of the kernel's forwarder that need bare packets or routes of the kernel's own."""


def mechanisms_of_switch(
    settings: ForwarderSettings, sockets: Path | None, bridged: Bridged | None = None
) -> list[MechanismPlugin]:
    """Return the mechanisms of a forwarder with a switch, in the order in which it offers them.

    ``sockets``: the folder in which the switch listens; None: it has no DPDK, and memif is handed on alone.
    ``bridged`` as of :func:`nsmesh.chains.uplinks.vlans`. Raises Invalid as
    :func:`nsmesh.chains.tunnels.mechanisms_of`.
    """
    wired = mechanisms_of(settings, bridged, framed=True)
    found = [plugin for plugin in wired if plugin.type not in NOT_HERE]
    if sockets is None:
        return found
    own: dict[str, MechanismPlugin] = {MEMIF: Memif(folder=str(sockets))}
    return [*(own.get(plugin.type, plugin) for plugin in found), VhostUser(folder=str(sockets))]


def _own_switch(settings: OvsForwarderSettings) -> Switch:
    """Return the switch of a forwarder that runs one itself."""
    memory = settings.dpdk_memory
    if memory and (why := lacks_dpdk()):
        log.info("memif and vhost-user are not wired by the switch", why=why)
        memory = 0
    return OwnSwitch(
        Path(settings.switch_directory),
        settings.switch_netns,
        settings.bridge_name,
        memory,
        spares=settings.spare_wires,
        ends=settings.spare_netns,
    )


def shared_switch(settings: OvsForwarderSettings, memory: int = 0) -> SharedSwitch:
    """Return the switch of somebody else that a forwarder uses. Raises Invalid for settings."""
    return SharedSwitch(
        Path(settings.switch_directory) / SHARED,
        settings.switch_netns,
        settings.bridge_name,
        memory,
        database=path_of(settings.switch_database),
        owner=_owner(settings),
        kind=settings.datapath_type,
        spares=settings.spare_wires,
        ends=settings.spare_netns,
    )


async def _switch_there(settings: OvsForwarderSettings) -> Switch:
    """Return the switch of somebody else, with ports of DPDK where that runs there.

    Raises Conflict where a switch of the forwarder's own runs as well, and as :meth:`SharedSwitch.ensure`.
    """
    own = Path(settings.switch_directory) / "ovs-vswitchd.pid"
    if pid := running(own, "ovs-vswitchd"):
        raise Conflict(
            f"a switch of this forwarder's own runs in {own.parent} (pid {pid}), and may have its wires",
            remedy="end it (ovs-appctl exit --cleanup), or set another NSM_SWITCH_DIRECTORY",
        )
    plain = shared_switch(settings)
    await plain.ensure()
    if not settings.dpdk_memory or not await has_dpdk(plain.database):
        log.info("memif and vhost-user are not wired by the switch", why="DPDK does not run there")
        return plain
    await plain.ports.close()
    return shared_switch(settings, settings.dpdk_memory)


def bridged_at(settings: OvsForwarderSettings) -> Bridged:
    """Return what makes ways to VLANs by the bridges of somebody else's switch."""
    database = path_of(settings.switch_database)

    def bridged(via: str, bridge: str) -> Way:
        def way(vlan: int) -> BridgePort:
            wanted = BridgePort(bridge, vlan, via=via)
            return replace(wanted, mtu=bridge_mtu(wanted, settings.switch_netns, database))

        return way

    return bridged


def _owner(settings: OvsForwarderSettings) -> str:
    return f"forwarder:{settings.name}"


@asynccontextmanager
async def running_ovs_forwarder(settings: OvsForwarderSettings, runtime: Runtime) -> AsyncIterator[Forwarder]:
    """Run a forwarder of wires through a switch while the block runs; the switch and its wires stay.

    Raises NotFound without Open vSwitch, Unavailable where it does not start, Invalid for settings.
    """
    shared = bool(settings.switch_database)
    most = 1 if shared else settings.most_switches
    apart = settings.memif_apart
    if apart and most == 1:
        why = "NSM_SWITCH_DATABASE is somebody else's" if shared else "NSM_MOST_SWITCHES is 1"
        raise Invalid(
            f"NSM_MEMIF_APART needs a switch for each memif wire, and {why}", remedy="unset one of them"
        )
    first = await _switch_there(settings) if shared else _own_switch(settings)
    datapath = OvsDatapath(first, owner=_owner(settings), namespaces=netns.named, most=most, apart=apart)
    plain = settings.plain
    mechanisms = mechanisms_of_switch(
        plain,
        first.sockets.listening if first.memory else None,
        bridged_at(settings) if shared else None,
    )
    async with (
        keeping(datapath.switches),
        running_forwarder(plain, runtime, datapath, mechanisms) as forwarder,
    ):
        yield forwarder
