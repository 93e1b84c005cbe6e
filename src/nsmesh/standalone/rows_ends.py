"""Rows of the ends of wires: endpoints and clients."""

from __future__ import annotations

from nsmesh.model.manifest import Endpoint, Workload
from nsmesh.model.messages import FORWARDER_SERVICE, NetworkServiceEndpoint
from nsmesh.standalone.client import Client
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.rows_connection import Row
from nsmesh.standalone.telling import duration


def endpoint_rows(mesh: Mesh) -> list[Row]:
    """Return a row of each endpoint that is registered or applied; forwarders are none."""
    model = mesh.model
    documents = {item.name: item for item in mesh.documents.of(Endpoint)}
    names = {
        name
        for name, entry in model.endpoints.items()
        if FORWARDER_SERVICE not in entry.network_service_names
    }
    return [
        _endpoint(mesh, name, model.endpoints.get(name), documents.get(name))
        for name in names | set(documents)
    ]


def _endpoint(mesh: Mesh, name: str, entry: NetworkServiceEndpoint | None, document: Endpoint | None) -> Row:
    unit = mesh.supervisor.units.get(name)
    space = mesh.spaces.known.get(name)
    state = _registered(mesh, entry)
    if document is not None and (unit is None or unit.process is None):
        state = f"dead ({unit.state})" if unit is not None else "dead"
    labels: dict[str, str] = {}
    for item in entry.network_service_labels.values() if entry is not None else ():
        labels.update(item.labels)
    services = list(entry.network_service_names) if entry else []
    if document is not None:
        services = services or list(document.services)
    now = mesh.scope.clock.now()
    return {
        "name": name,
        "services": services,
        "labels": labels or (dict(document.labels) if document is not None else {}),
        "state": state,
        "type": document.type if document is not None else "external",
        "pid": unit.process.pid if unit and unit.process else None,
        "node": _node(mesh, "endpoint", name) or labels.get("nodeName", ""),
        "netns": space.path if space else "",
        "url": _url(mesh, name, entry, document),
        "expires": duration(entry.expiration_time.seconds - now) if entry else "",
        "restarts": unit.restarts if unit else 0,
        "status": {},
    }


def _registered(mesh: Mesh, entry: NetworkServiceEndpoint | None) -> str:
    """Return how an entry is called; one whose endpoint was deleted is refreshed by nobody."""
    if entry is None:
        return "not registered"
    left = mesh.left.get(entry.name) == entry.expiration_time.seconds
    return "deleted" if left else "ready"


def _url(mesh: Mesh, name: str, entry: NetworkServiceEndpoint | None, document: Endpoint | None) -> str:
    """Return where an endpoint listens; in the registry that may be a descriptor of the manager."""
    if document is not None:
        return document.env.get("NSM_LISTEN_ON", f"unix://{mesh.paths.socket(name)}")
    return entry.url if entry else ""


def client_rows(mesh: Mesh) -> list[Row]:
    """Return a row of each client: workloads, those connected by hand, and those that are gone."""
    workloads = {item.name: item for item in mesh.documents.of(Workload)}
    known = mesh.clients.known
    return [_client(mesh, name, known.get(name), workloads.get(name)) for name in {**known, **workloads}]


def _client(mesh: Mesh, name: str, client: Client | None, workload: Workload | None) -> Row:
    unit = mesh.supervisor.units.get(name)
    wires = list(client.wires.values()) if client is not None else []
    up = sum(wire.state == "up" for wire in wires)
    state = client.state if client is not None else "gone"
    if unit is not None and unit.process is None and state == "up":
        state = f"process {unit.state}"
    asks = [str(wire.url) for wire in wires]
    if client is None and workload is not None:
        asks = [str(url) for url in workload.services]
    return {
        "name": name,
        "state": state,
        "wires": f"{up}/{len(asks)}",
        "pid": unit.process.pid if unit and unit.process else None,
        "node": _node(mesh, "client", name),
        "netns": client.netns if client is not None else "",
        "asks": asks,
        "connections": [wire.id for wire in wires],
        "command": " ".join([*workload.command, *workload.args]) if workload is not None else "",
        "message": next((str(wire.error) for wire in wires if wire.error), ""),
    }


def _node(mesh: Mesh, kind: str, name: str) -> str:
    node = mesh.placement.of(kind, name)
    return node.name if node else ""
