"""The ways to another node in which a wire can end: one record for each kind of tunnel."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv6Network

from nsmesh.model.wire import TunnelPort
from nsmesh.model.wireguard import PrivateKey

VXLAN_PORT = 4789
"""UDP port of VXLAN."""
GENEVE_PORT = 6081
"""UDP port of Geneve."""
ONE_LINK = IPv6Network("fd5e::/16")
"""Segment identifiers that no router knows: an address range for private use."""


def _hidden() -> str:
    value: str = field(default="", compare=False)
    return value


@dataclass(frozen=True, slots=True)
class VxlanPort(TunnelPort):
    """Frames in UDP. ``local_port`` and ``remote_port``: where each node listens."""

    vni: int
    local: str
    remote: str
    local_port: int = VXLAN_PORT
    remote_port: int = VXLAN_PORT
    mtu: int = 0
    mac: str = _hidden()
    peer_mac: str = _hidden()

    @property
    def place(self) -> tuple[object, ...]:
        """A VNI is one at its UDP port."""
        return ("VXLAN", self.local_port, self.vni)


@dataclass(frozen=True, slots=True)
class GenevePort(TunnelPort):
    """Frames in UDP. Both nodes listen on ``port``: the kernel sends to the port that it listens on."""

    vni: int
    local: str
    remote: str
    port: int = GENEVE_PORT
    mtu: int = 0
    mac: str = _hidden()
    peer_mac: str = _hidden()

    @property
    def place(self) -> tuple[object, ...]:
        """A VNI is one at its UDP port, for each other node."""
        return ("GENEVE", self.port, self.vni, self.remote)


@dataclass(frozen=True, slots=True)
class GrePort(TunnelPort):
    """GRE with a ``key`` of 32 bits. ``ethernet``: it carries frames (gretap), else bare packets (gre)."""

    key: int
    local: str
    remote: str
    ethernet: bool = True
    mtu: int = 0
    mac: str = _hidden()
    peer_mac: str = _hidden()

    @property
    def frames(self) -> bool:
        """See :attr:`TunnelPort.frames`."""
        return self.ethernet

    @property
    def place(self) -> tuple[object, ...]:
        """A key is one between two addresses."""
        return ("GRE", self.ethernet, self.local, self.remote, self.key)


@dataclass(frozen=True, slots=True)
class WireguardPort(TunnelPort):
    """Packets in encrypted UDP. ``peer_key`` is the other node's public key for this wire, in base64."""

    private_key: PrivateKey = field(repr=False)
    peer_key: str
    local: str
    remote: str
    local_port: int
    remote_port: int
    mtu: int = 0
    mac: str = _hidden()
    peer_mac: str = _hidden()

    @property
    def frames(self) -> bool:
        """See :attr:`TunnelPort.frames`."""
        return False

    @property
    def place(self) -> tuple[object, ...]:
        """A UDP port is one wire's."""
        return ("WIREGUARD", self.local_port)


class OutsidePort(TunnelPort):
    """A VLAN: what is outside the mesh, and others on that VLAN. There is no other node to it.

    ``vlan`` is the tag, 1 to 4094; 0: frames go out without one.
    """

    __slots__ = ()

    vlan: int

    @property
    def place(self) -> tuple[object, ...]:
        """Nothing: any number of wires share a VLAN."""
        return ()


@dataclass(frozen=True, slots=True)
class VlanPort(OutsidePort):
    """A VLAN on an interface of this node, ``interface``."""

    interface: str
    vlan: int
    mtu: int = 0
    local: str = _hidden()
    remote: str = _hidden()
    mac: str = _hidden()
    peer_mac: str = _hidden()


@dataclass(frozen=True, slots=True)
class BridgePort(OutsidePort):
    """A VLAN on a bridge of the Open vSwitch of this node that is somebody else's, ``bridge``.

    ``via`` is how the endpoint calls the way, for people.
    """

    bridge: str
    vlan: int
    mtu: int = 0
    via: str = _hidden()
    local: str = _hidden()
    remote: str = _hidden()
    mac: str = _hidden()
    peer_mac: str = _hidden()


@dataclass(frozen=True, slots=True)
class Srv6Port(TunnelPort):
    """Frames behind an IPv6 header with a segment routing header (H.Encaps.L2).

    ``local_sid`` is where this node takes them out again (End.DX2), ``remote_sid`` where the other does.
    """

    local_sid: str
    remote_sid: str
    local: str
    remote: str
    mtu: int = 0
    mac: str = _hidden()
    peer_mac: str = _hidden()

    @property
    def place(self) -> tuple[object, ...]:
        """A segment identifier is one wire's."""
        return ("SRV6", self.local_sid)
