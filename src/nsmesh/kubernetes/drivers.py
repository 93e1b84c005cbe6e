"""Which CSI drivers a cluster has, of those by which a pod gets its sockets where directories are barred."""

from __future__ import annotations

import asyncio

import structlog

from nsmesh.core.clock import Clock
from nsmesh.core.errors import MeshError, NotFound
from nsmesh.kubernetes.client import Api, collection
from nsmesh.kubernetes.injection import DRIVERS

log = structlog.get_logger()

PATH = collection("storage.k8s.io/v1", "csidrivers")
FRESH = 5.0
"""Seconds for which an answer is used again: pods come in crowds, drivers seldom."""
PATIENCE = 1.0
"""Seconds that the API server has to answer."""


class Drivers:
    """Asks for them when it matters."""

    def __init__(self, api: Api, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known: frozenset[str] = frozenset()
        self._until = float("-inf")

    async def there(self) -> frozenset[str]:
        """Return those that are there; all of them where nobody says, as a pod must not be refused then."""
        async with self._lock:
            if self._clock.monotonic() >= self._until:
                self._known = frozenset([name for name in DRIVERS if await self._is_there(name)])
                self._until = self._clock.monotonic() + FRESH
            return self._known

    async def _is_there(self, name: str) -> bool:
        """Whether a kubelet mounts a volume of a driver for a single pod; without an object it does not."""
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self._api.call("GET", f"{PATH}/{name}")
        except NotFound:
            return False
        except (MeshError, TimeoutError) as error:
            log.warning("nobody knows whether a CSI driver is there", driver=name, error=str(error))
            return True
        return "Ephemeral" in (found.get("spec", {}).get("volumeLifecycleModes") or ())
