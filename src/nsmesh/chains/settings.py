"""Settings of the daemons: NSM's own variables where they exist, with NSM's defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsmesh.chains.settings_common import SOCKET, Common, Placed
from nsmesh.model.settings import Seconds
from nsmesh.model.tunnels import VXLAN_PORT
from nsmesh.security.policy import REGISTRY_CLIENT_POLICIES, REGISTRY_SERVER_POLICIES


@dataclass(frozen=True, kw_only=True)
class Registers(Common):
    """What every daemon reads that registers something."""

    registry_client_policies: tuple[str, ...] = REGISTRY_CLIENT_POLICIES
    """Policies for the answers of registries, as file masks; empty: none."""


@dataclass(frozen=True, kw_only=True)
class Serves(Registers):
    """What every daemon reads that others register at."""

    registry_server_policies: tuple[str, ...] = REGISTRY_SERVER_POLICIES
    """Policies for registrations, as file masks; empty: none."""


@dataclass(frozen=True, kw_only=True)
class Connects(Registers):
    """What every daemon reads that answers Requests."""

    connection_policies: tuple[str, ...] = ()
    """Policies of your own for Requests and Closes, beyond those always asked, as file masks; empty: none."""


@dataclass(frozen=True, kw_only=True)
class NsmgrSettings(Placed, Serves, Connects):
    """The manager of a node."""

    name: str = "nmgr"
    """Name of this manager in paths and in the registry."""
    listen_on: tuple[str, ...] = (SOCKET,)
    """Where it listens; the last tcp one is the URL that other nodes are told."""
    registry_url: str = "tcp://localhost:5001"
    """The registry of this domain."""
    dial_timeout: Seconds = Seconds(0.75)
    """How long a dial may take."""
    forwarder_network_service_name: str = "forwarder"
    """Service name under which forwarders register."""
    excluded_prefixes_file: str = "/var/lib/networkservicemesh/config/excluded_prefixes.yaml"
    """Prefixes that no endpoint may assign; re-read when it changes."""
    open_socket: bool = False
    """Whether processes of other users reach its unix sockets too, where each has to show a certificate."""
    max_connections_per_identity: int = 10_000
    """Connections that one SPIFFE ID may have here, a forwarder of another node too; 0: any number."""
    mirror_connections: bool = False
    """Whether wires of this node's clients are shown as NetworkServiceConnection objects (in Kubernetes)."""
    tell_pods: bool = False
    """Whether pods of this node are told of their wires: annotation, events, readiness (in Kubernetes)."""
    mirror_rate: int = 20
    """The most calls per second to the API server for both."""


@dataclass(frozen=True, kw_only=True)
class Forwards(Connects):
    """What every forwarder reads, whatever makes its wires."""

    name: str = "forwarder"
    """Name of this forwarder in paths and in the registry; two on one node need two names."""
    labels: dict[str, str] = field(default_factory=lambda: {"p2p": "true"})
    """Labels by which a NetworkService may choose it, such as p2p:true,forwarder:ovs beside another one."""
    nsname: str = "forwarder"
    """Service name under which it registers."""
    connect_to: str = "unix:///connect.to.socket"
    """The manager of this node."""
    listen_on: str = "unix:///listen.on.socket"
    """Where it listens."""
    dial_timeout: Seconds = Seconds(0.75)
    """How long a dial may take."""
    tunnel_ip: str = ""
    """Address of this node at which tunnels of other nodes end; empty: no wires to other nodes."""
    vxlan_port: int = VXLAN_PORT
    """UDP port for VXLAN."""
    mechanism_priority: tuple[str, ...] = ()
    """Mechanisms to offer first, by type, such as VXLAN; the others follow in their usual order."""
    mechanisms: tuple[str, ...] = ()
    """The only mechanisms between nodes to use, by type, such as GENEVE; empty: all that this node can."""
    device_selector_file: str = ""
    """YAML file that says which interfaces and bridges lead to VLANs, by the label via; empty: none do."""
    l2_resource_selector_file: str = ""
    """The same, as other forwarders of NSM call it; both may be given."""


@dataclass(frozen=True, kw_only=True)
class ForwarderSettings(Forwards):
    """The forwarder: makes the wires of a node."""

    vxlan_gro: bool = True
    """Whether VXLAN ends join what they receive; false only where an underlay within one host never cuts."""
    tunnels_apart: bool = False
    """Whether tunnels end in the node, where no pod can change them; costs a packet one more step."""
    srv6_prefix: str = ""
    """IPv6 prefix that routers lead to this node, for SRV6 to nodes behind them; empty: on one link alone."""
    node_watch_interval: Seconds = Seconds(0.036)
    """Time between two echoes to each node that shares wires; dead after four without any; 0: none."""


