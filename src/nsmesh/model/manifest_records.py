"""The kinds of ``apiVersion: nsmesh/v1``: what a mesh on one host runs and joins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from nsmesh.model.manifest_fields import Plain
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.model.nsurl import NetworkServiceUrl
from nsmesh.model.wire import Route

KUBERNETES_V1 = "networkservicemesh.io/v1"
KUBERNETES_ALPHA = "networkservicemesh.io/v1alpha1"
OUR_V1 = "nsmesh/v1"

ANNOTATION = "networkservicemesh.io"
"""The annotation of a workload that names the network services that it wants."""

ENDPOINT_TYPES = ("icmp-responder", "firewall", "vpn-gateway", "remote-vlan")
AT_REGISTRY = frozenset({"remote-vlan"})
"""Types that register at the registry itself: the forwarder of each client asks them, whatever its node."""
"""Endpoints that the mesh brings along; others are named ``package.module:Class`` or ``./file.py:Class``."""

NEVER, ON_FAILURE, ALWAYS = "never", "on-failure", "always"
RESTARTS = (NEVER, ON_FAILURE, ALWAYS)


@dataclass(frozen=True, slots=True)
class LivenessCheck:
    """How often somebody looks whether packets go through a wire: each ``interval`` seconds.

    It is dead when ``count`` looks in a row found nothing within ``timeout`` seconds each. The usual values
    are those of NSM's clients.
    """

    interval: float = 0.2
    timeout: float = 1.0
    count: int = 1


@dataclass(frozen=True, slots=True)
class Workload:
    """A namespace, a process in it, and the network services that it wants.

    ``services`` are read from the annotation ``networkservicemesh.io``. ``command`` and ``args`` are the
    process; without a command there is none. ``netns`` is the name or absolute path of an existing namespace,
    ``pid`` a process in one (0: none); with neither, the mesh makes a namespace. ``restart``: one of
    :data:`RESTARTS`. ``node``: where it lives; empty lets the mesh choose. ``liveness``: how its wires are
    looked at; None: when something is heard of one alone.
    """

    name: str
    services: tuple[NetworkServiceUrl, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    netns: str = ""
    pid: int = 0
    workdir: str = ""
    restart: str = NEVER
    node: str = ""
    liveness: LivenessCheck | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A network function, and the services that it offers.

    ``type``: one of :data:`ENDPOINT_TYPES`, ``package.module:Class`` or ``./file.py:Class``. ``labels`` are
    what routes select by; ``object_labels`` are those of the document. ``options`` are checked by the
    endpoint itself. ``payload``, ``netns``, ``node``: empty leaves it to the endpoint and the mesh.
    """

    name: str
    type: str
    services: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    options: Mapping[str, Plain] = field(default_factory=dict, hash=False)
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    payload: str = ""
    netns: str = ""
    restart: str = ALWAYS
    object_labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    node: str = ""


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """One end of a link: an interface in the namespace of a workload or endpoint, named in ``of``.

    ``addresses`` are in CIDR form.
    """

    of: str
    interface: str
    addresses: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """A veth pair outside of the mesh, for example the uplink of a gateway. ``mtu`` 0 leaves the kernel's."""

    name: str
    ends: tuple[LinkEnd, LinkEnd]
    mtu: int = 0
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


Document: TypeAlias = NetworkService | NetworkServiceEndpoint | Workload | Endpoint | Link
"""What one document of a manifest describes."""
