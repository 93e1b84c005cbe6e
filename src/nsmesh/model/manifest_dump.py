"""The way back: from a document to plain data that ``load`` reads as an equal one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nsmesh.model.duration import format_duration
from nsmesh.model.manifest_records import (
    ALWAYS,
    ANNOTATION,
    KUBERNETES_V1,
    NEVER,
    OUR_V1,
    Document,
    Endpoint,
    Link,
    LinkEnd,
    LivenessCheck,
    Workload,
)
from nsmesh.model.messages import Match, NetworkService, NetworkServiceEndpoint
from nsmesh.model.names import name_problem, name_suggestion


def dump(document: Document) -> dict[str, Any]:
    """Return a document as plain data, in the order in which people write it; defaults are left out.

    Network services and endpoints of the registry come in the form of Kubernetes, with names in snake_case.
    """
    match document:
        case NetworkService():
            return _registered("NetworkService", document.name, _service(document))
        case NetworkServiceEndpoint():
            return _registered("NetworkServiceEndpoint", document.name, _endpoint(document))
        case Workload():
            annotations = dict(document.annotations)
            if document.services:
                annotations.setdefault(ANNOTATION, ",".join(map(str, document.services)))
            metadata = _metadata(document.name, document.labels, annotations)
            return _object(OUR_V1, "Workload", metadata, _workload(document))
        case Endpoint():
            metadata = _metadata(document.name, document.object_labels, document.annotations)
            return _object(OUR_V1, "Endpoint", metadata, _endpoint_process(document))
        case Link():
            metadata = _metadata(document.name, document.labels, document.annotations)
            spec = {"ends": [_end(end) for end in document.ends], "mtu": document.mtu}
            return _object(OUR_V1, "Link", metadata, _given(spec))


def _object(version: str, kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _metadata(name: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> dict[str, Any]:
    return _given({"name": name, "labels": dict(labels), "annotations": dict(annotations)})


def _registered(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return an object of the registry; a name that Kubernetes would not take stands in its spec."""
    if name_problem(name):
        spec = {"name": name, **spec}
        name = name_suggestion(name) or kind.lower()
    return _object(KUBERNETES_V1, kind, {"name": name}, spec)


def _given(data: dict[str, Any]) -> dict[str, Any]:
    """Return ``data`` without what is empty, zero or false."""
    return {key: value for key, value in data.items() if value}


def _service(service: NetworkService) -> dict[str, Any]:
    return _given(
        {
            "payload": service.payload,
            "matches": [_match(match) for match in service.matches],
            "path_ids": list(service.path_ids),
        }
    )


def _match(match: Match) -> dict[str, Any]:
    routes = [
        _given({"destination_selector": dict(route.destination_selector), "weight": route.weight})
        for route in match.routes
    ]
    out = _given(
        {
            "source_selector": dict(match.source_selector),
            "routes": routes,
            "fallthrough": match.fallthrough,
        }
    )
    if match.HasField("metadata"):
        out["metadata"] = _given({"labels": dict(match.metadata.labels)})
    return out


def _endpoint(endpoint: NetworkServiceEndpoint) -> dict[str, Any]:
    labels = {
        service: _given({"labels": dict(found.labels)})
        for service, found in endpoint.network_service_labels.items()
    }
    out = _given(
        {
            "network_service_names": list(endpoint.network_service_names),
            "network_service_labels": labels,
            "url": endpoint.url,
            "path_ids": list(endpoint.path_ids),
        }
    )
    for name in ("expiration_time", "initial_registration_time"):
        if endpoint.HasField(name):
            time = getattr(endpoint, name)
            out[name] = {"seconds": time.seconds, "nanos": time.nanos}
    return out


def _workload(workload: Workload) -> dict[str, Any]:
    return _given(
        {
            "command": list(workload.command),
            "args": list(workload.args),
            "env": dict(workload.env),
            "netns": workload.netns,
            "pid": workload.pid,
            "workdir": workload.workdir,
            "restart": workload.restart if workload.restart != NEVER else "",
            "node": workload.node,
            "liveness": _liveness(workload.liveness) if workload.liveness else {},
        }
    )


def _liveness(check: LivenessCheck) -> dict[str, Any]:
    return {
        "interval": format_duration(check.interval),
        "timeout": format_duration(check.timeout),
        "count": check.count,
    }


def _endpoint_process(endpoint: Endpoint) -> dict[str, Any]:
    return _given(
        {
            "type": endpoint.type,
            "services": list(endpoint.services),
            "labels": dict(endpoint.labels),
            "options": dict(endpoint.options),
            "env": dict(endpoint.env),
            "payload": endpoint.payload,
            "netns": endpoint.netns,
            "restart": endpoint.restart if endpoint.restart != ALWAYS else "",
            "node": endpoint.node,
        }
    )


def _end(end: LinkEnd) -> dict[str, Any]:
    return _given(
        {
            "of": end.of,
            "interface": end.interface,
            "addresses": list(end.addresses),
            "routes": [_given({"prefix": route.prefix, "via": route.via}) for route in end.routes],
        }
    )