@dataclass(frozen=True, kw_only=True)
class RegistrySettings(Serves):
    """A registry, in memory or in a file."""

    name: str = "registry"
    """Name of this registry."""
    listen_on: tuple[str, ...] = ("unix:///listen.on.socket",)
    """Where it listens."""
    expire_period: Seconds = Seconds(60)
    """How long an endpoint stays without being registered again."""
    database: str = "/var/lib/nsmesh/registry.db"
    """The SQLite file (registry-sqlite only)."""
    proxy_registry_url: str = ""
    """The registry that what names another domain (x@domain) is passed on to; empty: kept here."""


@dataclass(frozen=True, kw_only=True)
class KubernetesRegistrySettings(Serves):
    """A registry whose memory is the API server of its cluster."""

    name: str = "registry"
    """Name of this registry."""
    listen_on: tuple[str, ...] = ("unix:///listen.on.socket",)
    """Where it listens."""
    namespace: str = "default"
    """Namespace of the objects that it writes; it reads those of all."""
    expire_period: Seconds = Seconds(60)
    """How long an endpoint stays without being registered again."""
    kubelet_qps: int = 205
    """The most calls per second to the API server."""
    proxy_registry_url: str = ""
    """The registry that what names another domain (x@domain) is passed on to; empty: kept here."""


@dataclass(frozen=True, kw_only=True)
class NseSettings(Placed, Connects):
    """An endpoint: answers requests for its services."""

    name: str = "nse"
    """Name of this endpoint in paths and in the registry."""
    connect_to: str = SOCKET
    """The manager of this node."""
    listen_on: str = ""
    """Where it listens; a name alone, or empty: a socket in a private folder."""
    service_names: tuple[str, ...] = ()
    """Services that it provides."""
    payload: str = "ETHERNET"
    """Payload of those services: ETHERNET, IP, MPLS or L2TP."""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels by which a NetworkService chooses it."""
    register_service: bool = True
    """Whether the services themselves are registered too."""
    unregister_itself: bool = False
    """Whether it unregisters when it ends; else its registration runs out."""
    dial_timeout: Seconds = Seconds(5)
    """How long a dial may take."""
    request_timeout: Seconds = Seconds(15)
    """How long a Request of its own may take (passthrough functions)."""
    netns: str = ""
    """Namespace in which its wires end, as a path; empty: this process's own."""

    @property
    def services(self) -> tuple[str, ...]:
        """All services that it provides."""
        return self.service_names


@dataclass(frozen=True, kw_only=True)
class IcmpResponderSettings(NseSettings):
    """An ICMP responder."""

    name: str = "icmp-server"
    """Name of this endpoint in paths and in the registry."""
    service_names: tuple[str, ...] = ("icmp-responder",)
    """Services that it provides."""


@dataclass(frozen=True, kw_only=True)
class FirewallSettings(NseSettings):
    """A firewall."""

    name: str = "firewall-server"
    """Name of this endpoint in paths and in the registry."""
    service_name: str = ""
    """One service that it provides, besides those of NSM_SERVICE_NAMES."""

    @property
    def services(self) -> tuple[str, ...]:
        """All services that it provides, each once."""
        names = dict.fromkeys((self.service_name, *self.service_names))
        return tuple(name for name in names if name)


@dataclass(frozen=True, kw_only=True)
class RemoteVlanSettings(NseSettings):
    """A remote VLAN."""

    name: str = "vlan-server"
    """Name of this endpoint in paths and in the registry."""
    connect_to: str = "tcp://nsm-registry-svc:5002"
    """The registry itself, not a manager."""
    listen_on: str = "tcp://:5003"
    """Where it listens; without a host at all addresses, and registered with the first."""
    max_token_lifetime: Seconds = Seconds(86_400)
    """How long what this component vouches for lives without a refresh."""


NSE_SETTINGS: dict[str, type[NseSettings]] = {
    "icmp-responder": IcmpResponderSettings,
    "firewall": FirewallSettings,
    "remote-vlan": RemoteVlanSettings,
}
"""Types of endpoints that have defaults of their own, as NSM has them."""
