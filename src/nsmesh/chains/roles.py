"""Roles, running: each serves its sockets, registers where it has to, and cleans up when it is left.

``nsm run`` starts one of them per process; the standalone mode starts several in one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from nsmesh.chains.both import Both
from nsmesh.chains.endpoint import registration
from nsmesh.chains.forwarder import Forwarder
from nsmesh.chains.mirrored import mirrored, outcomes_for
from nsmesh.chains.nsmgr import Nsmgr
from nsmesh.chains.runtime import Runtime, served
from nsmesh.chains.settings import ForwarderSettings, NsmgrSettings
from nsmesh.chains.shared_service import provided, register_when_gone
from nsmesh.chains.tunnels import described, lacking
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain
from nsmesh.core.ending import hands_over
from nsmesh.core.errors import MeshError, Unauthorized
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.datapath.base import Datapath
from nsmesh.datapath.node_echoes import NodeEchoes
from nsmesh.datapath.path_mtu import PathMtus
from nsmesh.datapath.underlay import Underlay
from nsmesh.model.messages import Entry, NetworkServiceEndpoint, NetworkServiceLabels

log = structlog.get_logger()

UNREGISTER = 2.0
"""Seconds that an Unregister at the end of a role may take."""
TOGETHER = 0.001
"""Seconds that a forwarder's answers wait for others: a wire takes as long, and a manager has time then."""


def public_url(urls: tuple[str, ...]) -> str:
    """Return the URL that others are told: the last tcp one, else the first."""
    return next((url for url in reversed(urls) if not url.startswith("unix:")), urls[0])


@asynccontextmanager
async def running_nsmgr(settings: NsmgrSettings, runtime: Runtime) -> AsyncIterator[Nsmgr]:
    """Run a manager while the block runs."""
    outcomes = outcomes_for(settings)
    manager = Nsmgr(
        settings.name,
        public_url(settings.listen_on),
        registry=settings.registry_url,
        peers=runtime.peers,
        tokens=runtime.tokens,
        labels=settings.place,
        excluded_prefixes_file=settings.excluded_prefixes_file,
        policies=runtime.policies(settings.connection_policies),
        registry_front=runtime.registry_front(settings.registry_server_policies),
        registry_checks=runtime.registry_checks(settings.registry_client_policies),
        forwarder_service=settings.forwarder_network_service_name,
        quota=settings.max_connections_per_identity,
        outcomes=(outcomes,) if outcomes else (),
        dial_timeout=settings.dial_timeout,
        journal=runtime.journal,
        clock=runtime.clock,
    )
    async with (
        manager.registry.running(),
        manager.onward.running(),
        manager.server.running(),
        served(
            runtime,
            settings.listen_on,
            Both(manager.server, manager.registry),
            registry=True,
            everybody=settings.open_socket,
        ) as urls,
        mirrored(settings, manager.server, outcomes),
    ):
        log.info("manager ready", name=settings.name, urls=urls)
        yield manager


@asynccontextmanager
async def running_forwarder(
    settings: ForwarderSettings,
    runtime: Runtime,
    datapath: Datapath,
    mechanisms: list[MechanismPlugin],
) -> AsyncIterator[Forwarder]:
    """Run a forwarder while the block runs; registers through its manager once that is there."""
    register = registration(
        settings.name,
        manager=settings.connect_to,
        peers=runtime.peers,
        tokens=runtime.tokens,
        finds=True,
        checks=runtime.registry_checks(settings.registry_client_policies),
        dial_timeout=settings.dial_timeout,
        clock=runtime.clock,
    )
    forwarder = Forwarder(
        settings.name,
        registry=register,
        datapath=datapath,
        mechanisms=mechanisms,
        peers=runtime.peers,
        tokens=runtime.tokens,
        policies=runtime.policies(settings.connection_policies),
        paths=PathMtus(Underlay(settings.tunnel_ip)) if settings.tunnel_ip else None,
        echoes=NodeEchoes(settings.tunnel_ip) if settings.tunnel_ip else None,
        watch_interval=settings.node_watch_interval,
        dial_timeout=settings.dial_timeout,
        lifetime=settings.max_token_lifetime,
        journal=runtime.journal,
        clock=runtime.clock,
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(datapath.aclose)
        await stack.enter_async_context(register.running())
        await stack.enter_async_context(forwarder.registry.running())
        await stack.enter_async_context(forwarder.onward.running())
        await stack.enter_async_context(forwarder.server.running())
        urls = await stack.enter_async_context(
            served(runtime, (settings.listen_on,), forwarder.server, together=TOGETHER)
        )
        labels = described(settings.labels, mechanisms, lacking(settings))
        entry = NetworkServiceEndpoint(
            name=settings.name,
            network_service_names=[settings.nsname],
            network_service_labels={settings.nsname: NetworkServiceLabels(labels=labels)},
            url=urls[0],
        )
        await stack.enter_async_context(registered(register, [entry]))
        log.info("forwarder ready", name=settings.name, urls=urls)
        yield forwarder


@asynccontextmanager
async def registered(
    chain: Chain,
    entries: list[Entry],
    *,
    unregister: bool = True,
    done: Callable[[], None] = lambda: None,
) -> AsyncIterator[None]:
    """Register entries, in order and in the background, until it worked; ``done`` is called then.

    A service that somebody else has registered, with the same payload, is used as it is. On leaving,
    endpoints are unregistered (services stay: others may provide them), unless a successor goes on under
    their names.
    """
    stored: list[Entry] = []
    looking: list[asyncio.Task[None]] = []

    async def work() -> None:
        for entry in entries:
            answer = await _until_registered(chain, entry)
            if answer is not None:
                stored.append(answer)
            else:
                look = register_when_gone(chain, entry)
                looking.append(chain.scope.spawn(look, name=f"look after {entry.name}"))
        done()

    task = chain.scope.spawn(work(), name="registration")
    try:
        yield
    finally:
        for one in (task, *looking):
            one.cancel()
        await asyncio.wait([task, *looking])
        for entry in reversed(stored):
            if unregister and not hands_over() and isinstance(entry, NetworkServiceEndpoint):
                try:
                    await chain.unregister(Call(peer=Peer(in_process=True)).within(UNREGISTER), entry)
                except MeshError as error:
                    log.info("not unregistered", name=entry.name, error=str(error))


async def _until_registered(chain: Chain, entry: Entry) -> Entry | None:
    """Return what was stored, once it worked; None for a service that somebody else has registered."""
    while True:
        try:
            stored = await chain.register(Call(peer=Peer(in_process=True)), entry)
        except MeshError as error:
            if isinstance(error, Unauthorized) and await provided(chain, entry):
                log.info("provided by others, too", name=entry.name)
                return None
            log.warning("not registered yet", name=entry.name, error=str(error))
            await asyncio.sleep(0.2)
        else:
            log.info("registered", name=entry.name)
            return stored
