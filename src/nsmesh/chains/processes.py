"""One role, one process: what ``nsm run`` calls."""

from __future__ import annotations

import asyncio

import structlog

from nsmesh.chains.client import client
from nsmesh.chains.registry import running_registry
from nsmesh.chains.roles import running_forwarder, running_nsmgr
from nsmesh.chains.runtime import runtime_of
from nsmesh.chains.settings import ForwarderSettings, NscSettings, NsmgrSettings, RegistrySettings
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain
from nsmesh.core.errors import Invalid, MeshError
from nsmesh.datapath import netns
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.mechanisms.kernel import OWN_NAMESPACE, Kernel
from nsmesh.model.messages import LOCAL, Connection, Mechanism, NetworkServiceRequest
from nsmesh.model.nsurl import NetworkServiceUrl, NsUrlError, parse_list

log = structlog.get_logger()

PAUSE = 0.2
"""Seconds between two tries of a client."""


async def serve_nsmgr(settings: NsmgrSettings, stop: asyncio.Event) -> None:
    """Run a manager until ``stop``."""
    async with (
        runtime_of(settings, settings.dial_timeout) as held,
        running_nsmgr(settings, held),
    ):
        await stop.wait()


async def serve_forwarder(settings: ForwarderSettings, stop: asyncio.Event) -> None:
    """Run a forwarder of kernel wires until ``stop``."""
    datapath = LinuxDatapath(owner=f"forwarder:{settings.name}", namespaces=netns.named)
    async with (
        runtime_of(settings, settings.dial_timeout) as held,
        running_forwarder(settings, held, datapath, [Kernel()]),
    ):
        await stop.wait()


async def serve_registry(settings: RegistrySettings, stop: asyncio.Event, *, sqlite: bool) -> None:
    """Run a registry, in memory or in a file, until ``stop``."""
    async with (
        runtime_of(settings, 1.0) as held,
        running_registry(
            settings, held, sqlite=sqlite, front=held.registry_front(settings.registry_server_policies)
        ),
    ):
        await stop.wait()


async def serve_nsc(settings: NscSettings, stop: asyncio.Event) -> None:
    """Run a client until ``stop``; its wires are closed then."""
    try:
        urls = parse_list(",".join(settings.network_services))
    except NsUrlError as error:
        raise Invalid(f"NSM_NETWORK_SERVICES: {error}") from error
    if not urls:
        raise Invalid(
            "NSM_NETWORK_SERVICES names no service", remedy="set it: kernel://SERVICE/INTERFACE?label=value"
        )
    async with runtime_of(settings, settings.dial_timeout) as held:
        chain = client(
            settings.name,
            manager=settings.connect_to,
            peers=held.peers,
            tokens=held.tokens,
            checks=held.checks(),
            dial_timeout=settings.dial_timeout,
            clock=held.clock,
        )
        async with chain.running():
            work = chain.scope.spawn(_keep(settings, chain, urls), name="requests")
            await stop.wait()
            work.cancel()
            await asyncio.wait([work])
            await _close(settings, chain, len(urls))


async def _keep(settings: NscSettings, chain: Chain, urls: list[NetworkServiceUrl]) -> None:
    place = f"file://{settings.netns}" if settings.netns else OWN_NAMESPACE
    for number, url in enumerate(urls):
        parameters = {"inodeURL": place} | ({"name": url.interface} if url.interface else {})
        while True:
            request = NetworkServiceRequest(
                connection=Connection(
                    id=f"{settings.name}-{number}", network_service=url.service, labels=dict(url.labels)
                ),
                mechanism_preferences=[Mechanism(cls=LOCAL, type=url.mechanism, parameters=parameters)],
            )
            call = Call(peer=Peer(in_process=True)).within(settings.request_timeout)
            try:
                connection = await chain.request(call, request)
            except MeshError as error:
                log.warning("request failed", connection=request.connection.id, error=str(error))
                await asyncio.sleep(PAUSE)
            else:
                log.info(
                    "wire up",
                    connection=connection.id,
                    endpoint=connection.network_service_endpoint_name,
                    addresses=list(connection.context.ip_context.src_ip_addrs),
                )
                break
    log.info("all wires are up", wires=len(urls))


async def _close(settings: NscSettings, chain: Chain, wires: int) -> None:
    for number in range(wires):
        connection = Connection(id=f"{settings.name}-{number}")
        connection.path.path_segments.add(name=settings.name, id=connection.id)
        try:
            await chain.close(Call(peer=Peer(in_process=True)).within(settings.request_timeout), connection)
        except MeshError as error:
            log.warning("close failed", connection=connection.id, error=str(error))
