"""Settings of the forwarder of Open vSwitch: NSM's variables, and where its own switch lives."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsmesh.chains.settings import Connects, ForwarderSettings
from nsmesh.datapath.ovs_dpdk import MEMORY
from nsmesh.model.settings import Seconds
from nsmesh.model.tunnels import VXLAN_PORT


@dataclass(frozen=True, kw_only=True)
class OvsForwarderSettings(Connects):
    """The forwarder of Open vSwitch: makes wires of its node through a switch of its own."""

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
    bridge_name: str = "br-nsm"
    """Name of the switch's bridge."""
    switch_directory: str = "/run/nsmesh-ovs"
    """Folder of the switch, which goes on when the forwarder ends; the next one takes it over."""

    switch_netns: str = ""
    """Path of the network namespace where the switch lives; empty: the forwarder's own."""

    dpdk_memory: int = MEMORY
    """MiB that DPDK takes with the first wire of memif or vhost-user; 0: no such wires through the switch."""
    tunnel_ip: str = ""
    """Address of this node at which tunnels of other nodes end; empty: no wires to other nodes."""
    vxlan_port: int = VXLAN_PORT
    """UDP port for VXLAN."""
    mechanism_priority: tuple[str, ...] = ()
    """Mechanisms to offer first, by type, such as VXLAN; the others follow in their usual order."""
    mechanisms: tuple[str, ...] = ()
    """The only mechanisms between nodes to use, by type, such as GENEVE; empty: all that this node can."""

    @property
    def plain(self) -> ForwarderSettings:
        """What any forwarder has of these."""
        return ForwarderSettings(
            log_level=self.log_level,
            log_level_file=self.log_level_file,
            max_token_lifetime=self.max_token_lifetime,
            spiffe_endpoint_socket=self.spiffe_endpoint_socket,
            journal=self.journal,
            registry_client_policies=self.registry_client_policies,
            connection_policies=self.connection_policies,
            name=self.name,
            labels=self.labels,
            nsname=self.nsname,
            connect_to=self.connect_to,
            listen_on=self.listen_on,
            dial_timeout=self.dial_timeout,
            tunnel_ip=self.tunnel_ip,
            vxlan_port=self.vxlan_port,
            mechanisms=self.mechanisms,
            mechanism_priority=self.mechanism_priority,
        )
