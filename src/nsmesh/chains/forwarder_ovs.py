"""The forwarder of Open vSwitch, running: its switch is kept alive while it is, and stays when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nsmesh.chains.forwarder import Forwarder
from nsmesh.chains.roles import running_forwarder
from nsmesh.chains.runtime import Runtime
from nsmesh.chains.settings_ovs import OvsForwarderSettings
from nsmesh.datapath import netns
from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.mechanisms.kernel import Kernel


@asynccontextmanager
async def running_ovs_forwarder(settings: OvsForwarderSettings, runtime: Runtime) -> AsyncIterator[Forwarder]:
    """Run a forwarder of wires through a switch of its own while the block runs; the switch stays.

    Raises NotFound without Open vSwitch, Unavailable where it does not start.
    """
    datapath = OvsDatapath(
        Path(settings.switch_directory),
        owner=f"forwarder:{settings.name}",
        namespaces=netns.named,
        node=settings.switch_netns,
        bridge=settings.bridge_name,
    )
    async with (
        keeping(datapath.switch),
        running_forwarder(settings.plain, runtime, datapath, [Kernel()]) as forwarder,
    ):
        yield forwarder
