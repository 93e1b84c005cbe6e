"""VXLAN: the wire goes on to another node, as frames in UDP over the underlay."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from nsmesh.core.tunnelling import DST_PORT, SRC_PORT, Numbered, number
from nsmesh.model.messages import VXLAN, Connection, Mechanism
from nsmesh.model.tunnels import VXLAN_PORT, VxlanPort
from nsmesh.model.wiring import Side

VNI = "vni"
VNI_LIMIT = 1 << 24


class Vxlan(Numbered):
    """Negotiates VXLAN tunnels between two forwarders; ``port`` is the UDP port on which this node listens.

    Whoever asks sets ``src_*``, whoever answers ``dst_*`` and the VNI.
    """

    type = VXLAN
    headers = {4: 50, 6: 70}  # noqa: RUF012 - read only: IP, UDP, VXLAN, the frame's own Ethernet header
    key = VNI
    limit = VNI_LIMIT

    def __init__(
        self,
        tunnel_ip: str,
        *,
        port: int = VXLAN_PORT,
        link_mtu: Callable[[], int],
        random: Random | None = None,
    ) -> None:
        super().__init__(tunnel_ip, link_mtu=link_mtu, random=random)
        self._port = port

    def offer(self, connection: Connection) -> Mechanism:  # noqa: ARG002 - the face of a mechanism
        """Return REMOTE VXLAN with this node as its source."""
        mechanism = self.offered()
        mechanism.parameters[SRC_PORT] = str(self._port)
        return mechanism

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:
        """Return ``offered`` with this node as its destination, a VNI, and the smaller MTU of both."""
        mechanism = self.accepted(offered)
        mechanism.parameters[SRC_PORT] = str(number(mechanism, SRC_PORT, 1, 65535, VXLAN_PORT))
        mechanism.parameters[DST_PORT] = str(self._port)
        return self.numbered(mechanism, connection)

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> VxlanPort:  # noqa: ARG002 - likewise
        """Return the way to the other node: to ``src`` where the client's side is there, else to ``dst``."""
        mac, peer_mac = self.macs(mechanism, side)
        port = SRC_PORT if side is Side.CLIENT else DST_PORT
        return VxlanPort(
            vni=self.its_number(mechanism),
            local=str(self.ip),
            remote=self.remote(mechanism, side),
            local_port=self._port,
            remote_port=number(mechanism, port, 1, 65535, VXLAN_PORT),
            mtu=self.largest(mechanism),
            mac=mac,
            peer_mac=peer_mac,
        )
