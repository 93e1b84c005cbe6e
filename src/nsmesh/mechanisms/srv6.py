"""SRV6: the wire goes on to another node, as frames behind an IPv6 segment routing header."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from random import Random

from nsmesh.core.errors import Invalid
from nsmesh.core.tunnelling import Tunnelling, address, ip_address
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import IP, SRV6, Connection, Mechanism
from nsmesh.model.tunnels import ONE_LINK, Srv6Port
from nsmesh.model.wiring import Side

SRC_HOST, DST_HOST = "src_host_ip", "dst_host_ip"
SRC_SID, DST_SID = "src_localsid", "dst_localsid"

_NARROWEST = 96
"""Most bits of a prefix for segment identifiers: what is left tells a node's wires apart."""


class Srv6(Tunnelling):
    """Negotiates segment routing between two forwarders, each with a segment identifier for each wire.

    At ``*_localsid`` a node takes frames out and sends them through its end of the wire (End.DX2).
    ``prefix``: what routers lead to this node, for its identifiers; without one they are good on one link.
    """

    type = SRV6
    payloads: tuple[str, ...] = (IP,)
    headers = {6: 78}  # noqa: RUF012 - read only: IPv6, segment routing with one segment, the frame's own header

    def __init__(
        self,
        tunnel_ip: str,
        *,
        link_mtu: Callable[[], int],
        random: Random | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__(tunnel_ip, link_mtu=link_mtu, random=random)
        if self.ip.version != 6:
            raise Invalid(
                f"segment routing needs an underlay of IPv6, and {tunnel_ip} is IPv4",
                remedy="give the underlay's link of the node an IPv6 address",
            )
        self._prefix = _prefix_of(prefix) if prefix else ONE_LINK

    def offer(self, connection: Connection) -> Mechanism:
        """Return REMOTE SRV6 with host address and segment identifier of this node."""
        mechanism = self.offered()
        mechanism.parameters[SRC_HOST] = str(self.ip)
        mechanism.parameters[SRC_SID] = self._sid(connection, SRC_SID)
        return mechanism

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:
        """Return ``offered`` with host address and segment identifier of this node."""
        address(offered, SRC_HOST)
        _segment(offered, SRC_SID)
        mechanism = copy_of(offered)
        mechanism.parameters["src_ip"] = mechanism.parameters[SRC_HOST]
        mechanism = self.accepted(mechanism)
        mechanism.parameters[DST_HOST] = str(self.ip)
        if not mechanism.parameters.get(DST_SID, ""):
            mechanism.parameters[DST_SID] = self._sid(connection, DST_SID)
        _segment(mechanism, DST_SID)
        return mechanism

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> Srv6Port:  # noqa: ARG002 - the face
        """Return the way to the other node: to ``src`` where the client's side is there, else to ``dst``."""
        asked = side is Side.CLIENT
        own, far = (DST_SID, SRC_SID) if asked else (SRC_SID, DST_SID)
        mac, peer_mac = self.macs(mechanism, side)
        return Srv6Port(
            local_sid=_segment(mechanism, own),
            remote_sid=_segment(mechanism, far),
            local=str(self.ip),
            remote=str(address(mechanism, SRC_HOST if asked else DST_HOST)),
            mtu=self.largest(mechanism),
            mac=mac,
            peer_mac=peer_mac,
        )

    def another(self, mechanism: Mechanism, side: Side = Side.CLIENT) -> Mechanism:
        """Return the mechanism with a random segment identifier of this node, other than the one it has."""
        changed = copy_of(mechanism)
        key = SRC_SID if side is Side.CLIENT else DST_SID
        changed.parameters[key] = self._sid_of(self.random.randbytes(14))
        return changed

    def describe(self, mechanism: Mechanism) -> str:
        """Return ``SRV6/`` and the segment identifier of the node that answered."""
        return f"{SRV6}/{mechanism.parameters.get(DST_SID, '')}"

    def _sid(self, connection: Connection, half: str) -> str:
        return self._sid_of(hashlib.sha256(f"{self.ip} {connection.id} {half}".encode()).digest()[:14])

    def _sid_of(self, rest: bytes) -> str:
        number = int.from_bytes(rest, "big") & int(self._prefix.hostmask)
        return str(IPv6Address(int(self._prefix.network_address) | number))


def _prefix_of(text: str) -> IPv6Network:
    try:
        found = IPv6Network(text)
    except ValueError as error:
        raise Invalid(
            f"NSM_SRV6_PREFIX is {text!r}, which is no prefix of IPv6: {error}",
            remedy="write for example 2001:db8:5e:1::/64",
        ) from None
    if found.prefixlen > _NARROWEST or found.is_multicast or found.is_link_local:
        raise Invalid(
            f"NSM_SRV6_PREFIX is {text}, from which no segment identifiers can be made",
            remedy=f"give a prefix of {_NARROWEST} bits at the most that routers lead to this node",
        )
    return found


def _segment(mechanism: Mechanism, key: str) -> str:
    sid = ip_address(mechanism.parameters.get(key, ""), f"the SRV6 parameter {key}")
    if sid.version != 6 or sid.is_multicast or sid.is_link_local or sid.is_loopback or sid.is_unspecified:
        raise Invalid(
            f"the SRV6 parameter {key} is {sid}, which is no address that a segment can have",
            remedy="look at the forwarder at the other end",
        )
    return str(sid)
