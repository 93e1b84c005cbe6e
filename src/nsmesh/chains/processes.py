"""One role, one process: what ``nsm run`` calls. Each imports what it is made of, and starts sooner so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nsmesh.chains.runtime import runtime_of

if TYPE_CHECKING:
    from nsmesh.chains.settings import (
        ForwarderSettings,
        KubernetesRegistrySettings,
        NsmgrSettings,
        RegistrySettings,
    )
    from nsmesh.chains.settings_nsc import NscInitSettings, NscSettings
    from nsmesh.chains.settings_ovs import OvsForwarderSettings


async def serve_nsmgr(settings: NsmgrSettings, stop: asyncio.Event) -> None:
    """Run a manager until ``stop``."""
    from nsmesh.chains.roles import running_nsmgr  # noqa: PLC0415 - what one role needs

    async with (
        runtime_of(settings, settings.dial_timeout) as held,
        running_nsmgr(settings, held),
    ):
        await stop.wait()


async def serve_forwarder(settings: ForwarderSettings, stop: asyncio.Event) -> None:
    """Run a forwarder of kernel wires, here and to other nodes, until ``stop``."""
    from nsmesh.chains.roles import running_forwarder  # noqa: PLC0415 - likewise
    from nsmesh.chains.tunnels import mechanisms_of  # noqa: PLC0415 - likewise
    from nsmesh.chains.uplinks import driver_of  # noqa: PLC0415 - likewise
    from nsmesh.datapath import netns  # noqa: PLC0415 - likewise

    mechanisms = mechanisms_of(settings)
    datapath = driver_of(settings, owner=f"forwarder:{settings.name}", namespaces=netns.named)
    async with (
        runtime_of(settings, settings.dial_timeout) as held,
        running_forwarder(settings, held, datapath, mechanisms),
    ):
        await stop.wait()


async def serve_ovs_forwarder(settings: OvsForwarderSettings, stop: asyncio.Event) -> None:
    """Run a forwarder of wires through a switch of its own until ``stop``; the switch stays.

    Raises NotFound without Open vSwitch, Unavailable where it does not start.
    """
    from nsmesh.chains.forwarder_ovs import running_ovs_forwarder  # noqa: PLC0415 - when it runs

    async with (
        runtime_of(settings, settings.dial_timeout) as held,
        running_ovs_forwarder(settings, held),
    ):
        await stop.wait()


async def serve_registry(settings: RegistrySettings, stop: asyncio.Event, *, sqlite: bool) -> None:
    """Run a registry, in memory or in a file, until ``stop``."""
    from nsmesh.chains.registry import running_registry  # noqa: PLC0415 - likewise

    async with (
        runtime_of(settings, 1.0) as held,
        running_registry(
            settings, held, sqlite=sqlite, front=held.registry_front(settings.registry_server_policies)
        ),
    ):
        await stop.wait()


async def serve_kubernetes_registry(settings: KubernetesRegistrySettings, stop: asyncio.Event) -> None:
    """Run a registry whose memory is the API server, until ``stop``."""
    from nsmesh.chains.registry_kubernetes import running_kubernetes_registry  # noqa: PLC0415 - an extra

    async with (
        runtime_of(settings, 1.0) as held,
        running_kubernetes_registry(
            settings, held, front=held.registry_front(settings.registry_server_policies, recorded=True)
        ),
    ):
        await stop.wait()


async def serve_nsc(settings: NscSettings, stop: asyncio.Event) -> None:
    """Run a client until ``stop``; its wires are closed then."""
    from nsmesh.chains.nsc import running_nsc  # noqa: PLC0415 - likewise
    from nsmesh.chains.wanted import wanted_services  # noqa: PLC0415 - likewise

    wanted_services(settings)  # before anybody is asked for an identity
    async with (
        runtime_of(settings, settings.dial_timeout) as held,
        running_nsc(settings, held),
    ):
        await stop.wait()


async def serve_nsc_init(settings: NscInitSettings, stop: asyncio.Event) -> None:
    """Run the client of an init container until all its wires are up, or ``stop``; the wires stay."""
    from nsmesh.chains.nsc_init import ask_once, initial_client  # noqa: PLC0415 - likewise
    from nsmesh.chains.wanted import wanted_services  # noqa: PLC0415 - likewise

    wanted_services(settings)
    async with runtime_of(settings, settings.dial_timeout) as held, initial_client(settings, held) as chain:
        work = chain.scope.spawn(ask_once(settings, chain), name="requests")
        ended = chain.scope.spawn(_until(stop), name="stop")
        await asyncio.wait((work, ended), return_when=asyncio.FIRST_COMPLETED)


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
