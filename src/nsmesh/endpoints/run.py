"""An endpoint as a process: options, chain, socket, registration, end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from nsmesh import rpc
from nsmesh.api import control_pb2
from nsmesh.chains.endpoint import PassthroughEndpoint, endpoint, registration
from nsmesh.chains.roles import registered
from nsmesh.chains.runtime import Runtime, runtime_of, served
from nsmesh.chains.settings import NseSettings
from nsmesh.core.audit import orphans, unclosed
from nsmesh.core.element import Chain
from nsmesh.core.errors import Invalid, MeshError, Unauthorized
from nsmesh.datapath.addresses import reachable_address
from nsmesh.endpoints.base import Endpoint, Hooks, find_type
from nsmesh.endpoints.idle import Idle
from nsmesh.endpoints.options import read_options
from nsmesh.mechanisms.kernel import OWN_NAMESPACE, Kernel
from nsmesh.model.control import ENDPOINT_STATUS
from nsmesh.model.messages import Entry, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels

log = structlog.get_logger()

OPTIONS = "NSM_ENDPOINT_OPTIONS"
"""Variable with the options of a manifest, as JSON."""


def make(kind: str, settings: NseSettings, environment: Mapping[str, str]) -> Endpoint:
    """Return the endpoint of a type with its options read; raises Invalid (all mistakes) or NotFound."""
    cls = find_type(kind)
    try:
        given = json.loads(environment.get(OPTIONS) or "{}")
    except ValueError as error:
        raise Invalid(f"{OPTIONS} is no JSON: {error}") from error
    options = read_options(cls.Options, given, environment, endpoint=settings.name)
    return cls(settings.name, options)


async def serve_endpoint(kind: str, settings: NseSettings, stop: asyncio.Event) -> None:
    """Run an endpoint until ``stop``; it unregisters where it is told to, and closes what it opened."""
    function = make(kind, settings, os.environ)
    async with (
        runtime_of(settings, settings.dial_timeout) as held,
        running_endpoint(function, settings, held, stop) as chain,
    ):
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGHUP, lambda: chain.scope.spawn(_reload(function), name="reload")
        )
        log.info("endpoint ready", name=settings.name, type=kind, services=settings.services)
        await stop.wait()


@asynccontextmanager
async def running_endpoint(
    function: Endpoint, settings: NseSettings, runtime: Runtime, stop: asyncio.Event
) -> AsyncIterator[Chain]:
    """Run an endpoint while the block runs; it registers in the background. It may set ``stop`` itself."""
    services = _services(function, settings)
    place = f"file://{settings.netns}" if settings.netns else OWN_NAMESPACE
    async with AsyncExitStack() as stack:
        chain = await _chain(function, settings, runtime, place, stop, stack)
        listen = settings.listen_on
        if ":" not in listen and "/" not in listen:
            listen = f"unix://{_private_folder(stack)}/{listen or 'listen.on.sock'}"
        urls = await stack.enter_async_context(served(runtime, (listen,), chain, extra=_status(function)))
        register = registration(
            settings.name,
            manager=settings.connect_to,
            peers=runtime.peers,
            tokens=runtime.tokens,
            by_manager=function.by_manager,
            checks=runtime.registry_checks(settings.registry_client_policies),
            dial_timeout=settings.dial_timeout,
            clock=runtime.clock,
        )
        await stack.enter_async_context(register.running())
        entries = _entries(settings, services, _public(urls[0]))
        await stack.enter_async_context(registered(register, entries, unregister=settings.unregister_itself))
        yield chain


async def _chain(
    function: Endpoint,
    settings: NseSettings,
    held: Runtime,
    place: str,
    stop: asyncio.Event,
    stack: AsyncExitStack,
) -> Chain:
    if function.passthrough:
        middle = PassthroughEndpoint(
            settings.name,
            *function.elements(),
            Hooks(function),
            labels=settings.labels,
            manager=settings.connect_to,
            serves=[Kernel(inode_url=place, unnumbered=True)],
            asks=[Kernel(inode_url=place, unnumbered=True)],
            peers=held.peers,
            tokens=held.tokens,
            policies=held.policies(settings.connection_policies),
            dial_timeout=settings.dial_timeout,
            journal=held.journal,
            clock=held.clock,
        )
        await stack.enter_async_context(middle.onward.running())
        return await stack.enter_async_context(middle.server.running())
    timeout = getattr(function.options, "idle_timeout", 0.0)
    chain = endpoint(
        settings.name,
        Idle(timeout, stop.set),
        *function.elements(),
        Hooks(function),
        mechanisms=function.mechanisms(place),
        tokens=held.tokens,
        policies=held.policies(settings.connection_policies),
        journal=held.journal,
        clock=held.clock,
    )
    return await stack.enter_async_context(chain.running())


def _services(function: Endpoint, settings: NseSettings) -> dict[str, Mapping[str, str]]:
    """Return the services to provide, with the labels that each has by itself; raises Invalid."""
    offered = function.offers()
    services = {name: offered.get(name, {}) for name in settings.services or offered}
    if not services:
        raise Invalid(
            "this endpoint provides no service",
            remedy="set NSM_SERVICE_NAMES, or NSM_SERVICES for a remote-vlan",
        )
    unknown = [name for name in services if offered and name not in offered]
    if unknown:
        raise Invalid(
            f"the options of endpoint {settings.name} do not say what {', '.join(unknown)} is",
            remedy=f"they have {', '.join(offered)}",
        )
    return services


def _public(url: str) -> str:
    """Return a URL at which others reach us: one that names no host gets an address of ours."""
    if not url.startswith("tcp://:"):
        return url
    address = reachable_address()
    return f"tcp://[{address}]{url[6:]}" if ":" in address else f"tcp://{address}{url[6:]}"


def _entries(settings: NseSettings, offered: Mapping[str, Mapping[str, str]], url: str) -> list[Entry]:
    services: list[Entry] = []
    if settings.register_service:
        services = [NetworkService(name=name, payload=settings.payload) for name in offered]
    common = {**settings.place, **settings.labels}
    entry = NetworkServiceEndpoint(
        name=settings.name,
        network_service_names=list(offered),
        network_service_labels={
            name: NetworkServiceLabels(labels={**common, **labels}) for name, labels in offered.items()
        },
        url=url,
    )
    return [*services, entry]


def _private_folder(stack: AsyncExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nse-")))


def _status(function: Endpoint) -> dict[str, rpc.Method]:
    """Return the method by which a mesh asks how its endpoint is; others of this host's user may ask too."""

    async def status(call: rpc.ServerCall, body: bytes) -> bytes:  # noqa: ARG001 - the face of a method
        if call.peer.uid not in {0, os.geteuid()}:
            raise Unauthorized("the status of an endpoint is for its mesh alone")
        tables = {**await function.status()}
        if found := orphans():
            tables["audit"] = [asdict(orphan) for orphan in found]
        if owed := unclosed():
            tables["unclosed"] = [asdict(one) for one in owed]
        return control_pb2.Item(json=json.dumps(tables)).SerializeToString()

    return {ENDPOINT_STATUS: rpc.Unary(status)}


async def _reload(function: Endpoint) -> None:
    try:
        await function.reload()
    except MeshError as error:
        log.error("reload failed; the old configuration stays", error=str(error))  # noqa: TRY400 - a traceback would say nothing more
    else:
        log.info("reloaded")


def options_of(kind: str) -> Any:
    """Return the options class of a type, for help and reference pages."""
    return find_type(kind).Options
