"""The registry of a domain: services and endpoints, by name, in memory or in a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog

from nsmesh.chains.other_domains import other_domains
from nsmesh.chains.runtime import Runtime, served
from nsmesh.chains.settings import KubernetesRegistrySettings, RegistrySettings
from nsmesh.core.begin import Begin
from nsmesh.core.clock import Clock
from nsmesh.core.element import Chain, Element, chain
from nsmesh.core.metrics import Gauge
from nsmesh.elements.by_kind import ByKind
from nsmesh.elements.expire import PERIOD, Expire
from nsmesh.elements.set_payload import SetPayload
from nsmesh.elements.set_registration_time import SetRegistrationTime
from nsmesh.elements.twins import Twins
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE
from nsmesh.registry.sqlite import RegistryFile
from nsmesh.registry.store import Store

log = structlog.get_logger()

ENTRIES = Gauge("nsm_registry_entries", "Entries of a registry, by kind.", ("registry", "kind"))


def registry_chain(
    services: Store[NetworkService],
    endpoints: Store[NetworkServiceEndpoint],
    *,
    name: str = "registry",
    period: float = PERIOD,
    front: Sequence[Element] = (),
    clock: Clock | None = None,
    collected: bool = False,
) -> Chain:
    """Return the chain of a registry over two stores.

    ``front`` stands outermost: the ``path`` header, identities, policies. ``period`` is how long, in seconds,
    an endpoint stays without being registered again. Entries that the stores hold when the chain starts keep
    the time that they had. ``collected``: somebody else unregisters endpoints whose time is over.
    """
    end = Registry(services, endpoints)
    return chain(
        *front,
        ByKind(
            services=chain(Begin(), SetPayload(), end=end, name=f"{name} services", clock=clock),
            endpoints=chain(
                Begin(),
                SetRegistrationTime(),
                Expire(period, origin=None if collected else end, timers=not collected),
                Twins(),
                end=end,
                name=f"{name} endpoints",
                clock=clock,
            ),
        ),
        end=end,
        name=name,
        clock=clock,
    )


def memory_registry(
    *,
    name: str = "registry",
    period: float = PERIOD,
    front: Sequence[Element] = (),
    clock: Clock | None = None,
) -> Chain:
    """Return the chain of a registry that forgets with its process; endpoints come back by themselves."""
    return registry_chain(
        MemoryStore(SERVICE), MemoryStore(ENDPOINT), name=name, period=period, front=front, clock=clock
    )


def sqlite_registry(
    file: RegistryFile,
    *,
    name: str = "registry",
    period: float = PERIOD,
    front: Sequence[Element] = (),
    clock: Clock | None = None,
) -> Chain:
    """Return the chain of a registry in ``file``, which the caller opens before and closes behind it."""
    return registry_chain(file.services, file.endpoints, name=name, period=period, front=front, clock=clock)


@asynccontextmanager
async def running_registry(
    settings: RegistrySettings, runtime: Runtime, *, sqlite: bool, front: Sequence[Element] = ()
) -> AsyncIterator[Chain]:
    """Run a registry while the block runs: in the file that the settings name, or in memory."""
    async with AsyncExitStack() as stack:
        file = stack.enter_context(RegistryFile(Path(settings.database))) if sqlite else None
        services = file.services if file else MemoryStore(SERVICE)
        endpoints = file.endpoints if file else MemoryStore(ENDPOINT)
        serving = serving_registry(settings, runtime, services, endpoints, front=front)
        registry, urls = await stack.enter_async_context(serving)
        log.info("registry ready", name=settings.name, urls=urls, in_file=sqlite)
        yield registry


@asynccontextmanager
async def serving_registry(
    settings: RegistrySettings | KubernetesRegistrySettings,
    runtime: Runtime,
    services: Store[NetworkService],
    endpoints: Store[NetworkServiceEndpoint],
    *,
    front: Sequence[Element] = (),
    collected: bool = False,
) -> AsyncIterator[tuple[Chain, Sequence[str]]]:
    """Serve what stores hold, and tell how much that is, while the block runs; gives the chain and its URLs.

    ``front`` and ``collected`` as of :func:`registry_chain`.
    """
    name = settings.name
    passed_on = other_domains(
        settings.proxy_registry_url,
        runtime,
        name=name,
        period=settings.expire_period,
        masks=settings.registry_client_policies,
    )
    registry = registry_chain(
        services,
        endpoints,
        name=name,
        period=settings.expire_period,
        front=(*front, *passed_on),
        clock=runtime.clock,
        collected=collected,
    )

    def entries() -> dict[tuple[str, ...], float]:
        return {(name, "services"): len(services), (name, "endpoints"): len(endpoints)}

    with ENTRIES.reading(entries):
        async with (
            registry.running(),
            served(runtime, settings.listen_on, registry, connections=False, registry=True) as urls,
        ):
            yield registry, urls
