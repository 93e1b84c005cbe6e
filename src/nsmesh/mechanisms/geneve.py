"""GENEVE: the wire goes on to another node, as frames in UDP over the underlay, in the younger format."""

from __future__ import annotations

from nsmesh.core.errors import Invalid
from nsmesh.core.tunnelling import DST_PORT, SRC_PORT, Numbered, number
from nsmesh.model.messages import GENEVE, Connection, Mechanism
from nsmesh.model.tunnels import GENEVE_PORT, GenevePort
from nsmesh.model.wiring import Side

VNI = "vni"
VNI_LIMIT = 1 << 24


class Geneve(Numbered):
    """Negotiates Geneve tunnels between two forwarders; both listen on the port of the standard.

    Whoever asks sets ``src_*``, whoever answers ``dst_*`` and the VNI.
    """

    type = GENEVE
    headers = {4: 50, 6: 70}  # noqa: RUF012 - read only: IP, UDP, Geneve, the frame's own Ethernet header
    key = VNI
    limit = VNI_LIMIT

    def offer(self, connection: Connection) -> Mechanism:  # noqa: ARG002 - the face of a mechanism
        """Return REMOTE GENEVE with this node as its source."""
        mechanism = self.offered()
        mechanism.parameters[SRC_PORT] = str(GENEVE_PORT)
        return mechanism

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:
        """Return ``offered`` with this node as its destination, a VNI, and the smaller MTU of both."""
        mechanism = self.accepted(offered)
        port = number(mechanism, SRC_PORT, 1, 65535, GENEVE_PORT)
        if port != GENEVE_PORT:
            raise Invalid(
                f"the other node listens for Geneve on UDP port {port}, and this one on {GENEVE_PORT}",
                remedy="let both listen on the same port: the kernel sends to the port that it listens on",
            )
        mechanism.parameters[SRC_PORT] = mechanism.parameters[DST_PORT] = str(GENEVE_PORT)
        return self.numbered(mechanism, connection)

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> GenevePort:  # noqa: ARG002 - likewise
        """Return the way to the other node: to ``src`` where the client's side is there, else to ``dst``."""
        mac, peer_mac = self.macs(mechanism, side)
        return GenevePort(
            vni=self.its_number(mechanism),
            local=str(self.ip),
            remote=self.remote(mechanism, side),
            mtu=self.largest(mechanism),
            mac=mac,
            peer_mac=peer_mac,
        )
