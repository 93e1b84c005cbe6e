"""The full method paths of the wire contract (its section 1.1)."""

from __future__ import annotations

REQUEST = "/networkservice.NetworkService/Request"
CLOSE = "/networkservice.NetworkService/Close"
MONITOR = "/connection.MonitorConnection/MonitorConnections"
SERVICE_REGISTER = "/registry.NetworkServiceRegistry/Register"
SERVICE_FIND = "/registry.NetworkServiceRegistry/Find"
SERVICE_UNREGISTER = "/registry.NetworkServiceRegistry/Unregister"
ENDPOINT_REGISTER = "/registry.NetworkServiceEndpointRegistry/Register"
ENDPOINT_FIND = "/registry.NetworkServiceEndpointRegistry/Find"
ENDPOINT_UNREGISTER = "/registry.NetworkServiceEndpointRegistry/Unregister"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"

NETWORK_SERVICE = "networkservice.NetworkService"
MONITOR_CONNECTION = "connection.MonitorConnection"
SERVICE_REGISTRY = "registry.NetworkServiceRegistry"
ENDPOINT_REGISTRY = "registry.NetworkServiceEndpointRegistry"
