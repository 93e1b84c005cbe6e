"""GRE: the wire goes on to another node behind a GRE header, frames for ETHERNET, bare packets for IP."""

from __future__ import annotations

from nsmesh.core.errors import Invalid
from nsmesh.core.tunnelling import Numbered
from nsmesh.model.messages import ETHERNET, GRE, IP, REMOTE, Connection, Mechanism
from nsmesh.model.tunnels import GrePort
from nsmesh.model.wiring import Side

KEY = "key"
KEY_LIMIT = 1 << 32
DEVICE = "device"
"""Our own parameter: what the two ends make, ``gretap`` or ``gre``."""
TAP, BARE = "gretap", "gre"

_ETHERNET_HEADER = 14


class Gre(Numbered):
    """Negotiates GRE tunnels with a key between two forwarders."""

    type = GRE
    payloads: tuple[str, ...] = (ETHERNET, IP)
    headers = {4: 28, 6: 48}  # noqa: RUF012 - read only: IP, GRE, its key
    key = KEY
    limit = KEY_LIMIT

    def offer(self, connection: Connection) -> Mechanism:
        """Return REMOTE GRE with this node as its source, and the device that the payload needs."""
        mechanism = Mechanism(cls=REMOTE, type=GRE)
        mechanism.parameters[DEVICE] = _device(connection)
        return self.offered(mechanism)

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:
        """Return ``offered`` with this node as its destination, a key, and the smaller MTU of both."""
        wanted, said = _device(connection), offered.parameters.get(DEVICE, "")
        if said not in {"", wanted}:
            raise Invalid(
                f"the other node would make a {said} device for payload {connection.payload or IP}, "
                f"and this one {wanted}",
                remedy="look at the forwarder that the Request came from",
            )
        mechanism = self.accepted(offered)
        mechanism.parameters[DEVICE] = wanted
        mechanism.parameters["MTU"] = str(self.largest(mechanism))
        return self.numbered(mechanism, connection)

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> GrePort:  # noqa: ARG002 - the face
        """Return the way to the other node: to ``src`` where the client's side is there, else to ``dst``."""
        mac, peer_mac = self.macs(mechanism, side)
        return GrePort(
            key=self.its_number(mechanism),
            local=str(self.ip),
            remote=self.remote(mechanism, side),
            ethernet=mechanism.parameters.get(DEVICE, "") != BARE,
            mtu=self.largest(mechanism),
            mac=mac,
            peer_mac=peer_mac,
        )

    def own_mtu(self, mechanism: Mechanism) -> int:
        """Return what fits through this node's link; a frame has its own header too."""
        frame = 0 if mechanism.parameters.get(DEVICE, "") == BARE else _ETHERNET_HEADER
        return super().own_mtu(mechanism) - frame


def _device(connection: Connection) -> str:
    return BARE if (connection.payload or IP) == IP else TAP
