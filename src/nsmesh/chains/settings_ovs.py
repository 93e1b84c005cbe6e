"""Settings of the forwarder of Open vSwitch: NSM's variables, and where its own switch lives."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsmesh.chains.settings import Connects, ForwarderSettings
from nsmesh.model.settings import Seconds


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

    @property
    def plain(self) -> ForwarderSettings:
        """What any forwarder has of these."""
        return ForwarderSettings(
            log_level=self.log_level,
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
        )
