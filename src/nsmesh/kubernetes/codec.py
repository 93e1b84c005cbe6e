"""Registry entries as objects of the API server, field by field as the Go registry writes them.

Names of fields are those of the protobuf messages (``network_service_names``); a timestamp is an object of
``seconds`` and ``nanos``. An object without ``spec.name`` has its own name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Generic

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from nsmesh.core.errors import Invalid
from nsmesh.kubernetes.client import Object
from nsmesh.model.manifest import ManifestError, ManifestErrors, load
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.registry.query import ENDPOINT, SERVICE, E, Kind

GROUP = "networkservicemesh.io"
API_VERSION = f"{GROUP}/v1"
ALPHA_VERSION = f"{GROUP}/v1alpha1"
ALPHA_KEYS = {"match", "route", "sourceSelector"}
"""What only the items of the schema of 2019 have."""
TIMES = ("expiration_time", "initial_registration_time")


@dataclass(frozen=True)
class Resource(Generic[E]):
    """A kind of entry as a resource of the API."""

    kind: Kind[E]
    name: str
    """``NetworkService``."""
    plural: str
    prefix: str
    """Where the server makes up a name, it begins so."""

    def spec(self, entry: E) -> Object:
        """Return the ``spec`` of ``entry``."""
        spec: Object = MessageToDict(entry, preserving_proto_field_name=True)
        for field in TIMES:
            if field in spec:
                stamp = getattr(entry, field)
                spec[field] = {"seconds": stamp.seconds, "nanos": stamp.nanos}
        return spec

    def entry(self, item: Object) -> E:
        """Return the entry that an object means; raises Invalid where it means none."""
        metadata = item["metadata"]
        spec = item.get("spec")
        try:
            entry = self._parsed(item, {} if spec is None else spec)
        except (ParseError, ManifestError, ManifestErrors, ValueError, TypeError, AttributeError) as error:
            raise Invalid(
                f"the {self.name} {metadata['name']} in namespace {metadata['namespace']} cannot be read: "
                f"{error}",
                remedy=f"kubectl -n {metadata['namespace']} edit {self.plural} {metadata['name']}",
            ) from error
        entry.name = entry.name or metadata["name"]
        return entry

    def _parsed(self, item: Object, spec: Any) -> E:
        if not isinstance(spec, dict):
            raise TypeError("spec is no mapping")
        if self.kind is SERVICE and _is_alpha(spec):
            return self._alpha(item, spec)
        spec = dict(spec)
        stamps = {field: spec.pop(field) for field in TIMES if spec.get(field) is not None}
        entry = ParseDict(spec, self.kind.entry(), ignore_unknown_fields=True)
        for field, stamp in stamps.items():
            if field in self.kind.entry.DESCRIPTOR.fields_by_name:
                target = getattr(entry, field)
                target.seconds, target.nanos = int(stamp.get("seconds", 0)), int(stamp.get("nanos", 0))
                target.SetInParent()
        return entry

    def _alpha(self, item: Object, spec: Object) -> E:
        """Read the schema of 2019 by the reader that reads it in files."""
        document = {
            "apiVersion": ALPHA_VERSION,
            "kind": self.name,
            "metadata": {"name": item["metadata"]["name"]},
            "spec": {key: value for key, value in spec.items() if key in {"payload", "matches"}},
        }
        (found,) = load(json.dumps(document), f"{self.plural}/{item['metadata']['name']}")
        if not isinstance(found, self.kind.entry):
            raise TypeError("it is no network service")
        return found


def _is_alpha(spec: Object) -> bool:
    matches = spec.get("matches") or ()
    return any(isinstance(item, dict) and not item.keys().isdisjoint(ALPHA_KEYS) for item in matches)


SERVICES: Resource[NetworkService] = Resource(SERVICE, "NetworkService", "networkservices", "netsvc-")
ENDPOINTS: Resource[NetworkServiceEndpoint] = Resource(
    ENDPOINT, "NetworkServiceEndpoint", "networkserviceendpoints", "nse-"
)
