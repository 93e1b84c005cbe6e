"""A client's connection, as its manager knows it, as a ``NetworkServiceConnection`` object."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from nsmesh.core.errors import Invalid
from nsmesh.core.outcome import Outcome
from nsmesh.kubernetes.client import Object
from nsmesh.kubernetes.codec import API_VERSION, GROUP
from nsmesh.model.messages import Connection, State
from nsmesh.security.token import read_claims

KIND, PLURAL = "NetworkServiceConnection", "networkserviceconnections"
NODE_LABEL = f"{GROUP}/node"
"""Whose manager wrote an object; by it a manager finds what an earlier one left."""
CLIENT = 1
"""Index of a manager's segment in the path of a connection whose client asked it directly."""
_POD = re.compile(r"spiffe://[^/]+/ns/([a-z0-9-]{1,63})/(pod|sa)/([a-z0-9.-]{1,253})")
UP, DOWN, REFUSED = "Up", "Down", "Refused"
_STATES = {
    State.UP: UP,
    State.REFRESH_REQUESTED: UP,
    State.RESELECT_REQUESTED: DOWN,
    State.DOWN: DOWN,
}
_REASONS: dict[int, str] = {
    State.DOWN: "the wire, or a hop that makes it, is gone; its client is asking for it again",
    State.RESELECT_REQUESTED: "the endpoint is gone; the client is asking for another one",
    State.REFRESH_REQUESTED: "the client was told to ask again",
}
LONGEST_REASON = 1024
_LONGEST_NAME, _LONGEST_LABEL, _LONGEST_INTERFACE = 253, 63, 15

Place = tuple[str, str]
"""Namespace and name of an object."""


@dataclass(frozen=True, slots=True)
class Wire:
    """What one object shall be; ``client`` is the pod's name as far as anybody knows."""

    place: Place
    client: str
    spec: Object
    status: Object

    def applied(self, node: str, uid: str) -> Object:
        """Return the object to apply; ``uid`` is the client pod's, or empty."""
        namespace, name = self.place
        metadata: Object = {"name": name, "namespace": namespace, "labels": {NODE_LABEL: node}}
        if uid:
            metadata["ownerReferences"] = [
                {"apiVersion": "v1", "kind": "Pod", "name": self.client, "uid": uid}
            ]
        return {**_HEAD, "metadata": metadata, "spec": self.spec}

    def applied_status(self) -> Object:
        """Return what to apply to the object's status."""
        namespace, name = self.place
        return {**_HEAD, "metadata": {"name": name, "namespace": namespace}, "status": self.status}


_HEAD: Object = {"apiVersion": API_VERSION, "kind": KIND}


def wire_of(connection: Connection, *, namespace: str, own_pod: str = "") -> Wire | None:
    """Return the object of a manager's connection; None where the client is not of this node.

    ``namespace`` is for clients whose identity names none. ``own_pod`` is the manager's: where a client
    does not say in which pod it is, the manager's own name may stand in the label.
    """
    if connection.path.index != CLIENT or len(connection.path.path_segments) <= CLIENT:
        return None
    who = identity_of(connection.path.path_segments[0].token)
    return _wire(connection, who, _status(connection), namespace=namespace, own_pod=own_pod)


def refused_wire(outcome: Outcome, *, namespace: str, own_pod: str = "") -> Wire | None:
    """Return the object of a Request that failed; None where the client is not of this node.

    Nobody has looked at its tokens: who asked is what the transport says.
    """
    connection, error = outcome.connection, outcome.error
    if connection.path.index != CLIENT or not connection.path.path_segments or error is None:
        return None
    status: Object = {
        "endpoint": connection.network_service_endpoint_name,
        "path": [segment.name for segment in connection.path.path_segments[: CLIENT + 1]],
        "mechanism": connection.mechanism.type,
        "addresses": [],
        "mtu": 0,
        "state": REFUSED,
        "reason": str(error)[:LONGEST_REASON],
    }
    who = pod_of_id(outcome.peer.spiffe_id)
    return _wire(connection, who, status, namespace=namespace, own_pod=own_pod)


def _wire(connection: Connection, who: Place, status: Object, *, namespace: str, own_pod: str) -> Wire:
    first = connection.path.path_segments[0]
    found, pod = who
    label = connection.labels.get("podName", "")
    client = pod or (label if label != own_pod else "") or first.name
    spec: Object = {
        "client": client[:_LONGEST_NAME],
        "network_service": connection.network_service[:_LONGEST_NAME],
        "connection_id": first.id[:_LONGEST_NAME],
    }
    interface = connection.mechanism.parameters.get("name", "")
    if 0 < len(interface) <= _LONGEST_INTERFACE:
        spec["interface"] = interface
    place = (found or namespace, _name(client, connection.network_service, first.id))
    return Wire(place, client, spec, status)


def _status(connection: Connection) -> Object:
    """Return each field, empty ones too: so what somebody else put there is ours when it is applied."""
    return {
        "endpoint": connection.network_service_endpoint_name,
        "path": [segment.name for segment in connection.path.path_segments],
        "mechanism": connection.mechanism.type,
        "addresses": list(connection.context.ip_context.src_ip_addrs),
        "mtu": connection.context.MTU,
        "state": _STATES.get(connection.state, UP),
        "reason": reason_of(connection.state),
    }


def identity_of(token: str) -> Place:
    """Return namespace and pod that a client's token speaks for; empty where it does not say."""
    try:
        return pod_of_id(read_claims(token).subject or "" if token else "")
    except Invalid:
        return "", ""


def pod_of_id(spiffe_id: str) -> Place:
    """Return namespace and pod that a SPIFFE ID is of; empty where it does not say."""
    found = _POD.fullmatch(spiffe_id)
    return (found[1], found[3] if found[2] == "pod" else "") if found else ("", "")


def _name(client: str, service: str, connection_id: str) -> str:
    """Return an object's name: readable, and the same whenever the same client asks for the same wire."""
    mark = hashlib.sha256(f"{client}\0{connection_id}".encode()).hexdigest()[:8]
    words = re.sub(r"[^a-z0-9]+", "-", f"{client}-{service}".lower()).strip("-")
    return f"{words[: _LONGEST_NAME - 9].rstrip('-') or 'wire'}-{mark}"


def reason_of(state: int) -> str:
    """Return why a connection in a state is not up, in words; nothing for one that is."""
    return _REASONS.get(state, "")


def label_of(node: str) -> str:
    """Return a node's or manager's name as the value of a label; by its hash where it can be none."""
    if len(node) <= _LONGEST_LABEL and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", node):
        return node
    return hashlib.sha256(node.encode()).hexdigest()[:32]
