"""One of several: a Lease says which replica does what only one should do.

Nobody's clock is compared with another's: a holder counts as gone when its lease has not changed for
``duration`` seconds of our own.
"""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from nsmesh.core.clock import Clock
from nsmesh.core.errors import MeshError, NotFound
from nsmesh.kubernetes.client import Api, Changed, Object, collection

log = structlog.get_logger()

LEASES = "coordination.k8s.io/v1"


class Lease:
    """A named lease in a namespace. Call :meth:`hold` every third of ``duration``."""

    def __init__(
        self, api: Api, namespace: str, name: str, identity: str, clock: Clock, duration: float = 15.0
    ) -> None:
        self._api = api
        self._collection = collection(LEASES, "leases", namespace)
        self._name = name
        self._identity = identity
        self._clock = clock
        self.duration = duration
        self._version = ""
        self._seen = 0.0

    async def hold(self) -> bool:
        """Take or renew the lease; say whether it is ours now. Raises what keeps us from asking."""
        path = f"{self._collection}/{self._name}"
        try:
            lease = await self._api.call("GET", path)
        except NotFound:
            return await self._write("POST", self._collection, {"metadata": {"name": self._name}})
        spec = lease.setdefault("spec", {})
        version = lease["metadata"]["resourceVersion"]
        if version != self._version:
            self._version, self._seen = version, self._clock.monotonic()
        holder = spec.get("holderIdentity")
        alive = self._clock.monotonic() - self._seen < self.duration
        if holder and holder != self._identity and alive:
            return False
        if holder != self._identity:
            spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + 1
            spec["acquireTime"] = _now(self._clock)
        return await self._write("PUT", path, lease)

    async def release(self) -> None:
        """Give the lease up, if it is ours, so that another need not wait; failing, say nothing."""
        path = f"{self._collection}/{self._name}"
        try:
            lease = await self._api.call("GET", path)
            if lease.get("spec", {}).get("holderIdentity") == self._identity:
                lease["spec"]["holderIdentity"] = ""
                await self._api.call("PUT", path, body=lease)
        except MeshError as error:
            log.debug("lease not released", lease=self._name, error=str(error))

    async def _write(self, method: str, path: str, lease: Object) -> bool:
        spec = {
            **lease.get("spec", {}),
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self.duration),
            "renewTime": _now(self._clock),
        }
        body = {"apiVersion": LEASES, "kind": "Lease", "metadata": lease["metadata"], "spec": spec}
        try:
            await self._api.call(method, path, body=body)
        except Changed:
            return False
        return True


def _now(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
