"""What is said of its wires at a pod itself: an annotation, a condition. Pure functions.

The annotation is a list in the form that Multus writes (``k8s.v1.cni.cncf.io/network-status``), one item for
each interface, so that what reads the one reads the other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nsmesh.kubernetes.wires import DOWN, UP, Place, identity_of
from nsmesh.model.messages import Connection, State
from nsmesh.model.nsurl import NetworkServiceUrl

STATUS = "networkservicemesh.io/status"
GATE = "networkservicemesh.io/wires"
"""Type of the condition, and of the readiness gate that waits for it."""
_CLIENT = 1


@dataclass(frozen=True, slots=True)
class PodWire:
    """One wire of a pod. ``addresses`` with their prefix lengths; ``servers``: of names, by address."""

    pod: Place
    service: str
    endpoint: str
    interface: str
    addresses: tuple[str, ...] = ()
    mac: str = ""
    mtu: int = 0
    servers: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    is_up: bool = True

    @classmethod
    def of(cls, connection: Connection, pod: Place | None = None) -> PodWire | None:
        """Return a connection as its client's pod sees it; None where it is not one of this node's pods.

        ``pod``: whose it is; else its token says so.
        """
        segments = connection.path.path_segments
        if connection.path.index != _CLIENT or not segments:
            return None
        namespace, name = pod or identity_of(segments[0].token)
        if not namespace or not name:
            return None
        configs = connection.context.dns_context.configs
        return cls(
            pod=(namespace, name),
            service=connection.network_service,
            endpoint=connection.network_service_endpoint_name,
            interface=connection.mechanism.parameters.get("name", ""),
            addresses=tuple(connection.context.ip_context.src_ip_addrs),
            mac=connection.context.ethernet_context.src_mac,
            mtu=connection.context.MTU,
            servers=tuple(one for config in configs for one in config.dns_server_ips),
            domains=tuple(one for config in configs for one in config.search_domains),
            is_up=connection.state in {State.UP, State.REFRESH_REQUESTED},
        )

    def status(self) -> dict[str, Any]:
        """Return its item in the annotation."""
        dns: dict[str, list[str]] = {}
        if self.servers:
            dns["nameservers"] = list(self.servers)
        if self.domains:
            dns["search"] = list(self.domains)
        return {
            "name": self.service,
            "interface": self.interface,
            "ips": [one.partition("/")[0] for one in self.addresses],
            **({"mac": self.mac} if self.mac else {}),
            **({"mtu": self.mtu} if self.mtu else {}),
            "dns": dns,
            "default": False,
        }

    def __str__(self) -> str:
        """Return it as sentences name it."""
        return f"wire {self.interface or 'without an interface'} to {self.endpoint or self.service}"


def status_of(wires: Iterable[PodWire]) -> str:
    """Return the value of the annotation: JSON; empty where there are no wires."""
    found = sorted((wire.status() for wire in wires if wire.is_up), key=lambda item: item["interface"])
    return json.dumps(found, indent=4) if found else ""


def condition_of(
    wished: Sequence[NetworkServiceUrl], wires: Iterable[PodWire], problem: str = ""
) -> dict[str, str]:
    """Return the condition of a pod that wishes for wires, without its times.

    ``problem``: why nobody knows what it wishes for.
    """
    if problem:
        return {"type": GATE, "status": "False", "reason": "Unreadable", "message": problem}
    states: dict[str, Counter[str]] = {UP: Counter(), DOWN: Counter()}
    for wire in wires:
        states[UP if wire.is_up else DOWN][wire.service] += 1
    lacking = []
    for wish in wished:
        if states[UP][wish.service] > 0:
            states[UP][wish.service] -= 1
        else:
            lacking.append(wish.service)
    if lacking:
        message = f"{len(lacking)} of {len(wished)} wires are not up: {', '.join(lacking)}"
        return {"type": GATE, "status": "False", "reason": "WiresMissing", "message": message}
    message = f"{len(wished)} wires are up" if len(wished) != 1 else "1 wire is up"
    return {"type": GATE, "status": "True", "reason": "WiresUp", "message": message}


def has_gate(pod: dict[str, Any]) -> bool:
    """Whether a pod waits for its wires before it is ready."""
    gates = pod.get("spec", {}).get("readinessGates") or ()
    return any(gate.get("conditionType") == GATE for gate in gates)
