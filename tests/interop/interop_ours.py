"""Our role, started in the place of the recorded one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsmesh import rpc
from nsmesh.chains import settings as s
from nsmesh.chains.nsc import running_nsc
from nsmesh.chains.registry import registry_chain
from nsmesh.chains.roles import running_forwarder, running_nsmgr
from nsmesh.chains.runtime import Runtime, served
from nsmesh.chains.secured import Secured
from nsmesh.chains.settings_nsc import NscSettings
from nsmesh.core.clock import Clock
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements.peer import LocalPeers, RemotePeers
from nsmesh.endpoints.run import make, running_endpoint
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.vxlan import Vxlan
from nsmesh.model.messages import Connection, NetworkService
from nsmesh.model.settings import load
from nsmesh.model.tunnels import VXLAN_PORT
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE
from nsmesh.security.svid import SvidSource


@dataclass
class Ours:
    """How to start our role: with the recorded variables, but the addresses of this play.

    ``alive`` is what the client's look at its wires says.
    """

    role: str
    environment: dict[str, str]
    identity: SvidSource
    clock: Clock
    urls: list[str]
    manager: str = ""
    registry: str = ""
    netns: Path | None = None
    alive: Callable[[], bool] = lambda: True
    entries: list[Any] = field(default_factory=list)
    running: Any = None

    def settings(self, cls: type[Any]) -> Any:
        """Return the settings of the recorded role."""
        environment = dict(self.environment)
        if self.role.startswith("forwarder"):
            environment.setdefault("NSM_MAX_TOKEN_LIFETIME", "24h")  # the default of the recorded one
        environment["NSM_LISTEN_ON"] = ",".join(self.urls)
        environment["NSM_CONNECT_TO"] = self.manager
        environment["NSM_REGISTRY_URL"] = self.registry
        if self.netns is not None:
            environment["NSM_NETNS"] = str(self.netns)
        return load(cls, {key: value for key, value in environment.items() if value})

    @asynccontextmanager
    async def runtime(self, lifetime: float, dial_timeout: float) -> AsyncIterator[Runtime]:
        """Hold identity and connections."""
        secured = Secured(self.identity, lifetime=lifetime, clock=self.clock)
        pool = rpc.Pool(timeout=dial_timeout, identity=self.identity)
        try:
            peers = LocalPeers({}, RemotePeers(pool))
            yield Runtime(peers, secured.tokens, secured, self.clock)
        finally:
            await pool.aclose()

    async def _looks_alive(self, connection: Connection) -> bool:
        return self.alive()

    @asynccontextmanager
    async def block(self) -> AsyncIterator[None]:
        """Run our role while the block runs."""
        kind = self.role.rstrip("0123456789")
        cls: Any = {
            "nsc": NscSettings,
            "nse": s.IcmpResponderSettings,
            "nsmgr": s.NsmgrSettings,
            "forwarder": s.ForwarderSettings,
            "registry": s.RegistrySettings,
        }[kind]
        settings = self.settings(cls)
        dial = getattr(settings, "dial_timeout", 1.0)
        async with self.runtime(settings.max_token_lifetime, dial) as held, self._of(kind, settings, held):
            yield

    def _of(self, kind: str, settings: Any, held: Runtime) -> AbstractAsyncContextManager[Any]:
        if kind == "nsc":
            return running_nsc(settings, held, alive=self._looks_alive)
        if kind == "nse":
            function = make("icmp-responder", settings, self.environment)
            return running_endpoint(function, settings, held, asyncio.Event())
        if kind == "nsmgr":
            return running_nsmgr(settings, held)
        if kind == "forwarder":
            mechanisms: list[MechanismPlugin] = [
                Kernel(),
                Vxlan(settings.tunnel_ip, port=VXLAN_PORT, link_mtu=lambda: 1500),
            ]
            return running_forwarder(settings, held, FakeDatapath(), mechanisms)
        return self._registry(settings, held)

    @asynccontextmanager
    async def _registry(self, settings: s.RegistrySettings, held: Runtime) -> AsyncIterator[None]:
        """Run a registry that knows already what the recorded one knew."""
        services, endpoints = MemoryStore(SERVICE), MemoryStore(ENDPOINT)
        for entry in self.entries:
            await (services if isinstance(entry, NetworkService) else endpoints).put(entry)
        front = held.registry_front(settings.registry_server_policies)
        registry = registry_chain(services, endpoints, front=front, clock=held.clock)
        async with (
            registry.running(),
            served(held, settings.listen_on, registry, connections=False, registry=True),
        ):
            yield

    async def start(self) -> None:
        """Begin."""
        if self.running is None:
            self.running = self.block()
            await self.running.__aenter__()

    async def stop(self) -> None:
        """End in order."""
        running, self.running = self.running, None
        if running is not None:
            await running.__aexit__(None, None, None)
