"""The messages of the wire contract under short names, for all layers above."""

from __future__ import annotations

from typing import TypeAlias

from nsmesh.api.connection_pb2 import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    Mechanism,
    MonitorScopeSelector,
    Path,
    PathSegment,
    State,
)
from nsmesh.api.connectioncontext_pb2 import (
    ConnectionContext,
    DNSConfig,
    DNSContext,
    EthernetContext,
    IPContext,
    IpNeighbor,
    PolicyRoute,
    Route,
)
from nsmesh.api.networkservice_pb2 import NetworkServiceRequest
from nsmesh.api.registry_pb2 import (
    Destination,
    Match,
    Metadata,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    NetworkServiceLabels,
    NetworkServiceQuery,
    NetworkServiceResponse,
)

for _enum in (State, ConnectionEventType):
    for _name, _value in _enum.items():
        setattr(_enum, _name, _value)  # else each use of a value is a call of Python code that searches it

Entry: TypeAlias = NetworkService | NetworkServiceEndpoint
Query: TypeAlias = NetworkServiceQuery | NetworkServiceEndpointQuery
Found: TypeAlias = NetworkServiceResponse | NetworkServiceEndpointResponse

KERNEL = "KERNEL"
MEMIF = "MEMIF"
VHOST_USER = "VHOST_USER"
NOOP = "NOOP"
VXLAN = "VXLAN"
GENEVE = "GENEVE"
GRE = "GRE"
SRV6 = "SRV6"
WIREGUARD = "WIREGUARD"
VLAN = "VLAN"
LOCAL = "LOCAL"
REMOTE = "REMOTE"
ETHERNET = "ETHERNET"
IP = "IP"
MPLS = "MPLS"
L2TP = "L2TP"
PAYLOADS: tuple[str, ...] = (ETHERNET, IP, MPLS, L2TP)

FORWARDER_SERVICE = "forwarder"
"""Service name under which forwarders register."""

__all__ = [
    "ETHERNET",
    "FORWARDER_SERVICE",
    "GENEVE",
    "GRE",
    "IP",
    "KERNEL",
    "L2TP",
    "LOCAL",
    "MEMIF",
    "MPLS",
    "NOOP",
    "PAYLOADS",
    "REMOTE",
    "SRV6",
    "VHOST_USER",
    "VLAN",
    "VXLAN",
    "WIREGUARD",
    "Connection",
    "ConnectionContext",
    "ConnectionEvent",
    "ConnectionEventType",
    "DNSConfig",
    "DNSContext",
    "Destination",
    "Entry",
    "EthernetContext",
    "Found",
    "IPContext",
    "IpNeighbor",
    "Match",
    "Mechanism",
    "Metadata",
    "MonitorScopeSelector",
    "NetworkService",
    "NetworkServiceEndpoint",
    "NetworkServiceEndpointQuery",
    "NetworkServiceEndpointResponse",
    "NetworkServiceLabels",
    "NetworkServiceQuery",
    "NetworkServiceRequest",
    "NetworkServiceResponse",
    "Path",
    "PathSegment",
    "PolicyRoute",
    "Query",
    "Route",
    "State",
]
