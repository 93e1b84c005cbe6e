"""GRE: the wire goes on to another node behind a GRE header, as frames, or for IP as bare packets."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from nsmesh.core.errors import Invalid
from nsmesh.core.tunnelling import LEAST_MTU, MOST_MTU, MTU, Numbered, number
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import GRE, IP, REMOTE, Connection, Mechanism
from nsmesh.model.tunnels import GrePort
from nsmesh.model.wiring import Side

KEY = "key"
KEY_LIMIT = 1 << 32
DEVICE = "device"
"""Our own parameter: what the two ends make, ``gretap`` or ``gre``."""
TAP, BARE = "gretap", "gre"

_ETHERNET_HEADER = 14


class Gre(Numbered):
    """Negotiates GRE tunnels with a key between two forwarders.

    Packets of IP go bare, unless one of the two nodes takes ``framed`` ones alone: then both make frames.
    """

    type = GRE
    headers = {4: 28, 6: 48}  # noqa: RUF012 - read only: IP, GRE, its key
    key = KEY
    limit = KEY_LIMIT

    def __init__(
        self,
        tunnel_ip: str,
        *,
        link_mtu: Callable[[], int],
        random: Random | None = None,
        framed: bool = False,
    ) -> None:
        super().__init__(tunnel_ip, link_mtu=link_mtu, random=random)
        self._framed = framed

    def offer(self, connection: Connection) -> Mechanism:
        """Return REMOTE GRE with this node as its source, and the device that payload and node need."""
        mechanism = Mechanism(cls=REMOTE, type=GRE)
        mechanism.parameters[DEVICE] = self._device(connection)
        return self.offered(mechanism)

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:
        """Return ``offered`` with this node as its destination, a key, and the smaller MTU of both."""
        wanted, said = self._device(connection), offered.parameters.get(DEVICE, "")
        payload = connection.payload or IP
        if said not in {"", TAP} and (said != BARE or payload != IP):
            raise Invalid(
                f"the other node would make a {said} device for payload {payload}, and this one {wanted}",
                remedy="look at the forwarder that the Request came from",
            )
        made = copy_of(offered)
        made.parameters[DEVICE] = TAP if TAP in {wanted, said} else BARE
        if said == BARE and made.parameters[DEVICE] == TAP:  # its MTU left no room for a frame's header
            there = number(made, MTU, LEAST_MTU, MOST_MTU, self.own_mtu(offered))
            made.parameters[MTU] = str(there - _ETHERNET_HEADER)
        return self.numbered(self.accepted(made), connection)

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

    def _device(self, connection: Connection) -> str:
        return BARE if (connection.payload or IP) == IP and not self._framed else TAP
