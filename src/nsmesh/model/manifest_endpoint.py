"""NetworkServiceEndpoint manifests, as Kubernetes keeps them."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from nsmesh.model.manifest_fields import Fields, fields
from nsmesh.model.manifest_meta import object_name
from nsmesh.model.manifest_yaml import Scalar
from nsmesh.model.messages import NetworkServiceEndpoint

_FIELDS = (
    "name",
    "network_service_names",
    "network_service_labels",
    "url",
    "expiration_time",
    "initial_registration_time",
    "path_ids",
)
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999, all that a Timestamp may hold."""


def read_endpoint(document: Fields) -> NetworkServiceEndpoint:
    """Return the message of an ``apiVersion: networkservicemesh.io/v1`` document."""
    spec = document.mapping("spec", _FIELDS)
    endpoint = NetworkServiceEndpoint(name=object_name(document, spec))
    if spec is None:
        return endpoint
    endpoint.network_service_names.extend(spec.texts("network_service_names"))
    endpoint.url = spec.text("url")
    endpoint.path_ids.extend(spec.texts("path_ids"))
    _labels(spec, endpoint)
    expires = _time(spec, "expiration_time")
    if expires:
        endpoint.expiration_time.CopyFrom(expires)
    registered = _time(spec, "initial_registration_time")
    if registered:
        endpoint.initial_registration_time.CopyFrom(registered)
    return endpoint


def _labels(spec: Fields, endpoint: NetworkServiceEndpoint) -> None:
    for key, node in spec.entries("network_service_labels"):
        found = fields(spec.report, node, f"{spec.where('network_service_labels')}.{key.text}", ("labels",))
        if found:
            endpoint.network_service_labels[key.text].labels.update(found.labels("labels"))


def _time(spec: Fields, name: str) -> Timestamp | None:
    node = spec.get(name)
    if isinstance(node, Scalar):
        spec.report.add(node, f"{spec.where(name)} must be a mapping", "write {seconds: ..., nanos: ...}")
        return None
    found = spec.mapping(name, ("seconds", "nanos"))
    if found is None:
        return None
    seconds = found.integer("seconds", _FIRST_SECOND, _LAST_SECOND)
    return Timestamp(seconds=seconds, nanos=found.integer("nanos", 0, 999_999_999))
