"""The forwarder of Open vSwitch, running: its switch is kept alive while it is, and stays when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from nsmesh.chains.forwarder import Forwarder
from nsmesh.chains.roles import running_forwarder
from nsmesh.chains.runtime import Runtime
from nsmesh.chains.settings import ForwarderSettings
from nsmesh.chains.settings_ovs import OvsForwarderSettings
from nsmesh.chains.tunnels import mechanisms_of
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.datapath import netns
from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_dpdk import SOCKETS
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_programs import lacks_dpdk
from nsmesh.mechanisms.memif import Memif
from nsmesh.mechanisms.vhost_user import VhostUser
from nsmesh.model.messages import MEMIF, SRV6, VLAN, WIREGUARD

log = structlog.get_logger()

NOT_HERE = frozenset({WIREGUARD, SRV6, VLAN})
"""Mechanisms of the kernel's forwarder that need bare packets or the kernel's own bridges."""


def mechanisms_of_switch(settings: ForwarderSettings, sockets: Path | None) -> list[MechanismPlugin]:
    """Return the mechanisms of a forwarder with a switch, in the order in which it offers them.

    ``sockets``: the folder in which the switch listens; None: it has no DPDK, and memif is handed on alone.
    Raises Invalid as :func:`nsmesh.chains.tunnels.mechanisms_of`.
    """
    found = [plugin for plugin in mechanisms_of(settings) if plugin.type not in NOT_HERE]
    if sockets is None:
        return found
    own: dict[str, MechanismPlugin] = {MEMIF: Memif(folder=str(sockets))}
    wired = [own.get(plugin.type, plugin) for plugin in found]
    return [*wired, VhostUser(folder=str(sockets))]


@asynccontextmanager
async def running_ovs_forwarder(settings: OvsForwarderSettings, runtime: Runtime) -> AsyncIterator[Forwarder]:
    """Run a forwarder of wires through a switch of its own while the block runs; the switch stays.

    Raises NotFound without Open vSwitch, Unavailable where it does not start, Invalid for settings.
    """
    memory = settings.dpdk_memory
    if memory and (why := lacks_dpdk()):
        log.info("memif and vhost-user are not wired by the switch", why=why)
        memory = 0
    folder = Path(settings.switch_directory)
    first = OwnSwitch(
        folder,
        settings.switch_netns,
        settings.bridge_name,
        memory,
        spares=settings.spare_wires,
        ends=settings.spare_netns,
    )
    datapath = OvsDatapath(
        first, owner=f"forwarder:{settings.name}", namespaces=netns.named, most=settings.most_switches
    )
    plain = settings.plain
    mechanisms = mechanisms_of_switch(plain, folder / SOCKETS if memory else None)
    async with (
        keeping(datapath.switches),
        running_forwarder(plain, runtime, datapath, mechanisms) as forwarder,
    ):
        yield forwarder
