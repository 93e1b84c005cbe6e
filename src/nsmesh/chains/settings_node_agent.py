"""Settings of the agent of a Kubernetes node that makes wires for pods without a client."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsmesh.chains.settings_common import SOCKET, Common
from nsmesh.model.settings import Seconds


def _named(variable: str) -> str:
    value: str = field(default="", metadata={"variable": variable})
    return value


@dataclass(frozen=True, kw_only=True)
class NodeAgentSettings(Common):
    """Makes the wires of a node's pods that have no client of their own."""

    node_name: str = _named("NODE_NAME")
    """The node whose pods it looks after."""
    cluster_name: str = _named("CLUSTER_NAME")
    """Label clusterName of their wires."""
    mode: str = "sidecar"
    """Who makes wires of pods that do not say: agent (this one), sidecar (a client in the pod)."""
    connect_to: str = SOCKET
    """The manager of this node."""
    delegated_identity_socket: str = "unix:///run/spire/admin/agent.sock"
    """Delegated Identity API that gives it the identities of pods; empty: none, own unix sockets only."""
    delegated_identity_by: str = "process"
    """What names a pod there: process (of its sandbox; our identity agent), selectors (of k8s; SPIRE)."""
    folder: str = "/var/lib/nsmesh"
    """Folder with a journal for each pod, by which the next agent goes on with its wires."""
    dial_timeout: Seconds = Seconds(5)
    """How long a dial may take."""
    request_timeout: Seconds = Seconds(15)
    """How long one Request may take before it is tried again."""
    liveness_check_enabled: bool = False
    """Whether it sends packets through wires, from within pods; needs capabilities SYS_ADMIN and NET_RAW."""
    liveness_check_interval: Seconds = Seconds(0.2)
    """Time between two probes."""
    liveness_check_timeout: Seconds = Seconds(1)
    """Time without an answer after which the path counts as dead."""
    kubelet_qps: int = 20
    """The most calls per second to the API server."""
