"""One connection as ``nsm get connections`` and ``describe`` show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from google.protobuf.json_format import MessageToDict

from nsmesh.model.messages import Connection, State
from nsmesh.model.sockets import SOCKET_FILE
from nsmesh.model.times import rfc3339
from nsmesh.standalone.telling import duration

Row = dict[str, Any]


def connection_row(connection: Connection, since: float, now: float, nodes: Mapping[str, str]) -> Row:
    """Return a connection as its client has it, first seen at ``since`` (wall time, seconds).

    ``nodes``: which node each manager and forwarder is on, by name.
    """
    ip = connection.context.ip_context
    segments = connection.path.path_segments
    places = places_of([segment.name for segment in segments], nodes)
    return {
        "id": segments[0].id if segments else connection.id,
        "client": segments[0].name if segments else "",
        "service": connection.network_service,
        "endpoint": connection.network_service_endpoint_name,
        "interface": connection.mechanism.parameters.get("name", ""),
        "address": list(ip.src_ip_addrs),
        "peer_address": list(ip.dst_ip_addrs),
        "state": State.Name(connection.state).lower(),
        "age": duration(now - since),
        "since": rfc3339(since),
        "mechanism": connection.mechanism.type,
        "socket": connection.mechanism.parameters.get(SOCKET_FILE, ""),
        "payload": connection.payload,
        "refused": None,
        "mtu": connection.context.MTU or None,
        "labels": dict(connection.labels),
        "path": [segment.name for segment in segments],
        "nodes": [name for name, _ in groupby(filter(None, places))],
        "hops": [
            {
                "index": number,
                "name": segment.name,
                **({"node": places[number]} if places[number] else {}),
                "id": segment.id,
                "expires": segment.expires.ToJsonString() if segment.HasField("expires") else "",
                **{key: segment.metrics[key] for key in sorted(segment.metrics)},
            }
            for number, segment in enumerate(segments)
        ],
        "routes": [f"{route.prefix} via {route.nextHop}".removesuffix(" via ") for route in ip.src_routes],
        "dns": [MessageToDict(item) for item in connection.context.dns_context.configs],
    }


def places_of(names: Sequence[str], nodes: Mapping[str, str]) -> list[str]:
    """Return the node of each hop; ``nodes`` says where managers and forwarders are, empty where nobody asks.

    A client is where its manager is, an endpoint or function where the forwarder in front of it is.
    """
    found, last = [], next((nodes[name] for name in names if nodes.get(name)), "")
    for name in names:
        last = nodes.get(name) or last
        found.append(last)
    return found
