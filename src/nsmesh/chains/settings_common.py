"""Settings that every daemon reads: NSM's own variables where they exist, with NSM's defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsmesh.model.settings import Seconds

SOCKET = "unix:///var/lib/networkservicemesh/nsm.io.sock"
"""Where a manager listens for the workloads of its node."""


def _named(variable: str, default: str = "") -> str:
    value: str = field(default=default, metadata={"variable": variable})
    return value


def _switch(variable: str) -> bool:
    value: bool = field(default=False, metadata={"variable": variable})
    return value


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every daemon reads."""

    log_level: str = "INFO"
    """Lowest level that is logged: TRACE, DEBUG, INFO, WARN, ERROR."""
    log_level_file: str = ""
    """File whose word is that level instead, read again when it changes; empty: none."""
    max_token_lifetime: Seconds = Seconds(600)
    """How long what this component vouches for lives without a refresh."""
    spiffe_endpoint_socket: str = _named("SPIFFE_ENDPOINT_SOCKET")
    """Workload API that gives this component its identity; empty: no identity, own unix sockets only."""
    prometheus: bool = _switch("PROMETHEUS")
    """Whether metrics are served, at /metrics."""
    prometheus_listen_on: str = ":8081"
    """Where metrics are served: IP:PORT, unix:///SOCKET, or unix:///FOLDER/ for a socket named as we are."""
    telemetry: bool = _switch("TELEMETRY")
    """Whether traces are sent; needs the extra nsmesh[telemetry]."""
    journal: str = ""
    """File in which it keeps what it has agreed, so that it goes on after a crash; empty: in memory alone."""
    open_telemetry_endpoint: str = "otel-collector.observability.svc.cluster.local:4317"
    """Collector of traces: OTLP over gRPC, in plaintext."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """What is known of where a component runs."""

    node_name: str = _named("NODE_NAME")
    """Label nodeName, for requests and endpoints that have none."""
    pod_name: str = _named("POD_NAME")
    """Label podName, likewise."""
    cluster_name: str = _named("CLUSTER_NAME")
    """Label clusterName, likewise."""

    @property
    def place(self) -> dict[str, str]:
        """The labels that are known."""
        labels = {
            "nodeName": self.node_name,
            "podName": self.pod_name,
            "clusterName": self.cluster_name,
        }
        return {name: value for name, value in labels.items() if value}
