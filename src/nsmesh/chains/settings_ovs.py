"""Settings of the forwarder of Open vSwitch: NSM's variables, and where its own switch lives."""

from __future__ import annotations

from dataclasses import dataclass, fields

from nsmesh.chains.settings import ForwarderSettings, Forwards
from nsmesh.datapath.ovs_dpdk import MEMORY
from nsmesh.datapath.ovs_shared import USER_SPACE
from nsmesh.datapath.ovs_switches import MOST


@dataclass(frozen=True, kw_only=True)
class OvsForwarderSettings(Forwards):
    """The forwarder of Open vSwitch: makes wires of its node through a switch of its own."""

    bridge_name: str = "br-nsm"
    """Name of the switch's bridge."""
    switch_directory: str = "/run/nsmesh-ovs"
    """Folder of the switch, which goes on when the forwarder ends; the next one takes it over."""
    switch_database: str = ""
    """Database of an Open vSwitch of somebody else's: unix:/run/openvswitch/db.sock; empty: its own."""
    datapath_type: str = USER_SPACE
    """Type of the bridge at a switch of somebody else's: netdev, or the kernel's, system."""

    switch_netns: str = ""
    """Path of the network namespace where the switch lives; empty: the forwarder's own."""

    spare_wires: int = 16
    """Wires whose ports are made in advance, a quarter of those in use if that is more; 0: none."""
    spare_netns: str = ""
    """Path of the network namespace in which ends of these wait; empty: one that is made in /run/netns."""
    dpdk_memory: int = MEMORY
    """MiB that DPDK takes with the first wire of memif or vhost-user; 0: no such wires through the switch."""
    most_switches: int = MOST
    """Switches at most, 1 to 32: the next is for what is more than 31 memif ends, or 64 wires, of each."""
    memif_apart: bool = False
    """Whether each wire with a memif end through a switch has one of its own, which its peer alone harms."""

    @property
    def plain(self) -> ForwarderSettings:
        """What any forwarder has of these."""
        return ForwarderSettings(**{one.name: getattr(self, one.name) for one in fields(Forwards)})
