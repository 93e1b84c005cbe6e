"""The mesh as the API server of a cluster knows it, as rows for people."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nsmesh.core.errors import Invalid
from nsmesh.kubernetes.client import Api, Object, collection
from nsmesh.kubernetes.codec import API_VERSION, ENDPOINTS, SERVICES, Resource
from nsmesh.kubernetes.wires import PLURAL as CONNECTIONS
from nsmesh.model.messages import FORWARDER_SERVICE, NetworkService, NetworkServiceEndpoint
from nsmesh.model.times import seconds
from nsmesh.registry.query import E

Row = dict[str, Any]
NODE = "nodeName"
"""Label by which a manager says on which node something registered."""


@dataclass
class ClusterView:
    """What is registered, in all namespaces, and the wires of one namespace or all.

    ``broken``: sentences about objects that cannot be read.
    """

    services: dict[str, NetworkService] = field(default_factory=dict)
    endpoints: list[NetworkServiceEndpoint] = field(default_factory=list)
    forwarders: list[NetworkServiceEndpoint] = field(default_factory=list)
    connections: list[Object] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @classmethod
    async def read(cls, api: Api, namespace: str = "") -> ClusterView:
        """Return it as it is now; wires of ``namespace``, empty: all. Raises MeshError."""
        services, endpoints, connections = await asyncio.gather(
            api.call("GET", collection(API_VERSION, SERVICES.plural)),
            api.call("GET", collection(API_VERSION, ENDPOINTS.plural)),
            api.call("GET", collection(API_VERSION, CONNECTIONS, namespace)),
        )
        view = cls(connections=connections["items"])
        view.services = {one.name: one for one in view._entries(SERVICES, services["items"])}
        for one in view._entries(ENDPOINTS, endpoints["items"]):
            is_forwarder = FORWARDER_SERVICE in one.network_service_names
            (view.forwarders if is_forwarder else view.endpoints).append(one)
        return view

    def _entries(self, resource: Resource[E], items: list[Object]) -> list[E]:
        found = []
        for item in items:
            try:
                entry = resource.entry(item)
            except Invalid as error:
                self.broken.append(str(error))
                continue
            self.places[f"{resource.plural}/{entry.name}"] = item["metadata"]["namespace"]
            found.append(entry)
        return found

    def rows(self, kind: str) -> list[Row]:
        """Return the rows of a kind: services, endpoints, forwarders, connections."""
        kinds: dict[str, Callable[[], list[Row]]] = {
            "services": self._services,
            "endpoints": lambda: [self._endpoint(one) for one in self.endpoints],
            "forwarders": lambda: [self._forwarder(one) for one in self.forwarders],
            "connections": lambda: [connection_row(one) for one in self.connections],
        }
        made = kinds[kind]()
        return sorted(made, key=lambda row: (row.get("namespace", ""), str(row.get("name"))))

    def _services(self) -> list[Row]:
        return [
            {
                "name": name,
                "namespace": self.places[f"{SERVICES.plural}/{name}"],
                "payload": service.payload,
                "matches": len(service.matches),
                "endpoints": sorted(one.name for one in self.endpoints if name in one.network_service_names),
            }
            for name, service in self.services.items()
        ]

    def _endpoint(self, entry: NetworkServiceEndpoint) -> Row:
        labels: dict[str, str] = {}
        for service in entry.network_service_names:
            labels |= labels_of(entry, service)
        return {
            "name": entry.name,
            "namespace": self.places[f"{ENDPOINTS.plural}/{entry.name}"],
            "services": list(entry.network_service_names),
            "node": labels.pop(NODE, ""),
            "labels": labels,
            "expires": _left(entry),
            "url": entry.url,
        }

    def _forwarder(self, entry: NetworkServiceEndpoint) -> Row:
        row = self._endpoint(entry)
        return {key: row[key] for key in ("name", "namespace", "node", "labels", "expires", "url")}


def labels_of(entry: NetworkServiceEndpoint, service: str) -> dict[str, str]:
    """Return the labels of an endpoint under one of its services."""
    if service not in entry.network_service_labels:
        return {}
    return dict(entry.network_service_labels[service].labels)


def is_over(entry: NetworkServiceEndpoint) -> bool:
    """Whether nobody has renewed an endpoint's registration in time."""
    return entry.HasField("expiration_time") and seconds(entry.expiration_time) <= time.time()


def _left(entry: NetworkServiceEndpoint) -> str:
    if not entry.HasField("expiration_time"):
        return ""
    left = seconds(entry.expiration_time) - time.time()
    return f"{left:.0f}s" if left > 0 else "over"


def connection_row(item: Object) -> Row:
    """Return the row of a ``NetworkServiceConnection``."""
    metadata, spec, status = item["metadata"], item.get("spec", {}), item.get("status", {})
    made = datetime.fromisoformat(metadata["creationTimestamp"])
    return {
        "namespace": metadata["namespace"],
        "client": spec.get("client", ""),
        "service": spec.get("network_service", ""),
        "endpoint": status.get("endpoint", ""),
        "interface": spec.get("interface", ""),
        "addresses": status.get("addresses") or [],
        "state": status.get("state", ""),
        "age": _age(time.time() - made.timestamp()),
        "name": metadata["name"],
        "path": status.get("path") or [],
        "mechanism": status.get("mechanism", ""),
        "mtu": status.get("mtu") or None,
        "reason": status.get("reason", ""),
    }


def _age(age: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if age >= 2 * size:
            return f"{age // size:.0f}{unit}"
    return f"{max(age, 0):.0f}s"
